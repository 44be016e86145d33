"""A stream type for LayerScale: observations of weather stations."""
