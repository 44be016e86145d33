"""Random schedules over the pool with a memory behind it: whoever reads its table finds its own tokens, always."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest

from layerscale_core.engine.kv_pool import PagedKVPool
from layerscale_core.engine.page_table import PagedTable
from layerscale_core.specs import MissReason, PageCopy

PAGE_SIZE = 4


@dataclass
class Simulated:
    """A sequence: what its table must hold, where that begins in its whole history, and how far it may grow."""

    table: PagedTable
    history: list[int]
    first: int
    limit: int
    namespace: str

    @property
    def valid(self) -> list[int]:
        return self.history[self.first :]

    @property
    def room(self) -> int:
        return self.limit - len(self.history)


class PoolSimulation:
    """One random schedule: submit, grow, fork, drop, cancel, fail, with eviction as memory runs short."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.num_pages = self.chance.choice([6, 14, 40])
        self.num_session_pages = self.chance.choice([0, 0, 2])
        self.pool = PagedKVPool(self.num_pages, PAGE_SIZE, self.num_session_pages)
        self.memory = np.full((self.num_pages, PAGE_SIZE), -1)
        self.live: list[Simulated] = []
        self.seen: dict[str, int] = {}

    def count(self, event: str) -> None:
        self.seen[event] = self.seen.get(event, 0) + 1

    def run(self, num_steps: int) -> None:
        for _ in range(num_steps):
            act = self.chance.choices(
                [self.submit, self.grow, self.guess, self.fork, self.drop, self.cancel, self.fail],
                [4, 8, 4, 2, 1, 3, 0.5],
            )[0]
            act()
            self.check()
        self.fill_to_the_last_token()
        while self.live:
            self.cancel()
            self.check()
        stats = self.pool.stats()
        assert (stats.free_pages + stats.cached_pages, stats.reserved_pages) == (self.num_pages, 0)

    def submit(self) -> None:
        """A prompt over two token ids, so that prompts begin alike, with room for an answer."""
        prompt = self.chance.choices([1, 2], [5, 1], k=self.chance.randrange(1, 14))
        limit, namespace = len(prompt) + self.chance.randrange(10), self.chance.choice("ab")
        if not self.pool.can_admit(limit):
            assert self.live or not self.pool.fits_ever(limit), "an idle pool refuses what fits"
            self.count("refused")
            return
        table = self.pool.admit(limit)
        miss = self.pool.reuse_prefix(table, prompt, namespace)
        assert table.num_tokens < len(prompt)
        assert table.num_tokens % PAGE_SIZE == 0
        if miss is not None:
            assert table.num_tokens <= miss.token_index < len(prompt)
            self.count(miss.reason.value)
        self.count("hit" if table.num_tokens else "cold")
        sequence = Simulated(table, prompt[: table.num_tokens], 0, limit, namespace)
        self.live.append(sequence)
        self.write(sequence, prompt[table.num_tokens :])
        self.pool.publish(table, sequence.history, namespace)

    def grow(self) -> None:
        if growing := [each for each in self.live if each.room]:
            sequence = self.chance.choice(growing)
            self.write(sequence, self.chance.choices([1, 2], k=self.chance.randint(1, sequence.room)))

    def guess(self) -> None:
        """Grow by tokens of which only the first ones turn out to be right."""
        if growing := [each for each in self.live if each.room]:
            sequence = self.chance.choice(growing)
            num_tokens = self.chance.randint(1, sequence.room)
            promised = self.pool.stats().reserved_pages
            self.write(sequence, [1] * num_tokens)
            num_wrong = self.chance.randrange(num_tokens)
            self.pool.truncate(sequence.table, sequence.table.num_tokens - num_wrong)
            del sequence.history[len(sequence.history) - num_wrong :]
            assert self.pool.stats().reserved_pages <= promised
            self.count("guess")

    def fork(self) -> None:
        if not self.live:
            return
        parent = self.chance.choice(self.live)
        limit = len(parent.history) + self.chance.randrange(8)
        max_tokens = limit - parent.first
        if self.pool.can_fork(parent.table, max_tokens):
            before = self.pool.stats()
            table = self.pool.fork(parent.table, max_tokens)
            assert self.pool.stats().free_pages == before.free_pages
            self.live.append(Simulated(table, list(parent.history), parent.first, limit, parent.namespace))
            self.count("fork")

    def drop(self) -> None:
        if self.live and len((sequence := self.chance.choice(self.live)).valid) > 1:
            num_tokens = self.chance.randrange(1, len(sequence.valid))
            self.pool.drop_front(sequence.table, num_tokens)
            sequence.first += num_tokens
            self.count("drop")

    def cancel(self) -> None:
        if self.live:
            sequence = self.take()
            self.pool.publish(sequence.table, sequence.history, sequence.namespace)
            self.pool.release(sequence.table)

    def fail(self) -> None:
        if self.live:
            sequence = self.take()
            self.pool.withdraw(sequence.table)
            self.pool.release(sequence.table)
            self.count("fail")

    def take(self) -> Simulated:
        return self.live.pop(self.chance.randrange(len(self.live)))

    def fill_to_the_last_token(self) -> None:
        """Whatever was promised is there, all at once."""
        for sequence in self.live:
            self.write(sequence, [1] * sequence.room)
            self.check()

    def write(self, sequence: Simulated, token_ids: list[int]) -> None:
        num_evictable = self.pool.stats().cached_pages
        copy = self.pool.make_writable(sequence.table)
        if copy is not None:
            self.copy(copy)
        slots = self.pool.append(sequence.table, len(token_ids))
        self.memory.reshape(-1)[slots] = token_ids
        sequence.history += token_ids
        if self.pool.stats().cached_pages < num_evictable:
            self.count("evict")

    def copy(self, copy: PageCopy) -> None:
        self.memory[copy.target_id] = self.memory[copy.source_id]
        self.count("copy")

    def check(self) -> None:
        self.pool.check_integrity()
        self.pool.check_prefixes()
        stats = self.pool.stats()
        assert stats.free_pages + stats.cached_pages - stats.reserved_pages >= self.num_session_pages
        for sequence in self.live:
            held = [self.memory[page.page_id, page.start : page.stop] for page in sequence.table.pages]
            assert [token for page in held for token in page.tolist()] == sequence.valid, "somebody wrote here"


NUM_STEPS, NUM_SCHEDULES, NUM_PARTS = 250, 400, 8


@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_random_schedules_keep_every_promise(part: int) -> None:
    seen: dict[str, int] = {}
    for seed in range(part, NUM_SCHEDULES, NUM_PARTS):
        simulation = PoolSimulation(seed)
        simulation.run(NUM_STEPS)
        for event, number in simulation.seen.items():
            seen[event] = seen.get(event, 0) + number
    reasons = {reason.value for reason in MissReason} - {MissReason.BYPASSED.value}
    for event in {"refused", "hit", "cold", "guess", "fork", "drop", "copy", "fail", "evict"} | reasons:
        assert seen.get(event, 0) >= 20, f"hardly any {event}: the schedules test nothing ({seen})"


class ReservedSimulation:
    """One random life of a session's table and its forks, with stateless tables growing beside it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.num_pages, self.num_session_pages = 24, self.chance.choice([6, 12])
        self.pool = PagedKVPool(self.num_pages, PAGE_SIZE, self.num_session_pages)
        self.memory = np.full((self.num_pages, PAGE_SIZE), -1)
        self.reservation = self.pool.reserve(self.num_session_pages)
        self.table = self.pool.admit_reserved(self.reservation)
        self.held: list[int] = []
        self.num_apart = 0
        self.forks: list[tuple[PagedTable, list[int], int]] = []
        limit = (self.num_pages - self.num_session_pages) * PAGE_SIZE
        self.other, self.other_limit = self.pool.admit(limit), limit
        self.next_token = 0

    def run(self, num_steps: int) -> None:
        acts = [self.grow, self.truncate, self.set_apart, self.drop, self.fork, self.grow_fork, self.release_fork]
        for _ in range(num_steps):
            self.chance.choices(acts, [6, 2, 0.5, 3, 3, 5, 2])[0]()
            self.check()
        for fork, _, _ in self.forks:
            self.pool.release(fork)
        self.pool.release(self.table)
        assert self.reservation.num_left == self.num_session_pages
        self.pool.release_reservation(self.reservation)
        self.pool.append(self.other, self.other_limit - self.other.num_tokens)
        self.pool.check_integrity()

    def new_tokens(self, num_tokens: int) -> list[int]:
        self.next_token += num_tokens
        return list(range(self.next_token - num_tokens, self.next_token))

    def write(self, table: PagedTable, token_ids: list[int]) -> None:
        copy = self.pool.make_writable(table)
        if copy is not None:
            self.memory[copy.target_id] = self.memory[copy.source_id]
        self.memory.reshape(-1)[self.pool.append(table, len(token_ids))] = token_ids

    def grow(self) -> None:
        num_pages = self.reservation.num_left - 1  # one for a page that is shared
        if num_pages > 0:
            token_ids = self.new_tokens(self.chance.randint(1, num_pages * PAGE_SIZE))[:9]
            self.write(self.table, token_ids)
            self.held += token_ids
        if self.other.num_tokens < self.other_limit:
            self.pool.append(self.other, 1)

    def truncate(self) -> None:
        num_kept = self.chance.randint(0, len(self.held))
        self.pool.truncate(self.table, num_kept)
        del self.held[num_kept:]
        if num_kept < self.num_apart:
            self.num_apart = 0

    def set_apart(self) -> None:
        if len(self.held) == self.num_apart or self.num_apart == 0:
            self.pool.begin_page(self.table)
            self.num_apart = len(self.held)

    def drop(self) -> None:
        num_tokens = self.chance.randint(0, len(self.held) - self.num_apart)
        if self.num_apart or self.table.num_sealed == 0:
            self.pool.drop_front(self.table, num_tokens)
            del self.held[self.num_apart : self.num_apart + num_tokens]

    def fork(self) -> None:
        num_tokens = self.chance.randint(0, len(self.held))
        max_tokens = num_tokens + self.chance.randint(1, 9)
        if self.reservation.num_left > -(-(max_tokens - num_tokens) // PAGE_SIZE) + 1:
            fork = self.pool.fork(self.table, max_tokens, num_tokens=num_tokens)
            self.forks.append((fork, self.held[:num_tokens], max_tokens))

    def grow_fork(self) -> None:
        """A fork was promised its pages, whatever the others have taken since."""
        if self.forks:
            fork, held, max_tokens = self.chance.choice(self.forks)
            if len(held) < max_tokens:
                token_ids = self.new_tokens(self.chance.randint(1, max_tokens - len(held)))
                self.write(fork, token_ids)
                num_right = self.chance.choice([len(token_ids), self.chance.randint(1, len(token_ids))])
                self.pool.truncate(fork, len(held) + num_right)
                held += token_ids[:num_right]

    def release_fork(self) -> None:
        if self.forks:
            fork, _, _ = self.forks.pop(self.chance.randrange(len(self.forks)))
            self.pool.release(fork)

    def check(self) -> None:
        self.pool.check_integrity()
        for table, held in [(self.table, self.held), *((fork, held) for fork, held, _ in self.forks)]:
            pages = [self.memory[page.page_id, page.start : page.stop].tolist() for page in table.pages]
            assert [token for page in pages for token in page] == held, "somebody wrote here"


@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_a_sessions_table_and_its_forks_keep_what_is_theirs(part: int) -> None:
    for seed in range(part, NUM_SCHEDULES, NUM_PARTS):
        ReservedSimulation(seed).run(120)
