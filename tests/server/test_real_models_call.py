"""Real models that were never taught tools: every call that they are forced to make parses and validates."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from layerscale_core.chat_template import ChatTemplate
from layerscale_core.dialogue import Dialogue
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import FREE_TIER, License
from layerscale_server.assembly import Assembler
from layerscale_server.http.app import create_app
from layerscale_server.metrics import Metrics
from layerscale_server.settings import Settings
from layerscale_server.state import ServerState

GEMMA_TURNS = (
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else 'user' }}\n"
    "{{ m.content }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
"""Of Gemma's own template what matters here; the file that the tests have carries none."""

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1, "maxLength": 20},
        "unit": {"enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
    },
    "required": ["city", "unit", "days"],
}
LIGHT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "rooms": {"type": "array", "items": {"enum": ["kitchen", "hall"]}, "minItems": 1, "maxItems": 2},
        "on": {"type": "boolean"},
    },
    "required": ["rooms", "on"],
}
SCHEMAS = {"get_weather": WEATHER, "switch_light": LIGHT}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "switch_light", "description": "Lamps.", "parameters": LIGHT}},
]


class Model:
    """A real model behind the application, in process."""

    def __init__(self, state: ServerState) -> None:
        self._app = create_app(state)

    def chat(self, question: str, **fields: Any) -> dict[str, Any]:
        """The one choice of an answer."""
        asked = {"messages": [{"role": "user", "content": question}], "max_tokens": 120, "temperature": 0} | fields

        async def post() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=None) as client:
                return await client.post("/v1/chat/completions", json=asked)

        response = asyncio.run(post())
        assert response.status_code == 200, response.text
        choice: dict[str, Any] = response.json()["choices"][0]
        return choice


@contextmanager
def served(path: Path, template: str | None = None) -> Iterator[Model]:
    """A model on the CPU, with a chat template of ours if it has none."""
    settings, metrics = Settings(model=str(path), context=1024), Metrics()
    assembly = Assembler(settings, PluginRegistry.discover(), FREE_TIER, metrics).assemble()
    model = assembly.model
    if template is not None:
        chat_template = ChatTemplate(template, bos="<bos>", eos="<eos>")
        model = replace(model, dialogue=Dialogue(chat_template, model.tokenizer))
    try:
        yield Model(ServerState(settings, License(FREE_TIER, None), metrics, model=model))
    finally:
        assembly.close()


def assert_valid(call: dict[str, Any]) -> None:
    """The call is of one of the tools, and its arguments fit the schema."""
    arguments = json.loads(call["function"]["arguments"])
    if call["function"]["name"] == "get_weather":
        assert set(arguments) == {"city", "unit", "days"}
        assert 1 <= len(arguments["city"]) <= 20
        assert arguments["unit"] in ("celsius", "fahrenheit")
        assert type(arguments["days"]) is int
        assert 1 <= arguments["days"] <= 7
    else:
        assert call["function"]["name"] == "switch_light"
        assert set(arguments) == {"rooms", "on"}
        assert 1 <= len(arguments["rooms"]) <= 2
        assert set(arguments["rooms"]) <= {"kitchen", "hall"}
        assert type(arguments["on"]) is bool


def check_forced_calls(model: Model) -> None:
    named = {"type": "function", "function": {"name": "switch_light"}}
    for choice, sampling in (("required", {}), (named, {}), ("required", {"temperature": 1.5, "seed": 7})):
        answer = model.chat("Will it rain in Oslo tomorrow?", tools=TOOLS, tool_choice=choice, **sampling)
        assert answer["finish_reason"] == "tool_calls"
        assert answer["message"]["content"] is None
        [call] = answer["message"]["tool_calls"]
        assert_valid(call)
        assert choice == "required" or call["function"]["name"] == "switch_light"


@pytest.mark.model
@pytest.mark.timeout(300)
def test_smollm2(real_model_path: Path) -> None:
    with served(real_model_path) as model:
        check_forced_calls(model)
        answer = model.chat("What is the capital of France?", tools=TOOLS)
        assert answer["finish_reason"] in ("stop", "tool_calls", "length")
        for call in answer["message"].get("tool_calls", ()):
            assert_valid(call)


@pytest.mark.model
@pytest.mark.timeout(300)
def test_gemma(gemma_model_path: Path) -> None:
    with served(gemma_model_path, GEMMA_TURNS) as model:
        check_forced_calls(model)
