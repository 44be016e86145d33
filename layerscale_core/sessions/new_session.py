"""A session to be made, as its client asked for it."""

from __future__ import annotations

from dataclasses import dataclass

from layerscale_core.sessions.flash import DEFAULT_ANSWER_TOKENS


@dataclass(frozen=True, slots=True)
class NewFlashQuery:
    """A question to register with a session from its beginning."""

    query: str
    token_ids: tuple[int, ...]
    max_tokens: int = DEFAULT_ANSWER_TOKENS


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session before there is one.

    Attributes:
        type: name of a stream type.
        prompt_ids: what its context begins with.
        context_len: most tokens; None = as many as the server allows, which more are cut to.
        window_size: most entries.
        label: by which it is found again, see ``layerscale_core.sessions.adoption``; empty for most.
    """

    type: str
    prompt_ids: tuple[int, ...] = ()
    context_len: int | None = None
    window_size: int = 10_000
    flash: tuple[NewFlashQuery, ...] = ()
    label: str = ""
