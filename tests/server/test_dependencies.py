"""What routes ask for is at hand: no request waits for another thread to say so."""

from __future__ import annotations

from typing import Never

import anyio.to_thread
import pytest

from tests.server.conftest import MakeServer
from tests.support.session_api import READING, answered, create, ok, push


def test_a_question_that_is_answered_already_takes_no_other_thread(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server(num_sessions=1, context_len=1024)
    path = create(server, prompt="abc", flash=[{"query": "Up?", "max_tokens": 2}])
    push(server, path, READING)
    answered(server, path)

    async def hop(*_arguments: object, **_options: object) -> Never:
        raise AssertionError("a dependency runs on another thread")

    monkeypatch.setattr(anyio.to_thread, "run_sync", hop)
    answer = ok(server.post(f"{path}/generate", {"prompt": "Up?", "max_tokens": 2, "temperature": 0}))
    assert answer["flash"]
    assert ok(server.get(f"{path}/flash"))["count"] == 1
    assert server.get("/v1/models").status_code == 200
