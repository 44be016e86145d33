"""Paths as people type them."""

from __future__ import annotations

import os
from pathlib import Path


def user_path(text: str | Path) -> Path:
    """A path whose ``~`` is a home directory, which no shell makes of it in ``--flag=~/folder``.

    Where there is no such user it stays as it is; pathlib's own would raise.
    """
    return Path(os.path.expanduser(text))
