"""What a template may call: Jinja's own filters where their cost follows from their input, ours where it does not."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from jinja2.filters import FILTERS
from jinja2.tests import TESTS
from jinja2.utils import Namespace
from markupsafe import escape

from layerscale_core.chat_template.budget import (
    MAX_ITEMS,
    Budget,
    TemplateLimitError,
    check_chars,
    check_items,
    measure,
)

Function = Callable[..., Any]

_CHEAP_FILTERS = (
    "abs attr capitalize count d default dictsort first float groupby int items last length list lower map max"
    " min reject rejectattr reverse round select selectattr sort string title truncate unique upper wordcount"
)
_CHEAP_STR_METHODS = (
    "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit islower isnumeric isspace"
    " istitle isupper lower partition removeprefix removesuffix rfind rindex rpartition rsplit split splitlines"
    " startswith swapcase title upper"
)
_MAX_ARGUMENT = 1000  # of what has no business being large: a width, the characters to trim
_DATE_FORMAT = re.compile(r"(?:[^%]|%-?[aAbBcdHIjmMpSUwWxXyYzZ%]){0,200}")


class RefusedError(Exception):
    """The template itself refuses the conversation (``raise_exception``); the text is the template's."""


class OpaqueNamespace(Namespace):
    """A namespace that can be printed and compared whatever it holds: its values change after they were measured."""

    def __repr__(self) -> str:
        return "<Namespace>"


def make_filters(budget: Budget) -> dict[str, Function]:
    """Every filter by name."""
    ours = {
        "batch": _few(FILTERS["batch"]),
        "center": _pad(str.center),
        "e": _escape,
        "escape": _escape,
        "format": percent_format,
        "fromjson": json.loads,
        "indent": _indent,
        "join": _join_filter,
        "replace": _replace,
        "safe": str,
        "slice": _few(FILTERS["slice"]),
        "sum": functools.partial(_sum, budget),
        "tojson": _tojson,
        "trim": _strip(str.strip),
    }
    cheap = {name: FILTERS[name] for name in _CHEAP_FILTERS.split()}
    return {name: bounded(budget, function) for name, function in {**cheap, **ours}.items()}


def make_tests(budget: Budget) -> dict[str, Function]:
    """Every test (``x is defined``) by name."""
    tests: Mapping[str, Any] = TESTS
    return {name: bounded(budget, test) for name, test in tests.items()}


def make_methods(budget: Budget) -> Mapping[type, Mapping[str, Function]]:
    """Every method of a value that may be called, as a function of that value."""
    text = {name: getattr(str, name) for name in _CHEAP_STR_METHODS.split()} | {
        "center": _pad(str.center),
        "join": _join,
        "ljust": _pad(str.ljust),
        "lstrip": _strip(str.lstrip),
        "replace": _replace,
        "rjust": _pad(str.rjust),
        "rstrip": _strip(str.rstrip),
        "strip": _strip(str.strip),
        "zfill": _pad(str.zfill),
    }
    methods: dict[type, dict[str, Function]] = {
        str: text,
        dict: {
            "copy": dict,
            "get": dict.get,
            "items": _listed(dict.items),
            "keys": list,
            "values": _listed(dict.values),
        },
        list: {"copy": list, "count": list.count, "index": list.index},
        tuple: {"count": tuple.count, "index": tuple.index},
    }
    return {
        kind: {name: bounded(budget, function) for name, function in functions.items()}
        for kind, functions in methods.items()
    }


def make_globals(budget: Budget) -> dict[str, Function]:
    """Every function by name."""
    functions: dict[str, Function] = {
        "dict": dict,
        "namespace": OpaqueNamespace,
        "raise_exception": _raise_exception,
        "range": _range,
        "strftime_now": _strftime_now,
    }
    return {name: bounded(budget, function) for name, function in functions.items()}


def bounded(budget: Budget, function: Function) -> Function:
    """The function with its result counted, and an iterator it returns stopped in time."""

    def call(*args: Any, **kwargs: Any) -> Any:
        result = budget.admit(function(*args, **kwargs))
        return _paced(budget, result) if isinstance(result, Iterator) else result

    return _like(function, call)


def percent_format(template: object, *args: object, **kwargs: object) -> str:
    """``template % args``, of a predictable size."""
    text = str(template)
    if re.search(r"\d{4}|\*", text):
        raise TemplateLimitError("a format asks for a width of 1000 or more")
    values = kwargs or args
    check_chars(len(text) + text.count("%") * (_MAX_ARGUMENT + measure(values)))
    return text % values


def concat(items: Iterable[object]) -> str:
    """The items as text, one after the other."""
    return _join("", items)


def _like(function: Function, wrapper: Function) -> Function:
    """The wrapper with Jinja's mark on whether the function wants the context or the environment first."""
    if hasattr(function, "jinja_pass_arg"):
        wrapper.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
    return wrapper


def _few(function: Function) -> Function:
    """The function, refusing to make more items than a value may have."""

    def call(*args: Any, **kwargs: Any) -> Any:
        for argument in (*args, *kwargs.values()):
            if isinstance(argument, int):
                check_items(argument)
        return function(*args, **kwargs)

    return _like(function, call)


def _paced(budget: Budget, items: Iterator[Any]) -> Iterator[Any]:
    for item in items:
        budget.tick()
        yield item


def _listed(method: Callable[[Any], Iterable[Any]]) -> Callable[[Any], list[Any]]:
    """A list in place of a view, which would grow unmeasured when it is printed."""
    return lambda value: list(method(value))


def _join(separator: str, items: Iterable[object]) -> str:
    texts: list[str] = []
    num_chars = 0
    for item in islice(items, MAX_ITEMS):
        text = str(item)
        num_chars += len(text) + len(separator)
        check_chars(num_chars)
        texts.append(text)
    return separator.join(texts)


def _join_filter(items: Iterable[Any], separator: object = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        items = (item[attribute] for item in items)
    return _join(str(separator), items)


def _replace(text: object, old: str, new: str, count: int = -1) -> str:
    text = str(text)
    check_chars(len(text) + (text.count(old) if count < 0 else count) * len(new))
    return text.replace(old, new, count)


def _pad(method: Callable[..., str]) -> Function:
    def pad(text: object, width: int = 80, *fill: str) -> str:
        check_chars(width)
        return method(str(text), width, *fill)

    return pad


def _strip(method: Callable[[str, str | None], str]) -> Function:
    def strip(text: object, chars: str | None = None) -> str:
        if chars is not None and len(chars) > _MAX_ARGUMENT:
            raise TemplateLimitError(f"more than {_MAX_ARGUMENT} characters to strip")
        return method(str(text), chars)

    return strip


def _indent(text: object, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text = str(text)
    margin = width if isinstance(width, str) else " " * min(width, _MAX_ARGUMENT)
    check_chars(len(text) + (text.count("\n") + 1) * len(margin))
    indented: str = FILTERS["indent"](text, margin, first, blank)
    return indented


def _sum(budget: Budget, items: Iterable[Any], attribute: str | int | None = None, start: float = 0) -> float:
    for item in items:
        number = item if attribute is None else item[attribute]
        if not isinstance(number, (int, float)):
            raise TypeError("sum of what is no number")
        start = budget.admit(start + number)
    return start


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: unlike Jinja's own, no HTML escapes."""
    measure(value)
    if (indent or 0) > 16 or len("".join(separators or ())) > 16:
        raise TemplateLimitError("more than 16 characters between the parts of a JSON text")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _escape(value: object) -> str:
    return str(escape(value))


def _raise_exception(message: object) -> None:
    raise RefusedError(str(message))


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    check_items(len(numbers))
    return numbers


def _strftime_now(date_format: str) -> str:
    if not _DATE_FORMAT.fullmatch(date_format):
        raise TemplateLimitError("a date format is too long, or asks for a width")
    return datetime.now().strftime(date_format)  # the user's day, not UTC's
