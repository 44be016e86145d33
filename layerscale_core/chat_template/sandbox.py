"""A Jinja environment in which every step of a template passes a budget.

Jinja's own sandbox keeps a template from reaching Python; it does not keep it from computing for hours or filling
memory. Here the template's syntax tree is rewritten before it is compiled, so that each loop iteration, each new
value and each piece of output is seen, and only known functions, filters and methods are called.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from layerscale_core.chat_template.budget import (
    MAX_INT_BITS,
    Budget,
    TemplateLimitError,
    check_chars,
    check_items,
)
from layerscale_core.chat_template.functions import (
    bounded,
    concat,
    make_filters,
    make_globals,
    make_methods,
    make_tests,
    percent_format,
)
from layerscale_core.chat_template.rewriter import ADMIT, CONCAT, Rewriter

# What would bring in another template, or HTML escaping, whose strings escape each other.
_FOREIGN = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.EvalContextModifier)


class GenerationTag(Extension):
    """``{% generation %}``: marks what an assistant wrote for training, and means nothing here."""

    tags = {"generation"}  # noqa: RUF012 - as the base class has it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """One rendering's environment, with Jinja's settings as transformers has them."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "**", "%"])

    def __init__(self, budget: Budget) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, GenerationTag],
            finalize=self._show,  # wants the context: otherwise constants would be computed while compiling
            optimized=False,  # likewise
            cache_size=0,
        )
        self._budget = budget
        functions = make_globals(budget)
        self._functions = tuple(functions.values())
        self._methods = make_methods(budget)
        self.globals: dict[str, Any] = dict(functions)
        self.filters = make_filters(budget) | {ADMIT: budget.admit, CONCAT: bounded(budget, concat)}
        self.tests: dict[str, Any] = make_tests(budget)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator between two values, refused before its result would be too large."""
        if operator == "*":
            _check_product(left, right)
            _check_product(right, left)
        elif operator == "**":
            _check_power(left, right)
        elif operator == "%" and isinstance(left, str):
            return self._budget.admit(_format(left, right))
        return self._budget.admit(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as its base
        """A call of a known function or method, of a macro, or of a recursive loop."""
        __self._budget.tick()
        return __self._budget.admit(super().call(__context, __self._find_callable(__obj), *args, **kwargs))

    def _find_callable(self, called: Any) -> Callable[..., Any]:
        if isinstance(called, (Macro, LoopContext, BlockReference, Undefined)):
            return called
        if any(called is function for function in self._functions):
            return cast("Callable[..., Any]", called)
        owner, name = getattr(called, "__self__", None), getattr(called, "__name__", "")
        if isinstance(called, types.BuiltinMethodType) and (method := self._methods.get(type(owner), {}).get(name)):
            return partial(method, owner)
        if isinstance(called, types.MethodType) and isinstance(owner, LoopContext) and name in ("cycle", "changed"):
            return called
        raise SecurityError(f"{name or type(called).__name__!r} may not be called by a template")

    @pass_context
    def _show(self, context: Context, value: object) -> str:  # noqa: ARG002 - see __init__
        return self._budget.admit(str(value))

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        for foreign in source.find_all(_FOREIGN):
            raise TemplateSyntaxError(f"{type(foreign).__name__.lower()} is not available", foreign.lineno)
        return super()._generate(Rewriter().visit(source), name, filename, defer_init)


def _check_product(sequence: object, count: object) -> None:
    if isinstance(count, int):
        if isinstance(sequence, str):
            check_chars(len(sequence) * count)
        elif isinstance(sequence, (list, tuple)):
            check_items(len(sequence) * count)


def _check_power(base: object, exponent: object) -> None:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > MAX_INT_BITS:
        raise TemplateLimitError(f"a number has more than {MAX_INT_BITS} bits")


def _format(template: str, values: object) -> str:
    if isinstance(values, dict):
        return percent_format(template, **values)
    return percent_format(template, *values) if isinstance(values, tuple) else percent_format(template, values)
