"""Writes the line per module of ``architecture.md`` from the modules' own first sentences.

``python docs/module_lines.py`` brings the page up to date; a test fails while it is not.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = (
    "layerscale_core",
    "layerscale_backend_cpu",
    "layerscale_backend_cuda",
    "layerscale_backend_rocm",
    "layerscale_server",
)

BEGIN = "<!-- one line per module, written by module_lines.py -->"
END = "<!-- end of the lines per module -->"

_SENTENCE_END = re.compile(r"(?<=\.)\s")


def module_lines() -> str:
    """A Markdown table for every folder of every package."""
    folders: dict[Path, list[Path]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if path.suffix in {".py", ".h"} and path.name not in {"__init__.py", "__main__.py"}:
                folders.setdefault(path.parent, []).append(path)
    return "\n\n".join(_table(folder, folders[folder]) for folder in sorted(folders))


def page_with(lines: str) -> str:
    """The architecture page with these lines in their place."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{lines}\n\n{END}{tail}"


def first_sentence(module: Path) -> str:
    """The first sentence of a module's docstring, or of a header's first comment."""
    if module.suffix == ".py":
        text = ast.get_docstring(ast.parse(module.read_text())) or ""
    else:
        comment = re.match(r"(?:// ?.*\n)+", module.read_text())
        text = re.sub(r"^// ?", "", comment[0], flags=re.MULTILINE) if comment else ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return _SENTENCE_END.split(paragraph)[0].replace("``", "`").replace("|", "\\|")


def _table(folder: Path, modules: list[Path]) -> str:
    rows = [f"| `{module.name}` | {first_sentence(module)} |" for module in modules]
    return "\n".join([f"### `{folder.relative_to(ROOT)}/`", "", "| module | is |", "|---|---|", *rows])


if __name__ == "__main__":
    PAGE.write_text(page_with(module_lines()))
