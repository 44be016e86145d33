"""Real models answer random schemas: what ended by itself parses and validates, alone and in a batch alike.

``LAYERSCALE_TEST_SCHEMAS`` says how many schemas; all 500 take some minutes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from layerscale_core.constraints import ConstraintCompiler, Grammar
from layerscale_core.engine import FinishReason
from tests.support.random_schemas import Schema, random_schema
from tests.support.real_engine import RealEngine, real_engine, text_and_end

pytestmark = [pytest.mark.model, pytest.mark.timeout(1800)]

NUM_SCHEMAS = int(os.environ.get("LAYERSCALE_TEST_SCHEMAS", "6"))
BATCH = 16
PROMPT = "Describe a place you know, as JSON.\n"


@pytest.fixture(scope="module", params=["real_model_path", "gemma_model_path"])
def model(request: pytest.FixtureRequest) -> Iterator[RealEngine]:
    path: Path = request.getfixturevalue(request.param)
    with real_engine(path, BATCH) as engine:
        yield engine


@pytest.fixture(scope="module")
def compiler(model: RealEngine) -> ConstraintCompiler:
    return ConstraintCompiler(model.tokenizer)


def check(schema: Schema, text: str) -> None:
    # Its check of times knows no zones and that of dates no year 0, which RFC 3339 has.
    formats = jsonschema.FormatChecker(("email", "ipv4", "uuid"))
    jsonschema.Draft202012Validator(schema, format_checker=formats).validate(json.loads(text))


def test_answers_that_end_by_themselves_are_valid(model: RealEngine, compiler: ConstraintCompiler) -> None:
    num_complete = 0
    for first in range(0, NUM_SCHEMAS, BATCH):
        schemas = [random_schema(seed) for seed in range(first, min(first + BATCH, NUM_SCHEMAS))]
        constraints = [compiler.compile(Grammar.json_schema(schema)) for schema in schemas]
        answers = model.run([PROMPT] * len(schemas), list(constraints), max_tokens=200, temperature=0.8, seed=first)
        for schema, events in zip(schemas, answers, strict=True):
            text, end = text_and_end(events)
            if end.reason is FinishReason.STOP:
                check(schema, text)
                num_complete += 1
    assert num_complete >= NUM_SCHEMAS / 2, "models go on for ever"


def test_a_greedy_answer_is_the_same_alone_in_a_batch_and_token_by_token(
    model: RealEngine, compiler: ConstraintCompiler
) -> None:
    schemas = [random_schema(seed) for seed in (3, 5)]
    constraints = [compiler.compile(Grammar.json_schema(schema)) for schema in schemas]
    together = [text_and_end(events)[0] for events in model.run([PROMPT] * 2, list(constraints), max_tokens=50)]
    for constraint, expected in zip(constraints, together, strict=True):
        assert text_and_end(model.run([PROMPT], [constraint], max_tokens=50)[0])[0] == expected
        [events] = model.run([PROMPT], [constraint], max_tokens=50, logprobs=0)
        assert text_and_end(events)[0] == expected
