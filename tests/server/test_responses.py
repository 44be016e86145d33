"""``/v1/responses`` through the ``openai`` SDK: text, tools, streams, and conversations gone on from by an id."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from layerscale_server.state import ServerState
from tests.server.conftest import FakeServer, MakeServer
from tests.support import tool_templates as templates
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.scripted_model import ScriptedModel
from tests.support.session_api import error, ok

RESPONSES = "/v1/responses"
SCHEMA = {"type": "object", "properties": {"line": {"type": "integer"}}, "required": ["line"]}
TOOLS: list[Any] = [{"type": "function", "name": "read", "description": "Reads.", "parameters": SCHEMA}]
CALL = '<tool_call>\n{"name": "read", "arguments": {"line": 1}}\n</tool_call>'
MARKERS = ("<tool_call>", "</tool_call>", "<think>", "</think>")


class Api:
    """A server whose model says what it is told to, and the SDK."""

    def __init__(self, server: FakeServer, tokenizer: ByteTokenizer, client: openai.OpenAI) -> None:
        self.server = server
        self.client = client
        self.model = ScriptedModel(server.executor, tokenizer, server.is_quiet)

    def ask(self, says: str, asked: Any, *, streams: bool = False, **fields: Any) -> Any:
        """A response in which the model says something."""
        self.model.say(says)
        fields = {"model": "any", "input": asked, "max_output_tokens": 300} | fields
        if not streams:
            return self.client.responses.create(**fields)
        *_, last = self.client.responses.create(**fields, stream=True)
        return last.response


@pytest.fixture
def make_api(make_server: MakeServer, run_live: Callable[[ServerState], str]) -> Iterator[Callable[..., Api]]:
    clients: list[openai.OpenAI] = []

    def make(template: str = templates.HERMES, **options: Any) -> Api:
        tokenizer = ByteTokenizer(*MARKERS)
        server = make_server(template=template, tokenizer=tokenizer, context_len=4096, num_sessions=1, **options)
        client = openai.OpenAI(base_url=run_live(server.state) + "/v1", api_key="any", max_retries=0)
        clients.append(client)
        return Api(server, tokenizer, client)

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()


def test_the_sdks_own_reader_of_streams(api: Api) -> None:
    api.model.say("Four.")
    with api.client.responses.stream(model="any", input="Two and two?") as stream:
        assert stream.get_final_response().output_text == "Four."


@pytest.mark.parametrize("streams", [False, True])
def test_text(api: Api, streams: bool) -> None:
    response = api.ask("Four.", "Two and two?", streams=streams, instructions="Be brief.")
    assert (response.status, response.output_text) == ("completed", "Four.")
    assert [item.type for item in response.output] == ["message"]
    assert response.instructions == "Be brief."
    assert response.usage.output_tokens == len("Four.") + 1
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("chains", [False, True])
def test_a_tool_loop(api: Api, streams: bool, chains: bool) -> None:
    first = api.ask("I look.\n" + CALL, "What is in line 1?", streams=streams, tools=TOOLS)
    said, call = first.output
    assert (said.type, first.output_text) == ("message", "I look.")
    assert (call.type, call.name, json.loads(call.arguments), call.status) == (
        "function_call",
        "read",
        {"line": 1},
        "completed",
    )
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "import os"}
    if chains:
        second = api.ask("It imports os.", [result], streams=streams, tools=TOOLS, previous_response_id=first.id)
    else:
        items = [item.to_dict() for item in first.output]
        asked = [{"role": "user", "content": "What is in line 1?"}, *items, result]
        second = api.ask("It imports os.", asked, streams=streams, tools=TOOLS)
    assert second.output_text == "It imports os."
    assert second.usage.input_tokens > first.usage.input_tokens + len("import os")


def test_a_chain_is_the_conversation_it_stands_for(api: Api) -> None:
    first = api.ask("Four.", "Two and two?", instructions="Be brief.")
    second = api.ask("Six.", "And two?", previous_response_id=first.id)
    said = [{"role": "user", "content": "Two and two?"}, {"role": "assistant", "content": "Four."}]
    whole = api.ask("Six.", [*said, {"role": "user", "content": "And two?"}])
    assert second.usage.input_tokens == whole.usage.input_tokens, "instructions are not carried over"
    assert second.previous_response_id == first.id


def test_two_answers_may_follow_one(api: Api) -> None:
    first = api.ask("Four.", "Two and two?")
    lengths = {api.ask("Six.", "And two?", previous_response_id=first.id).usage.input_tokens for _ in range(2)}
    assert len(lengths) == 1, "what followed the first is not part of the second"


@pytest.mark.parametrize("streams", [False, True])
def test_an_answer_that_is_cut_off_is_incomplete(api: Api, streams: bool) -> None:
    response = api.ask("A long answer.", "Hi", streams=streams, max_output_tokens=6)
    assert (response.status, response.output_text) == ("incomplete", "A long")
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[-1].status == "incomplete"


@pytest.mark.parametrize("streams", [False, True])
def test_reasoning_is_an_item_of_its_own(make_api: Callable[..., Api], streams: bool) -> None:
    api = make_api(templates.THINKING)
    response = api.ask("<think>\nHm.\n</think>\n\nFour.", "Two and two?", streams=streams)
    reasoning, message = response.output
    assert reasoning.content[0].text.strip() == "Hm."
    assert message.content[0].text == response.output_text == "Four."
    assert response.usage.output_tokens_details.reasoning_tokens > 0


def test_events_come_in_order_and_add_up(api: Api) -> None:
    api.model.say("I look.\n" + CALL)
    stream = api.client.responses.create(model="any", input="Hi", tools=TOOLS, max_output_tokens=300, stream=True)
    events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    without_repeats = [kind for kind, before in zip(kinds, ["", *kinds], strict=False) if kind != before]
    assert without_repeats == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    arguments = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    done = [event.item for event in events if event.type == "response.output_item.done"]
    end = events[-1]
    assert end.type == "response.completed"
    assert [item.to_dict() for item in done] == [item.to_dict() for item in end.response.output]
    assert (text, json.loads(arguments)) == ("I look.", {"line": 1})


def test_stored_responses_are_read_and_deleted(api: Api) -> None:
    made = api.ask("Four.", "Two and two?")
    assert api.client.responses.retrieve(made.id).to_dict() == made.to_dict()
    api.client.responses.delete(made.id)
    for follow in (lambda: api.client.responses.retrieve(made.id), lambda: api.client.responses.delete(made.id)):
        with pytest.raises(openai.NotFoundError):
            follow()
    with pytest.raises(openai.NotFoundError, match="no such response"):
        api.ask("Six.", "And two?", previous_response_id=made.id)


def test_what_is_not_to_be_stored_is_not(api: Api) -> None:
    made = api.ask("Four.", "Two and two?", store=False)
    with pytest.raises(openai.NotFoundError):
        api.client.responses.retrieve(made.id)


def test_in_a_session_a_chain_costs_what_is_new(api: Api) -> None:
    session_id = ok(api.server.post("/v1/sessions/init", {"type": "event"}))["session_id"]
    first = api.ask("Four.", "Two and two?", extra_body={"session_id": session_id})
    second = api.ask("Six.", "And two?", previous_response_id=first.id, extra_body={"session_id": session_id})
    num_computed = second.usage.input_tokens - second.usage.input_tokens_details.cached_tokens
    assert num_computed <= second.usage.input_tokens - first.usage.input_tokens


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "input"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "write"}}, "tool_choice"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "x"}}, "prompt"),
        ({"max_tool_calls": 1}, "max_tool_calls"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(api: Api, fields: dict[str, Any], param: str) -> None:
    assert error(api.server.post(RESPONSES, {"input": "Hi"} | fields), 400)["param"] == param


def test_a_prewarmed_conversation_is_computed_and_not_answered(api: Api) -> None:
    warmed = api.ask("Four.", "Two and two?" * 10, extra_body={"prompt_cache_options": {"prewarm": True}})
    assert (warmed.output_text, warmed.usage.output_tokens) == ("", 0)
    asked = api.ask("Four.", "Two and two?" * 10)
    assert asked.output_text == "Four."
    assert asked.usage.input_tokens_details.cached_tokens >= asked.usage.input_tokens - 16
    with pytest.raises(openai.NotFoundError):
        api.client.responses.retrieve(warmed.id)


def test_text_keeps_to_a_schema(api: Api) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wanted = {"format": {"type": "json_schema", "name": "n", "schema": schema}}
    response = api.ask('{"n": 4}', "Two and two?", text=wanted)
    assert json.loads(response.output_text) == {"n": 4}
    assert response.text.format.type == "json_schema"
    refused = error(api.server.post(RESPONSES, {"input": "Hi", "text": {"format": {"type": "json_schema"}}}), 400)
    assert refused["param"] == "text"
