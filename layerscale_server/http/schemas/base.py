"""What all request schemas share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    FailFast,
    ValidationInfo,
    model_validator,
)
from typing_extensions import TypeAliasType

from layerscale_server.limits import Limits


class RequestModel(BaseModel):
    """A JSON object from a client: strict types, unknown fields ignored, ``null`` means absent."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: each for name, each in value.items() if each is not None}
        return value


def by_type(what: str, tags: Mapping[str, str], default: str | None = None) -> Discriminator:
    """Tells the members of a union apart by their ``type``.

    Args:
        what: one of them, for the error's text.
        tags: type to the member's tag.
        default: the type of one that names none.
    """

    def tag_of(value: Any) -> str | None:
        kind = value.get("type", default) if isinstance(value, dict) else None
        return tags.get(kind) if isinstance(kind, str) else None

    return Discriminator(
        tag_of,
        custom_error_type="unknown_type",
        custom_error_message=f"should be {what} of one of the types {', '.join(tags)}",
    )


def text_or_list(listed: Callable[[str], list[Any]], json_type: Any) -> BeforeValidator:
    """A list that a bare text may stand for.

    Args:
        listed: the list that a text stands for.
        json_type: what documentation says of the field.
    """

    def check(value: Any) -> Any:
        if not isinstance(value, str | list):
            raise ValueError("should be a string or a list")
        return listed(value) if isinstance(value, str) else value

    return BeforeValidator(check, json_schema_input_type=json_type)


def unsupported(remedy: str = "", *, unless: Any = None) -> AfterValidator:
    """A field of another server's that asks for what there is not here.

    Args:
        remedy: what to do instead.
        unless: a value that asks for nothing.
    """

    def refuse(value: Any) -> Any:
        if value != unless:
            raise ValueError(f"not supported: {remedy}" if remedy else "not supported")
        return value

    return AfterValidator(refuse)


TokenIds = TypeAliasType("TokenIds", Annotated[list[int], FailFast()])
"""Token ids; the first that is wrong is reported, not a million of them."""


def limits_of(info: ValidationInfo) -> Limits:
    """The limits that a request is validated under."""
    assert isinstance(info.context, Limits)
    return info.context


def at_most(limit: str, what: str) -> AfterValidator:
    """A list holds no more than a limit says; ``what`` names its items."""

    def check(value: Sized, info: ValidationInfo) -> Sized:
        most: int = getattr(limits_of(info), limit)
        if len(value) > most:
            raise ValueError(f"should hold at most {most} {what}")
        return value

    return AfterValidator(check)


def up_to(limit: str) -> AfterValidator:
    """A number is from 0 to a limit."""

    def check(value: int, info: ValidationInfo) -> int:
        most: int = getattr(limits_of(info), limit)
        if not 0 <= value <= most:
            raise ValueError(f"should be 0 to {most}")
        return value

    return AfterValidator(check)
