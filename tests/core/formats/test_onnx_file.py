"""ONNX files: what is read of them, and those that make no sense or mean harm."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.conformance import ModelFileContract
from layerscale_core.conformance.executors import kv_layout
from layerscale_core.errors import BackendError, LayerScaleError, ModelFileError, UnsupportedModelError
from layerscale_core.formats import OnnxFormat, SafetensorsFormat
from layerscale_core.formats.onnx import OnnxBackend, OnnxModelFile
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import BackendOptions, ModelFormat
from tests.support.tiny_folder import byte_level
from tests.support.tiny_gguf import CHATML_TEMPLATE
from tests.support.tiny_onnx import move_weights_out, save_pair

pytestmark = pytest.mark.xdist_group("transformers")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a graph that holds its weights; not to be changed."""
    folder = tmp_path_factory.mktemp("onnx") / "pair"
    return save_pair(folder, "llama", vocab_size=byte_level().get_vocab_size(), num_hidden_layers=1)[1]


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "models" / "Tiny-ONNX"))


def change(folder: Path, edit: Callable[[Any], None]) -> None:
    path = folder / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    edit(model)
    path.write_bytes(model.SerializeToString())


def error_of(path: Path, kind: type[LayerScaleError]) -> str:
    with pytest.raises(kind) as caught:
        OnnxFormat().open(path)
    assert caught.type is kind
    line = str(caught.value)
    assert "\n" not in line
    return line


class TestOnnxFormat(ModelFileContract):
    """Weights in a file of their own, so that it is this one that the contract cuts."""

    def make_format(self) -> ModelFormat:
        [found] = [each for each in PluginRegistry.discover().model_formats() if each.name == "onnx"]
        return found

    @pytest.fixture
    def model_path(self, folder: Path) -> Path:
        move_weights_out(folder / "model.onnx")
        return folder


def test_describes_the_folder(folder: Path) -> None:
    model = OnnxFormat().open(folder)
    assert (model.name, model.spec.architecture, model.chat_template) == ("Tiny-ONNX", "llama", CHATML_TEMPLATE)
    assert model.size_bytes == (folder / "model.onnx").stat().st_size
    assert model.weights.names() == ()
    model.close()


def test_the_weights_may_be_in_the_graphs_file_or_beside_it(folder: Path) -> None:
    def sizes() -> tuple[int, int]:
        model = OnnxFormat().open(folder)
        assert isinstance(model, OnnxModelFile)
        with closing(model):
            return model.size_bytes, model.weights_bytes

    whole_size, whole_weights = sizes()
    move_weights_out(folder / "model.onnx")
    size, weights = sizes()
    assert abs(size - whole_size) < 0.1 * whole_size
    assert weights < 0.6 * whole_weights  # what the runtime reads into memory and packs, it holds twice


@pytest.mark.parametrize("named", ["", "onnx/model.onnx", "onnx/model_q4.onnx"])
def test_a_folder_of_graphs_beside_the_configuration(folder: Path, named: str) -> None:
    (folder / "onnx").mkdir()
    shutil.copy(folder / "model.onnx", folder / "onnx" / "model_q4.onnx")
    (folder / "model.onnx").rename(folder / "onnx" / "model.onnx")
    path = folder / named
    assert OnnxFormat().matches(path)
    model = OnnxFormat().open(path)
    assert model.name == (Path(named).stem or "Tiny-ONNX")
    assert model.make_tokenizer().vocab_size <= model.spec.vocab_size
    model.close()


def test_of_graph_and_safetensors_the_safetensors_are_read_unless_the_graph_is_named(folder: Path) -> None:
    shutil.copy(folder.parent / "Tiny-ONNX" / "model.onnx", folder / "model.safetensors")
    assert not OnnxFormat().matches(folder)
    assert SafetensorsFormat().matches(folder)
    assert OnnxFormat().matches(folder / "model.onnx")


# Without onnxruntime


def test_the_missing_runtime_is_an_error_with_the_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    registry = PluginRegistry.discover()
    model = registry.open_model(folder)
    with pytest.raises(BackendError, match=r"onnxruntime is not installed: pip install 'layerscale-engine\[onnx\]'"):
        registry.choose_backend(model=model)
    model.close()


def test_a_runtime_that_cannot_be_imported_is_an_error_with_the_remedy(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise ImportError(f"{name}: libcudart is missing")

    model = OnnxFormat().open(folder)
    assert isinstance(model, OnnxModelFile)
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(BackendError, match=r"libcudart is missing.*pip install"):
        OnnxBackend(model).load(BackendOptions())
    model.close()


def test_another_backend_cannot_be_named(folder: Path) -> None:
    registry = PluginRegistry.discover()
    model = registry.open_model(folder)
    with pytest.raises(BackendError, match="--backend cpu cannot compute Tiny-ONNX, onnxruntime can"):
        registry.choose_backend("cpu", model)
    assert registry.choose_backend("onnxruntime", model).backend.name == "onnxruntime"
    model.close()


# Graphs that are no decoders, or none that can be served


def drop_input(name: str) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        kept = [each for each in model.graph.input if each.name != name]
        del model.graph.input[:]
        model.graph.input.extend(kept)

    return edit


def add_input(model: Any) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("pixel_values", onnx.TensorProto.FLOAT, [1, 3, 8, 8]))


def widen_logits(model: Any) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 7


def make_past_bfloat16(model: Any) -> None:
    for each in model.graph.input[3:]:
        each.type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16


def foreign_operator(model: Any) -> None:
    model.graph.node[0].domain = "evil.example"


def load_a_blob(model: Any) -> None:
    model.graph.node[0].domain, model.graph.node[0].op_type = "com.microsoft", "EPContext"


@pytest.mark.parametrize(
    ("edit", "kind", "message"),
    [
        (drop_input("position_ids"), UnsupportedModelError, "counts positions by itself"),
        (drop_input("attention_mask"), ModelFileError, "'attention_mask'"),
        (add_input, UnsupportedModelError, "'pixel_values'"),
        (widen_logits, ModelFileError, "shape [any, any, 7], the configuration asks for [any, any, 322]"),
        (make_past_bfloat16, UnsupportedModelError, "neither all float32 nor all float16"),
        (foreign_operator, UnsupportedModelError, "'evil.example."),
        (load_a_blob, UnsupportedModelError, "'com.microsoft.EPContext' is not run"),
    ],
)
def test_a_graph_that_is_no_decoder_is_refused(
    folder: Path, edit: Callable[[Any], None], kind: type[LayerScaleError], message: str
) -> None:
    change(folder, edit)
    assert message in error_of(folder, kind)


# Harm


def set_location(**entries: str) -> Callable[[Any], None]:
    """Where the first large tensor's content is said to be."""

    def edit(model: Any) -> None:
        tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
        point_elsewhere(tensor, **{"location": "model.onnx_data", **entries})

    return edit


def point_elsewhere(tensor: Any, **entries: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def in_a_constant(model: Any) -> None:
    tensor = onnx.numpy_helper.from_array(np.zeros(4, np.float32), "hidden")
    point_elsewhere(tensor, location="/etc/passwd")
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["hidden"], value=tensor))


def in_a_branch(model: Any) -> None:
    tensor = onnx.numpy_helper.from_array(np.zeros(4, np.float32), "hidden")
    point_elsewhere(tensor, location="../../secret")
    branch = onnx.helper.make_graph([], "branch", [], [], initializer=[tensor])
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch))


def resize(*dims: int) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
        del tensor.dims[:]
        tensor.dims.extend(dims)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        *(
            (set_location(location=name), "not in a file of this folder")
            for name in ("../secret", "/etc/passwd", "a/b")
        ),
        *((set_location(location=name), "not in a file of this folder") for name in ("", "..", "a\0", "..\\secret")),
        (in_a_constant, "not in a file of this folder"),
        (in_a_branch, "not in a file of this folder"),
        (set_location(offset="-5"), "is not a number"),
        (set_location(offset="9" * 30), "is not a number"),
        (set_location(length="12"), "it is said to have 12"),
        (set_location(), "no such file"),
        (resize(2**39, 2**39), "its dimensions ask for"),
        (resize(2**62), "make no sense"),
        (resize(-1), "make no sense"),
        (resize(*[1] * 9), "make no sense"),
        (resize(3), "its dimensions ask for 12 bytes"),
    ],
)
def test_a_hostile_tensor_is_refused(folder: Path, edit: Callable[[Any], None], message: str) -> None:
    change(folder, edit)
    assert message in error_of(folder, ModelFileError)


def test_a_data_file_that_ends_too_early_is_refused(folder: Path) -> None:
    change(folder, set_location())
    (folder / "model.onnx_data").write_bytes(b"short")
    assert "it has 5 bytes, a tensor ends at" in error_of(folder, ModelFileError)


@pytest.mark.parametrize(
    "content", [b"\x08", b"\x3a\x7f", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0b"]
)
def test_what_is_no_message_is_refused(folder: Path, content: bytes) -> None:
    (folder / "model.onnx").write_bytes(content)
    assert "cannot read model file" in error_of(folder, ModelFileError)


def test_graphs_within_graphs_have_a_bound(folder: Path) -> None:
    graph = onnx.helper.make_graph([], "leaf", [], [])
    for _ in range(20):
        graph = onnx.helper.make_graph([onnx.helper.make_node("Loop", [], [], body=graph)], "outer", [], [])
    (folder / "model.onnx").write_bytes(onnx.ModelProto(graph=graph).SerializeToString())
    assert "nested more than" in error_of(folder, ModelFileError)


def test_a_graph_that_the_runtime_refuses_is_a_model_file_error(folder: Path) -> None:
    def misspell(model: Any) -> None:
        model.graph.node[-1].op_type = "MatMull"

    change(folder, misspell)
    model = OnnxFormat().open(folder)
    assert isinstance(model, OnnxModelFile)
    device = OnnxBackend(model).load(BackendOptions())
    with pytest.raises(ModelFileError, match="onnxruntime refuses it") as refusal:
        device.make_executor(model.spec, model.weights, kv_layout(model.spec, 16))
    assert "\n" not in str(refusal.value)
    model.close()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_graph_is_read_or_refused(made: Path, tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    content = bytearray((made / "model.onnx").read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, 20_000))] = data.draw(st.integers(0, 255))
    (folder / "model.onnx").write_bytes(content)
    shutil.copy(made / "config.json", folder)
    with suppress(ModelFileError, UnsupportedModelError):
        OnnxFormat().open(folder).close()
