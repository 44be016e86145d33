"""The plugin registry: who is there, and what they bring."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from layerscale_core.errors import BackendError, LayerScaleError, PluginError
from layerscale_core.models.quantize import Quantization
from layerscale_core.plugins.backend_choice import ChosenBackend, choose_backend
from layerscale_core.plugins.plugin import Contribution, Plugin, one_line
from layerscale_core.plugins.validation import make_manager, validate
from layerscale_core.quantized_model import quantized
from layerscale_core.specs import (
    ENTRY_POINT_GROUP,
    Backend,
    KVLayout,
    KVPool,
    LicenseVerifier,
    ModelFile,
    ModelFormat,
    OffloadPlanner,
    SchedulerPolicy,
    StreamType,
)

logger = logging.getLogger(__name__)

_NAMED = {"layerscale_backends", "layerscale_model_formats", "layerscale_stream_types"}
"""Hooks whose objects have a ``name``."""


class PluginRegistry:
    """The plugins of one process. A broken one is recorded with its cause and left out; it harms only who selects it.

    Every hook is called once, when its result is first asked for.
    """

    def __init__(self) -> None:
        self._manager = make_manager()
        self._plugins: list[Plugin] = []
        self._registered: dict[str, Plugin] = {}  # by their name in the manager
        self._collected: dict[str, list[Contribution[Any]]] = {}

    @classmethod
    def discover(cls) -> PluginRegistry:
        """The installed plugins: every entry point of the group ``layerscale.plugins``."""
        registry = cls()
        for entry_point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda found: found.name):
            registry.load(entry_point)
        return registry

    def load(self, entry_point: EntryPoint) -> Plugin:
        """Import and register what an entry point names."""
        distribution = entry_point.dist
        brought_by = f"{distribution.name} {distribution.version}" if distribution else "no distribution"
        try:
            implementation = entry_point.load()
        except (Exception, SystemExit) as error:
            return self._record(Plugin(entry_point.name, brought_by, cause=f"cannot be imported: {one_line(error)}"))
        return self.register(implementation, entry_point.name, brought_by)

    def register(self, implementation: object, name: str, distribution: str) -> Plugin:
        """Check a module or object that implements hooks, and take it in unless it is broken."""
        plugin = Plugin(name, distribution)
        try:
            validate(plugin, implementation)
            hash(implementation)  # pluggy keeps plugins in sets: one that cannot be in any would break the others
            self._manager.register(implementation, name=str(plugin))
            self._registered[str(plugin)] = plugin
        except PluginError as error:
            plugin.cause = str(error)
        except Exception as error:  # pluggy's own complaints, and whatever a plugin does when it is looked at
            plugin.cause = one_line(error)
        return self._record(plugin)

    def _record(self, plugin: Plugin) -> Plugin:
        self._plugins.append(plugin)
        return plugin

    # What was found

    def plugins(self) -> Sequence[Plugin]:
        """All that were found, the broken ones too."""
        return tuple(self._plugins)

    def notices(self) -> list[str]:
        """Lines for the log at start: who is broken, and who will be."""
        broken = [f"plugin {plugin} is broken and left out: {plugin.cause}" for plugin in self._plugins if plugin.cause]
        return broken + [f"plugin {plugin}: {plugin.notice}" for plugin in self._plugins if plugin.notice]

    # What they bring

    def backends(self) -> Sequence[Contribution[Backend]]:
        """Every backend.

        Raises:
            PluginError: two have one name.
        """
        return self._collect_unique("layerscale_backends", "backend")

    def choose_backend(self, name: str | None = None, model: ModelFile | None = None) -> ChosenBackend:
        """The backend of that name, or the one whose probe has the highest score; see ``choose_backend``.

        Args:
            model: what it must compute: some have a backend of their own.

        Raises:
            BackendError: also where another is named than the model's own.
        """
        own = None if model is None else self._first_answer("layerscale_backend_of_model", model=model)
        if own is None or model is None:
            return choose_backend(self.backends(), name, self._plugins)
        if name not in (None, own.item.name):
            raise BackendError(
                f"--backend {name} cannot compute {model.name}, {own.item.name} can; leave --backend out"
            )
        return choose_backend([own], own.item.name, self._plugins)

    def choose_host_backend(self) -> ChosenBackend:
        """Of those that compute on the host, the one whose probe has the highest score; see ``choose_backend``."""
        hosts = [found for found in self.backends() if found.item.capabilities.is_host]
        return choose_backend(hosts, None, self._plugins)

    def stream_types(self) -> dict[str, StreamType]:
        """Every session type by name.

        Raises:
            PluginError: two have one name.
        """
        return {found.item.name: found.item for found in self._collect_unique("layerscale_stream_types", "stream type")}

    def model_formats(self) -> Sequence[ModelFormat]:
        """Every model format, in the order in which they are asked."""
        return [found.item for found in self._collect("layerscale_model_formats")]

    def open_model(
        self, path: Path, *, metadata_only: bool = False, quantization: Quantization = Quantization.NONE
    ) -> ModelFile:
        """Open a model with the first format that recognises it.

        Args:
            metadata_only: see ``ModelFormat.open``.
            quantization: what becomes of weights in floats.

        Raises:
            UnsupportedModelError: it cannot be run, or there are no weights in floats to quantise.
            ModelFileError: it cannot be read, none recognises it, or it is corrupt.
        """
        from layerscale_core.formats import open_model  # noqa: PLC0415 (the plugins alone are listed without it)

        return quantized(open_model(path, self.model_formats(), metadata_only=metadata_only), quantization)

    def license_verifiers(self) -> Sequence[LicenseVerifier]:
        """Everyone who can read a licence key, in the order in which they are asked."""
        return [found.item for found in self._collect("layerscale_license_verifiers")]

    def make_kv_pool(self, layout: KVLayout) -> KVPool:
        """The pool's bookkeeping, from the first plugin that makes one."""
        pool: KVPool = self._first("layerscale_make_kv_pool", layout=layout)
        return pool

    def make_scheduler_policy(self) -> SchedulerPolicy:
        """The scheduler policy, from the first plugin that makes one."""
        policy: SchedulerPolicy = self._first("layerscale_make_scheduler_policy")
        return policy

    def make_offload_planner(self) -> OffloadPlanner:
        """The offload planner, from the first plugin that makes one."""
        planner: OffloadPlanner = self._first("layerscale_make_offload_planner")
        return planner

    # How hooks are called: one plugin at a time, so that an error has a name

    def _collect(self, hook_name: str) -> list[Contribution[Any]]:
        if hook_name not in self._collected:
            self._collected[hook_name] = list(self._ask_all(hook_name))
        return self._collected[hook_name]

    def _collect_unique(self, hook_name: str, kind: str) -> list[Contribution[Any]]:
        contributions = self._collect(hook_name)
        owners: dict[str, Plugin] = {}
        for found in contributions:
            name = found.item.name
            if name in owners:
                raise PluginError(f"two plugins bring a {kind} named {name!r}: {owners[name]} and {found.plugin}")
            owners[name] = found.plugin
        return contributions

    def _ask_all(self, hook_name: str) -> Iterator[Contribution[Any]]:
        for plugin in self._implementers(hook_name):
            try:
                items = [item for answer in self._ask(plugin, hook_name) for item in answer]
                if hook_name in _NAMED:
                    _check_names(items)
            except Exception as error:
                plugin.cause = f"{hook_name} failed: {one_line(error)}"
                continue
            yield from (Contribution(plugin, item) for item in items)

    def _first(self, hook_name: str, **arguments: object) -> Any:
        answer = self._first_answer(hook_name, **arguments)
        if answer is None:
            raise PluginError(f"no plugin serves {hook_name}")
        logger.info("%s is served by plugin %s", hook_name, answer.plugin)
        return answer.item

    def _first_answer(self, hook_name: str, **arguments: object) -> Contribution[Any] | None:
        for plugin in self._implementers(hook_name):
            try:
                result = self._ask(plugin, hook_name, **arguments)
            except LayerScaleError:
                raise
            except Exception as error:
                raise PluginError(f"plugin {plugin} is broken: {hook_name} failed: {one_line(error)}") from error
            if result is not None:
                return Contribution(plugin, result)
        return None

    def _implementers(self, hook_name: str) -> Iterable[Plugin]:
        """The working plugins that implement a hook, in call order: the last registered first, ``trylast`` last."""
        implementations = getattr(self._manager.hook, hook_name).get_hookimpls()
        plugins = [self._registered[implementation.plugin_name] for implementation in reversed(implementations)]
        return [plugin for plugin in plugins if plugin.cause is None]

    def _ask(self, plugin: Plugin, hook_name: str, **arguments: object) -> Any:
        others = [found for name, found in self._manager.list_name_plugin() if name != str(plugin)]
        return self._manager.subset_hook_caller(hook_name, others)(**arguments)


def _check_names(items: Iterable[Any]) -> None:
    for item in items:
        if not isinstance(item.name, str) or not item.name:
            raise TypeError(f"{type(item).__name__}.name is not a text")
