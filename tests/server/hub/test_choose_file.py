"""Which file of a repository is served."""

from __future__ import annotations

import pytest

from layerscale_core.errors import ModelNotFoundError
from layerscale_server.hub.choose_file import choose_file
from layerscale_server.hub.reference import ModelReference

SEVERAL = ["README.md", "m-Q2_K.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-f16.gguf"]


def choose(names: list[str], text: str = "org/name") -> str:
    reference = ModelReference.parse(text)
    assert reference is not None
    return choose_file(names, reference)


@pytest.mark.parametrize(
    ("names", "text", "chosen"),
    [
        (["README.md", "model.gguf"], "org/name", "model.gguf"),
        (SEVERAL, "org/name", "m-Q4_K_M.gguf"),
        (SEVERAL, "org/name:q8_0", "m-Q8_0.gguf"),
        (SEVERAL, "org/name/mmproj-f16.gguf", "mmproj-f16.gguf"),
        (["Q8_0.gguf", "Q4_0.gguf"], "org/name:Q4_0", "Q4_0.gguf"),
        (["m.Q4_K_M.gguf", "m.IQ4_K_M.gguf"], "org/name", "m.Q4_K_M.gguf"),
        (["m.gguf", "big-00001-of-00002.gguf", "big-00002-of-00002.gguf"], "org/name", "m.gguf"),
    ],
)
def test_takes_the_one_that_fits(names: list[str], text: str, chosen: str) -> None:
    assert choose(names, text) == chosen


@pytest.mark.parametrize(
    ("names", "text", "words"),
    [
        (["README.md"], "org/name", "no GGUF file to serve"),
        (["model.safetensors", "mmproj.gguf"], "org/name", "no GGUF file to serve"),
        (["b-Q8_0.gguf", "a-Q2_K.gguf"], "org/name", "name one of: a-Q2_K.gguf, b-Q8_0.gguf"),
        (SEVERAL, "org/name:Q6_K", "no Q6_K file; name one of: m-Q2_K.gguf, m-Q4_K_M.gguf, m-Q8_0.gguf"),
        (["a/m-Q8_0.gguf", "b/m-Q8_0.gguf"], "org/name:Q8_0", "more than one Q8_0 file"),
        (SEVERAL, "org/name/absent.gguf", "no file 'absent.gguf'; name one of: m-Q2_K.gguf"),
        (["README.md"], "org/name/absent.gguf", "it has no GGUF file"),
    ],
)
def test_says_what_there_is_when_none_or_several_fit(names: list[str], text: str, words: str) -> None:
    with pytest.raises(ModelNotFoundError, match=words):
        choose(names, text)


@pytest.mark.parametrize(("num_files", "is_cut"), [(20, False), (21, True)])
def test_a_long_list_of_choices_is_cut(num_files: int, is_cut: bool) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        choose([f"m{index:02}.gguf" for index in range(num_files)])
    assert str(caught.value).endswith(", …") is is_cut
