"""A backend for LayerScale that pretends to be a GPU with as much memory as you like."""
