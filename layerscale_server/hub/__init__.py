"""Where a model comes from: a local path, or a repository of the Hugging Face hub."""

from layerscale_server.hub.resolve import ResolvedModel, resolve_headers, resolve_model

__all__ = ["ResolvedModel", "resolve_headers", "resolve_model"]
