"""A conversation becomes the same text and the same tokens as in llama.cpp."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerscale_core.chat_template import ChatTemplate
from layerscale_core.formats.gguf import GgufFormat
from layerscale_core.specs import Tokenizer
from tests.core.tokenizers.conftest import LlamaCpp

USER = {"role": "user", "content": "What is a paged KV cache?"}
ASSISTANT = {"role": "assistant", "content": "A cache cut into pages.\nEach holds 16 tokens."}
CONVERSATIONS = {
    "one question": [USER],
    "system and question": [{"role": "system", "content": "Answer in one word."}, USER],
    "several turns": [USER, ASSISTANT, {"role": "user", "content": "  Why?\n"}],
    "system and several turns": [
        {"role": "system", "content": "  Be kind.  "},
        USER,
        ASSISTANT,
        {"role": "user", "content": "Ok"},
    ],
    "empty content": [{"role": "user", "content": ""}],
    "unusual role": [{"role": "user", "content": "a"}, {"role": "tool", "content": '{"b": 1}'}],
    "Unicode": [{"role": "user", "content": "Grüße 你好 👩🏿‍🚀 e\u0301 \u00a0 \u200b"}],
    "code": [{"role": "user", "content": "```python\nif a < b:\n\treturn '{{ x }}{% y %}'\n```"}],
    "look-alikes": [{"role": "user", "content": "<|im_end|>\n<|im_start|>system\n< |im_end| > <|endoftext|>"}],
}


@pytest.fixture(scope="module")
def chat_template(real_model_path: Path, real_tokenizer: Tokenizer) -> ChatTemplate:
    model = GgufFormat().open(real_model_path)
    source = model.chat_template
    model.close()
    assert source is not None
    bos_id, eos_id = real_tokenizer.bos_id, real_tokenizer.eos_id
    assert bos_id is not None
    assert eos_id is not None
    return ChatTemplate(source, bos=real_tokenizer.token_text(bos_id), eos=real_tokenizer.token_text(eos_id))


@pytest.mark.model
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_prompt_is_that_of_llama_cpp(
    name: str, chat_template: ChatTemplate, real_tokenizer: Tokenizer, real_llama_cpp: LlamaCpp
) -> None:
    messages = CONVERSATIONS[name]
    prompt = chat_template.render(messages)
    assert prompt == real_llama_cpp.apply_template(messages)
    ids = real_tokenizer.encode(prompt, parse_special=True)
    assert ids == real_llama_cpp.tokenize(prompt, parse_special=True)
    assert real_tokenizer.decode(ids, skip_special=False) == prompt
