"""llama.cpp as the oracle, and the vocabularies it is asked about."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from layerscale_core.formats.gguf import GgufFormat
from layerscale_core.specs import Tokenizer


class LlamaCpp:
    """llama.cpp's own tokenizer and chat templates, asked over its HTTP server."""

    def __init__(self, model_path: Path) -> None:
        xllamacpp = pytest.importorskip("xllamacpp")
        params = xllamacpp.CommonParams()
        params.model.path = str(model_path)
        params.n_ctx = 256
        params.n_parallel = 1
        params.cpuparams.n_threads = 1
        params.n_threads_http = 1
        params.warmup = False
        params.port = 0
        self._server = xllamacpp.Server(params)
        # Its main loop answers this one. To stop the server before the loop has begun would wait for it forever.
        self._ask("/slots")

    def tokenize(
        self, text: str | Sequence[str], *, add_special: bool = True, parse_special: bool = False
    ) -> list[int]:
        """A text's ids; those of several texts one after the other, only the first with added tokens."""
        answer = self._post("/tokenize", content=text, add_special=add_special, parse_special=parse_special)
        tokens = answer["tokens"]
        assert isinstance(tokens, list)
        return tokens

    def apply_template(self, messages: Sequence[dict[str, str]]) -> str:
        prompt = self._post("/apply-template", messages=messages)["prompt"]
        assert isinstance(prompt, str)
        return prompt

    def close(self) -> None:
        del self._server

    def _post(self, route: str, **body: object) -> dict[str, object]:
        answer = self._ask(route, json.dumps(body).encode())
        assert isinstance(answer, dict)
        return answer

    def _ask(self, route: str, body: bytes | None = None) -> object:
        """GET, or POST with a body; a connection each, since the server closes idle ones."""
        connection = http.client.HTTPConnection(self._server.listening_address.removeprefix("http://"))
        with contextlib.closing(connection):
            connection.request("POST" if body else "GET", route, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer: object = json.load(response)
            assert response.status == 200, answer
            return answer


@pytest.fixture(scope="session")
def real_llama_cpp(real_model_path: Path) -> Iterator[LlamaCpp]:
    """llama.cpp serving SmolLM2."""
    llama_cpp = LlamaCpp(real_model_path)
    yield llama_cpp
    llama_cpp.close()


@pytest.fixture(scope="session")
def real_tokenizer(real_model_path: Path) -> Tokenizer:
    """SmolLM2's tokenizer, from its file."""
    return tokenizer_of(real_model_path)


def tokenizer_of(path: Path) -> Tokenizer:
    """A model's tokenizer, from its file."""
    model = GgufFormat().open(path)
    tokenizer = model.make_tokenizer()
    model.close()
    return tokenizer
