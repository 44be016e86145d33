"""``layerscale bench``: how fast a model, or a server, is."""

from __future__ import annotations

from layerscale_server.commands.lazy_group import LazyGroup

bench = LazyGroup(
    "bench",
    places={
        "rates": "layerscale_server.commands.bench_rates:rates",
        "serving": "layerscale_server.commands.bench_serving:serving",
        "streams": "layerscale_server.commands.bench_streams:streams",
    },
    help="Measure a model in this process, or any server over HTTP.",
)
