"""Flash Queries: questions registered once and answered again after every batch of data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerscale_core.errors import ConflictError, ContextLengthError, InvalidRequestError, NotFoundError
from layerscale_core.sessions.events import FlashReady

MAX_QUERIES = 20
MAX_ANSWER_TOKENS = 256
DEFAULT_ANSWER_TOKENS = 32


def check_question(token_ids: Sequence[int], num_held: int, context_len: int, *, param: str) -> None:
    """See that a question could ever be answered.

    Args:
        num_held: tokens of the session that come before it and never go.
        param: the field of the request that holds it.

    Raises:
        ContextLengthError: it leaves no room for an answer.
    """
    num_tokens = num_held + len(token_ids)
    if num_tokens >= context_len:
        raise ContextLengthError(num_tokens, context_len, param=param)


@dataclass(frozen=True, slots=True)
class FlashAnswer:
    """A Flash Query's newest answer.

    Attributes:
        num_tokens: of the value.
        data_version: the version it is based on.
        revision: the session's durable content it is based on; fresh while that is the session's.
        confidence: logit gap of the first token.
        evaluated_at: Unix seconds.
    """

    value: str
    num_tokens: int
    data_version: int
    revision: int
    confidence: float
    evaluated_at: int


@dataclass(frozen=True, slots=True)
class FlashQuery:
    """A registered question.

    Attributes:
        token_ids: of the question.
        answer: None until there is one.
    """

    id: int
    query: str
    max_tokens: int
    token_ids: tuple[int, ...]
    answer: FlashAnswer | None = None

    def ready_event(self) -> FlashReady:
        """What subscribers are told of its answer."""
        answer = self.answer
        assert answer is not None
        return FlashReady(
            self.id, self.query, answer.value, answer.data_version, answer.confidence, answer.evaluated_at
        )


class FlashBoard:
    """A session's queries with their newest answers. Written by the engine thread; ``queries`` is read by any."""

    def __init__(self) -> None:
        self.queries: tuple[FlashQuery, ...] = ()
        self._last_id = 0

    def register(self, query: str, max_tokens: int, token_ids: tuple[int, ...]) -> FlashQuery:
        """Add a question.

        Raises:
            ConflictError: the same text is registered.
            InvalidRequestError: there are too many.
        """
        if any(each.query == query for each in self.queries):
            raise ConflictError("this query is registered already", code="duplicate_flash_query")
        if len(self.queries) >= MAX_QUERIES:
            raise InvalidRequestError(f"a session has at most {MAX_QUERIES} flash queries", param="query")
        self._last_id += 1
        added = FlashQuery(self._last_id, query, min(max(max_tokens, 1), MAX_ANSWER_TOKENS), token_ids)
        self.queries = (*self.queries, added)
        return added

    def get(self, query_id: int) -> FlashQuery | None:
        """A query, if it is registered."""
        return next((each for each in self.queries if each.id == query_id), None)

    def find(self, text: str) -> FlashQuery | None:
        """The query with this text, white space around it aside."""
        wanted = text.strip()
        return next((each for each in self.queries if each.query.strip() == wanted), None)

    def put(self, changed: FlashQuery) -> None:
        """Replace a query by itself with another answer."""
        self.queries = tuple(changed if each.id == changed.id else each for each in self.queries)

    def remove(self, query_id: int) -> int:
        """Forget a query; returns how many are left.

        Raises:
            NotFoundError: there is none with this id.
        """
        if self.get(query_id) is None:
            raise NotFoundError("there is no such flash query", code="flash_query_not_found")
        self.queries = tuple(each for each in self.queries if each.id != query_id)
        return len(self.queries)

    def restore(self, queries: tuple[FlashQuery, ...], last_id: int) -> None:
        """Begin where another board was left."""
        self.queries, self._last_id = queries, last_id

    @property
    def last_id(self) -> int:
        """The id given last; ids are not reused."""
        return self._last_id
