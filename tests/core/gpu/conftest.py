"""Torch with one thread, and the tests of kernels that are interpreted.

Triton decides when it is imported whether kernels are interpreted, so those tests have a process of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Test processes share the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
