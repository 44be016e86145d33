"""The rewriting of a template's syntax tree before it is compiled."""

# ruff: noqa: N802, N815 - Jinja calls a visitor's methods by the names of its node classes

from __future__ import annotations

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

ADMIT, CONCAT = "_admit", "_concat"
"""Filters that the rewritten tree calls: pass a value past the budget; join values to a text."""


class Rewriter(NodeTransformer):
    """Puts the budget between the steps of a template that Jinja takes without asking its environment."""

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Expr:
        """Literal text is counted like other output: a macro can hold much of it before any is yielded."""
        return nodes.Const(node.data, lineno=node.lineno)

    def visit_For(self, node: nodes.For) -> nodes.For:
        """Each iteration ticks, and so does each item that the loop's condition skips."""
        self.generic_visit(node)
        tick = nodes.ExprStmt(_filtered(nodes.Const(None, lineno=node.lineno), ADMIT), lineno=node.lineno)
        node.body.insert(0, tick)
        if node.test is not None:
            node.test = _filtered(node.test, ADMIT)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        """``a ~ b ~ c`` is measured before it is joined."""
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), CONCAT)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        """A slice is a new value."""
        return self._admitted(node) if isinstance(node.arg, nodes.Slice) else self._unchanged(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        """A tuple is a new value, unless it is what a value is unpacked into."""
        return self._admitted(node) if node.ctx == "load" else self._unchanged(node)

    def visit_Name(self, node: nodes.Name) -> nodes.Expr:
        """A macro's surplus arguments are a new tuple and a new dict."""
        is_new = node.ctx == "load" and node.name in ("varargs", "kwargs")
        return _filtered(node, ADMIT) if is_new else node

    def _admitted(self, node: nodes.Expr) -> nodes.Expr:
        self.generic_visit(node)
        return _filtered(node, ADMIT)

    def _unchanged(self, node: nodes.Expr) -> nodes.Expr:
        self.generic_visit(node)
        return node

    visit_List = visit_Dict = visit_Compare = _admitted


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
