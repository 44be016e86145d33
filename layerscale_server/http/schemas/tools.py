"""The tools of a request, as OpenAI's API has them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, FailFast, Field

from layerscale_core.dialogue import Tool, ToolOffer
from layerscale_core.errors import InvalidRequestError
from layerscale_server.http.schemas.base import RequestModel, at_most

ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]


def _check_parameters(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type", "object") != "object":
        raise ValueError("type should be object")
    return schema


ArgumentsSchema = Annotated[dict[str, Any], AfterValidator(_check_parameters)]
"""JSON schema of a call's arguments; ``{}`` has none."""


class FunctionDefinition(RequestModel):
    """A function that the model may call. Its arguments always fit the schema, ``strict`` or not."""

    name: ToolName
    description: str = ""
    parameters: ArgumentsSchema = Field(default_factory=dict)
    strict: bool = True


class ToolDefinition(RequestModel):
    """A tool, which is a function."""

    type: Literal["function"]
    function: FunctionDefinition

    @property
    def tool(self) -> Tool:
        """The tool itself."""
        return Tool(self.function.name, self.function.parameters, self.function.description)


class FunctionName(RequestModel):
    """A function by its name."""

    name: str


class NamedTool(RequestModel):
    """The one tool that is to be called."""

    type: Literal["function"]
    function: FunctionName


def template_call(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    """An earlier call as chat templates expect it; arguments that are JSON text become what they say."""
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError, RecursionError):
            arguments = json.loads(arguments)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


ToolDefinitions = Annotated[list[ToolDefinition], FailFast(), at_most("tools", "tools")]
ToolChoice = Literal["none", "auto", "required"] | NamedTool


def offer_of(tools: Sequence[Tool], choice: ToolChoice, *, is_parallel: bool) -> ToolOffer | None:
    """What is offered; None where nothing is.

    Raises:
        InvalidRequestError: two tools have one name, or a call is wanted of a tool that is not there.
    """
    names = {tool.name for tool in tools}
    if len(names) < len(tools):
        raise InvalidRequestError("tools: two of them have the same name", param="tools")
    only = choice.function.name if isinstance(choice, NamedTool) else None
    if only is not None and only not in names:
        raise InvalidRequestError("tool_choice: names a tool that is not among tools", param="tool_choice")
    if choice == "required" and not tools:
        raise InvalidRequestError("tool_choice: asks for a call, and there are no tools", param="tool_choice")
    if choice == "none" or not tools:
        return None
    return ToolOffer(tuple(tools), is_required=choice == "required", only=only, is_parallel=is_parallel)
