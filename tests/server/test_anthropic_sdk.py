"""The ``anthropic`` SDK, unmodified: errors against the fake model, the rest with the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from layerscale_core.errors import QueueFullError, StepError
from layerscale_core.specs import PRO_TIER
from layerscale_server.state import ServerState
from tests.server.conftest import MODEL_ID, PRO_KEY, FakeServer, MakeServer
from tests.support.server_process import ServerProcess

RunLive = Callable[[ServerState], str]
QUESTION: Any = {"role": "user", "content": "What is the capital of France?"}
GREEDY = {"temperature": 0}  # newer versions of the SDK have no name for it
ASKED: Any = {"model": "any", "messages": [QUESTION], "max_tokens": 16, "extra_body": GREEDY}


def sdk_of(address: str, key: str = "any") -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=address, api_key=key, max_retries=0)


def text_of(message: anthropic.types.Message) -> str:
    """The text of a message that is one block of it."""
    (block,) = message.content
    assert block.type == "text"
    return block.text


# A real model

model = [pytest.mark.model, pytest.mark.xdist_group("anthropic sdk")]  # one server for all of them


@pytest.fixture(scope="module")
def address(real_model_path: Path) -> Iterator[str]:
    with ServerProcess(real_model_path) as server:
        yield server.wait_until_ready().address


@pytest.fixture
def sdk(address: str) -> Iterator[anthropic.Anthropic]:
    with sdk_of(address) as client:
        yield client


class TestWithTheRealModel:
    pytestmark = model

    def test_create(self, sdk: anthropic.Anthropic) -> None:
        message = sdk.messages.create(**ASKED)
        assert "Paris" in text_of(message)
        assert (message.role, message.stop_reason, message.stop_sequence) == ("assistant", "end_turn", None)
        assert message._request_id is not None
        assert message.usage.input_tokens == sdk.messages.count_tokens(model="any", messages=[QUESTION]).input_tokens

    def test_what_was_cached_is_reported(self, sdk: anthropic.Anthropic) -> None:
        asked = ASKED | {"system": "You are asked the same thing twice, word for word, and answer both times."}
        assert sdk.messages.create(**asked).usage.cache_read_input_tokens is None
        again = sdk.messages.create(**asked).usage
        assert again.cache_read_input_tokens is not None
        assert again.input_tokens > again.cache_read_input_tokens >= 16

    def test_system_blocks_and_stop_sequences(self, sdk: anthropic.Anthropic) -> None:
        message = sdk.messages.create(
            **ASKED | {"messages": [QUESTION, {"role": "assistant", "content": "The capital of"}]},
            system=[{"type": "text", "text": "You answer questions.", "cache_control": {"type": "ephemeral"}}],
            stop_sequences=["Paris"],
            metadata={"user_id": "somebody"},
            thinking={"type": "disabled"},
        )
        assert text_of(message) == " France is "
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "Paris")

    def test_stream(self, sdk: anthropic.Anthropic) -> None:
        whole = sdk.messages.create(**ASKED)
        with sdk.messages.stream(**ASKED) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        assert text == text_of(final) == text_of(whole)
        assert final.stop_reason == whole.stop_reason
        assert final.usage.output_tokens == whole.usage.output_tokens
        assert final.usage.input_tokens == whole.usage.input_tokens

    def test_raw_events(self, sdk: anthropic.Anthropic) -> None:
        names = [event.type for event in sdk.messages.create(**ASKED, stream=True)]
        assert names[:2] == ["message_start", "content_block_start"]
        assert set(names[2:-3]) == {"content_block_delta"}
        assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]

    def test_async(self, address: str, sdk: anthropic.Anthropic) -> None:
        whole = sdk.messages.create(**ASKED)

        async def ask() -> None:
            async with anthropic.AsyncAnthropic(base_url=address, api_key="any", max_retries=0) as client:
                message = await client.messages.create(**ASKED)
                assert text_of(message) == text_of(whole)
                async with client.messages.stream(**ASKED) as stream:
                    pieces = [text async for text in stream.text_stream]
                    final = await stream.get_final_message()
                assert "".join(pieces) == text_of(final) == text_of(whole)
                events = [event async for event in await client.messages.create(**ASKED, stream=True)]
                assert events[-1].type == "message_stop"
                counted = await client.messages.count_tokens(model="any", messages=[QUESTION])
                assert counted.input_tokens == message.usage.input_tokens
                assert len([model async for model in client.models.list()]) == 1

        asyncio.run(ask())

    def test_a_conversation_in_a_session(self, sdk: anthropic.Anthropic) -> None:
        made = sdk.post("/v1/sessions/init", body={"type": "event"}, cast_to=dict[str, Any])
        session = {"extra_body": GREEDY | {"session_id": made["session_id"]}}
        first = sdk.messages.create(**ASKED | session)
        more = [QUESTION, {"role": "assistant", "content": first.content}, {"role": "user", "content": "And of Italy?"}]
        second = sdk.messages.create(**ASKED | session | {"messages": more})
        alone = sdk.messages.create(**ASKED | {"messages": more})
        assert text_of(second) == text_of(alone)
        cached = second.usage.cache_read_input_tokens
        assert cached is not None
        assert cached >= first.usage.input_tokens + first.usage.output_tokens - 1

    def test_tool_calls_that_its_template_would_leave_out_are_written_for_it(self, sdk: anthropic.Anthropic) -> None:
        call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
        result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "2"}
        history: list[Any] = [QUESTION, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
        longer = [*history[:2], {"role": "user", "content": [result | {"content": "two " * 50}]}]
        counts = [
            sdk.messages.count_tokens(model="any", messages=messages).input_tokens
            for messages in ([QUESTION], history, longer)
        ]
        assert counts == sorted(set(counts))

    def test_prompt_too_long(self, sdk: anthropic.Anthropic) -> None:
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long: "):
            sdk.messages.create(**ASKED | {"messages": [{"role": "user", "content": "why " * 10_000}]})


# The fake model


def test_models(server: FakeServer, run_live: RunLive) -> None:
    with sdk_of(run_live(server.state)) as sdk:
        page = sdk.models.list()
        assert ([each.id for each in page], page.has_more) == ([MODEL_ID], False)
        assert (page.first_id, page.last_id) == (MODEL_ID, MODEL_ID)
        found = sdk.models.retrieve(MODEL_ID)
        assert (found.id, found.display_name, found.type, found.created_at.year) == (MODEL_ID, MODEL_ID, "model", 2025)
        with pytest.raises(anthropic.NotFoundError):
            sdk.models.retrieve("other")


def test_bad_requests(make_server: MakeServer, run_live: RunLive) -> None:
    with sdk_of(run_live(make_server(body_bytes=2000).state)) as sdk:
        with pytest.raises(anthropic.BadRequestError, match="temperature") as caught:
            sdk.messages.create(**ASKED | {"extra_body": {"temperature": 3}})
        assert (caught.value.type, caught.value.status_code) == ("invalid_request_error", 400)
        assert caught.value.request_id is not None
        with pytest.raises(anthropic.BadRequestError, match=r"tools\.0\.type"):
            sdk.messages.create(**ASKED, tools=[{"type": "web_search_20250305", "name": "web_search"}])
        with (
            pytest.raises(anthropic.BadRequestError, match="temperature"),
            sdk.messages.stream(**ASKED | {"extra_body": {"temperature": 3}}),
        ):
            pass
        with pytest.raises(anthropic.NotFoundError) as missing:
            sdk.messages.create(**ASKED | {"extra_body": {"session_id": "sess_000000000000"}})
        assert missing.value.type == "not_found_error"
        with pytest.raises(anthropic.NotFoundError):
            sdk.messages.batches.retrieve("msgbatch_1")
        with pytest.raises(anthropic.APIStatusError) as large:
            sdk.messages.create(**ASKED, system="x" * 2000)
        assert (large.value.status_code, large.value.type) == (413, "request_too_large")


def test_authentication(make_server: MakeServer, run_live: RunLive) -> None:
    address = run_live(make_server(tier=PRO_TIER, license_key=PRO_KEY).state)
    with sdk_of(address, "wrong") as sdk, pytest.raises(anthropic.AuthenticationError) as caught:
        sdk.messages.create(**ASKED)
    assert caught.value.type == "authentication_error"
    with sdk_of(address, PRO_KEY) as sdk:
        assert sdk.messages.create(**ASKED).usage.output_tokens == 16


def test_full_queue_and_drain(server: FakeServer, run_live: RunLive, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise QueueFullError("too much is waiting")

    with sdk_of(run_live(server.state)) as sdk:
        with monkeypatch.context() as patch:
            patch.setattr(server.engine, "check_accepting", refuse)
            with pytest.raises(anthropic.RateLimitError) as busy:
                sdk.messages.create(**ASKED)
        assert busy.value.type == "rate_limit_error"
        assert sdk.messages.create(**ASKED).stop_reason == "max_tokens"
        server.state.is_draining = True
        with pytest.raises(anthropic.InternalServerError) as leaving:
            sdk.messages.create(**ASKED)
    assert (leaving.value.status_code, leaving.value.type) == (503, "overloaded_error")


def test_failed_steps(server: FakeServer, run_live: RunLive) -> None:
    def fail(*_: object) -> None:
        if len(server.executor.batches) in (0, 4):
            server.executor.batches.append([])
            raise StepError("broken")

    server.executor.before_step = fail
    received: list[str] = []
    with sdk_of(run_live(server.state)) as sdk:
        with pytest.raises(anthropic.InternalServerError) as caught:
            sdk.messages.create(**ASKED)
        assert caught.value.type == "api_error"
        with (  # noqa: PT012 (it fails while it is read)
            pytest.raises(anthropic.APIStatusError, match="a step failed") as broken,
            sdk.messages.stream(**ASKED) as stream,
        ):
            for text in stream.text_stream:
                received.append(text)  # noqa: PERF402 (as above)
        assert broken.value.type == "api_error"
    assert len("".join(received)) == 3
