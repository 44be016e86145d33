"""The vendor-neutral half of LayerScale: the specs that plugins implement, and the engine built only on them.

Importing this package loads neither torch, nor a web framework, nor a backend.
"""

from layerscale_core.version import SPEC_VERSION, __version__

__all__ = ["SPEC_VERSION", "__version__"]
