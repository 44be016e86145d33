"""Log lines."""

from __future__ import annotations

import io
import json
import logging
import re
from datetime import datetime

import pytest

from layerscale_server.logging import AS_TABLE, Logger, bound_fields, configure_logging, get_logger
from layerscale_server.text import printable
from tests.server.conftest import FakeServer, MakeServer

HOSTILE = "a\nb\r\x1b[31mc\x00\x9b\u2028\u2029\u202e\x85d"


def lines_of(log_format: str, level: str = "info") -> tuple[io.StringIO, Logger]:
    stream = io.StringIO()
    configure_logging(log_format, level, stream)
    return stream, get_logger("layerscale.test")


def test_json_is_one_object_a_line() -> None:
    stream, logger = lines_of("json")
    with bound_fields(request_id="req_1"):
        logger.info(f"hello {HOSTILE}", duration_ms=1.5, path=HOSTILE)
    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)
    assert list(event)[:4] == ["time", "level", "logger", "message"]
    assert datetime.fromisoformat(event["time"]).tzinfo is not None
    assert (event["level"], event["logger"], event["message"]) == ("info", "layerscale.test", f"hello {HOSTILE}")
    assert (event["request_id"], event["duration_ms"], event["path"]) == ("req_1", 1.5, HOSTILE)
    assert line.isascii()


def test_text_is_one_line_that_nobody_can_forge() -> None:
    stream, logger = lines_of("text")
    logger.info(f"hello {HOSTILE}", path=HOSTILE)
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert re.fullmatch(r"\S+Z INFO    layerscale\.test: hello a\\x0ab.* path=a\\x0ab.*\n", text)
    assert printable(text.rstrip("\n")) == text.rstrip("\n")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_libraries_log_in_the_same_format(log_format: str) -> None:
    stream, _ = lines_of(log_format)
    logging.getLogger("some.library").warning("count %d of %s", 3, HOSTILE)
    logging.getLogger("uvicorn.error").info("not shown")
    (line,) = stream.getvalue().splitlines()
    assert "some.library" in line
    assert "count 3 of a" in line


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_traceback_cannot_be_taken_for_lines(log_format: str) -> None:
    stream, logger = lines_of(log_format)
    try:
        raise RuntimeError("2026-01-01T00:00:00Z INFO    layerscale: forged\n2026-01-01T00:00:00Z INFO forged")
    except RuntimeError:
        logger.exception("it failed")
    first, *rest = stream.getvalue().splitlines()
    assert "it failed" in first
    if log_format == "json":
        assert rest == []
        assert "RuntimeError" in json.loads(first)["exception"]
    else:
        assert all(line.startswith("    | ") for line in rest)
        assert any("RuntimeError" in line for line in rest)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_passwords_in_urls_are_taken_out(log_format: str) -> None:
    stream, _ = lines_of(log_format)
    url = "https://user:PLANTED@mirror.test:8443/a@b"
    try:
        raise RuntimeError(f"cannot ask {url}")
    except RuntimeError:
        logging.getLogger("some.library").exception("trying %s again", url)
    assert "PLANTED" not in stream.getvalue()
    assert stream.getvalue().count("https://mirror.test:8443/a@b") == 2


def test_table_for_people_is_fields_for_machines() -> None:
    stream, logger = lines_of("text")
    logger.info("plan", **{AS_TABLE: ["weights  93 MiB", "context  8192\x1b[2J"]}, weights_mib=93)
    first, *rows = stream.getvalue().splitlines()
    assert first.endswith("layerscale.test: plan")
    assert rows == ["    | weights  93 MiB", "    | context  8192\\x1b[2J"]
    stream, logger = lines_of("json")
    logger.info("plan", **{AS_TABLE: ["weights  93 MiB"]}, weights_mib=93)
    event = json.loads(stream.getvalue())
    assert event["weights_mib"] == 93
    assert AS_TABLE not in event


def test_level_holds() -> None:
    stream, logger = lines_of("text", "warning")
    logger.info("not shown")
    logger.warning("shown")
    assert len(stream.getvalue().splitlines()) == 1


def test_request_is_one_line_without_what_was_said(server: FakeServer, logs: io.StringIO) -> None:
    secret = "my-secret-prompt"
    response = server.post("/v1/chat/completions?token=hidden", {"messages": [{"role": "user", "content": secret}]})
    assert response.status_code == 200
    (line,) = logs.getvalue().splitlines()
    event = json.loads(line)
    assert event["request_id"] == response.headers["x-request-id"]
    assert (event["method"], event["path"], event["status"]) == ("POST", "/v1/chat/completions", 200)
    assert event["duration_ms"] > 0
    answer = response.json()["choices"][0]["message"]["content"]
    assert not any(word in line for word in (secret, "hidden", answer))


def test_a_request_to_a_session_names_it(make_server: MakeServer, logs: io.StringIO) -> None:
    server = make_server(num_sessions=2)
    made = server.post("/v1/sessions/init", {"type": "event"}).json()["session_id"]
    copied = server.post(f"/v1/sessions/{made}/fork", {}).json()["session_id"]
    hi = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    server.post("/v1/chat/completions", hi | {"session_id": copied})
    server.post("/v1/chat/completions", hi)
    server.get("/v1/sessions/unknown%0A/state")
    events = map(json.loads, logs.getvalue().splitlines())
    assert [event.get("session_id") for event in events] == [made, made, copied, None, "unknown\n"]


def test_polled_routes_are_quiet(server: FakeServer, logs: io.StringIO) -> None:
    for path in ("/health", "/v1/health", "/metrics"):
        server.get(path)
    assert logs.getvalue() == ""
