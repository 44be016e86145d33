"""What is recognised in a chat template, and what is written for templates that cannot."""

from __future__ import annotations

import json
from typing import Any

import pytest

from layerscale_core.chat_template import ChatTemplate
from layerscale_core.dialogue import Dialogue, Tool, ToolOffer
from layerscale_core.dialogue.call_syntax import SYNTAXES
from layerscale_core.dialogue.reasoning import Reasoning, ReasoningMarkers
from layerscale_core.dialogue.recognition import Definitions
from layerscale_core.errors import InvalidRequestError
from tests.support import tool_templates as templates
from tests.support.fake_tokenizer import ByteTokenizer

WEATHER = Tool("get_weather", {"type": "object", "properties": {"city": {"type": "string"}}}, "The weather.")
SYSTEM = {"role": "system", "content": "Be brief."}
QUESTION = {"role": "user", "content": "Rain?"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": f"call_{city}", "type": "function", "function": {"name": "get_weather", "arguments": {"city": city}}}
        for city in ("Oslo", "Rome")
    ],
}
RESULTS = [{"role": "tool", "tool_call_id": f"call_{city}", "content": "wet"} for city in ("Oslo", "Rome")]


def dialogue_of(source: str, *control_tokens: str) -> Dialogue:
    return Dialogue(ChatTemplate(source, bos="", eos=""), ByteTokenizer(*control_tokens))


@pytest.mark.parametrize("name", [syntax.name for syntax in SYNTAXES])
def test_every_format_of_the_table_is_recognised(name: str) -> None:
    assert dialogue_of(templates.SYNTAX_NAMES[name]).tool_format.syntax.name == name


@pytest.mark.parametrize("source", [templates.UNAWARE, templates.ALTERNATING, templates.OTHER_CALLS])
def test_a_template_without_a_known_format_gets_ours(source: str) -> None:
    tool_format = dialogue_of(source).tool_format
    assert (tool_format.syntax.name, tool_format.definitions) == ("json", Definitions.INSTRUCTIONS)


@pytest.mark.parametrize("name", list(templates.SYNTAX_NAMES))
def test_what_a_template_makes_of_calls_is_what_the_syntax_writes(name: str) -> None:
    dialogue = dialogue_of(templates.SYNTAX_NAMES[name])
    call: dict[str, Any] = CALL["tool_calls"][0]["function"]  # type: ignore[index]  # a list of objects
    text = dialogue.render([QUESTION, CALL | {"tool_calls": CALL["tool_calls"][:1]}, RESULTS[0]])  # type: ignore[index]
    syntax = dialogue.tool_format.syntax
    assert syntax.opening_of(call["name"]) + json.dumps(call["arguments"]) + syntax.close in text


@pytest.mark.parametrize("source", [*templates.SYNTAX_NAMES.values(), templates.UNAWARE, templates.ALTERNATING])
def test_every_template_is_told_of_tools_calls_and_results(source: str) -> None:
    dialogue = dialogue_of(source)
    text = dialogue.render([QUESTION, CALL, *RESULTS, QUESTION], [WEATHER])
    assert text.count("The weather.") == 1
    assert text.count('{"city": "Oslo"}') == text.count('{"city": "Rome"}') == 1
    assert text.count("wet") == 2
    assert "The weather." not in dialogue.render([QUESTION])


def test_our_definitions_follow_the_system_message_and_replace_nothing() -> None:
    text = dialogue_of(templates.UNAWARE).render([SYSTEM, QUESTION], [WEATHER])
    assert text.startswith("<|system|>Be brief.\n\nYou can call these functions:\n{")
    assert '{"name": "NAME", "parameters": ARGUMENTS}' in text


def test_results_join_the_users_turn_and_nothing_else_is_joined() -> None:
    dialogue = dialogue_of(templates.UNAWARE)
    text = dialogue.render([QUESTION, QUESTION, CALL, *RESULTS, QUESTION])
    assert text.count("<|user|>") == 3
    assert "<|user|>Result of get_weather:\nwet\n\nResult of get_weather:\nwet\n\nRain?" in text


def test_variables_that_a_template_does_not_read_have_no_effect() -> None:
    dialogue = dialogue_of(templates.UNAWARE)
    assert dialogue.render([QUESTION], variables={"tone": "rude"}) == dialogue.render([QUESTION])


def test_a_refusal_stays_a_refusal() -> None:
    with pytest.raises(InvalidRequestError, match="roles must alternate"):
        dialogue_of(templates.ALTERNATING).render([QUESTION, QUESTION])


def test_reasoning_is_recognised_and_where_the_prompt_leaves_it() -> None:
    thinking = dialogue_of(templates.THINKING)
    assert thinking.markers == ReasoningMarkers("<think>", "</think>")
    possible = thinking.plan_answer(thinking.render([QUESTION]), None)
    off = thinking.plan_answer(thinking.render([QUESTION], variables={"enable_thinking": False}), None)
    always = dialogue_of(templates.ALWAYS_THINKING)
    begun = always.plan_answer(always.render([QUESTION]), None)
    stages = [plan.reasoning for plan in (possible, off, begun)]
    assert stages == [Reasoning.POSSIBLE, Reasoning.NONE, Reasoning.BEGUN]
    assert dialogue_of(templates.HERMES).markers is None


def test_control_tokens_among_the_markers_are_shown() -> None:
    dialogue = dialogue_of(templates.MISTRAL_ARGS, "[TOOL_CALLS]", "[ARGS]", "[OTHER]")
    prompt = dialogue.render([QUESTION], [WEATHER])
    assert dialogue.plan_answer(prompt, ToolOffer((WEATHER,))).shown_token_ids == {258, 259}
    assert dialogue.plan_answer(prompt, None).shown_token_ids == frozenset()
