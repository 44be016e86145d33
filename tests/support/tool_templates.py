"""Chat templates that write tools as well-known models' do, each in a few lines."""

from __future__ import annotations

_TURN = "<|{{ m.role }}|>{{ m.content }}"
_GENERATION = "{% if add_generation_prompt %}<|assistant|>{% endif %}"


def _template(tools: str, call: str, *, role: str = "") -> str:
    """Definitions, then every message with its calls."""
    return (
        f"{{% if tools %}}{tools}{{% endif %}}"
        f"{{% for m in messages %}}{role}{_TURN}"
        f"{{% for c in m.tool_calls %}}{{% set f = c.function %}}{call}{{% endfor %}}\n{{% endfor %}}" + _GENERATION
    )


HERMES = _template(
    "<tools>{% for t in tools %}{{ t | tojson }}\n{% endfor %}</tools>",
    '{% if m.content or not loop.first %}\n{% endif %}<tool_call>\n{"name": "{{ f.name }}", "arguments": '
    "{{ f.arguments | tojson }}}\n</tool_call>",
)
LLAMA = _template(
    'Respond with {"name": function name, "parameters": arguments}.\n{{ tools | tojson(indent=4) }}',
    '{"name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}',
)
MISTRAL = _template(
    "[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]",
    "{% if loop.first %}[TOOL_CALLS][{% endif %}"
    "{% if c.id | length != 9 %}{{ raise_exception('ids have nine letters and digits') }}{% endif %}"
    '{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}'
    "{% if loop.last %}]{% else %}, {% endif %}",
)
MISTRAL_ARGS = _template(
    "[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments | tojson }}",
)
PHI = (
    "{% for m in messages %}{% if m.role == 'system' and 'tools' in m and m.tools is not none %}"
    "<|system|>{{ m.content }}<|tool|>{{ m.tools }}<|/tool|><|end|>"
    "{% else %}" + _TURN + "<|end|>{% endif %}{% endfor %}" + _GENERATION
)
UNAWARE = "{% for m in messages %}" + _TURN + "\n{% endfor %}" + _GENERATION
ALTERNATING = (
    "{% for m in messages %}{% if m.role == 'tool' or (loop.previtem is defined and loop.previtem.role == m.role) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}" + _TURN + "\n{% endfor %}" + _GENERATION
)
OTHER_CALLS = _template("{{ tools | tojson }}", "CALL {{ f.name }} WITH {{ f.arguments | tojson }}")
"""Knows tools, and writes calls as no format in the table does."""

THINKING = HERMES + (
    "{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}{# reasoning ends with </think> #}"
)
ALWAYS_THINKING = HERMES + "{% if add_generation_prompt %}<think>\n{% endif %}{# and </think> #}"

SYNTAX_NAMES = {
    "hermes": HERMES,
    "json": LLAMA,
    "mistral": MISTRAL,
    "mistral-args": MISTRAL_ARGS,
    "phi": PHI,
}
