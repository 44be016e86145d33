"""From what a request says its answer must look like to the constraint that sees to it."""

from __future__ import annotations

from layerscale_core.constraints import Constraint, Grammar
from layerscale_core.errors import GrammarError
from layerscale_server.http.schemas.structured_output import StructuredFields
from layerscale_server.state import LoadedModel


async def constraint_of(model: LoadedModel, body: StructuredFields) -> Constraint | None:
    """What the answer must match; None where anything goes.

    Raises:
        InvalidRequestError: it cannot be had; names the field.
    """
    asked = body.grammar()
    return None if asked is None else await compiled(model, *asked)


async def compiled(model: LoadedModel, field: str, grammar: Grammar) -> Constraint:
    """The constraint that a field of a request asks for.

    Raises:
        InvalidRequestError: it cannot be had; names the field.
    """
    try:
        return await model.constraints.compile(grammar)
    except GrammarError as error:
        raise GrammarError(f"{field}: {error}", param=field) from None
