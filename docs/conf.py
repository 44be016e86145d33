"""Sphinx configuration. The tables of settings and limits come from the rows that the command line is made of."""

from __future__ import annotations

from layerscale_core.version import __version__
from layerscale_server.rows import markdown_table
from layerscale_server.settings import LIMIT_ROWS, SETTING_ROWS

project = "LayerScale"
author = "the LayerScale authors"
project_copyright = "the LayerScale authors"
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "LayerScale"

myst_enable_extensions = ["substitution"]
myst_heading_anchors = 3
myst_substitutions = {
    "setting_table": markdown_table(SETTING_ROWS),
    "limit_table": markdown_table(LIMIT_ROWS, spelling="name"),
}

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True
