"""Chat templates that try to hang a server or to fill its memory, by what they try."""

from __future__ import annotations


def _repeated(start: str, step: str, times: int = 60) -> str:
    """A value ``ns.x`` that each step makes of the one before."""
    return (
        f"{{% set ns = namespace(x={start}) %}}{{% for i in range({times}) %}}{{% set ns.x = {step} %}}{{% endfor %}}"
    )


def _loop(body: str) -> str:
    return f"{{% for item in range(99999) %}}{body}{{% endfor %}}"


_DOUBLE_LIST = _repeated("[1]", "[ns.x, ns.x]")
_BIG = "{% set big = 'a' * 1000000 %}"

HOSTILE_TEMPLATES = {
    "string product": "{{ 'a' * 500000000 }}",
    "string product, reversed": "{{ 500000000 * 'a' }}",
    "string product, hidden": "{% set n = 500000000 %}{{ ('a' * n)|length }}",
    "list product": "{{ ([0] * 1000000000)|length }}",
    "tuple product": "{{ ((0,) * 1000000000)|length }}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "repeated squaring": _repeated("3", "ns.x * ns.x", times=100) + "{{ ns.x }}",
    "string doubling": _repeated("'a'", "ns.x + ns.x") + "{{ ns.x }}",
    "string doubling by ~": _repeated("'a'", "ns.x ~ ns.x") + "{{ ns.x }}",
    "list doubling": _repeated("[1]", "ns.x + ns.x"),
    "nested list, printed": _DOUBLE_LIST + "{{ ns.x }}",
    "nested list, compared": _DOUBLE_LIST + _DOUBLE_LIST.replace("ns", "other") + "{{ ns.x == other.x }}",
    "nested list, as JSON": _DOUBLE_LIST + "{{ ns.x|tojson }}",
    "nested dict": _repeated("{}", "{'a': ns.x, 'b': ns.x}") + "{{ ns.x }}",
    "nested keyword dict": _repeated("{}", "dict(a=ns.x, b=ns.x)") + "{{ ns.x }}",
    "nested dict items": _repeated("{}", "{'a': ns.x.items(), 'b': ns.x.items()}") + "{{ ns.x }}",
    "nested namespaces, printed": _repeated("1", "namespace(a=[ns.x], b=[ns.x])") + "{{ ([ns]|string) * 999999 }}",
    "namespace in itself": "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ (ns.x|string) * 9999999 }}",
    "surplus arguments, printed": _BIG + "{% macro m() %}{{ varargs }}{% endmacro %}{{ m(" + "big, " * 3000 + "1) }}",
    "surplus keywords, printed": _BIG
    + "{% macro m() %}{{ kwargs }}{% endmacro %}{{ m("
    + ", ".join(f"k{i}=big" for i in range(3000))
    + ") }}",
    "many operands of ~": _BIG + "{{ (" + " ~ ".join(["big"] * 3000) + ")|length }}",
    "many slices": _BIG + "{{ big" + "[1:]" * 150 + " }}",
    "endless loops": _loop(_loop(_loop(""))),
    "endless skipping": _loop("{% for a in range(99999) if a < 0 %}x{% endfor %}"),
    "endless output": _loop(_loop("{{ 'abcdefgh' }}")),
    "endless literal output": _loop(_loop("abcdefgh")),
    "literal output in a macro": "{% macro m() %}" + _loop("x" * 100000) + "{% endmacro %}{{ m()|length }}",
    "literal output in a set block": "{% set x %}" + _loop("x" * 100000) + "{% endset %}{{ x|length }}",
    "huge range": "{% for a in range(10 ** 12) %}{% endfor %}",
    "macro recursion": "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "branching macro recursion": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
    "{{ m(60) }}",
    "loop recursion": "{% for a in [[1]] recursive %}{{ loop([[1], [1]]) }}{% endfor %}",
    "center": "{{ 'a'|center(1000000000) }}",
    "center, as a method": "{{ 'a'.center(1000000000) }}",
    "ljust": "{{ 'a'.ljust(1000000000)|length }}",
    "zfill": "{{ '1'.zfill(1000000000)|length }}",
    "expandtabs": "{{ '\t'.expandtabs(1000000000)|length }}",
    "% width": "{{ '%1000000000d' % 1 }}",
    "% width from an argument": "{{ '%*d' % (1000000000, 1) }}",
    "% precision": "{{ '%.1000000000f' % 1 }}",
    "% of one large value": _BIG + "{{ ('%(a)s' * 3000) % {'a': big} }}",
    "format filter": "{{ '%1000000000d'|format(1) }}",
    "str.format width": "{{ '{:>1000000000}'.format(1) }}",
    "str.format by attribute filter": "{{ ('{:>1000000000}'|attr('format'))(1) }}",
    "str.format_map": "{{ '{a:>1000000000}'.format_map({'a': 1}) }}",
    "replace": _BIG + "{{ big|replace('a', big)|length }}",
    "replace, of nothing": _BIG + "{{ big.replace('', big)|length }}",
    "join": _BIG + "{{ range(99999)|join(big)|length }}",
    "join, as a method": _BIG + "{{ big.join(['a'] * 99999)|length }}",
    "indent": "{{ ('\n' * 1000000)|indent(1000)|length }}",
    "indent by a text": _BIG + "{{ ('a\n' * 1000)|indent(big)|length }}",
    "JSON indent": "{{ [[1]]|tojson(indent=1000000000)|length }}",
    "JSON separators": _BIG + "{{ ([1] * 99999)|tojson(separators=(big, big))|length }}",
    "batch": "{{ [1]|batch(1000000000, 0)|list|length }}",
    "slice": "{{ [1]|slice(1000000000)|list|length }}",
    "sum of lists": "{{ ([[1]] * 50000)|sum(start=[])|length }}",
    "strip": "{{ ('a' * 1000000)|trim('b' * 1000000 ~ 'a') }}",
    "chained maps": "{{ range(99999)" + "|map('string')" * 150 + "|list|length }}",
    "select among large values": _BIG + "{% set l = [big] %}" + _loop("{% set x = l|select('eq', big ~ item)|list %}"),
    "large comparisons": _BIG
    + "{% set c = big ~ '' %}"
    + _loop("{% if " + " and ".join(["big == c"] * 150) + " %}{% endif %}"),
    "sorting": _loop("{% set x = range(99999)|sort(reverse=true) %}"),
    "large integers as text": "{{ ('9' * 1000000)|int }}{{ ('f' * 1000000)|int(base=16) }}",
    "bytes": "{{ (1).to_bytes(1000000000, 'big')|length }}",
    "date width": "{{ strftime_now('%999999999d') }}",
    "date length": "{{ strftime_now('%c' * 100000) }}",
    "lorem ipsum": "{{ lipsum(n=1000000) }}",
    "cycler": "{% set c = cycler(1, 2) %}" + _loop(_loop("{{ c.next() }}")),
    "block calls": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "call blocks": "{% macro m() %}"
    + _loop("{{ caller() }}")
    + "{% endmacro %}{% call m() %}"
    + _loop("{{ item }}")
    + "{% endcall %}",
    "filter block": "{% filter replace('a', 'a' * 1000000) %}{{ 'a' * 1000000 }}{% endfilter %}",
    "half a surrogate pair": "{{ '\\ud800' }}",
    "python internals": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "internals by attribute filter": "{{ (''|attr('__class__'))() }}",
    "generator frame": "{{ (range(3)|map('string')).gi_frame.f_globals }}",
    "mutation": _loop("{% set _ = messages.append(messages) %}"),
}
"""Rendering each of them fails."""

UNLOADABLE_TEMPLATES = {
    "syntax error": "{{ messages",
    "unknown tag": "{% frobnicate %}",
    "unknown filter": "{{ messages|frobnicate }}",
    "refused filter": "{{ messages|pprint }}",
    "unclosed loop": "{% for m in messages %}{{ m.content }}",
    "deep nesting": "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
    "deep chain": "{{ " + "+".join(["1"] * 50000) + " }}",
    "deep blocks": "{% if x %}" * 3000 + "{% endif %}" * 3000,
    "too long": "x" * (256 * 1024 + 1),
    "include": "{% include 'other' %}",
    "import": "{% import 'other' as other %}",
    "extends": "{% extends 'other' %}",
    "autoescape": "{% autoescape true %}{{ messages }}{% endautoescape %}",
}
"""Templates that a model is refused for."""
