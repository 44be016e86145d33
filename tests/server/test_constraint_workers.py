from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from layerscale_core.constraints import ConstraintCompiler, Grammar, compiler
from layerscale_server.constraint_workers import ConstraintWorkers
from tests.support.fake_tokenizer import ByteTokenizer

LIMIT_S = 30


@pytest.fixture
def workers() -> Iterator[ConstraintWorkers]:
    workers = ConstraintWorkers(ConstraintCompiler(ByteTokenizer()), timeout_s=LIMIT_S)
    yield workers
    workers.close()


def test_the_vocabulary_is_indexed_once_on_a_thread_when_somebody_asks(
    workers: ConstraintWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    make_token_table = compiler.make_token_table

    def make(tokenizer: ByteTokenizer) -> object:
        threads.append(threading.current_thread())
        return make_token_table(tokenizer)

    async def ask() -> None:
        await asyncio.gather(*(workers.compile(Grammar.regex(text)) for text in ("a+", "b+", "c+")))

    monkeypatch.setattr(compiler, "make_token_table", make)
    asyncio.run(ask())
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


def test_what_is_compiled_while_the_vocabulary_is_indexed_waits_for_it(
    workers: ConstraintWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_token_table, may_index = compiler.make_token_table, threading.Event()

    def make(tokenizer: ByteTokenizer) -> object:
        assert may_index.wait(LIMIT_S)
        return make_token_table(tokenizer)

    async def ask() -> None:
        asked = asyncio.create_task(workers.compile(Grammar.regex("a+")))
        await asyncio.sleep(0)  # the loop runs on
        assert not asked.done()
        may_index.set()
        await asked

    monkeypatch.setattr(compiler, "make_token_table", make)
    asyncio.run(ask())
