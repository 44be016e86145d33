"""``python -m layerscale_server`` is the ``layerscale`` command."""

from layerscale_server.cli import main

main()
