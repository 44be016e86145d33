"""The clients people use: the ``openai`` SDK and the official Python client, unmodified."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import layerscale
import openai
import pytest

from layerscale_core.errors import StepError
from layerscale_core.specs import PRO_TIER
from layerscale_server.state import ServerState
from tests.server.conftest import (
    MODEL_ID,
    PRO_KEY,
    FakeServer,
    Gate,
    MakeServer,
    chat_prompt,
    greedy_text,
)

RunLive = Callable[[ServerState], str]
MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]
ANSWER = greedy_text(chat_prompt(("user", "hi")), 8)


@pytest.fixture
def sdk(server: FakeServer, run_live: RunLive) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=run_live(server.state) + "/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def official(server: FakeServer, run_live: RunLive) -> Iterator[layerscale.LayerScale]:
    with layerscale.LayerScale(run_live(server.state)) as client:
        yield client


def test_openai_chat(sdk: openai.OpenAI) -> None:
    completion = sdk.chat.completions.create(model="any", messages=MESSAGES, temperature=0, max_tokens=8)
    assert completion.choices[0].message.content == ANSWER
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 8
    assert completion._request_id is not None


def test_openai_chat_stream_with_usage(sdk: openai.OpenAI) -> None:
    chunks = list(
        sdk.chat.completions.create(
            model="any",
            messages=MESSAGES,
            temperature=0,
            max_completion_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8


def test_openai_chat_logprobs(sdk: openai.OpenAI) -> None:
    completion = sdk.chat.completions.create(
        model="any", messages=MESSAGES, temperature=0, max_tokens=3, logprobs=True, top_logprobs=2
    )
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [entry.token for entry in logprobs.content] == list(ANSWER[:3])
    assert len(logprobs.content[0].top_logprobs) == 2


def test_openai_completions(sdk: openai.OpenAI) -> None:
    completion = sdk.completions.create(model="any", prompt=["hi", "yo"], temperature=0, max_tokens=4, logprobs=1)
    assert [choice.text for choice in completion.choices] == [greedy_text([256, *text], 4) for text in (b"hi", b"yo")]
    assert completion.choices[0].logprobs is not None
    assert completion.choices[0].logprobs.text_offset == [0, 1, 2, 3]
    stream = sdk.completions.create(model="any", prompt="hi", temperature=0, max_tokens=4, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == completion.choices[0].text


def test_openai_models(sdk: openai.OpenAI) -> None:
    assert [model.id for model in sdk.models.list()] == [MODEL_ID]
    assert sdk.models.retrieve(MODEL_ID).owned_by == "layerscale"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("other")


def test_openai_bad_request(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(model="any", messages=MESSAGES, temperature=3)
    assert caught.value.param == "temperature"
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id is not None
    with pytest.raises(openai.BadRequestError) as too_long:
        sdk.chat.completions.create(model="any", messages=[{"role": "user", "content": "x" * 300}])
    assert too_long.value.code == "context_length_exceeded"


def test_openai_failed_step(server: FakeServer, sdk: openai.OpenAI) -> None:
    def fail(*_: object) -> None:
        if len(server.executor.batches) in (0, 4):
            server.executor.batches.append([])
            raise StepError("broken")

    server.executor.before_step = fail
    with pytest.raises(openai.InternalServerError):
        sdk.chat.completions.create(model="any", messages=MESSAGES)
    received: list[str] = []
    with pytest.raises(openai.APIError, match="a step failed"):  # noqa: PT012 (it fails while it is read)
        for chunk in sdk.chat.completions.create(model="any", messages=MESSAGES, temperature=0, stream=True):
            received.append(chunk.choices[0].delta.content or "")  # noqa: PERF401 (as above)
    assert "".join(received) == ANSWER[:3]


def test_openai_authentication(make_server: MakeServer, run_live: RunLive) -> None:
    base_url = run_live(make_server(tier=PRO_TIER, license_key=PRO_KEY).state) + "/v1"
    with openai.OpenAI(base_url=base_url, api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()
    with openai.OpenAI(base_url=base_url, api_key=PRO_KEY) as client:
        assert client.models.list().data[0].id == MODEL_ID


def test_openai_rate_limit(make_server: MakeServer, run_live: RunLive) -> None:
    server = make_server(max_waiting=1)
    gate = Gate(server.executor)
    base_url = run_live(server.state) + "/v1"
    with openai.OpenAI(base_url=base_url, api_key="any", max_retries=0) as client:
        with pytest.raises(openai.RateLimitError):
            client.completions.create(model="any", prompt=["a"] * 8, max_tokens=1)
        gate.open()
        patient = client.with_options(max_retries=3)  # it waits as told, so what was refused has left the queue
        assert patient.completions.create(model="any", prompt="a", max_tokens=1).choices


def test_official_client(official: layerscale.LayerScale) -> None:
    official.health.check()
    models = official.models.list()
    assert models.data[0].id == MODEL_ID
    assert models.server is not None
    assert models.server.scheduler is not None
    assert models.server.scheduler.context == 256
    completion = official.chat.create(messages=MESSAGES, temperature=0.0, max_tokens=8)
    assert completion.choices[0].message.content == ANSWER
    chunks = list(official.chat.stream(messages=MESSAGES, temperature=0.0, max_tokens=8))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    text = official.completions.create(prompt="hi", temperature=0.0, max_tokens=4)
    assert text.choices[0].text == greedy_text([256, *b"hi"], 4)


def test_official_client_raises_its_own_errors(official: layerscale.LayerScale) -> None:
    with pytest.raises(layerscale.BadRequestError) as caught:
        official.chat.create(messages=[], max_tokens=8)
    assert caught.value.status_code == 400
    with pytest.raises(layerscale.NotFoundError):
        official.chat.create(messages=MESSAGES, session_id="sess_000000000000")
