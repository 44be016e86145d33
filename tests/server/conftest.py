"""A server without a model: the real application and engine over the fake executor."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from fastapi import FastAPI

from layerscale_core.chat_template import ChatTemplate, TemplateLimits
from layerscale_core.constraints import ConstraintCompiler, GrammarLimits
from layerscale_core.dialogue import Dialogue
from layerscale_core.dialogue.recognition import Template
from layerscale_core.engine import Engine, EngineLimits, FairPolicy, PagedKVPool
from layerscale_core.errors import InvalidRequestError
from layerscale_core.memory_plan import MemoryPlan, MemoryRequest, plan_memory
from layerscale_core.models import AttentionSpec, LayerSpec, MlpSpec, ModelSpec, RopeSpec
from layerscale_core.sessions import Adoption, Fingerprint, SavedSessions, SessionLimits, Sessions, StateDirectory
from layerscale_core.specs import FREE_TIER, DeviceInfo, License, Tier
from layerscale_server.constraint_workers import ConstraintWorkers
from layerscale_server.generation import AsyncEngine
from layerscale_server.http.app import create_app
from layerscale_server.http.process import make_uvicorn
from layerscale_server.limits import Limits
from layerscale_server.logging import configure_logging
from layerscale_server.metrics import Metrics
from layerscale_server.response_cache import ResponseCache
from layerscale_server.serve import bind
from layerscale_server.settings import Settings
from layerscale_server.state import LoadedModel, ServerState, digest_of
from tests.support.fake_executor import FakeExecutor, greedy_answer
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.stream_entries import STREAM_TYPES

CONTEXT_LEN = 256
PAGE_SIZE = 16
MODEL_ID = "acme/tiny"
PRO_KEY = "pro-key-0123456789"

_ATTENTION = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=8, scale=1.0, rope=RopeSpec((1.0,) * 4))
SPEC = ModelSpec(
    architecture="fake",
    vocab_size=ByteTokenizer.vocab_size,
    hidden_size=32,
    max_context_len=CONTEXT_LEN,
    norm_eps=1e-5,
    layers=(LayerSpec(_ATTENTION, MlpSpec(64)),) * 2,
    tied_output=True,
    num_parameters=1234,
)


Result = TypeVar("Result")


class FakeTemplate:
    """Renders a conversation as ``role:content;`` after the text of BOS; refuses one that says "refuse me".

    Tools are ``tools:[…];`` before that, and calls are written after the content as Hermes does.
    """

    source = "rendered in Python"
    variables: frozenset[str] = frozenset()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **_kwargs: Any,
    ) -> str:
        if any(message["content"] == "refuse me" for message in messages):
            raise InvalidRequestError("the chat template refuses this conversation", param="messages")
        text = f"tools:{json.dumps(tools)};" if tools else ""
        text += "".join(f"{message['role']}:{message['content']}{self._calls(message)};" for message in messages)
        return f"<bos>{text}" + ("assistant:" if add_generation_prompt else "")

    @staticmethod
    def _calls(message: Mapping[str, Any]) -> str:
        calls = [call["function"] for call in message.get("tool_calls", ())]
        return "\n".join(hermes_call(call["name"], call["arguments"]) for call in calls)


def hermes_call(name: str, arguments: Any) -> str:
    """A call as ``FakeTemplate`` and models of its kind write it."""
    return f'<tool_call>\n{{"name": "{name}", "arguments": {json.dumps(arguments)}}}\n</tool_call>'


def make_template(source: str | None) -> Template:
    """A template from its Jinja source, or the fake one."""
    return (
        FakeTemplate()
        if source is None
        else ChatTemplate(source, bos="", eos="", limits=TemplateLimits(max_render_s=30))  # on a busy machine too
    )


@dataclass
class FakeServer:
    """The application under test, what it is made of, and a client for it."""

    state: ServerState
    app: FastAPI
    engine: Engine
    executor: FakeExecutor
    sessions: Sessions

    def is_quiet(self) -> bool:
        """Whether nothing is being computed or waits to be."""
        return not self.engine.stats().has_work and not any(session.view.num_pending for session in self.sessions.all())

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request, in process."""
        return self.run(lambda client: client.request(method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.request("POST", path, json=body, **options)

    def chunks(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The chunks of a streamed answer, which must end with ``[DONE]``."""
        response = self.post(path, body | {"stream": True})
        assert response.status_code == 200, response.text
        frames = [frame for frame in response.text.split("\n\n") if frame and not frame.startswith(":")]
        assert all(frame.startswith("data: ") for frame in frames)
        assert frames[-1] == "data: [DONE]"
        return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-1]]

    def run(self, work: Callable[[httpx.AsyncClient], Coroutine[Any, Any, Result]]) -> Result:
        """Several requests on one event loop, in process."""

        async def with_client() -> Result:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://test") as client:
                return await work(client)

        return asyncio.run(with_client())


MakeServer = Callable[..., FakeServer]


def text_of(token_ids: Sequence[int]) -> str:
    return ByteTokenizer().decode(token_ids)


def greedy_text(prompt: Sequence[int], num_tokens: int) -> str:
    """What the fake model answers with temperature 0."""
    return text_of(greedy_answer(prompt, num_tokens))


def chat_prompt(*messages: tuple[str, str]) -> list[int]:
    """The token ids of a conversation as ``FakeTemplate`` writes it, with one BOS."""
    rendered = "".join(f"{role}:{content};" for role, content in messages) + "assistant:"
    return [ByteTokenizer.BOS_ID, *rendered.encode()]


def make_plan(context_len: int, max_burst_slots: int, num_sessions: int = 0) -> MemoryPlan:
    return plan_memory(SPEC, MemoryRequest(context_len, num_sessions, max_burst_slots, 0, 1 << 30, PAGE_SIZE))


@pytest.fixture(autouse=True)
def logs() -> Iterator[io.StringIO]:
    """What the server logs, as JSON; the logging of the process is as before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    yield stream
    root.handlers, root.level = handlers, level


def make_constraints(tokenizer: ByteTokenizer, limits: Limits) -> ConstraintWorkers:
    bounds = GrammarLimits(limits.grammar_bytes, limits.grammar_depth, limits.grammar_rules)
    return ConstraintWorkers(ConstraintCompiler(tokenizer, bounds), limits.grammar_compile_s)


def keep_in(directory: Path, sessions: Sessions, executor: FakeExecutor) -> SavedSessions:
    fingerprint = Fingerprint("a fake", "bytes", executor.kv_fingerprint)
    return SavedSessions(
        sessions, executor, StateDirectory(directory), fingerprint, vocab_size=ByteTokenizer.vocab_size
    )


@pytest.fixture
def make_server() -> Iterator[MakeServer]:
    """Makes servers; options are those of the inner function and fields of ``Limits``."""
    servers: list[FakeServer] = []

    def make(
        *,
        tier: Tier = FREE_TIER,
        license_key: str = "",
        expires_at: float | None = None,
        has_model: bool = True,
        has_template: bool = True,
        template: str | None = None,
        tokenizer: ByteTokenizer | None = None,
        max_waiting: int = 1024,
        alphabet: Sequence[int] | None = None,
        context_len: int = CONTEXT_LEN,
        devices: tuple[DeviceInfo, ...] = (),
        num_sessions: int = 0,
        state_dir: Path | None = None,
        adopts: bool = False,
        response_cache_bytes: int | None = None,
        **limits: Any,
    ) -> FakeServer:
        settings = Settings(model="unused", limits=replace(Limits(), **limits))
        plan = make_plan(context_len, tier.max_burst_slots, num_sessions)
        layout = plan.layout
        words = {} if alphabet is None else {"alphabet": alphabet}
        tokenizer = tokenizer or ByteTokenizer()
        executor = FakeExecutor(layout.num_pages, PAGE_SIZE, tokenizer.vocab_size, **words)
        pool = PagedKVPool(layout.num_pages, PAGE_SIZE, layout.num_session_pages)
        metrics = Metrics()
        engine = Engine(
            executor,
            tokenizer,
            pool,
            FairPolicy(),
            EngineLimits(max_context_len=context_len, max_running=tier.max_burst_slots, max_waiting=max_waiting),
            observer=metrics,
        )
        sessions = Sessions(
            engine,
            executor,
            pool,
            tokenizer,
            stream_types=STREAM_TYPES,
            limits=SessionLimits(num_sessions, context_len, settings.limits.ring_entries, max_waiting=max_waiting),
        )
        saved = None if state_dir is None else keep_in(state_dir, sessions, executor)
        metrics.watch_engine(engine.stats, PAGE_SIZE)
        metrics.watch_sessions(sessions)
        responses = None if response_cache_bytes is None else ResponseCache(response_cache_bytes)
        if responses is not None:
            metrics.watch_responses(responses.stats)
        state = ServerState(settings, License(tier, expires_at), metrics, digest_of(license_key.encode()))
        if has_model:
            state.model = LoadedModel(
                model_id=MODEL_ID,
                spec=SPEC,
                size_bytes=5678,
                tokenizer=tokenizer,
                dialogue=Dialogue(make_template(template), tokenizer) if has_template else None,
                engine=AsyncEngine(engine, settings.limits.stream_events, responses),
                sessions=sessions,
                plan=plan,
                devices=devices,
                max_tokens_per_step=512,
                created=1_750_000_000,
                constraints=make_constraints(tokenizer, settings.limits),
                saved=saved,
                adoption=Adoption(sessions, engine, "event") if adopts else None,
            )
        engine.start()
        sessions.start()
        servers.append(FakeServer(state, create_app(state), engine, executor, sessions))
        return servers[-1]

    yield make
    for server in servers:
        if server.state.model is not None:
            server.state.model.constraints.close()
        if server.state.model is not None and server.state.model.saved is not None:
            server.state.model.saved.close()
        for session in server.sessions.all():
            server.sessions.delete(session.session_id).result(30)
        server.sessions.stop()
        server.engine.stop()
        assert not server.executor.violations, server.executor.violations
        server.engine._pool.check_integrity()
        pages = server.engine.stats().pool
        assert pages.free_pages + pages.cached_pages == pages.total_pages


@pytest.fixture
def server(make_server: MakeServer) -> FakeServer:
    """A server of the free tier with a model."""
    return make_server()


class Gate:
    """Holds the fake model's steps until it is opened."""

    def __init__(self, executor: FakeExecutor) -> None:
        self._open = threading.Event()
        self._reached = threading.Event()
        self._steps = itertools.count()
        executor.before_step = self._pass

    def _pass(self, _batch: object) -> None:
        self._reached.set()
        assert self._open.wait(30), "the gate was never opened"

    def wait_until_reached(self) -> None:
        assert self._reached.wait(30), "no step was begun"

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def run_live() -> Iterator[Callable[[ServerState], str]]:
    """Serves a state on a real socket, with the limits of the edge; returns the address."""
    stops: list[Callable[[], None]] = []

    def run(state: ServerState) -> str:
        listener = bind("127.0.0.1", 0)
        uvicorn_server = make_uvicorn(state)
        thread = threading.Thread(target=uvicorn_server.run, kwargs={"sockets": [listener]})
        thread.start()

        def stop() -> None:
            uvicorn_server.should_exit = True
            thread.join(30)
            assert not thread.is_alive(), "the HTTP server did not end"

        stops.append(stop)
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield run
    for stop in stops:
        stop()
