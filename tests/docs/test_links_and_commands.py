"""What the documentation tells a reader to open or to type exists."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path

import click
import pytest

from layerscale_server.cli import cli
from tests.support.documentation import PAGES, ROOT, code_blocks, inline_code, read

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_ASSIGNMENT = re.compile(r"[A-Z_]+=")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = _HEADING.findall(read(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[list[str]]:
    """The commands of a page's shell blocks, one a list of words."""
    lines = [line for block in code_blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    split = [shlex.split(command) for line in lines if line.strip() for command in line.split(" && ")]
    return [list(dropwhile(_ASSIGNMENT.match, words)) for words in split]


def nox_sessions() -> set[str]:
    """The sessions of the noxfile."""
    functions = [node for node in ast.parse(read("noxfile.py")).body if isinstance(node, ast.FunctionDef)]
    return {node.name for node in functions if any(ast.unparse(each) == "nox.session" for each in node.decorator_list)}


def option_names(command: click.Command) -> set[str]:
    """Every spelling of a command's options."""
    context = click.Context(command)
    return {name for parameter in command.get_params(context) for name in (*parameter.opts, *parameter.secondary_opts)}


def subcommands(group: click.Group = cli) -> Iterator[click.Command]:
    """Every subcommand of ``layerscale``, and theirs."""
    context = click.Context(group)
    for name in group.list_commands(context):
        if command := group.get_command(context, name):
            yield command
            if isinstance(command, click.Group):
                yield from subcommands(command)


def check_layerscale(words: list[str]) -> None:
    """The flags and the subcommand of a documented ``layerscale`` command exist."""
    command: click.Command = cli
    for word in words:
        if word.startswith("-") or not isinstance(command, click.Group):
            break
        subcommand = command.get_command(click.Context(command), word)
        assert subcommand is not None, f"no subcommand {word}"
        command = subcommand
    flags = {word.split("=")[0] for word in words if word.startswith("--")}
    assert flags <= option_names(command)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(read(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (ROOT / page.parent / path) if path else ROOT / page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.resolve().relative_to(ROOT)), target


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_shell_commands_exist(page: Path) -> None:
    for words in commands(page):
        match words:
            case ["python", "-m", "nox", "-s", session, *_]:
                assert session in nox_sessions()
            case ["python", "-m", "pip", "install", *targets]:
                assert all((ROOT / target.split("[")[0]).exists() for target in targets if target.startswith("."))
            case ["curl", *_]:
                pass  # run as it stands, in test_examples_run.py
            case ["python", "-m", module, *_]:
                assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
            case ["python", script, *_]:
                assert (ROOT / script).is_file(), script
            case ["layerscale", *arguments]:
                check_layerscale(arguments)
            case ["docker", "build", "-f", dockerfile, *_]:
                assert (ROOT / dockerfile).is_file(), dockerfile
            case ["docker", "run", *words_to_docker]:
                after_image = dropwhile(lambda word: not word.startswith("layerscale/"), words_to_docker)
                check_layerscale(list(after_image)[1:])
            case _:
                pytest.fail(f"nobody checks {shlex.join(words)!r}")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_inline_commands_and_flags_exist(page: Path) -> None:
    known = option_names(cli).union(*(option_names(command) for command in subcommands()))
    for code in inline_code(read(page)):
        if code.startswith("layerscale "):
            check_layerscale(shlex.split(code)[1:])
        elif match := re.fullmatch(r"(?:python -m )?nox -s (\w+).*", code):
            assert match[1] in nox_sessions(), code
        elif re.match(r"--[a-z]", code):
            assert re.split(r"[ =]", code)[0] in known, code


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_python_examples_compile(page: Path) -> None:
    for block in code_blocks(page, "python"):
        compile(block, str(page), "exec")
