"""Dockerfiles read, and built as far as that goes without a container engine."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.documentation import ROOT


@dataclass(frozen=True)
class Instruction:
    """One instruction, its lines joined."""

    name: str
    value: str

    def command(self) -> list[str]:
        """The command of an ENTRYPOINT or HEALTHCHECK in its exec form."""
        words: list[str] = json.loads(self.value[self.value.index("[") :])
        return words


def read_dockerfile(path: Path) -> list[Instruction]:
    """The instructions in order, without comments."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def stages(instructions: Sequence[Instruction]) -> list[list[Instruction]]:
    """Each FROM and what follows it."""
    starts = [index for index, instruction in enumerate(instructions) if instruction.name == "FROM"]
    return [list(instructions[start:stop]) for start, stop in zip(starts, [*starts[1:], None], strict=True)]


def context_files(root: Path) -> Iterator[Path]:
    """The files that ``.dockerignore`` lets into a build, relative to the root: the last rule that matches decides."""
    rules = [line for line in (root / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    for folder, folders, names in os.walk(root):
        below = Path(folder).relative_to(root)
        # No rule lets in what lies below a folder that is left out, and environments are large.
        folders[:] = sorted(name for name in folders if _is_let_in(below / name, rules))
        yield from (below / name for name in sorted(names) if _is_let_in(below / name, rules))


def _is_let_in(path: Path, rules: Sequence[str]) -> bool:
    matching = [rule for rule in rules if _matches(path, rule.removeprefix("!"))]
    return not matching or matching[-1].startswith("!")


def _matches(path: Path, pattern: str) -> bool:
    """Of the path or a folder above it; a star crosses no folder, ``**/`` any number of them."""
    paths = [each for each in (path, *path.parents) if each.parts]
    if pattern.startswith("**/"):
        return any(fnmatch.fnmatchcase(each.name, pattern.removeprefix("**/")) for each in paths)
    depth = pattern.count("/") + 1
    return any(len(each.parts) == depth and fnmatch.fnmatchcase(each.as_posix(), pattern) for each in paths)


class EnginelessBuild:
    """A build of a Dockerfile of ours whose absolute paths lie below a folder.

    What changes the base image's system, packages and users, is left out; everything else is run as it stands.
    """

    of_the_system = ("apt-get ", "rm -rf /var/lib/apt", "useradd ", "install --directory")
    mapped = ("/opt/layerscale", "/src", "/cache")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.left_out: list[str] = []
        # The image's python and pip are those that run this.
        self.environment = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
        for path in self.mapped[::2]:
            (folder / path[1:]).mkdir(parents=True)

    def in_image(self) -> list[str]:
        """What a command is preceded by, to see the image's environment and none of this source tree."""
        return ["env", "--unset=PYTHONPATH", *(f"{name}={value}" for name, value in self.environment.items())]

    def run(self, dockerfile: Path) -> dict[str, Instruction]:
        """Every stage in order; returns the last one's instructions by name."""
        for stage in stages(read_dockerfile(dockerfile)):
            shutil.rmtree(self._folder / "src", ignore_errors=True)  # a stage has only what is copied into it
            for instruction in stage:
                self._run(instruction)
        return {instruction.name: instruction for instruction in stage}

    def _run(self, instruction: Instruction) -> None:
        match instruction.name:
            case "COPY" if instruction.value == ". /src":
                for path in context_files(ROOT):
                    target = self._folder / "src" / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / path, target)
            case "ENV":
                for name, value in re.findall(r"(\w+)=(\S+)", instruction.value):
                    self.environment[name] = self._below(value).replace("$PATH", self.environment["PATH"])
            case "RUN":
                for step in re.split(r"\s*&&\s*", instruction.value):
                    self._run_step(step)

    def _run_step(self, step: str) -> None:
        if step.startswith(self.of_the_system):
            self.left_out.append(step)
            return
        subprocess.run([*self.in_image(), "sh", "-ec", self._below(step)], check=True)

    def _below(self, text: str) -> str:
        return re.sub(rf"(?<![\w/.])({'|'.join(self.mapped)})\b", rf"{self._folder}\1", text)
