"""A licence that ends while the server runs."""

from __future__ import annotations

import asyncio
import io
import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from layerscale_core.specs import FREE_LICENSE, PRO_TIER, License
from layerscale_server.license_watch import watch_license
from tests.server.conftest import PRO_KEY, FakeServer, Gate, MakeServer

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 4}
KEY = {"x-api-key": PRO_KEY}
END = datetime(2027, 1, 1, tzinfo=UTC)
DAY_S = 24 * 60 * 60


@pytest.fixture
def expiring_server(make_server: MakeServer) -> FakeServer:
    """One whose licence holds for an hour."""
    return make_server(tier=PRO_TIER, license_key=PRO_KEY, expires_at=time.time() + 3600)


def expire(server: FakeServer) -> None:
    server.state.license = replace(server.state.license, expires_at=time.time())


def test_running_streams_finish_and_new_requests_get_a_stable_code(expiring_server: FakeServer) -> None:
    gate = Gate(expiring_server.executor)

    async def work(client: httpx.AsyncClient) -> tuple[httpx.Response, httpx.Response]:
        running = asyncio.create_task(client.post(CHAT, json=HI | {"stream": True}, headers=KEY))
        await asyncio.to_thread(gate.wait_until_reached)
        expire(expiring_server)
        refused = await client.post(CHAT, json=HI, headers=KEY)
        gate.open()
        return await running, refused

    finished, refused = expiring_server.run(work)
    assert finished.status_code == 200
    assert '"finish_reason":"length"' in finished.text
    assert finished.text.endswith("data: [DONE]\n\n")
    error = refused.json()["error"]
    assert (refused.status_code, error["type"], error["code"]) == (403, "permission_error", "license_expired")


def test_expiry_opens_nothing_and_is_seen_from_outside(expiring_server: FakeServer) -> None:
    assert expiring_server.get("/health").status_code == 200
    assert expiring_server.get("/v1/models", headers=KEY).json()["server"]["licensed"] is True
    expire(expiring_server)
    assert expiring_server.get("/v1/models").status_code == 401
    assert expiring_server.post(CHAT, HI).status_code == 401
    assert expiring_server.get("/v1/models", headers=KEY).json()["server"]["licensed"] is False
    assert expiring_server.get("/health").status_code == 503
    assert expiring_server.get("/metrics").status_code == 200


def watched(license_: License, start: datetime, num_sleeps: int, logs: io.StringIO) -> tuple[list[str], list[float]]:
    """The levels that a watch logs, and how long it sleeps, until it has slept so often; its clock is virtual."""
    now = start.timestamp()
    sleeps: list[float] = []

    class Enough(Exception):
        pass

    async def sleep(seconds: float) -> None:
        nonlocal now
        if len(sleeps) == num_sleeps:
            raise Enough
        sleeps.append(seconds)
        now += seconds

    with pytest.raises(Enough):
        asyncio.run(watch_license(license_, lambda: now, sleep))
    return [json.loads(line)["level"] for line in logs.getvalue().splitlines()], sleeps


def test_warns_daily_from_fourteen_days_before_and_says_when_it_is_over(logs: io.StringIO) -> None:
    license_ = License(PRO_TIER, END.timestamp())
    levels, sleeps = watched(license_, END - timedelta(days=16, hours=6), 19, logs)
    assert sleeps == [DAY_S] * 16 + [DAY_S / 4] + [DAY_S] * 2
    assert levels == ["warning"] * 14 + ["error"] * 3


@pytest.mark.parametrize(("before_s", "levels"), [(14 * DAY_S + 1, []), (14 * DAY_S, ["warning"]), (0, ["error"])])
def test_the_first_word_comes_at_start(logs: io.StringIO, before_s: float, levels: list[str]) -> None:
    assert watched(License(PRO_TIER, END.timestamp()), END - timedelta(seconds=before_s), 0, logs)[0] == levels


def test_the_warning_gives_the_moment_and_the_days(logs: io.StringIO) -> None:
    watched(License(PRO_TIER, END.timestamp()), END - timedelta(days=3, hours=1), 0, logs)
    event = json.loads(logs.getvalue())
    assert "2027-01-01T00:00Z" in event["message"]
    assert event["days_left"] == 3


def test_the_free_licence_is_not_watched(logs: io.StringIO) -> None:
    asyncio.run(watch_license(FREE_LICENSE))
    assert logs.getvalue() == ""
