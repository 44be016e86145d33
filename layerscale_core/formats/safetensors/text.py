"""What a folder says of texts: its tokenizer, its chat template, and the tokens that end an answer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from layerscale_core.errors import ModelFileError
from layerscale_core.formats.files import read_file
from layerscale_core.formats.json_file import read_json_object
from layerscale_core.formats.metadata import Metadata
from layerscale_core.specs.tokenizer import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
GENERATION_CONFIG_FILE = "generation_config.json"
TEMPLATE_FILE = "chat_template.jinja"
TEMPLATE_JSON_FILE = "chat_template.json"

MAX_TOKENIZER_BYTES = 64 * 2**20
MAX_CONFIG_BYTES = 16 * 2**20
MAX_TEMPLATE_BYTES = 2**20
_DEFAULT_TEMPLATE = "default"


def read_chat_template(folder: Path) -> str | None:
    """The Jinja source: of a file of its own, else of the tokenizer's configuration; None where there is none.

    Raises:
        ModelFileError: a file is too large, or holds something else.
    """
    path = folder / TEMPLATE_FILE
    if path.exists():
        return _read_text(path)
    for name in (TOKENIZER_CONFIG_FILE, TEMPLATE_JSON_FILE):
        template = _template_in(_read_optional(folder / name), folder / name)
        if template is not None:
            return template
    return None


def read_tokenizer(folder: Path, config: Metadata, max_vocab_size: int) -> Tokenizer:
    """The tokenizer of a folder.

    Args:
        config: the model's ``config.json``.

    Raises:
        ModelFileError: a file is missing, corrupt or inconsistent.
        UnsupportedModelError: a kind of tokenizer this build does not have.
    """
    # Tokenizing needs a library of its own, which planning and inspecting a model do without.
    from layerscale_core.tokenizers.json_tokenizer import JsonTokenizer, SpecialTokens  # noqa: PLC0415

    description = read_json_object(folder / TOKENIZER_FILE, MAX_TOKENIZER_BYTES)
    settings = _read_optional(folder / TOKENIZER_CONFIG_FILE)
    generation = _read_optional(folder / GENERATION_CONFIG_FILE)
    stop_ids = frozenset(_ids(config.values.get("eos_token_id"))) | frozenset(_ids(generation.get("eos_token_id")))
    special = SpecialTokens(
        _special_token(settings, "bos_token", config.values.get("bos_token_id")),
        _special_token(settings, "eos_token", config.values.get("eos_token_id")),
        stop_ids,
    )
    return JsonTokenizer(description, special, max_vocab_size, str(folder / TOKENIZER_FILE))


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json_object(path, MAX_CONFIG_BYTES) if path.exists() else {}


def _read_text(path: Path) -> str:
    try:
        return read_file(path, MAX_TEMPLATE_BYTES).decode()
    except UnicodeDecodeError:
        raise ModelFileError(str(path), "the text is not valid UTF-8") from None


def _template_in(settings: dict[str, Any], path: Path) -> str | None:
    """The template of a configuration: the only one, or of several the one for ordinary chats."""
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get(_DEFAULT_TEMPLATE)
    if template is None:
        return None
    if not isinstance(template, str):
        raise ModelFileError(str(path), "expected text", field="chat_template")
    try:
        num_bytes = len(template.encode())
    except UnicodeEncodeError:
        raise ModelFileError(str(path), "the text is not valid Unicode", field="chat_template") from None
    if num_bytes > MAX_TEMPLATE_BYTES:
        raise ModelFileError(str(path), f"it has more than {MAX_TEMPLATE_BYTES:,} bytes", field="chat_template")
    return template


def _special_token(settings: dict[str, Any], key: str, default: object) -> str | int | None:
    """A token as the tokenizer's configuration names it, else by its id in the model's."""
    token = settings.get(key)
    if isinstance(token, dict):
        token = token.get("content")
    if isinstance(token, str):
        return token
    return None if key in settings else next(iter(_ids(default)), None)


def _ids(value: object) -> Iterable[int]:
    """One id, or a list of them."""
    return [token_id for token_id in (value if isinstance(value, list) else [value]) if type(token_id) is int]
