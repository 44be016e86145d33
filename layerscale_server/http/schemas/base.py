"""What all request schemas share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, model_validator
from typing_extensions import TypeAliasType


class RequestModel(BaseModel):
    """A JSON object from a client: strict types, unknown fields ignored, ``null`` means absent."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: each for name, each in value.items() if each is not None}
        return value


TokenIds = TypeAliasType("TokenIds", Annotated[list[int], FailFast()])
"""Token ids; the first that is wrong is reported, not a million of them."""
