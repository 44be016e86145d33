"""From settings to a model that can be asked: plugins chosen, file opened, memory planned, engine started."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from layerscale_core.chat_template import ChatTemplate
from layerscale_core.engine import Engine, EngineLimits
from layerscale_core.errors import StartupError
from layerscale_core.forward import make_executor
from layerscale_core.memory_plan import MemoryPlan, MemoryRequest, plan_memory
from layerscale_core.models import ModelSpec
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import Backend, BackendOptions, Device, Executor, ModelFile, Tier, Tokenizer
from layerscale_server.generation import AsyncEngine
from layerscale_server.hub import resolve_model
from layerscale_server.logging import get_logger
from layerscale_server.metrics import Metrics
from layerscale_server.plan_report import log_plan
from layerscale_server.settings import MAX_CONTEXT_LEN, Settings, ignored_flags
from layerscale_server.state import LoadedModel

_TOKENS_PER_STEP = 512
"""Token budget of a step: prefill runs near its best from here on, and a running answer waits for no more than this."""

logger = get_logger("layerscale.start")


@dataclass(frozen=True, slots=True)
class Assembly:
    """What was built for one model."""

    model: LoadedModel
    engine: Engine
    executor: Executor
    file: ModelFile

    def close(self) -> None:
        """End the engine and free the device, unless a step hangs there: then the end of the process frees it."""
        self.engine.stop()
        if not self.engine.stats().has_work:
            self.executor.close()
            self.file.close()


@dataclass(frozen=True, slots=True)
class Assembler:
    """Builds what was asked for. Takes its time: not on the event loop."""

    settings: Settings
    registry: PluginRegistry
    tier: Tier
    metrics: Metrics

    def assemble(self) -> Assembly:
        """Load the model and start its engine.

        Raises:
            StartupError: with what is wrong and what to do.
        """
        self._warn_of_ignored_flags()
        chosen = self.registry.choose_backend(self.settings.backend)
        resolved = resolve_model(self.settings.model, progress=self.settings.log_format == "text")
        with contextlib.ExitStack() as undo:
            file = self.registry.open_model(resolved.path)
            undo.callback(file.close)
            context_len = self._context_len(file.spec)
            tokenizer = file.make_tokenizer()
            chat_template = _chat_template(file, tokenizer)
            device = chosen.load(BackendOptions(self.settings.threads))
            for notice in (*self.registry.notices(), *device.notices):
                logger.warning(notice)
            plan = self._plan(file, chosen.backend, device, context_len)
            log_plan(plan, file, chosen.backend.name, device)
            executor = make_executor(device, file.spec, file.weights, plan.layout)
            undo.callback(executor.close)
            limits = self._engine_limits(plan, chosen.backend)
            engine = self._start_engine(plan, executor, tokenizer, limits)
            undo.pop_all()
        model = LoadedModel(
            model_id=self.settings.model_name or resolved.model_id,
            spec=file.spec,
            size_bytes=file.size_bytes,
            tokenizer=tokenizer,
            chat_template=chat_template,
            engine=AsyncEngine(engine, self.settings.limits.stream_events),
            plan=plan,
            devices=device.infos,
            max_tokens_per_step=limits.max_tokens_per_step,
            created=int(time.time()),
        )
        return Assembly(model, engine, executor, file)

    def _warn_of_ignored_flags(self) -> None:
        if flags := ignored_flags(self.settings):
            logger.warning(f"{', '.join(flags)}: takes effect in a later version and changes nothing now")
        if self.settings.sessions > self.tier.max_sessions:
            logger.warning(
                f"--sessions {self.settings.sessions} is more than the {self.tier.name} tier's limit of "
                f"{self.tier.max_sessions}, which holds instead"
            )

    def _context_len(self, spec: ModelSpec) -> int:
        wanted, trained = self.settings.context, spec.max_context_len
        if wanted > trained:
            raise StartupError(
                f"--context {wanted} is more than the {trained} tokens the model was trained for; "
                f"give at most {trained}, or 0 for just that"
            )
        return wanted or min(trained, MAX_CONTEXT_LEN)

    def _plan(self, file: ModelFile, backend: Backend, device: Device, context_len: int) -> MemoryPlan:
        request = MemoryRequest(
            context_len=context_len,
            num_sessions=0,
            max_burst_slots=self.tier.max_burst_slots,
            weights_bytes=file.size_bytes,
            available_bytes=min(device.allocator.stats().free_bytes, device.infos[0].free_memory_bytes),
            page_size=backend.capabilities.page_sizes[0],
        )
        return plan_memory(file.spec, request)

    def _engine_limits(self, plan: MemoryPlan, backend: Backend) -> EngineLimits:
        asked = self.settings.limits
        return EngineLimits(
            max_context_len=plan.context_len,
            max_running=self.tier.max_burst_slots,
            max_waiting=asked.waiting_requests,
            max_waiting_prompt_tokens=asked.waiting_contexts * plan.context_len,
            max_tokens_per_step=min(_TOKENS_PER_STEP, backend.capabilities.max_tokens_per_step or _TOKENS_PER_STEP),
            max_logprobs=asked.top_logprobs,
        )

    def _start_engine(self, plan: MemoryPlan, executor: Executor, tokenizer: Tokenizer, limits: EngineLimits) -> Engine:
        pool = self.registry.make_kv_pool(plan.layout)
        policy = self.registry.make_scheduler_policy()
        engine = Engine(
            executor,
            tokenizer,
            pool,
            policy,
            limits,
            shares_prefixes=self.settings.prefix_cache == "on",
            observer=self.metrics,
        )
        self.metrics.watch_engine(engine.stats, plan.layout.page_size)
        engine.start()
        return engine


def _chat_template(file: ModelFile, tokenizer: Tokenizer) -> ChatTemplate | None:
    if file.chat_template is None:
        logger.warning("the model has no chat template: /v1/completions serves it, /v1/chat/completions does not")
        return None

    def text_of(token_id: int | None) -> str:
        return "" if token_id is None else tokenizer.token_text(token_id)

    return ChatTemplate(file.chat_template, bos=text_of(tokenizer.bos_id), eos=text_of(tokenizer.eos_id))
