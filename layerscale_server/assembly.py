"""From settings to a model that can be asked: plugins chosen, file opened, memory planned, engine started.

What reads and writes the model's text is built while its weights are packed, which leaves the interpreter's lock.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from layerscale_core.chat_template import ChatTemplate
from layerscale_core.constraints import ConstraintCompiler, GrammarLimits
from layerscale_core.dialogue import Dialogue
from layerscale_core.engine import Engine, EngineLimits
from layerscale_core.forward import make_executor
from layerscale_core.models.quantize import Quantization
from layerscale_core.plugins import PluginRegistry
from layerscale_core.sessions import Adoption, Fingerprint, SavedSessions, SessionLimits, Sessions, StateDirectory
from layerscale_core.specs import Executor, KVPool, ModelFile, Tier, Tokenizer
from layerscale_core.tokenizers.fingerprint import tokenizer_fingerprint
from layerscale_server.constraint_workers import ConstraintWorkers
from layerscale_server.freed_memory import return_freed_memory
from layerscale_server.generation import AsyncEngine
from layerscale_server.hub import resolve_model
from layerscale_server.logging import AS_TABLE, get_logger
from layerscale_server.metrics import Metrics
from layerscale_server.placement import Site
from layerscale_server.plan_report import plan_fields, plan_lines, plan_warnings
from layerscale_server.planning import StartPlan, backend_options, notices, plan_start
from layerscale_server.response_cache import ResponseCache
from layerscale_server.settings import Settings
from layerscale_server.state import LoadedModel

logger = get_logger("layerscale.start")

_ADOPTED_TYPE = "event"
"""The stream type of sessions that are adopted for conversations; it counts only if somebody pushes data to one."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """What was built for one model."""

    model: LoadedModel
    engine: Engine
    sessions: Sessions
    executor: Executor
    file: ModelFile

    def close(self) -> None:
        """End the engine, save the sessions and free the device.

        Where a step hangs nothing can be read from the device any more, and the end of the process frees it.
        """
        self.model.constraints.close()
        self.sessions.stop()
        self.engine.stop()
        stats = self.engine.stats()
        if not stats.has_work:
            if self.model.saved is not None:
                self._save(self.model.saved, is_sound=stats.healthy)
            self.executor.close()
            self.file.close()

    def _save(self, saved: SavedSessions, *, is_sound: bool) -> None:
        if is_sound:
            saved.save_all()
        else:
            logger.error("the engine failed: sessions are not saved, and those that were stay as they were")
        saved.close()


@dataclass(frozen=True, slots=True)
class _Language:
    """What reads and writes a model's text."""

    tokenizer: Tokenizer
    dialogue: Dialogue | None
    constraints: ConstraintWorkers


@dataclass(frozen=True, slots=True)
class Assembler:
    """Builds what was asked for. Takes its time: not on the event loop."""

    settings: Settings
    registry: PluginRegistry
    tier: Tier
    metrics: Metrics

    def assemble(self) -> Assembly:
        """Load the model, start its engine, and make room for sessions.

        Raises:
            StartupError: with what is wrong and what to do.
        """
        for notice in notices(self.settings, self.tier):
            logger.warning(notice)
        if self.settings.backend is not None:
            self.registry.choose_backend(self.settings.backend)  # what cannot serve is found before a model is fetched
        with contextlib.ExitStack() as undo, ThreadPoolExecutor(1, "layerscale-load-text") as beside:
            directory = StateDirectory(Path(self.settings.state_dir)) if self.settings.state_dir else None
            if directory is not None:
                undo.callback(directory.close)
            wants_bars = self.settings.log_format == "text"
            resolved = resolve_model(self.settings.model, self.registry, progress=wants_bars)
            file = self.registry.open_model(resolved.path, quantization=Quantization(self.settings.quantization))
            undo.callback(file.close)
            reading = beside.submit(self._make_language, file)
            chosen = self.registry.choose_backend(self.settings.backend, file)
            device = chosen.load(backend_options(self.settings, chosen.backend))
            for notice in (*self.registry.notices(), *device.notices):
                logger.warning(notice)
            start = plan_start(self.settings, self.tier, file, Site(chosen.backend, device), self.registry)
            _log_plan(start)
            host = start.placement.host
            host_layers = host.make_host_layers() if host else None
            executor = make_executor(device, file.spec, file.weights, start.memory.layout, host_layers)
            undo.callback(executor.close)
            language = reading.result()
            undo.callback(language.constraints.close)
            tokenizer = language.tokenizer
            pool = self.registry.make_kv_pool(start.memory.layout)
            engine = self._make_engine(start, executor, tokenizer, pool)
            sessions = self._make_sessions(start, engine, executor, tokenizer, pool)
            saved = None
            if directory is not None:
                saved = _make_saved(directory, sessions, executor, file, tokenizer)
                saved.restore_all()
            undo.pop_all()
        engine.start()
        sessions.start()
        model = LoadedModel(
            model_id=self.settings.model_name or resolved.model_id,
            spec=file.spec,
            size_bytes=file.size_bytes,
            tokenizer=tokenizer,
            dialogue=language.dialogue,
            engine=AsyncEngine(engine, self.settings.limits.stream_events, self._make_response_cache()),
            sessions=sessions,
            plan=start.memory,
            devices=device.infos,
            max_tokens_per_step=start.limits.max_tokens,
            created=int(time.time()),
            constraints=language.constraints,
            saved=saved,
            adoption=Adoption(sessions, engine, _ADOPTED_TYPE) if self.settings.adopt_sessions == "on" else None,
        )
        return Assembly(model, engine, sessions, executor, file)

    def _make_language(self, file: ModelFile) -> _Language:
        tokenizer = file.make_tokenizer()
        return_freed_memory()  # before more is taken, so that the peak is lower as well
        asked = self.settings.limits
        limits = GrammarLimits(asked.grammar_bytes, asked.grammar_depth, asked.grammar_rules)
        compiler = ConstraintCompiler(tokenizer, limits)
        compiler.prepare()  # it holds the interpreter's lock, so nobody is served before
        return_freed_memory()
        return _Language(tokenizer, _dialogue(file, tokenizer), ConstraintWorkers(compiler, asked.grammar_compile_s))

    def _engine_limits(self, start: StartPlan) -> EngineLimits:
        asked, context_len = self.settings.limits, start.memory.context_len
        return EngineLimits(
            max_context_len=context_len,
            max_running=self.tier.max_burst_slots,
            max_waiting=asked.waiting_requests,
            max_waiting_prompt_tokens=asked.waiting_contexts * context_len,
            max_tokens_per_step=start.limits.max_tokens,
            max_logits_per_step=start.limits.max_logits,
            max_logprobs=asked.top_logprobs,
        )

    def _make_engine(self, start: StartPlan, executor: Executor, tokenizer: Tokenizer, pool: KVPool) -> Engine:
        engine = Engine(
            executor,
            tokenizer,
            pool,
            self.registry.make_scheduler_policy(),
            self._engine_limits(start),
            shares_prefixes=self.settings.prefix_cache == "on",
            looks_up_prompts=self.settings.prompt_lookup == "on",
            observer=self.metrics,
        )
        self.metrics.watch_engine(engine.stats, pool.page_size)
        return engine

    def _make_response_cache(self) -> ResponseCache | None:
        if not self.settings.response_cache_mib:
            return None
        cache = ResponseCache(self.settings.response_cache_mib << 20)
        self.metrics.watch_responses(cache.stats)
        return cache

    def _make_sessions(
        self, start: StartPlan, engine: Engine, executor: Executor, tokenizer: Tokenizer, pool: KVPool
    ) -> Sessions:
        limits = SessionLimits(
            max_sessions=start.memory.request.num_sessions,
            max_context_len=start.memory.context_len,
            ring_capacity=self.settings.limits.ring_entries,
            max_waiting=self.settings.limits.waiting_requests,
            batch_tokens=start.limits.max_tokens,
        )
        stream_types = self.registry.stream_types()
        sessions = Sessions(engine, executor, pool, tokenizer, stream_types=stream_types, limits=limits)
        self.metrics.watch_sessions(sessions)
        return sessions


def _make_saved(
    directory: StateDirectory, sessions: Sessions, executor: Executor, file: ModelFile, tokenizer: Tokenizer
) -> SavedSessions:
    fingerprint = Fingerprint(file.fingerprint, tokenizer_fingerprint(tokenizer), executor.kv_fingerprint)
    return SavedSessions(sessions, executor, directory, fingerprint, vocab_size=file.spec.vocab_size)


def _log_plan(start: StartPlan) -> None:
    """Say what will be loaded where, and how much memory it takes, before it is."""
    for warning in plan_warnings(start):
        logger.warning(warning)
    logger.info("memory plan", **{AS_TABLE: plan_lines(start)}, **plan_fields(start))


def _dialogue(file: ModelFile, tokenizer: Tokenizer) -> Dialogue | None:
    if file.chat_template is None:
        logger.warning("the model has no chat template: /v1/completions serves it, /v1/chat/completions does not")
        return None

    def text_of(token_id: int | None) -> str:
        return "" if token_id is None else tokenizer.token_text(token_id)

    template = ChatTemplate(file.chat_template, bos=text_of(tokenizer.bos_id), eos=text_of(tokenizer.eos_id))
    dialogue = Dialogue(template, tokenizer)
    logger.info("chat", tool_calls=dialogue.tool_format.syntax.name, reasoning=dialogue.markers is not None)
    return dialogue
