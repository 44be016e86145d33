"""Constrained decoding: answers that match a JSON schema, a regular expression, a choice or a grammar."""

from layerscale_core.constraints.compiler import ConstraintCompiler
from layerscale_core.constraints.grammar import Grammar, GrammarKind
from layerscale_core.constraints.json_schema import embedded_schema
from layerscale_core.constraints.limits import GrammarLimits
from layerscale_core.constraints.matcher import Constraint, Matcher

__all__ = [
    "Constraint",
    "ConstraintCompiler",
    "Grammar",
    "GrammarKind",
    "GrammarLimits",
    "Matcher",
    "embedded_schema",
]
