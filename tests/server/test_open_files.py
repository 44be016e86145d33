"""The limit on open files is no lower than the system allows."""

from __future__ import annotations

import subprocess
import sys

RAISE = """
import resource
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
hard = min(hard, 4096) if hard > 0 else 4096
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
from layerscale_server.open_files import allow_many_open_files
allow_many_open_files()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
allow_many_open_files()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
"""


def test_the_soft_limit_is_raised_to_the_hard_one_and_not_lowered() -> None:
    subprocess.run([sys.executable, "-c", RAISE], check=True)
