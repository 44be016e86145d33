"""The page of models names every family, and only those."""

from __future__ import annotations

import re
from pathlib import Path

from layerscale_core.models.families import FAMILIES

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_the_table_is_that_of_the_code() -> None:
    row = re.compile(r"^\| (\w+) \| (?:`(\w+)` )?\| ((?:`\w+`(?:, )?)+) \|", re.MULTILINE)
    documented = [(name, gguf, tuple(re.findall(r"\w+", types))) for name, gguf, types in row.findall(PAGE.read_text())]
    by_another_name = {"mistral": "llama", "mixtral": "llama", "glm": ""}
    assert documented == [(f.name, f.gguf or by_another_name[f.name], f.huggingface) for f in FAMILIES]
