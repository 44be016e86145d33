"""A coding agent's conversation of 35 turns, written beforehand: files read, edits, test runs.

What the assistant says is fixed too, so that every server is sent the same messages, whatever it answers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import cycle

NUM_TURNS = 35

Message = dict[str, str]

_SYSTEM = """\
You are a careful software engineer. You work on the repository in the current directory.

Rules:
- Read a file before you change it, and change as little as the task needs.
- Run the tests after each change, and say what failed before you try again.
- Ask for one tool at a time. The tools are read_file(path), edit_file(path, old, new) and run_tests(path).
- Never invent what a file holds. Never repeat a file in your answer.

The project is a small accounting service. Amounts are integers in cents, dates are ISO 8601, and every function that
writes to the ledger returns the entry it wrote. Tests stand beside the module that they test."""

_TASK = "The monthly report counts refunds twice. Find out why, mend it, and see that the tests pass."

_NOUNS = ("invoice", "refund", "ledger", "entry", "account", "balance", "report", "period", "currency", "customer")
_VERBS = ("read", "write", "close", "check", "merge", "split", "total", "round", "post", "void")


def conversation(num_turns: int = NUM_TURNS, seed: int = 0) -> Iterator[list[Message]]:
    """The messages that are sent in each turn: each list is the one before, an answer, and what came of it."""
    chance = random.Random(seed)
    messages: list[Message] = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _TASK}]
    works = cycle((_read_file, _read_file, _edit_file, _run_tests))
    for _, work in zip(range(num_turns), works, strict=False):
        yield list(messages)
        said, result = work(chance)
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": result}]


def _read_file(chance: random.Random) -> tuple[str, str]:
    path = _path(chance)
    source = "\n".join(_function(chance) for _ in range(3))
    return f"I look at how {path} does it.\nread_file({path!r})", f"Result of read_file({path!r}):\n{source}"


def _edit_file(chance: random.Random) -> tuple[str, str]:
    path, noun = _path(chance), chance.choice(_NOUNS)
    old, new = f"total += {noun}.amount", f"total += {noun}.amount if not {noun}.is_void else 0"
    said = f"A voided {noun} is counted here.\nedit_file({path!r}, {old!r}, {new!r})"
    return (
        said,
        f"Result of edit_file({path!r}):\n-    {old}\n+    {new}\n1 replacement in line {chance.randrange(9, 200)}",
    )


def _run_tests(chance: random.Random) -> tuple[str, str]:
    path = "tests/" + _path(chance).replace("/", "_")
    lines = [f"{path}::test_{_name(chance)} {chance.choice(('PASSED', 'PASSED', 'FAILED'))}" for _ in range(5)]
    failed = sum(line.endswith("FAILED") for line in lines)
    said = f"Now the tests of this part.\nrun_tests({path!r})"
    return said, "\n".join(
        [f"Result of run_tests({path!r}):", *lines, f"{failed} failed, {len(lines) - failed} passed"]
    )


def _path(chance: random.Random) -> str:
    return f"{chance.choice(_NOUNS)}s/{chance.choice(_VERBS)}.py"


def _name(chance: random.Random) -> str:
    return f"{chance.choice(_VERBS)}_{chance.choice(_NOUNS)}"


def _function(chance: random.Random) -> str:
    first, second = chance.sample(_NOUNS, 2)
    return (
        f"def {_name(chance)}({first}, {second}s):\n"
        f"    total = {chance.randrange(100)}\n"
        f"    for {second} in {second}s:\n"
        f"        total += {second}.amount\n"
        f"    return {first}.{chance.choice(_VERBS)}(total)\n"
    )
