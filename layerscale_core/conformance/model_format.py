"""The contract of a model format."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from layerscale_core.errors import ModelFileError, UnsupportedModelError
from layerscale_core.models.spec import weight_shapes
from layerscale_core.specs import ModelFile, ModelFormat


class ModelFileContract:
    """Every promise of ``ModelFormat`` and ``ModelFile``, on one good model.

    Of a folder the largest file is the one that is cut. For formats of weights there is ``ModelFormatContract``.
    """

    def make_format(self) -> ModelFormat:
        """The format under test."""
        raise NotImplementedError

    @pytest.fixture
    def model_path(self) -> Path:
        """A small, valid model of the format: a file, or a folder."""
        raise NotImplementedError

    @pytest.fixture
    def model_format(self) -> ModelFormat:
        """The format under test."""
        return self.make_format()

    @pytest.fixture
    def model(self, model_format: ModelFormat, model_path: Path) -> Iterator[ModelFile]:
        """The good file, open."""
        model = model_format.open(model_path)
        yield model
        model.close()

    # ModelFormat

    def test_metadata_is_enough_to_describe_a_model(
        self, model_format: ModelFormat, model: ModelFile, model_path: Path, tmp_path: Path
    ) -> None:
        """``open`` with ``metadata_only``: the same description and size, though the last weight is cut."""
        described = model_format.open(_without_its_end(model_path, tmp_path), metadata_only=True)
        assert described.spec == model.spec
        assert described.size_bytes == model.size_bytes
        described.close()

    def test_has_a_name(self, model_format: ModelFormat) -> None:
        """``name``: for messages."""
        assert model_format.name

    def test_recognises_its_own(self, model_format: ModelFormat, model_path: Path) -> None:
        """``matches``: yes."""
        assert model_format.matches(model_path)

    def test_recognises_nothing_else_and_never_raises(self, model_format: ModelFormat, tmp_path: Path) -> None:
        """``matches``: no, for whatever a user may name."""
        (tmp_path / "empty").touch()
        (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(4096))
        (tmp_path / "folder").mkdir()
        for name in ("missing", "empty", "noise", "folder", "x" * 5000):
            assert not model_format.matches(tmp_path / name)

    def test_a_missing_file_is_a_model_file_error(self, model_format: ModelFormat, model_path: Path) -> None:
        """``open``: names the file."""
        missing = model_path.with_name(f"missing{model_path.suffix}")
        with pytest.raises(ModelFileError, match=missing.name):
            model_format.open(missing)

    @pytest.mark.parametrize("part", [0.0, 0.001, 0.01, 0.1, 0.5, 0.999])
    def test_a_truncated_file_is_a_model_file_error(
        self, model_format: ModelFormat, model_path: Path, tmp_path: Path, part: float
    ) -> None:
        """``open``: a file cut anywhere is refused, not crashed on."""
        truncated = _shortened(model_path, tmp_path, lambda num_bytes: int(part * num_bytes))
        with pytest.raises((ModelFileError, UnsupportedModelError)):
            model_format.open(truncated)

    # ModelFile

    def test_describes_the_file(self, model: ModelFile, model_path: Path) -> None:
        """``name`` and ``size_bytes``."""
        assert model.name == (model_path.name if model_path.is_dir() else model_path.stem)
        sizes = [path.stat().st_size for path in (model_path, *model_path.glob("*")) if path.is_file()]
        assert max(sizes) <= model.size_bytes <= sum(sizes)

    def test_a_copy_has_the_fingerprint_and_other_weights_another(
        self, model_format: ModelFormat, model: ModelFile, model_path: Path, tmp_path: Path
    ) -> None:
        """``fingerprint``: of what the file holds, wherever it lies."""
        for name, flipped_bits, is_equal in (("copy", 0, True), ("other", 1, False)):
            (tmp_path / name).mkdir()
            copy, largest_file = _copy(model_path, tmp_path / name)
            content = bytearray(largest_file.read_bytes())
            content[-2048:] = bytes(byte ^ flipped_bits for byte in content[-2048:])
            largest_file.write_bytes(content)
            other = model_format.open(copy)
            assert (other.fingerprint == model.fingerprint) == is_equal
            other.close()

    def test_closing_twice_does_nothing(self, model: ModelFile) -> None:
        """``close``: idempotent."""
        model.close()
        model.close()

    def test_tokenizes_within_the_vocabulary(self, model: ModelFile) -> None:
        """``make_tokenizer``: its ids index the embedding, and text survives the way there and back."""
        tokenizer = model.make_tokenizer()
        text = "Hello, wörld! 123"
        token_ids = tokenizer.encode(text, add_special=False)
        assert tokenizer.vocab_size <= model.spec.vocab_size
        assert all(0 <= token_id < tokenizer.vocab_size for token_id in token_ids)
        assert tokenizer.decode(token_ids).strip() == text
        assert b"".join(tokenizer.token_bytes(token_id) for token_id in token_ids).decode().strip() == text

    def test_an_unknown_weight_is_a_key_error(self, model: ModelFile) -> None:
        """``matrix``: KeyError."""
        with pytest.raises(KeyError):
            model.weights.matrix("no such weight")


class ModelFormatContract(ModelFileContract):
    """The same, and every promise of ``WeightSource``."""

    def test_metadata_is_enough_to_know_the_layouts(
        self, model_format: ModelFormat, model: ModelFile, model_path: Path, tmp_path: Path
    ) -> None:
        """``open`` with ``metadata_only``: how each weight is stored, though the last is cut."""
        described = model_format.open(_without_its_end(model_path, tmp_path), metadata_only=True)
        for name, shape in weight_shapes(model.spec).items():
            assert described.weights.stored_bytes(name) == model.weights.stored_bytes(name)
            if len(shape) == 2:
                empty, whole = described.weights.matrix(name, 0, 0), model.weights.matrix(name)
                assert type(empty) is type(whole)
                assert empty.shape == (0, shape[1])
        described.close()

    def test_holds_every_weight_in_its_shape(self, model: ModelFile) -> None:
        """``names``, ``shape`` and ``stored_bytes`` agree with the description."""
        expected = weight_shapes(model.spec)
        assert expected.keys() <= set(model.weights.names())
        for name, shape in expected.items():
            assert tuple(model.weights.shape(name)) == shape
            assert 0 < model.weights.stored_bytes(name) <= model.size_bytes

    def test_reads_every_weight(self, model: ModelFile) -> None:
        """``matrix`` and ``vector``: finite, in shape."""
        for name, shape in weight_shapes(model.spec).items():
            is_matrix = len(shape) == 2
            values = model.weights.matrix(name).dequantize() if is_matrix else model.weights.vector(name)
            assert values.shape == shape
            assert values.dtype == np.float32
            assert np.isfinite(values).all()

    def test_reads_any_rows_of_a_matrix(self, model: ModelFile) -> None:
        """``matrix``: rows ``[start, stop)`` are those of the whole."""
        whole = model.weights.matrix("embedding").dequantize()
        for start, stop in [(0, 1), (1, 4), (len(whole) - 1, len(whole)), (0, len(whole)), (3, 3)]:
            rows = model.weights.matrix("embedding", start, stop).dequantize()
            np.testing.assert_array_equal(rows, whole[start:stop])
        np.testing.assert_array_equal(model.weights.matrix("embedding", 2).dequantize(), whole[2:])

    def test_weights_outlive_the_file(self, model: ModelFile) -> None:
        """``matrix``: freshly allocated, so neither forgetting cached pages nor closing the file takes it away."""
        before = model.weights.matrix("embedding")
        values = before.dequantize()
        model.weights.drop_cache()
        model.close()
        np.testing.assert_array_equal(before.dequantize(), values)


def _without_its_end(model_path: Path, folder: Path) -> Path:
    """A copy of which a weight lacks its last bytes."""
    return _shortened(model_path, folder, lambda num_bytes: num_bytes - 64)


def _shortened(model_path: Path, folder: Path, length: Callable[[int], int]) -> Path:
    """A copy of a model in another folder, of its largest file only the first bytes.

    Args:
        length: how many, from how many there are.
    """
    copy, largest_file = _copy(model_path, folder)
    os.truncate(largest_file, length(largest_file.stat().st_size))
    return copy


def _copy(model_path: Path, folder: Path) -> tuple[Path, Path]:
    """A copy of a model in another folder, and its largest file."""
    copy = folder / model_path.name
    if not model_path.is_dir():
        return copy, Path(shutil.copyfile(model_path, copy))
    shutil.copytree(model_path, copy)
    return copy, max(copy.iterdir(), key=lambda path: path.stat().st_size)
