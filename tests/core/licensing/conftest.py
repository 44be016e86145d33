"""An authority."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.license_authority import LicenseAuthority


@pytest.fixture
def authority(tmp_path: Path) -> LicenseAuthority:
    return LicenseAuthority(tmp_path / "authorities")
