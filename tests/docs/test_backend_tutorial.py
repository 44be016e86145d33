"""The tutorial's files, as its reader puts them into a folder, pass the conformance kit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.documentation import ROOT, code_blocks

PAGE = "docs/writing-a-backend.md"
MAX_LINES = 300


def files_of_the_page() -> dict[str, str]:
    """Each block is a file, and names it in its first line."""
    files = {}
    for block in code_blocks(PAGE, "python"):
        heading, _, code = block.partition("\n")
        files[heading.removeprefix("# ")] = code
    return files


def test_the_backend_of_the_tutorial_passes_the_kit(tmp_path: Path) -> None:
    for name, code in files_of_the_page().items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "tests"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-4000:]
    assert " passed" in result.stdout


def test_the_tutorial_is_short() -> None:
    assert sum(code.count("\n") for code in files_of_the_page().values()) < MAX_LINES
