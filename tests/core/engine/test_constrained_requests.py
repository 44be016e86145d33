"""Requests with a constraint: forced tokens skip their steps, and the answer ends where its grammar does."""

from __future__ import annotations

import json

import pytest

from layerscale_core.constraints import ConstraintCompiler, Grammar
from layerscale_core.engine import Finished, FinishReason, Request, SamplingParams, TokensGenerated
from tests.support.engine_harness import EngineHarness, make_harness
from tests.support.fake_executor import PRINTABLE
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.recording_sink import RecordingSink

COMPILER = ConstraintCompiler(ByteTokenizer())
ANSWER = Grammar.json_schema(
    {
        "type": "object",
        "properties": {"mood": {"enum": ["good", "bad"]}, "level": {"type": "integer", "minimum": 10, "maximum": 99}},
        "required": ["mood", "level"],
        "additionalProperties": False,
    }
)


def submit(
    harness: EngineHarness, grammar: Grammar, max_tokens: int = 60, request_id: str = "r", **sampling: object
) -> RecordingSink:
    sink = RecordingSink()
    params = SamplingParams(max_tokens, **sampling)  # type: ignore[arg-type]
    constraint = COMPILER.compile(grammar)
    harness.engine.submit(Request(request_id, (1, 2, 3), params, constraint=constraint), sink)
    harness.sinks[request_id] = sink
    return sink


def text_of(sink: RecordingSink) -> str:
    pieces = [event.text for event in sink.events if isinstance(event, TokensGenerated | Finished)]
    return "".join(pieces)


def finished(sink: RecordingSink) -> Finished:
    assert isinstance(sink.end, Finished), sink.end
    return sink.end


def run(grammar: Grammar, max_tokens: int = 60, **sampling: object) -> tuple[str, Finished]:
    harness = make_harness()
    sink = submit(harness, grammar, max_tokens, **sampling)
    harness.run()
    harness.check_at_rest()
    return text_of(sink), finished(sink)


def test_the_answer_matches_and_ends_by_itself() -> None:
    text, end = run(ANSWER)
    answer = json.loads(text)
    assert answer["mood"] in ("good", "bad")
    assert 10 <= answer["level"] <= 99
    assert end.reason is FinishReason.STOP
    assert end.usage.completion_tokens == len(text), "no token was spent on the end"


def test_forced_tokens_are_computed_in_one_step_with_the_sampled_one() -> None:
    harness = make_harness()
    sink = submit(harness, ANSWER)
    num_steps = harness.run()
    text = text_of(sink)
    assert text.startswith('{"mood": "')
    # The prompt; the forced beginning; the choice of the mood with all up to the level; its first digit.
    assert [batch[0] for batch in harness.executor.batches] == [3, 10, text.index(": ", 9) + 2 - 10, 1]
    assert num_steps == 4
    assert sink.token_ids == list(text.encode())


def test_positions_of_forced_tokens_follow_each_other() -> None:
    harness = make_harness()
    sink = submit(harness, ANSWER)
    harness.run()
    position = 3
    for event in sink.events:
        if isinstance(event, TokensGenerated):
            assert event.position == position
            position += len(event.token_ids)


@pytest.mark.parametrize("max_tokens", range(1, 30))
def test_max_tokens_cuts_anywhere(max_tokens: int) -> None:
    whole, _ = run(ANSWER)
    text, end = run(ANSWER, max_tokens, presence_penalty=0.0)
    assert text == whole[:max_tokens]
    assert end.usage.completion_tokens == min(max_tokens, len(whole))
    assert end.reason is (FinishReason.STOP if max_tokens >= len(whole) else FinishReason.LENGTH)


@pytest.mark.parametrize("max_tokens", [2, 5, 60])
def test_penalties_count_forced_tokens_within_max_tokens(max_tokens: int) -> None:
    text, end = run(ANSWER, max_tokens, frequency_penalty=1.0, repetition_penalty=1.2)
    assert end.usage.completion_tokens == len(text)
    assert end.usage.completion_tokens <= max_tokens


def test_logprobs_come_for_every_token_and_change_nothing() -> None:
    without, _ = run(ANSWER)
    harness = make_harness()
    sink = submit(harness, ANSWER, logprobs=2)
    harness.run()
    events = [event for event in sink.events if isinstance(event, TokensGenerated)]
    assert text_of(sink) == without
    assert [[each.token_id for each in event.logprobs] for event in events] == [
        list(event.token_ids) for event in events
    ]
    assert {len(event.token_ids) for event in events} == {1}


def test_the_end_of_the_sequence_is_allowed_only_where_the_grammar_ends() -> None:
    harness = make_harness(alphabet=[ByteTokenizer.EOS_ID, *PRINTABLE])
    sink = submit(harness, Grammar.regex("[a-c]{3,}"), 40, logit_bias={ByteTokenizer.EOS_ID: 100.0})
    harness.run()
    assert len(text_of(sink)) == 3
    assert finished(sink).reason is FinishReason.STOP
    assert finished(sink).usage.completion_tokens == 4, "the token that ended it counts, as without a constraint"


def test_a_bias_does_not_open_what_the_grammar_closes() -> None:
    text, _ = run(Grammar.choice(["yes", "no"]), logit_bias={ord("x"): 100.0, ord("n"): 50.0})
    assert text == "no"


def test_min_tokens_gives_way_to_the_end_of_the_grammar() -> None:
    text, end = run(Grammar.choice(["yes", "no"]), min_tokens=20)
    assert text in ("yes", "no")
    assert end.reason is FinishReason.STOP


def test_min_tokens_holds_while_the_grammar_can_go_on() -> None:
    text, _ = run(Grammar.regex("[a-c]+"), 9, min_tokens=9, logit_bias={ByteTokenizer.EOS_ID: 100.0})
    assert len(text) == 9


def test_ignore_eos_does_not_outlive_the_grammar() -> None:
    text, end = run(Grammar.choice(["yes", "no"]), ignore_eos=True)
    assert (text in ("yes", "no"), end.reason) == (True, FinishReason.STOP)
    text, end = run(Grammar.regex("[a-c]+"), 9, ignore_eos=True, logit_bias={ByteTokenizer.EOS_ID: 100.0})
    assert (len(text), end.reason) == (1, FinishReason.STOP)


def test_a_stop_text_within_forced_tokens_ends_the_answer() -> None:
    text, end = run(ANSWER, stop=("mo",))
    assert (text, end.reason, end.stop_text) == ('{"', FinishReason.STOP, "mo")


def test_a_stop_token_that_a_grammar_names_ends_the_answer() -> None:
    text, end = run(Grammar.lark('start: "ab" <eos> "c"'))
    assert (text, end.reason) == ("ab", FinishReason.STOP)


def test_an_answer_that_must_be_empty() -> None:
    text, end = run(Grammar.choice([""]))
    assert (text, end.reason) == ("", FinishReason.STOP)


def test_an_early_end_is_no_end_of_a_grammar() -> None:
    text, end = run(Grammar.regex("[a-z]{4}"), early_gap=0.0)
    assert (len(text), end.is_early) == (4, False)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_the_answer_does_not_depend_on_the_batch(temperature: float) -> None:
    sampling: dict[str, object] = {"temperature": temperature, "seed": 7}
    alone, _ = run(ANSWER, **sampling)
    harness = make_harness(max_tokens_per_step=7, max_logits_per_step=3)
    sinks = [submit(harness, ANSWER, request_id=f"r{number}", **sampling) for number in range(4)]
    harness.submit("free", bytes(20), 12, temperature=1.0)
    harness.run()
    harness.check_at_rest()
    assert [text_of(sink) for sink in sinks] == [alone] * 4
