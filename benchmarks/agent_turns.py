"""An agent's conversation of 35 turns: a LayerScale session, its prefix cache alone, and llama.cpp with its own cache.

    python benchmarks/agent_turns.py --model MODEL.gguf [--json FILE]

Every turn sends the whole conversation to ``/v1/chat/completions``, as agents do. Each server is to compute what is new
in it, and to answer with so many tokens, which nobody reads: the next turn holds what was written beforehand.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent_script import NUM_TURNS, Message, conversation
from compare_llama_cpp import describe_run
from llama_cpp_peer import LlamaCppPeer, PeerOptions

from layerscale_core.host import inspect_host
from layerscale_server.bench.api_client import ApiClient
from layerscale_server.bench.server_process import LayerScaleProcess

CONTEXT_LEN = 8192
ANSWER_TOKENS = 32

SESSION, STATELESS, PEER = "session", "prefix cache", "llama.cpp"


@dataclass(frozen=True, slots=True)
class TurnFigures:
    """What one turn cost.

    Attributes:
        num_prefilled: tokens of the prompt that were computed, by the server's own count.
        ttft_s, total_s: from sending the request to the first and the last token.
    """

    num_prompt_tokens: int
    num_prefilled: int
    ttft_s: float
    total_s: float


def main() -> None:
    """Measure, print, and write what is needed to repeat it."""
    arguments = _parse_arguments()
    runs: dict[str, list[TurnFigures]] = {SESSION: [], STATELESS: [], PEER: []}
    peer_options = PeerOptions(arguments.model, CONTEXT_LEN, num_threads=inspect_host().num_usable_cpus)
    with (
        tempfile.NamedTemporaryFile() as log,
        LayerScaleProcess(arguments.model, log.file, "--context", str(CONTEXT_LEN)) as server,
        LlamaCppPeer(peer_options) as peer,
    ):
        setting = describe_run(arguments) | {"llama.cpp": f"xllamacpp {peer.version}, {peer_options}"}
        for number in range(arguments.repetitions):
            script = list(conversation(arguments.turns, seed=arguments.seed + number))
            runs[STATELESS] += converse(server.address, script)
            runs[SESSION] += converse_in_session(server.address, script)
            runs[PEER] += converse(peer.address, script)
    _print_report(runs, arguments.turns)
    if arguments.json is not None:
        figures = {name: [asdict(turn) for turn in turns] for name, turns in runs.items()}
        arguments.json.write_text(json.dumps({"setting": setting, "turns": figures}, indent=2) + "\n")


def converse_in_session(address: str, script: Sequence[Sequence[Message]]) -> list[TurnFigures]:
    """A conversation in a session of its own."""
    with ApiClient(address) as client:
        session_id = client.request("POST", "/v1/sessions/init", {"type": "event"})["session_id"]
        turns = converse(address, script, session_id=session_id)
        client.request("DELETE", f"/v1/sessions/{session_id}")
    return turns


def converse(address: str, script: Sequence[Sequence[Message]], **fields: str) -> list[TurnFigures]:
    """A conversation, turn by turn, each on a connection of its own: llama.cpp closes those that have streamed."""
    turns = []
    for messages in script:
        with ApiClient(address) as client:
            turns.append(_turn(client, messages, fields))
    return turns


def _turn(client: ApiClient, messages: Sequence[Message], fields: Mapping[str, str]) -> TurnFigures:
    body: dict[str, Any] = {
        "messages": messages,
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        **fields,
    }
    times: list[float] = []
    usage: Mapping[str, Any] = {}
    started = time.perf_counter()
    for moment, chunk in client.post_stream("/v1/chat/completions", body):
        if any(choice["delta"].get("content") for choice in chunk["choices"]):
            times.append(moment - started)
        usage = chunk.get("usage") or usage
    assert usage["completion_tokens"] == ANSWER_TOKENS
    num_cached = usage["prompt_tokens_details"]["cached_tokens"]
    return TurnFigures(usage["prompt_tokens"], usage["prompt_tokens"] - num_cached, times[0], times[-1])


def _print_report(runs: Mapping[str, Sequence[TurnFigures]], num_turns: int) -> None:
    print(f"{'':14}{'prefilled':>12}{'of sent':>12}{'to first tokens':>18}{'wall time':>12}{'llama.cpp ÷ it':>17}")
    peer_s = sum(turn.total_s for turn in runs[PEER])
    for name, turns in runs.items():
        num_conversations = len(turns) / num_turns
        prefilled, sent = (
            sum(count) / num_conversations
            for count in zip(*((turn.num_prefilled, turn.num_prompt_tokens) for turn in turns), strict=True)
        )
        ttft_s, total_s = (
            sum(seconds) for seconds in zip(*((turn.ttft_s, turn.total_s) for turn in turns), strict=True)
        )
        print(
            f"{name:14}{prefilled:12,.0f}{sent:12,.0f}{ttft_s / num_conversations:16.2f} s"
            f"{total_s / num_conversations:10.2f} s{peer_s / total_s:16.2f}x"
        )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file that both engines read")
    parser.add_argument("--turns", type=int, default=NUM_TURNS, help=f"of each conversation (default {NUM_TURNS})")
    parser.add_argument("--repetitions", type=int, default=3, help="conversations, none like another (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the first conversation (default 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every turn to FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
