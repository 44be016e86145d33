"""The names of models on the hub."""

from __future__ import annotations

import pytest

from layerscale_server.hub.reference import ModelReference


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("org/name", ModelReference("org/name")),
        ("o/n", ModelReference("o/n")),
        ("org/Llama-3.1-8B.v2", ModelReference("org/Llama-3.1-8B.v2")),
        ("org/name:Q4_K_M", ModelReference("org/name", quantization="Q4_K_M")),
        ("org/name/model.gguf", ModelReference("org/name", file="model.gguf")),
        ("org/name/Q8_0/a model.gguf", ModelReference("org/name", file="Q8_0/a model.gguf")),
        ("org/name/onnx/model_q4.onnx", ModelReference("org/name", file="onnx/model_q4.onnx")),
        ("org/name@v1.2", ModelReference("org/name", revision="v1.2")),
        ("org/name@v1:IQ4_NL", ModelReference("org/name", revision="v1", quantization="IQ4_NL")),
        ("org/name:UD-Q4_K_XL", ModelReference("org/name", quantization="UD-Q4_K_XL")),
        ("org/name@refs/pr/3", ModelReference("org/name", revision="refs/pr/3")),
        ("org/name@0123abc/model.gguf", ModelReference("org/name", revision="0123abc", file="model.gguf")),
    ],
)
def test_reads_every_form_and_writes_it_back(text: str, reference: ModelReference) -> None:
    assert ModelReference.parse(text) == reference
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "/org/name",
        "./org/name",
        "../name",
        "~/name",
        "org/",
        "/",
        "org//name",
        "models/llama.gguf",
        "models/llama.onnx",
        "org/name.git",
        "org/a..b",
        "org/a--b",
        "org/-name",
        "org/name/",
        "org/name/config.json",
        "org/name:",
        "org/name@",
        "org/name:Q4/x",
        "org/name@refs/pr",
        "org/name@refs/heads/main",
        "org/name/a\\b.gguf",
        "org/na me",
        "org/name\n",
        "örg/name",
        "org/" + "n" * 93,
        "https://huggingface.co/org/name",
    ],
)
def test_everything_else_is_not_a_reference(text: str) -> None:
    assert ModelReference.parse(text) is None


def test_the_longest_repository_id_is_a_reference() -> None:
    assert ModelReference.parse("org/" + "n" * 92) is not None


def test_a_file_may_follow_a_colon() -> None:
    assert ModelReference.parse("org/name:Q8_0/m.gguf") == ModelReference("org/name", file="Q8_0/m.gguf")
