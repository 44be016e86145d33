"""The version of the distribution and of the plugin specification."""

__version__ = "0.1.0"

SPEC_VERSION = 1
"""Version of the hooks and protocols in ``layerscale_core.specs``; core accepts plugins of it and of the one before."""
