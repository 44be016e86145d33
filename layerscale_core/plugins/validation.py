"""What makes a plugin acceptable: found out before it is registered, so that a broken one never gets in."""

from __future__ import annotations

import difflib
import inspect

import pluggy

from layerscale_core.errors import PluginError
from layerscale_core.plugins.plugin import Plugin
from layerscale_core.specs import PROJECT_NAME, hooks
from layerscale_core.version import SPEC_VERSION

_HOOK_PREFIX = f"{PROJECT_NAME}_"


def make_manager() -> pluggy.PluginManager:
    """A plugin manager that knows the hooks and no plugin."""
    manager = pluggy.PluginManager(PROJECT_NAME)
    manager.add_hookspecs(hooks)
    return manager


def validate(plugin: Plugin, implementation: object) -> None:
    """Fill in what a plugin declares.

    Raises:
        PluginError: it declares no spec version that core accepts, or a hook that is none.
        pluggy.PluginValidationError: a hook asks for arguments that it does not get.
    """
    _check_spec_version(plugin, implementation)
    manager = make_manager()
    manager.register(implementation)
    callers = manager.get_hookcallers(implementation) or []
    _check_hook_names(manager, implementation, {caller.name for caller in callers if not caller.has_spec()})
    if not callers:
        raise PluginError("implements no hook")
    plugin.hooks = tuple(sorted(caller.name for caller in callers))


def _check_spec_version(plugin: Plugin, implementation: object) -> None:
    version = getattr(implementation, "LAYERSCALE_SPEC_VERSION", None)
    if type(version) is not int:
        raise PluginError("declares no LAYERSCALE_SPEC_VERSION (an integer)")
    plugin.spec_version = version
    if version == SPEC_VERSION - 1:
        plugin.notice = f"written for spec version {version}, which the next release drops; {SPEC_VERSION} is current"
    elif version != SPEC_VERSION:
        raise PluginError(
            f"written for spec version {version}; this build accepts {SPEC_VERSION} and {SPEC_VERSION - 1}"
        )


def _check_hook_names(manager: pluggy.PluginManager, implementation: object, unknown: set[str]) -> None:
    if unknown:
        raise PluginError("; ".join(f"unknown hook {name!r}{_suggestion(name)}" for name in sorted(unknown)))
    for name, _ in inspect.getmembers(implementation, inspect.isroutine):
        if name.startswith(_HOOK_PREFIX) and manager.parse_hookimpl_opts(implementation, name) is None:
            raise PluginError(f"{name!r} is not marked with @hookimpl")


def _suggestion(name: str) -> str:
    known = [hook for hook in vars(hooks) if hook.startswith(_HOOK_PREFIX)]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)  # they all share a prefix
    return f" (did you mean {close[0]!r}?)" if close else ""
