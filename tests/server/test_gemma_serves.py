"""Gemma 3 serves what SmolLM2 serves: completions, and a session whose data outgrow the context, in an 8-bit cache."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.model, pytest.mark.xdist_group("gemma3"), pytest.mark.timeout(300)]

CONTEXT_LEN = 768
NUM_BARS = 60
"""Some 1,400 tokens."""


@pytest.fixture(scope="module")
def client(gemma_model_path: Path) -> Iterator[httpx.Client]:
    flags = ("--context", str(CONTEXT_LEN), "--kv-cache-type", "int8")
    with (
        ServerProcess(gemma_model_path, *flags) as running,
        httpx.Client(base_url=running.wait_until_ready().address, timeout=60) as client,
    ):
        yield client


def test_completes(client: httpx.Client) -> None:
    request = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
    [choice] = client.post("/v1/completions", json=request).json()["choices"]
    assert choice["text"].startswith(" the capital of")


def test_a_session_slides_along_its_data(client: httpx.Client) -> None:
    opening = {"type": "ohlcv", "prompt": "You watch the market.", "window_size": 1000}
    session = f"/v1/sessions/{client.post('/v1/sessions/init', json=opening).json()['session_id']}"
    bars = [
        {
            "o": 10.0 + day,
            "h": 12.5 + day,
            "l": 9.75,
            "c": 11.25 + day,
            "v": 1200.0,
            "timestamp": 1704205800 + 86400 * day,
        }
        for day in range(NUM_BARS)
    ]
    client.post(f"{session}/stream/push", json={"data": bars})
    status = client.get(f"{session}/stream/status").json()
    while status["statistics"]["items_processed"] < NUM_BARS:
        time.sleep(0.1)
        status = client.get(f"{session}/stream/status").json()
    assert 0 < status["data"]["data_count"] < NUM_BARS
    answer = client.post(f"{session}/generate", json={"prompt": "The last price was", "max_tokens": 8}).json()
    assert answer["finish_reason"] in ("length", "stop")
    assert answer["total_tokens"] <= CONTEXT_LEN
    assert client.delete(session).status_code == 200
