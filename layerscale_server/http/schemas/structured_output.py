"""The request fields that say what an answer must look like: OpenAI's, and those that vLLM has made common."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from layerscale_core.constraints import Grammar
from layerscale_core.errors import InvalidRequestError
from layerscale_server.http.schemas.base import RequestModel
from layerscale_server.http.schemas.sampling import SamplingFields


def _parsed(schema: Any) -> Any:
    """A schema that came as JSON text, parsed."""
    if not isinstance(schema, str):
        return schema
    try:
        return json.loads(schema)
    except (ValueError, RecursionError):
        raise ValueError("should be a JSON schema") from None


JsonSchema = Annotated[
    dict[str, Any] | bool, BeforeValidator(_parsed, json_schema_input_type=dict[str, Any] | bool | str)
]
Choices = Annotated[list[str], Field(min_length=1)]


def format_grammar(kind: str, schema: Mapping[str, Any] | bool | None) -> Grammar | None:
    """What one of OpenAI's formats asks for; None: plain text."""
    if schema is not None:
        return Grammar.json_schema(schema)
    return Grammar.json_object() if kind == "json_object" else None


class NamedSchema(RequestModel):
    """OpenAI's ``response_format.json_schema``. It is always kept to the letter, ``strict`` or not."""

    name: str = ""
    json_schema: JsonSchema = Field(alias="schema")
    strict: bool = False


class ResponseFormat(RequestModel):
    """OpenAI's ``response_format``; other servers' has the schema in it directly, of either type of JSON."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: NamedSchema | None = None
    bare_schema: JsonSchema | None = Field(default=None, alias="schema")

    @model_validator(mode="after")
    def _check_schema(self) -> Self:
        has_named, has_bare = self.json_schema is not None, self.bare_schema is not None
        if has_bare and (has_named or self.type == "text"):
            raise ValueError("schema belongs to a type of JSON, and has no json_schema beside it")
        if not has_bare and (self.type == "json_schema") != has_named:
            raise ValueError("json_schema belongs to the type json_schema, and that needs it")
        return self

    def grammar(self) -> Grammar | None:
        """What it asks for; None: plain text."""
        return format_grammar(self.type, self.bare_schema if self.json_schema is None else self.json_schema.json_schema)


class StructuredOutputs(RequestModel):
    """vLLM's ``structured_outputs``: one of them."""

    json_: JsonSchema | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None
    json_object: bool = False


class StructuredFields(SamplingFields):
    """What the answer must look like: at most one of these fields says so."""

    response_format: ResponseFormat = ResponseFormat()
    guided_json: JsonSchema | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: str | None = Field(None, description="in llguidance's dialect of Lark")
    structured_outputs: StructuredOutputs = StructuredOutputs()

    def grammar(self) -> tuple[str, Grammar] | None:
        """The field that says what the answer must match, and what it says.

        Raises:
            InvalidRequestError: several do.
        """
        within = self.structured_outputs
        asked: list[tuple[str, Any, Callable[[Any], Grammar]]] = [
            ("guided_json", self.guided_json, Grammar.json_schema),
            ("guided_regex", self.guided_regex, Grammar.regex),
            ("guided_choice", self.guided_choice, Grammar.choice),
            ("guided_grammar", self.guided_grammar, Grammar.lark),
            ("structured_outputs", within.json_, Grammar.json_schema),
            ("structured_outputs", within.regex, Grammar.regex),
            ("structured_outputs", within.choice, Grammar.choice),
            ("structured_outputs", within.grammar, Grammar.lark),
            ("structured_outputs", within.json_object or None, lambda _: Grammar.json_object()),
            ("response_format", self.response_format.grammar(), lambda grammar: grammar),
        ]
        given = [(name, make(value)) for name, value, make in asked if value is not None]
        if len(given) > 1:
            name = given[1][0]
            raise InvalidRequestError(f"{name}: only one field may say what the answer must match", param=name)
        return given[0] if given else None
