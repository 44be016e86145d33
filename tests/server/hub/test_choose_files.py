"""Which files of a repository make up the model that is served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerscale_core.errors import ModelFileError, ModelNotFoundError
from layerscale_server.hub.choose_files import Choice, choose_files
from layerscale_server.hub.reference import ModelReference
from tests.support.hub_folders import CLUTTER

SEVERAL = ["README.md", "m-Q2_K.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-f16.gguf", "m-imatrix.gguf"]
PARTS = [f"Q8_0/m-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
TEXTS = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
INDEX = "model.safetensors.index.json"


def choose(names: list[str], text: str = "org/name", index: Path | None = None) -> Choice:
    reference = ModelReference.parse(text)
    assert reference is not None

    def read(name: str) -> Path:
        assert name == INDEX
        assert index is not None
        return index

    return choose_files(names, reference, read)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    path = tmp_path / INDEX
    path.write_text(json.dumps({"weight_map": {"a": SHARDS[1], "b": SHARDS[0], "c": SHARDS[0]}}))
    return path


_WEIGHTS = [*SEVERAL, *PARTS, *SHARDS, "model.safetensors", "a.gguf/b.py"]
_NAMES = st.lists(st.sampled_from([*_WEIGHTS, *TEXTS, *CLUTTER, INDEX]), unique=True)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=_NAMES, text=st.sampled_from(["org/name", "org/name:Q8_0", "org/name/m-Q2_K.gguf"]))
def test_whatever_there_is_only_files_of_one_model_are_chosen(index: Path, names: list[str], text: str) -> None:
    try:
        choice = choose(names, text, index)
    except ModelNotFoundError:
        return
    if choice.graph is not None:
        assert set(choice.files) <= {*TEXTS, choice.graph}
        assert "model.safetensors" not in names
        return
    assert choice.weights
    assert set(choice.files) <= set(names) - set(CLUTTER)
    assert {name.rpartition(".")[2] for name in choice.weights} == {"safetensors" if choice.texts else "gguf"}


class TestGguf:
    @pytest.mark.parametrize(
        ("names", "text", "chosen"),
        [
            (["README.md", "model.gguf"], "org/name", ["model.gguf"]),
            (SEVERAL, "org/name", ["m-Q4_K_M.gguf"]),
            (SEVERAL, "org/name:q8_0", ["m-Q8_0.gguf"]),
            (SEVERAL, "org/name/mmproj-f16.gguf", ["mmproj-f16.gguf"]),
            (SEVERAL, "org/name:m-Q2_K.gguf", ["m-Q2_K.gguf"]),
            (["Q8_0.gguf", "Q4_0.gguf"], "org/name:Q4_0", ["Q4_0.gguf"]),
            (["m.Q4_K_M.gguf", "m.IQ4_K_M.gguf"], "org/name", ["m.Q4_K_M.gguf"]),
            (["m-UD-Q4_K_XL.gguf", "m-Q4_K_M.gguf"], "org/name:ud-q4_k_xl", ["m-UD-Q4_K_XL.gguf"]),
            (["BF16/m.gguf", "Q8_0/m.gguf"], "org/name:BF16", ["BF16/m.gguf"]),
            (PARTS, "org/name", PARTS),
            ([*SEVERAL, *PARTS[::-1]], f"org/name/{PARTS[1]}", PARTS),
            (["m-Q4_0.gguf", *PARTS[::-1]], "org/name:Q8_0", PARTS),
            (["config.json", "tokenizer.json", "m.gguf"], "org/name", ["m.gguf"]),
        ],
    )
    def test_takes_the_one_that_fits(self, names: list[str], text: str, chosen: list[str]) -> None:
        choice = choose(names, text)
        assert choice.files == choice.weights == tuple(chosen)
        assert choice.opened(Path("somewhere", chosen[0])) == Path("somewhere", chosen[0])

    @pytest.mark.parametrize(
        ("names", "text", "words"),
        [
            (["README.md"], "org/name", "no GGUF file to serve, and no config.json with model.safetensors"),
            (["model.safetensors", "mmproj.gguf"], "org/name", "no GGUF file to serve"),
            (["config.json", "pytorch_model.bin"], "org/name", "its weights are pickles"),
            (["b-Q8_0.gguf", "a-Q2_K.gguf"], "org/name", "name one of: a-Q2_K.gguf, b-Q8_0.gguf"),
            (SEVERAL, "org/name:Q6_K", "no Q6_K file; name one of: m-Q2_K.gguf, m-Q4_K_M.gguf, m-Q8_0.gguf$"),
            (["a/m-Q8_0.gguf", "b/m-Q8_0.gguf"], "org/name:Q8_0", "more than one Q8_0 file"),
            (SEVERAL, "org/name/absent.gguf", "no file 'absent.gguf'; name one of: m-Q2_K.gguf"),
            (["README.md"], "org/name/absent.gguf", "it has no GGUF file"),
            (["m-Q4_0.gguf", *PARTS], "org/name:Q2_K", f"name one of: {PARTS[0]}, m-Q4_0.gguf$"),
            (PARTS[:2], "org/name", f"lacks {PARTS[2]}"),
            (PARTS[1:], f"org/name/{PARTS[1]}", f"lacks {PARTS[0]}"),
            (["config.json", "model.safetensors"], "org/name:Q8_0", "no GGUF file to serve; org/name alone names its"),
        ],
    )
    def test_says_what_there_is_when_none_or_several_fit(self, names: list[str], text: str, words: str) -> None:
        with pytest.raises(ModelNotFoundError, match=words):
            choose(names, text)

    @pytest.mark.parametrize(("num_files", "is_cut"), [(20, False), (21, True)])
    def test_a_long_list_of_choices_is_cut(self, num_files: int, is_cut: bool) -> None:
        with pytest.raises(ModelNotFoundError) as caught:
            choose([f"m{index:02}.gguf" for index in range(num_files)])
        assert str(caught.value).endswith(", …") is is_cut


class TestFolder:
    def test_takes_texts_and_the_one_file_of_weights(self) -> None:
        choice = choose([*CLUTTER, "model.safetensors", *TEXTS])
        assert choice.files == (*TEXTS, "model.safetensors")
        assert choice.opened(Path("snapshot/config.json")) == Path("snapshot")

    def test_takes_the_files_that_the_index_names_last(self, index: Path) -> None:
        choice = choose([*SHARDS, "model-00009-of-00009.safetensors", *CLUTTER, INDEX, *TEXTS], index=index)
        assert choice.files == (*TEXTS, INDEX, *SHARDS)
        assert choice.weights == tuple(SHARDS)

    def test_without_an_index_none_is_asked_for(self) -> None:
        names = ("config.json", "tokenizer.json", "model.safetensors")
        assert choose(list(names)).files == names

    def test_what_a_plan_needs_beside_headers_is_small(self) -> None:
        described_by = choose([*TEXTS, "model.safetensors"]).described_by
        assert set(TEXTS) - set(described_by) == {"tokenizer.json"}

    @pytest.mark.parametrize(("text", "weights"), [("org/name", "model.safetensors"), ("org/name:Q8_0", "m-Q8_0.gguf")])
    def test_comes_before_gguf_files_unless_one_is_named(self, text: str, weights: str) -> None:
        assert choose([*SEVERAL, *TEXTS, "model.safetensors"], text).weights == (weights,)

    def test_without_a_tokenizer_nothing_is_fetched(self) -> None:
        with pytest.raises(ModelNotFoundError, match=r"org/name has no tokenizer\.json; choose"):
            choose(["config.json", "model.safetensors", "tokenizer.model"])

    def test_a_file_that_the_index_names_and_nobody_has_is_named(self, index: Path) -> None:
        with pytest.raises(ModelNotFoundError, match=f"org/name lacks {SHARDS[1]}, one of 2 files"):
            choose([*TEXTS, INDEX, SHARDS[0]], index=index)

    @pytest.mark.parametrize("name", ["../model.safetensors", "weights/a.safetensors", "model.bin", "setup.py"])
    def test_an_index_names_no_other_kind_of_file(self, index: Path, name: str) -> None:
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ModelFileError, match=r"not that of a \.safetensors file"):
            choose([*TEXTS, INDEX, name], index=index)


class TestGraph:
    DATA = ("onnx/model.onnx_data", "onnx/model.onnx_data_1")
    OTHERS = ("onnx/model_q4.onnx", "onnx/model_q4.onnx_data", "onnx/decoder.onnx")

    def test_takes_the_one_of_the_usual_name_with_the_files_of_its_weights(self) -> None:
        choice = choose(["README.md", *self.OTHERS, *self.DATA, "onnx/model.onnx", *TEXTS])
        assert choice.files == (*TEXTS, "onnx/model.onnx", *self.DATA)
        assert choice.weights == self.DATA
        assert choice.opened(Path("snapshot/config.json")) == Path("snapshot/onnx/model.onnx")
        assert choose(["model.onnx", "onnx/model.onnx", *TEXTS]).graph == "model.onnx"

    def test_takes_the_one_that_is_named_beside_whatever_else_there_is(self) -> None:
        names = [*SEVERAL, "model.safetensors", *self.OTHERS, *self.DATA, "onnx/model.onnx", *TEXTS]
        choice = choose(names, "org/name/onnx/model_q4.onnx")
        assert (choice.graph, choice.weights) == ("onnx/model_q4.onnx", ("onnx/model_q4.onnx_data",))
        assert choose(names).graph is None

    @pytest.mark.parametrize(
        ("names", "text", "words"),
        [
            (["onnx/model.onnx"], "org/name", "no GGUF file to serve, and no config.json with"),
            (["onnx/model.onnx", "config.json"], "org/name", r"org/name has no tokenizer\.json"),
            (["onnx/model.onnx", *TEXTS], "org/name/b.onnx", "no file 'b.onnx'; name one of: onnx/model.onnx$"),
            (["m.gguf", *TEXTS], "org/name/b.onnx", "no file 'b.onnx'; it has no graph to serve"),
            (["onnx/model.onnx", *TEXTS], "org/name:Q8_0", "no GGUF file to serve"),
        ],
    )
    def test_says_what_is_missing(self, names: list[str], text: str, words: str) -> None:
        with pytest.raises(ModelNotFoundError, match=words):
            choose(names, text)
