"""A server that fetches its model: the repository's safetensors, by its name alone."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.support.hub_folders import CLUTTER, tiny_repository
from tests.support.server_process import ServerProcess
from tests.support.stand_in_hub import StandInHub, StandInRepository

QUESTION = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 5}


def test_a_repository_is_fetched_and_served_under_its_id(hub: StandInHub, tmp_path: Path) -> None:
    hub.repositories["org/model"] = StandInRepository(tiny_repository(tmp_path / "made", num_shards=2))
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    with ServerProcess("org/model", environment=environment) as serving:
        serving.wait_until_ready()
        answer = httpx.post(f"{serving.address}/v1/chat/completions", json=QUESTION, timeout=30)
    assert answer.status_code == 200
    assert answer.json()["model"] == "org/model"
    assert answer.json()["usage"]["completion_tokens"] > 0
    assert not set(hub.downloads()) & CLUTTER.keys()
    assert all(event["logger"].startswith("layerscale") for event in serving.events)
