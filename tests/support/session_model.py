"""A session as a plain list of tokens: what it must hold after a history of operations."""

from __future__ import annotations

from dataclasses import dataclass, field

from layerscale_core.sessions import ChatPrompt, NoPrompt, Prompt, TextPrompt
from layerscale_core.sessions.context import tail_reserve

NEWLINE = ord("\n")


@dataclass
class PlainSession:
    """Tokens by region, without pages, positions or steps.

    Attributes:
        head: what comes before the data.
        window: the data region, oldest first, each run with whether it is an entry.
    """

    context_len: int
    window_size: int
    head: list[int] = field(default_factory=list)
    window: list[tuple[bool, list[int]]] = field(default_factory=list)
    tail: list[int] = field(default_factory=list)
    prefix_end: int = 0
    has_data: bool = False
    data_version: int = 0
    revision: int = 0

    @property
    def durable(self) -> list[int]:
        return self.head + self.data

    @property
    def data(self) -> list[int]:
        return [token for _, run in self.window for token in run]

    @property
    def tokens(self) -> list[int]:
        return self.durable + self.tail

    @property
    def num_entries(self) -> int:
        return sum(is_entry for is_entry, _ in self.window)

    def begin_data(self) -> None:
        """The first batch is about to come: what is held is frozen, and ends with a line."""
        if not self.has_data:
            self.has_data = True
            self.tail = []
            self.prefix_end = len(self.head)
            if self.head and self.head[-1] != NEWLINE and len(self.head) < self.context_len:
                self.head.append(NEWLINE)

    def append(self, tokens: list[int], *, goes_to_head: bool) -> bool:
        """Returns whether it fits."""
        held = self.durable if self.has_data else self.tokens
        if len(held) + len(tokens) > self.context_len:
            return False
        if not tokens:
            return True
        self.revision += 1
        if not self.has_data:
            self.head = held + tokens
            self.tail = []
        elif goes_to_head:
            self.head += tokens
            self.tail = []
        else:
            self.window.append((False, tokens))
            self.tail = []
        return True

    def mark_prefix(self) -> None:
        self.tail = []
        self.prefix_end = len(self.head)

    def ingest(self, entries: list[list[int]]) -> None:
        self.begin_data()
        self.tail = []
        self.data_version += 1
        self.revision += 1
        budget = max(0, self.context_len - len(self.head) - tail_reserve(self.context_len))
        new = entries[-self.window_size :]
        while sum(map(len, new)) > budget:
            new = new[1:]
        num_new = sum(map(len, new))
        wanted = budget if len(self.data) + num_new <= budget else budget - budget // 8
        while self.window and (len(self.data) + num_new > wanted or self.num_entries + len(new) > self.window_size):
            self.window.pop(0)
        self.window += [(True, entry) for entry in new]

    def place(self, prompt: Prompt) -> list[int] | None:
        """The tail that a prompt makes; None if it cannot be."""
        match prompt:
            case TextPrompt(token_ids):
                tail = [*([] if self.has_data else self.tail), *token_ids]
            case NoPrompt():
                tail = list(self.tail)
            case ChatPrompt(token_ids):
                tail = self._place_conversation(list(token_ids), prompt.bos_id)
        num_tokens = len(self.durable) + len(tail)
        return tail if 0 < num_tokens < self.context_len else None

    def _place_conversation(self, token_ids: list[int], bos_id: int | None) -> list[int]:
        durable = self.durable
        if token_ids[: len(durable)] == durable:
            return token_ids[len(durable) :]
        return token_ids[1:] if token_ids[:1] == [bos_id] else token_ids
