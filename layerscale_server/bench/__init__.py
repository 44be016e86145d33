"""What ``layerscale bench`` measures with; nothing that serves imports it."""
