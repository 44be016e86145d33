"""JSON schemas as clients send them, checked, and as llguidance takes them.

Every keyword that a schema holds is one of three: honoured, an annotation that says nothing about what is valid, or
refused by name. llguidance itself knows no middle: to it an annotation it has not heard of is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from layerscale_core.constraints.expansion import regex_size, schema_size
from layerscale_core.constraints.grammar import compact
from layerscale_core.constraints.limits import GrammarLimits
from layerscale_core.constraints.tagged_union import is_tagged_union
from layerscale_core.constraints.termination import schema_can_end
from layerscale_core.errors import GrammarError

Schema = dict[str, Any]

_WITH_SCHEMA = {"items", "additionalProperties", "additionalItems"}
_WITH_SCHEMAS = {"anyOf", "oneOf", "allOf", "prefixItems"}
_WITH_NAMED_SCHEMAS = {"properties", "patternProperties", "$defs", "definitions"}
_WITH_VALUE = {
    "$ref", "$schema", "const", "enum", "exclusiveMaximum", "exclusiveMinimum", "format", "maxItems",
    "maxLength", "maxProperties", "maximum", "minItems", "minLength", "minProperties", "minimum", "multipleOf",
    "pattern", "required", "type",
}  # fmt: skip
_ANNOTATIONS = {
    "$comment", "contentEncoding", "contentMediaType", "default", "deprecated", "description", "discriminator",
    "example", "examples", "externalDocs", "readOnly", "title", "writeOnly",
}  # fmt: skip
_FORMATS = (
    "date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid",
)  # fmt: skip

_REFERENCE = re.compile(r"#(?:/(?:\$defs|definitions)/[^/~%]+)?")

LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One way to write each value, the commonest in what models have read: what has no alternative need not be decoded, and
a small model cannot lose itself in white space."""


def prepared(schema: Any, limits: GrammarLimits) -> Schema:
    """A schema as llguidance takes it, annotations left out.

    Raises:
        GrammarError: names the keyword that is not supported, or the limit that is passed.
    """
    cleaned = _Cleaner(limits, schema).clean(schema, depth=1)
    check_expanded(schema_size(cleaned), limits)
    if not schema_can_end(cleaned):
        raise GrammarError("the schema requires itself without end")
    return {**cleaned, "x-guidance": LAYOUT}


def check_expanded(size: int, limits: GrammarLimits) -> None:
    """Refuse what could force a text of this size, if it is too large.

    Raises:
        GrammarError: it is.
    """
    if size > limits.max_expanded:
        message = f"what the answer must match, with repetition multiplied out, has more than {limits.max_expanded}"
        raise GrammarError(f"{message} characters")


def embedded_schema(schema: Mapping[str, Any], limits: GrammarLimits | None = None) -> str:
    """A schema to be written into the rules of ``Grammar.lark``, where it stands for the JSON it describes.

    Raises:
        GrammarError: as ``prepared``.
    """
    return f"%json {compact(prepared(schema, limits or GrammarLimits()))}"


class _Cleaner:
    """Copies one schema, and counts."""

    def __init__(self, limits: GrammarLimits, root: Any) -> None:
        self._limits = limits
        self._root = root
        self._num_rules = 0

    def clean(self, schema: Any, depth: int) -> Schema:
        """A copy of a sub-schema at this level of nesting."""
        if depth > self._limits.max_depth:
            raise GrammarError(f"the schema is nested deeper than {self._limits.max_depth} levels")
        self._count(1)
        if isinstance(schema, bool):
            return {} if schema else {"enum": []}
        if not isinstance(schema, dict):
            raise GrammarError("a schema must be an object, true or false")
        cleaned: Schema = {}
        for keyword, value in schema.items():
            names_document = keyword == "$id" and depth == 1  # to which every reference leads anyway
            if not (names_document or _says_nothing(keyword, value, schema)):
                cleaned[keyword] = self._clean_value(keyword, value, depth)
        if "oneOf" in cleaned and "anyOf" not in cleaned and is_tagged_union(cleaned["oneOf"], self._root):
            return {"anyOf" if keyword == "oneOf" else keyword: value for keyword, value in cleaned.items()}
        return cleaned

    def _clean_value(self, keyword: str, value: Any, depth: int) -> Any:
        if keyword in _WITH_SCHEMA and not isinstance(value, list):
            return value if isinstance(value, bool) else self.clean(value, depth + 1)
        if keyword in _WITH_SCHEMAS or keyword in _WITH_SCHEMA:
            return [self.clean(each, depth + 1) for each in _expect(list, keyword, value)]
        if keyword in _WITH_NAMED_SCHEMAS:
            named = _expect(dict, keyword, value)
            if keyword == "patternProperties":
                check_expanded(sum(map(regex_size, named)), self._limits)
            return {name: self.clean(each, depth + 1) for name, each in named.items()}
        self._check_value(keyword, value)
        return value

    def _check_value(self, keyword: str, value: Any) -> None:
        if keyword not in _WITH_VALUE:
            raise GrammarError(f"the schema keyword {_quotable(keyword)} is not supported")
        if keyword == "$ref" and not (isinstance(value, str) and _REFERENCE.fullmatch(value)):
            raise GrammarError("the schema keyword $ref supports only #, #/$defs/NAME and #/definitions/NAME")
        if keyword in ("enum", "required"):
            self._count(len(_expect(list, keyword, value)))
        elif keyword == "multipleOf" and _digits(value) > self._limits.max_divisor:
            raise GrammarError(
                f"the schema keyword multipleOf supports at most {self._limits.max_divisor}, or as digits"
            )
        elif keyword == "format" and value not in _FORMATS:
            raise GrammarError(f"the schema keyword format supports only {', '.join(_FORMATS)}")
        elif keyword == "minProperties" and isinstance(value, int) and value > 1:
            raise GrammarError("the schema keyword minProperties is supported up to 1: keys could repeat")

    def _count(self, num_rules: int) -> None:
        self._num_rules += num_rules
        if self._num_rules > self._limits.max_rules:
            raise GrammarError(f"the schema has more than {self._limits.max_rules} sub-schemas and listed values")


def _says_nothing(keyword: str, value: Any, schema: Schema) -> bool:
    """Whether a keyword of a schema changes nothing of what is valid, as generators of schemas write it."""
    match keyword:
        case "propertyNames":  # every name is a string
            is_any_string = isinstance(value, dict) and {"type": "string", **value} == {"type": "string"}
            return value is True or is_any_string
        case "uniqueItems":
            return value is False
        case "format":  # it is a string's, and OpenAPI's int64 and double an annotation
            types = schema.get("type")
            return isinstance(types, str) and types != "string"
    return keyword in _ANNOTATIONS or (keyword.startswith("x-") and keyword != "x-guidance")


def _expect(kind: type, keyword: str, value: Any) -> Any:
    if not isinstance(value, kind):
        raise GrammarError(f"the schema keyword {keyword} should be {'an object' if kind is dict else 'a list'}")
    return value


def _digits(value: Any) -> int:
    """A number without its point and the noughts around it, which is what a divisor costs: 0.25 as 25."""
    written = f"{value:.17g}" if isinstance(value, float) else str(value)
    mantissa = written.split("e")[0] if isinstance(value, int | float) else ""
    return int(re.sub(r"\D", "", mantissa).strip("0") or 0)


def _quotable(keyword: str) -> str:
    """The name of a keyword as errors may repeat it."""
    return keyword if re.fullmatch(r"[\w$.-]{1,64}", keyword, re.ASCII) else "with an unusual name"
