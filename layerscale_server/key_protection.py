"""What keeps the licence key out of sight once it was read: it opens the server to whoever has it.

The environment variable is wiped where the kernel shows it (``/proc/PID/environ``), and children do not inherit it. A
process that was given a key writes no core file, and no other process of its user may attach to it: clients send the
key with every request, so that no wiping could keep it out of memory.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

_PR_SET_DUMPABLE = 4  # <sys/prctl.h>


def take_from_environment(variable: str) -> str | None:
    """An environment variable's value without surrounding space, None if unset; it is gone from the environment."""
    value = os.environ.get(variable)
    if value is None:
        return None
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    address = libc.getenv(os.fsencode(variable))
    if address is not None:
        ctypes.memset(address, 0, len(os.fsencode(value)))
    del os.environ[variable]
    return value.strip()


def forbid_core_files() -> None:
    """No core file of this process or its children, and on Linux none through a crash handler either."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
