"""The subcommands of ``layerscale``."""
