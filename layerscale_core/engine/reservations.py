"""The sessions' share of the KV pool, and who has reserved how much of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from layerscale_core.specs.kv_pool import Reservation


@dataclass(eq=False, slots=True)
class PageReservation:
    """A session's own pages.

    Attributes:
        num_taken: pages that its tables hold, each counted once.
        num_promised: pages promised to forks and not yet taken.
    """

    num_pages: int
    num_taken: int = 0
    num_promised: int = 0

    @property
    def num_left(self) -> int:
        """Pages that are neither taken nor promised to a fork."""
        return self.num_pages - self.num_taken - self.num_promised


class Reservations:
    """Pages that no stateless request is promised, whether or not they are reserved yet. Thread: engine.

    Args:
        num_pages: the sessions' share.
    """

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self._num_reserved = 0
        self._num_taken = 0
        self._reservations: set[PageReservation] = set()

    def __iter__(self) -> Iterator[PageReservation]:
        return iter(self._reservations)

    @property
    def num_untaken(self) -> int:
        """Pages of the share that no table holds."""
        return self.num_pages - self._num_taken

    def can_add(self, num_pages: int) -> bool:
        """Whether as many pages of the share are not yet reserved."""
        return num_pages <= self.num_pages - self._num_reserved

    def add(self, num_pages: int) -> PageReservation:
        """Set pages of the share aside."""
        assert self.can_add(num_pages), "reserved without asking"
        reservation = PageReservation(num_pages)
        self._num_reserved += num_pages
        self._reservations.add(reservation)
        return reservation

    def remove(self, reservation: PageReservation) -> None:
        """Give a reservation back, of which no table holds or is promised a page."""
        assert reservation.num_taken == reservation.num_promised == 0, "a table of the reservation is not released"
        self._num_reserved -= reservation.num_pages
        self._reservations.remove(reservation)

    def own(self, reservation: Reservation) -> PageReservation:
        """The reservation, which was made here."""
        assert isinstance(reservation, PageReservation)
        assert reservation in self._reservations, "released before, or made by another pool"
        return reservation

    def take(self, reservation: PageReservation, *, is_promised: bool) -> None:
        """Count a page that a table takes: of what a fork was promised, else of what is left."""
        reservation.num_promised -= is_promised
        assert reservation.num_left > 0, "outgrew its reservation"
        reservation.num_taken += 1
        self._num_taken += 1

    def give_back(self, reservation: PageReservation) -> None:
        """Count a page that no table of the reservation holds any more."""
        reservation.num_taken -= 1
        self._num_taken -= 1

    def check(self) -> None:
        """Prove that the counts add up.

        Raises:
            AssertionError: with what is wrong.
        """
        assert all(reservation.num_left >= 0 for reservation in self), "a reservation is overdrawn"
        assert sum(reservation.num_taken for reservation in self) == self._num_taken
        assert sum(reservation.num_pages for reservation in self) == self._num_reserved
        assert self._num_reserved <= self.num_pages, "sessions have reserved more than their share"
