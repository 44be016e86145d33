"""``/metrics``."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.server.conftest import FakeServer, MakeServer

HI = {"prompt": "hi", "max_tokens": 4, "temperature": 0}


def samples(server: FakeServer) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    response = server.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_counts_requests_by_route_and_status(server: FakeServer) -> None:
    server.post("/v1/completions", HI)
    server.post("/v1/completions", {})
    server.get("/v1/models/some-name-from-outside")
    server.get("/some/path/from/outside")
    server.request("BREW", "/health")
    found = samples(server)

    def count(method: str, route: str, status: str) -> float:
        labels = (("method", method), ("route", route), ("status", status))
        return found["layerscale_http_requests_total", labels]

    assert count("POST", "/v1/completions", "200") == 1
    assert count("POST", "/v1/completions", "400") == 1
    assert count("GET", "/v1/models/{model_id:path}", "404") == 1
    assert count("GET", "unknown", "404") == 1
    assert count("other", "/health", "405") == 1
    assert "from" not in str(found)


def test_counts_tokens_and_observes_times(server: FakeServer) -> None:
    server.post("/v1/completions", HI)
    found = samples(server)
    assert found["layerscale_prompt_tokens_total", ()] == 3
    assert found["layerscale_generated_tokens_total", ()] == 4
    assert found["layerscale_generations_total", (("reason", "length"),)] == 1
    for name in ("time_to_first_token", "time_per_output_token", "queue"):
        assert found[f"layerscale_{name}_seconds_count", ()] == 1
    assert found["layerscale_step_seconds_count", ()] == found["layerscale_steps_total", ()] > 0
    assert found["layerscale_failed_steps_total", ()] == 0


def test_tells_what_the_prefix_cache_gave_and_why_not_more(server: FakeServer) -> None:
    long = {"prompt": "more than sixteen tokens", "max_tokens": 1}
    for body in (HI, long, long, {**long, "echo": True, "logprobs": 0}):
        server.post("/v1/completions", body)
    found = samples(server)
    misses = {labels[0][1]: count for (name, labels), count in found.items() if name.endswith("prefix_misses_total")}
    assert misses == {"too_short": 1, "never_seen": 1, "bypassed": 1}
    assert found["layerscale_cached_prompt_tokens_total", ()] == 16
    assert found["layerscale_kv_cells_cached", ()] == 16
    assert found["layerscale_kv_cells_used", ()] == 0


def test_shows_what_the_engine_holds(server: FakeServer) -> None:
    found = samples(server)
    assert found["layerscale_kv_cells", ()] == 2 * 256
    assert found["layerscale_kv_cells_used", ()] == 0
    assert found["layerscale_requests_running", ()] == found["layerscale_requests_queued", ()] == 0
    assert found["layerscale_healthy", ()] == 1


def test_two_servers_of_one_process_do_not_mix(make_server: MakeServer) -> None:
    first, second = make_server(), make_server()
    first.post("/v1/completions", HI)
    assert samples(first)["layerscale_generated_tokens_total", ()] == 4
    assert samples(second)["layerscale_generated_tokens_total", ()] == 0
