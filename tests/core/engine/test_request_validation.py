"""Every rule of a request at its limit and one past it; a refusal names the field and never echoes the value."""

from __future__ import annotations

import math

import pytest

from layerscale_core.engine import EngineLimits, Request, SamplingParams, check_sampling
from layerscale_core.engine.validation import check_request
from layerscale_core.errors import ContextLengthError, InvalidRequestError
from tests.support.engine_harness import make_harness

LIMITS = EngineLimits(max_context_len=16, max_running=1, max_logprobs=5)
VOCAB_SIZE = 100
NAN, INFINITY = math.nan, math.inf


def check(**fields: object) -> None:
    check_sampling(SamplingParams(**{"max_tokens": 8, **fields}), LIMITS, VOCAB_SIZE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("max_tokens", [1, 10**9]),
        ("temperature", [0.0, 1e-9, 2.0, 1e9]),
        ("top_p", [1e-9, 1.0]),
        ("top_k", [0, 1, 10**9]),
        ("min_p", [0.0, 1.0]),
        ("presence_penalty", [-2.0, 2.0]),
        ("frequency_penalty", [-2.0, 2.0]),
        ("repetition_penalty", [0.1, 10.0]),
        ("logit_bias", [{}, {0: -100.0, 99: 100.0}]),
        ("seed", [None, 0, -5, 2**70]),
        ("stop", [(), ("x", " ")]),
        ("stop_token_ids", [frozenset(), frozenset({0, 99})]),
        ("min_tokens", [0, 8]),
        ("logprobs", [None, 0, 5]),
        ("prompt_logprobs", [None, 0, 5]),
    ],
)
def test_accepts_each_parameter_at_its_limits(field: str, values: list[object]) -> None:
    for value in values:
        check(**{field: value})


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("max_tokens", [0, -1]),
        ("temperature", [-1e-9, NAN, INFINITY]),
        ("top_p", [0.0, 1.0000001, -0.5, NAN]),
        ("top_k", [-1]),
        ("min_p", [-1e-9, 1.0000001, NAN]),
        ("presence_penalty", [-2.01, 2.01, NAN, INFINITY]),
        ("frequency_penalty", [-2.01, 2.01, NAN, INFINITY]),
        ("repetition_penalty", [0.0, 0.09, 10.01, -1.0, NAN]),
        ("logit_bias", [{-1: 0.0}, {100: 0.0}, {1: 100.01}, {1: -100.01}, {1: NAN}]),
        ("stop", [("x", "")]),
        ("stop_token_ids", [frozenset({-1}), frozenset({100})]),
        ("min_tokens", [-1, 9]),
        ("logprobs", [-1, 6]),
        ("prompt_logprobs", [-1, 6]),
    ],
)
def test_refuses_each_parameter_past_its_limits(field: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(InvalidRequestError) as refusal:
            check(**{field: value})
        assert refusal.value.param == field
        assert str(refusal.value).startswith(field)


def test_zero_tokens_are_for_scoring_only() -> None:
    check(max_tokens=0, prompt_logprobs=0)
    with pytest.raises(InvalidRequestError):
        check(max_tokens=-1, prompt_logprobs=0)


def check_prompt(prompt: tuple[int, ...], max_tokens: int = 1) -> None:
    check_request(Request("a", prompt, SamplingParams(max_tokens, prompt_logprobs=0)), LIMITS, VOCAB_SIZE)


def test_a_prompt_leaves_room_for_one_token_unless_it_is_only_scored() -> None:
    check_prompt((1,) * 15)
    check_prompt((1,) * 16, max_tokens=0)
    for prompt_len, max_tokens in ((16, 1), (17, 0)):
        with pytest.raises(ContextLengthError):
            check_prompt((1,) * prompt_len, max_tokens)


@pytest.mark.parametrize("prompt", [(), (-1,), (100,), (0, 99, 100)])
def test_a_prompt_holds_at_least_one_token_and_only_known_ones(prompt: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        check_prompt(prompt)
    assert refusal.value.param == "prompt"


def test_a_refused_request_leaves_nothing_behind() -> None:
    harness = make_harness()
    with pytest.raises(InvalidRequestError):
        harness.submit("a", b"hi", 5, temperature=-1.0)
    assert not harness.engine.stats().has_work
    harness.submit("a", b"hi")
    harness.run()
    harness.check_at_rest()


def test_waiting_prompt_tokens_default_to_sixteen_context_windows() -> None:
    assert EngineLimits(100, 1).waiting_prompt_tokens == 1600
    assert EngineLimits(100, 1, max_waiting_prompt_tokens=100).waiting_prompt_tokens == 100


@pytest.mark.parametrize(
    "limits", [{"max_running": 0}, {"max_waiting": 0}, {"max_tokens_per_step": 0}, {"max_waiting_prompt_tokens": 99}]
)
def test_limits_that_could_never_serve_are_a_mistake(limits: dict[str, int]) -> None:
    with pytest.raises(AssertionError):
        EngineLimits(**{"max_context_len": 100, "max_running": 1, **limits})
