"""Plugins: found through entry points, checked at start, and asked for what they bring."""

from layerscale_core.plugins.backend_choice import ChosenBackend, RejectedBackend
from layerscale_core.plugins.plugin import Contribution, Plugin
from layerscale_core.plugins.registry import PluginRegistry

__all__ = ["ChosenBackend", "Contribution", "Plugin", "PluginRegistry", "RejectedBackend"]
