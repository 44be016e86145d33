"""llama.cpp as a peer: its own server, from the wheel ``xllamacpp``, in a process of its own.

The peer runs apart, so that its threads, memory and start-up disturb nothing here; between requests it sleeps. Its
prompt cache is on and its KV cache is fp16, by its own defaults.

    with LlamaCppPeer(PeerOptions(Path("model.gguf"))) as peer:
        peer.complete(peer.tokenize("Once upon a time"), max_tokens=64).decode_tokens_per_s
"""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import psutil

START_TIMEOUT_S = 120
REQUEST_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """How llama.cpp is set up.

    Attributes:
        context_len: of all slots together.
        flash_attention: "auto" (its default, which is on for CPUs), "enabled" or "disabled".
        micro_batch_len: prompt tokens computed at once (its ``n_ubatch``).
        reused_chunk_len: shortest chunk of a cached prompt that is shifted to where it stands now, when what was before
            it has changed (its ``n_cache_reuse``); 0 = none.
        num_slots: requests that run at once, each with its part of the context (its ``n_parallel``).
        saved_prompts_mib: memory beside the KV cache for prompts that left their slot (its ``cache_ram``).
    """

    model_path: Path
    context_len: int = 4096
    num_threads: int = 2
    flash_attention: str = "auto"
    micro_batch_len: int = 512
    reused_chunk_len: int = 0
    num_slots: int = 1
    saved_prompts_mib: int = 8192

    def __str__(self) -> str:
        slots = f", slots: {self.num_slots}" if self.num_slots > 1 else ""
        return f"threads: {self.num_threads}, flash attention: {self.flash_attention}{slots}"


@dataclass(frozen=True, slots=True)
class Completion:
    """A greedy completion and its times.

    Attributes:
        num_prefilled: prompt tokens computed; the others came from the prompt cache.
        prefill_s: until the first token.
        decode_s: from the first token to the last.
    """

    token_ids: list[int]
    num_prefilled: int
    prefill_s: float
    decode_s: float

    @property
    def prefill_tokens_per_s(self) -> float:
        """Computed prompt tokens ÷ time to the first token."""
        return self.num_prefilled / self.prefill_s

    @property
    def decode_tokens_per_s(self) -> float:
        """(output tokens − 1) ÷ (last token − first token)."""
        return (len(self.token_ids) - 1) / self.decode_s


class LlamaCppPeer:
    """A running llama.cpp. Use as a context manager; one request at a time, unless it has more slots.

    Attributes:
        version: of the wheel.
        system_info: llama.cpp's line about the instruction sets it was built for.
        address: where it listens, as a URL.
        start_s: from starting the process to its being ready, warmed up.
    """

    def __init__(self, options: PeerOptions) -> None:
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, __file__, *map(str, astuple(options))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        first_line = self._process.stdout.readline()
        if not first_line:
            raise RuntimeError(f"llama.cpp did not start, exit code {self._process.wait(START_TIMEOUT_S)}")
        ready = json.loads(first_line)
        self.start_s = time.perf_counter() - started
        self.address: str = ready["address"]
        self.version: str = ready["version"]
        self.system_info: str = ready["system_info"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def cpu_s(self) -> float:
        """Processor time that the process has taken so far."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def close(self) -> None:
        """End the process. Idempotent."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of a text; the flags mean what they mean for ``layerscale_core``'s tokenizers."""
        body = {"content": text, "add_special": add_special, "parse_special": parse_special}
        return list(self._post("/tokenize", body)["tokens"])

    def complete(self, prompt_ids: Sequence[int], max_tokens: int) -> Completion:
        """Continue greedily by exactly ``max_tokens`` tokens, timed by llama.cpp's own clock, without HTTP and JSON."""
        return self.complete_at_once([prompt_ids], max_tokens)[0]

    def complete_at_once(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[Completion]:
        """Continue as many prompts as there are slots at the same time; otherwise like ``complete``."""
        answers = self._complete(prompts, n_predict=max_tokens, return_tokens=True, ignore_eos=True)
        return [
            Completion(
                token_ids=answer["tokens"],
                num_prefilled=answer["timings"]["prompt_n"],
                prefill_s=answer["timings"]["prompt_ms"] / 1e3,
                decode_s=answer["timings"]["predicted_ms"] / 1e3,
            )
            for answer in answers
        ]

    def next_token_logprobs(self, prompt_ids: Sequence[int], num_top: int) -> list[tuple[int, float]]:
        """The likeliest next tokens with their log-probabilities under the unmodified distribution, best first."""
        answer = self._complete([prompt_ids], n_predict=1, n_probs=num_top, post_sampling_probs=False)[0]
        return [(top["id"], top["logprob"]) for top in answer["completion_probabilities"][0]["top_logprobs"]]

    def _complete(self, prompts: Sequence[Sequence[int]], **options: object) -> list[dict[str, Any]]:
        fields = ["tokens", "timings", "completion_probabilities"]
        body = {"prompt": list(map(list, prompts)), "temperature": 0.0, "cache_prompt": True, "response_fields": fields}
        answer = self._post("/completion", body | options)
        return answer if isinstance(answer, list) else [answer]  # it answers one prompt without a list around it

    def _post(self, path: str, body: Mapping[str, object]) -> Any:
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=REQUEST_TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
        if response.status != http.client.OK:
            raise RuntimeError(f"llama.cpp answered {response.status} to {path}: {content[:500]!r}")
        return json.loads(content)


def serve(*fields: str) -> None:
    """The peer's process: start, say where it listens in one line of JSON, stay until the parent is gone.

    Args:
        fields: of ``PeerOptions``, in order.
    """
    model_path, context_len, num_threads, flash_attention, *numbers = fields
    micro_batch_len, reused_chunk_len, num_slots, saved_prompts_mib = map(int, numbers)
    import xllamacpp  # noqa: PLC0415 (100 MB that the client's process does without)

    params = xllamacpp.CommonParams()
    params.model.path = model_path
    params.n_ctx = int(context_len)
    params.n_parallel = num_slots
    params.n_ubatch = micro_batch_len
    params.n_cache_reuse = reused_chunk_len
    params.cache_ram_mib = saved_prompts_mib
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(num_threads)
    params.flash_attn_type = getattr(
        xllamacpp.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{flash_attention.upper()}"
    )
    params.verbosity = 0
    server = xllamacpp.Server(params)
    ready = {
        "address": server.listening_address,
        "version": xllamacpp.__version__,
        "system_info": xllamacpp.get_system_info(),
    }
    print(json.dumps(ready), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve(*sys.argv[1:])
