"""As many open files as the system lets this process have: each client takes one."""

from __future__ import annotations

import contextlib
import resource

_WANTED = 65_536


def allow_many_open_files() -> None:
    """Raise the soft limit, which is low for the sake of programs that use ``select``, towards the hard one.

    With 1,024, a usual default, connections would end before the queue is full: who comes then hears nothing.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # a system may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
