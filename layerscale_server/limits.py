"""What one client may ask of the server: every limit in one place, each set with ``--limit NAME=VALUE``."""

from __future__ import annotations

from dataclasses import dataclass

from layerscale_server.rows import row

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the edge and of the queue. A request at a limit passes, one past it is refused."""

    head_bytes: int = row(16 << 10, kind=int, minimum=1024, help="bytes of a request's head")
    head_fields: int = row(64, kind=int, minimum=8, help="header fields of a request")
    body_bytes: int = row(16 * _MIB, kind=int, minimum=1024, help="bytes of a request's body or of a WebSocket message")
    header_deadline_s: float = row(10.0, kind=float, minimum=0.1, help="seconds to send a request's head")
    body_deadline_s: float = row(30.0, kind=float, minimum=0.1, help="seconds to send a request's body")
    write_deadline_s: float = row(10.0, kind=float, minimum=0.1, help="seconds a client may leave its answer unread")
    heartbeat_s: float = row(10.0, kind=float, minimum=0.1, help="seconds of silence before a stream sends a comment")
    event_heartbeat_s: float = row(
        15.0, kind=float, minimum=0.1, help="seconds between signs of life to a session's subscribers"
    )
    event_subscribers: int = row(1024, kind=int, minimum=1, help="listeners to the events of one session")
    bearer_bytes: int = row(1024, kind=int, minimum=16, help="bytes of a bearer token")
    json_depth: int = row(64, kind=int, minimum=8, maximum=512, help="levels of nesting in a JSON body")
    json_keys: int = row(4096, kind=int, minimum=64, help="keys of one JSON object")
    json_containers: int = row(65_536, kind=int, minimum=64, help="objects and arrays in a JSON body")
    json_values: int = row(1_200_000, kind=int, minimum=64, help="values in a JSON body")
    messages: int = row(2048, kind=int, minimum=1, help="messages of a conversation")
    tools: int = row(128, kind=int, minimum=1, help="tools of a request")
    prompts: int = row(1024, kind=int, minimum=1, help="prompts of one completion request")
    top_logprobs: int = row(20, kind=int, minimum=0, help="alternatives reported per token")
    stops: int = row(16, kind=int, minimum=1, help="stop texts of a request")
    stop_bytes: int = row(256, kind=int, minimum=1, help="bytes of a stop text")
    stop_token_ids: int = row(256, kind=int, minimum=1, help="stop token ids of a request")
    template_chars: int = row(
        _MIB,
        kind=int,
        minimum=1024,
        maximum=2 * _MIB,
        help="characters of a conversation as the model's template renders it",
    )
    template_render_s: float = row(
        0.25, kind=float, minimum=0.01, maximum=60, help="seconds of processor time to render a conversation"
    )
    grammar_bytes: int = row(64 << 10, kind=int, minimum=64, help="bytes of a schema, a pattern or a grammar")
    grammar_depth: int = row(64, kind=int, minimum=4, help="levels of nesting in a schema")
    grammar_rules: int = row(2000, kind=int, minimum=8, help="sub-schemas and listed values, choices or rules")
    grammar_compile_s: float = row(
        0.5, kind=float, minimum=0.01, help="seconds to compile a schema, pattern or grammar"
    )
    waiting_requests: int = row(1024, kind=int, minimum=1, help="requests that wait for the batch, or in one session")
    waiting_contexts: int = row(16, kind=int, minimum=1, help="waiting prompt tokens, in context windows")
    stream_events: int = row(4096, kind=int, minimum=16, help="events held for a client that does not read")
    window_entries: int = row(
        10_000, kind=int, minimum=1, maximum=10_000, help="entries of one session's window; never more"
    )
    ring_entries: int = row(16_384, kind=int, minimum=1, help="entries that wait in one session's stream")
    stored_responses: int = row(1024, kind=int, minimum=0, help="responses that can be gone on from")
    stored_response_chars: int = row(64 * _MIB, kind=int, minimum=0, help="characters of their conversations")
    stall_s: float = row(120.0, kind=float, minimum=1, help="seconds without a step, despite work, until unhealthy")
