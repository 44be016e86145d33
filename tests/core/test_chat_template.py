from __future__ import annotations

import contextlib
import itertools
import json
import threading
import tracemalloc
from types import SimpleNamespace

import pytest

from layerscale_core.chat_template import MAX_SOURCE_CHARS, ChatTemplate, TemplateLimits, budget
from layerscale_core.errors import InvalidRequestError, UnsupportedModelError
from tests.core.hostile_templates import HOSTILE_TEMPLATES, UNLOADABLE_TEMPLATES

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Grüß dich 🙂"},
    {"role": "assistant", "content": "Hallo!"},
    {"role": "user", "content": "Wer bist du?"},
]
MEBIBYTE = 1 << 20


def render(source: str, messages: list[dict[str, str]] | None = None, /, **kwargs: object) -> str:
    template = ChatTemplate(source, bos="<s>", eos="</s>")
    return template.render(MESSAGES if messages is None else messages, **kwargs)  # type: ignore[arg-type]


def test_gives_the_conversation_and_the_special_tokens() -> None:
    source = (
        "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}]{{ message.content }}{{ eos_token }}"
        "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    conversation = "[system]Be brief.</s>[user]Grüß dich 🙂</s>[assistant]Hallo!</s>[user]Wer bist du?</s>"
    assert render(source) == f"<s>{conversation}[assistant]"
    assert render(source, add_generation_prompt=False) == f"<s>{conversation}"


def test_strips_blocks_as_templates_are_written_for() -> None:
    assert render("a\n    {% if true %}\nb\n    {% endif %}\nc") == "a\nb\nc"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ tools is none }} {{ documents is none }}", "True True"),
        ("{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}", "system"),
        ("{% for m in messages %}{% if m.role != 'user' %}{% continue %}{% endif %}{{ loop.index }}{% endfor %}", "24"),
        ("{{ messages[1:]|map(attribute='role')|join(',') }}", "user,assistant,user"),
        ("{{ messages|selectattr('role', 'equalto', 'user')|list|length }}", "2"),
        ("{{ messages|rejectattr('role', 'in', ['user', 'system'])|map(attribute='content')|first }}", "Hallo!"),
        ("{{ messages[::-1][0]['content'][-3:] }}", "du?"),
        ("{{ (messages == messages[:]) and messages[0] != messages[1] }}", "True"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "4"),
        ("{% macro say(m, end='.') %}{{ m.role + end }}{% endmacro %}{{ say(messages[0]) }}", "system."),
        ("{% macro f() %}{{ varargs|length }}{{ kwargs.a }}{% endmacro %}{{ f(1, 2, a='b') }}", "2b"),
        ("{% macro wrap() %}<{{ caller() }}>{% endmacro %}{% call wrap() %}x{% endcall %}", "<x>"),
        ("{% for a in [[1, [2]], [3]] recursive %}{{ loop(a) if a is iterable else a }}{% endfor %}", "123"),
        ("{% for k, v in {'b': 1, 'a': 2}|dictsort %}{{ k }}{{ v }}{{ ',' if not loop.last }}{% endfor %}", "a2,b1"),
        ("{% for k, v in {'b': 1}.items() %}{{ k }}{{ loop.length }}{% endfor %}", "b1"),
        ("{{ 'a</think> b '.split('</think>')[-1].strip('\\n').lstrip() }}|", "b |"),
        ("{{ ' x '|trim }}{{ 'a-b'|replace('-', '+') }}{{ 'ab'|upper }}{{ 'x'.startswith('x') }}", "xa+bABTrue"),
        ("{{ 'a\nb'|indent(2) }}{{ 'a\nb'|indent(2, first=true) }}", "a\n  b  a\n  b"),
        ("{{ '%s has %d (%5.2f)' % ('it', 3, 1.5) }}", "it has 3 ( 1.50)"),
        ("{{ '%(a)s' % {'a': 1} }}{{ '%s' % 'b' }}{{ '%s-%s'|format(1, 2) }}", "1b1-2"),
        ("{{ [1, 2.5]|sum }} {{ [{'n': 1}, {'n': 2}]|sum(attribute='n', start=10) }}", "3.5 13"),
        ("{{ [1, 'a', none, {'b': (2,)}] }}", "[1, 'a', None, {'b': (2,)}]"),
        ("{{ nothing }}{{ nothing|default('x') }}{{ none }}", "xNone"),
        (
            "{{ 2 ** 10 }} {{ 7 // 2 }} {{ -7 % 3 }} {{ 'ab' * 2 }} {{ [0] * 2 }} {{ 'a' ~ 1 ~ none }}",
            "1024 3 2 abab [0, 0] a1None",
        ),
        ("{{ '<'|e }}{{ '<'|safe }}", "&lt;<"),
        ("{% for row in [1, 2, 3]|batch(2, '-') %}{{ row|join }};{% endfor %}", "12;3-;"),
        ("{% generation %}{{ messages[2].content }}{% endgeneration %}", "Hallo!"),
        ("{% set x %}{{ messages[0].role }}{% endset %}{{ x|length }}", "6"),
        ("{{ ('{\"a\": [1]}'|fromjson).a[0] }}", "1"),
        ("{{ 1700000000|string }}{{ '7'|int + 1 }}{{ 'b'.join(['a', 'c']) }}{{ '7'.zfill(3) }}", "17000000008abc007"),
    ],
)
def test_speaks_the_dialect_of_published_templates(source: str, text: str) -> None:
    assert render(source) == text


def test_json_is_as_transformers_writes_it() -> None:
    value = {"b": "<é&'>", "a": [1, None, True]}
    assert render("{{ x|tojson }}", x=value) == '{"b": "<é&\'>", "a": [1, null, true]}'
    assert render("{{ x|tojson(indent=2) }}", x=value) == json.dumps(value, ensure_ascii=False, indent=2)
    assert render("{{ x|tojson(separators=(',', ':')) }}", x=value) == '{"b":"<é&\'>","a":[1,null,true]}'
    assert render("{{ x|tojson(ensure_ascii=true, sort_keys=true) }}", x="é") == '"\\u00e9"'


def test_tools_reach_the_template() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    assert render("{% for t in tools %}{{ t.function.name }}{% endfor %}", tools=tools) == "f"


def test_variables_of_the_request_replace_none_of_ours() -> None:
    source = "{{ messages|length }}{{ bos_token }}{{ enable_thinking }}"
    assert render(source, bos_token="x", messages=[], enable_thinking=False) == "4<s>False"


def test_knows_the_date() -> None:
    year, month = render("{{ strftime_now('%Y-%m') }}").split("-")
    assert int(year) >= 2026
    assert 1 <= int(month) <= 12


def test_refusal_of_the_template_is_the_clients_error() -> None:
    with pytest.raises(InvalidRequestError, match="refuses these messages: roles must alternate") as caught:
        render("{{ raise_exception('roles must\n alternate') }}")
    assert caught.value.param == "messages"


def test_refusal_is_one_short_line() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        render("{{ raise_exception('x\n' * 10000) }}")
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    ["{{ messages[0].content + 1 }}", "{{ messages[9].role }}", "{{ 1 / 0 }}", "{{ missing.a }}", "{{ none() }}"],
)
def test_failure_of_the_template_is_the_clients_error(source: str) -> None:
    with pytest.raises(InvalidRequestError, match="fails on these messages") as caught:
        render(source)
    assert caught.value.param == "messages"
    assert "Be brief" not in str(caught.value)


@pytest.mark.parametrize("name", UNLOADABLE_TEMPLATES)
def test_template_that_cannot_be_compiled_is_refused_at_load(name: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        ChatTemplate(UNLOADABLE_TEMPLATES[name], bos="", eos="")
    assert "\n" not in str(caught.value)


def test_longest_source_loads() -> None:
    assert render("x" * MAX_SOURCE_CHARS) == "x" * MAX_SOURCE_CHARS


def test_output_at_the_limit_is_given_and_one_more_is_not() -> None:
    source = "{{ messages[0].content }}"
    longest = "é" * TemplateLimits().max_chars
    assert render(source, [{"role": "user", "content": longest}]) == longest
    with pytest.raises(InvalidRequestError, match="exceeds a limit"):
        render(source, [{"role": "user", "content": f"{longest}."}])


def test_limits_are_those_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate("{{ messages[0].content }}", bos="", eos="", limits=TemplateLimits(max_chars=4))
    assert template.render([{"role": "user", "content": "1234"}]) == "1234"
    with pytest.raises(InvalidRequestError, match="more than 4 characters"):
        template.render([{"role": "user", "content": "12345"}])
    now = itertools.count()  # a second passes at each look
    clock = SimpleNamespace(thread_time=lambda: next(now), monotonic=lambda: next(now))
    monkeypatch.setattr(budget, "time", clock)
    loop = "{% for a in range(100) %}{% endfor %}"
    assert ChatTemplate(loop, bos="", eos="", limits=TemplateLimits(max_render_s=10_000)).render([]) == ""
    with pytest.raises(InvalidRequestError, match="longer than 100000 ms"):
        ChatTemplate(loop, bos="", eos="", limits=TemplateLimits(max_render_s=100)).render([])


def test_messages_too_large_to_handle_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="exceeds a limit"):
        render("", [{"role": "user", "content": "x" * MEBIBYTE}] * 3)


# The limit on a test's time only ends a hang: how long a rendering takes is not asserted.
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE_TEMPLATES)
def test_hostile_template_fails_in_bounded_memory(name: str) -> None:
    template = ChatTemplate(HOSTILE_TEMPLATES[name], bos="<s>", eos="</s>")
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequestError) as caught:
            template.render(MESSAGES)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.param == "messages"
    assert peak_bytes < 160 * MEBIBYTE


@pytest.mark.timeout(60)
def test_hostile_template_hurts_no_other_rendering() -> None:
    hostile = ChatTemplate(HOSTILE_TEMPLATES["endless loops"], bos="", eos="")
    friendly = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}", bos="", eos="")
    failures: list[InvalidRequestError] = []

    def render_hostile() -> None:
        try:
            hostile.render(MESSAGES)
        except InvalidRequestError as error:
            failures.append(error)

    threads = [threading.Thread(target=render_hostile) for _ in range(2)]
    for thread in threads:
        thread.start()
    expected = "".join(message["content"] for message in MESSAGES)
    for _ in itertools.takewhile(lambda _: any(thread.is_alive() for thread in threads), itertools.count()):
        assert friendly.render(MESSAGES) == expected
    for thread in threads:
        thread.join()
    assert len(failures) == 2


def test_renderings_share_nothing() -> None:
    template = ChatTemplate("{% set ns = namespace(seen=seen) %}{{ ns.seen }}{% set seen = 'again' %}", bos="", eos="")
    assert [template.render([], seen=text) for text in ("a", "b")] == ["a", "b"]
    assert template.render([]) == ""


@pytest.mark.parametrize(("num_jumps", "is_refused"), [(0, False), (1, False), (2, True)])
def test_a_clock_that_jumps_once_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, num_jumps: int, is_refused: bool
) -> None:
    now = {"s": 0.0}
    monkeypatch.setattr(budget, "time", SimpleNamespace(thread_time=lambda: now["s"], monotonic=lambda: now["s"]))
    means = budget.Budget(TemplateLimits())
    with pytest.raises(budget.TemplateLimitError) if is_refused else contextlib.nullcontext():
        for _ in range(num_jumps):
            now["s"] += 10.0
            means.tick()
            means.tick()
