"""An answer's text to its pieces, as it comes: reasoning, text and calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from layerscale_core.dialogue.call_syntax import CallSyntax
from layerscale_core.dialogue.json_object import ObjectEnd
from layerscale_core.dialogue.pieces import CallArguments, CallBegun, CallEnded, Piece, ReasoningPiece, TextPiece
from layerscale_core.dialogue.reasoning import Reasoning, ReasoningMarkers


class AnswerParser:
    """Takes one answer apart. However its text is cut, the joined pieces are the same.

    Space around reasoning and before a call belongs to neither. Text is held back while it may be the beginning of a
    marker; what turns out not to be a call after all is text. An opening that is cut off is dropped: it is no text, and
    without its name no call.

    Args:
        syntax: of calls; None: there are none, whatever the text looks like.
        markers: of reasoning; None exactly where ``reasoning`` is NONE.
        call_starts: if not empty, an answer that begins with none of them, after any reasoning, is text to its end.
    """

    def __init__(
        self,
        syntax: CallSyntax | None = None,
        markers: ReasoningMarkers | None = None,
        reasoning: Reasoning = Reasoning.NONE,
        call_starts: Sequence[str] = (),
    ) -> None:
        self._syntax = syntax
        self._call_starts = call_starts
        self._is_anchored = syntax is not None and (syntax.is_anchored or bool(call_starts))
        self._markers = None if reasoning is Reasoning.NONE else markers
        self._held = ""
        self._pieces: list[Piece] = []
        self._num_calls = 0
        self._object_end = ObjectEnd()
        self._has_reasoned = False
        self._read = self._read_reasoning if reasoning is Reasoning.BEGUN else self._read_beginning
        self._is_last = False

    def push(self, text: str) -> list[Piece]:
        """The pieces that ``text`` completes."""
        self._held += text
        return self._advance()

    def finish(self) -> list[Piece]:
        """What was held back and is shown after all."""
        self._is_last = True
        return self._advance()

    def _advance(self) -> list[Piece]:
        """Read on until a reader waits for more; each takes a part of what is held, or gives over to another."""
        while self._read():
            pass
        pieces, self._pieces = self._pieces, []
        return pieces

    def _go_on_with(self, reader: Callable[[], bool], *, after: int = 0) -> bool:
        self._held = self._held[after:]
        self._read = reader
        return True

    def _read_beginning(self) -> bool:
        """Before the first visible character, where reasoning or a call may be all that follows."""
        rest = self._held.lstrip()
        skipped = len(self._held) - len(rest)
        if self._markers is not None and not self._has_reasoned:
            if rest.startswith(self._markers.begin):
                return self._go_on_with(self._read_reasoning, after=skipped + len(self._markers.begin))
            if self._may_become(rest, self._markers.begin):
                return False
        if self._syntax is not None and self._is_anchored:
            for before in dict.fromkeys(("", self._syntax.prelude)):
                starts = [before + start for start in self._call_starts or (self._syntax.opening,)]
                if rest.startswith(tuple(starts)):
                    name_at = skipped + len(before) + len(self._syntax.opening)
                    return self._go_on_with(self._read_name, after=name_at)
                if any(self._may_become(rest, start) for start in starts):
                    return False
        if self._has_reasoned:
            if not rest and not self._is_last:
                return False
            self._held = rest
        return self._go_on_with(self._read_text)

    def _read_reasoning(self) -> bool:
        assert self._markers is not None
        if not self._has_reasoned:
            self._held = self._held.lstrip()
        self._has_reasoned = self._has_reasoned or bool(self._held)
        before, marker, _ = self._held.partition(self._markers.end)
        if marker:
            self._show(ReasoningPiece, before.rstrip())
            self._has_reasoned = True
            return self._go_on_with(self._read_beginning, after=len(before) + len(marker))
        self._show_settled(ReasoningPiece, self._markers.end)
        return False

    def _read_text(self) -> bool:
        if self._syntax is None:
            self._show_settled(TextPiece, "")
            return False
        if not self._is_anchored:
            before, trigger, _ = self._held.partition(self._syntax.trigger)
            if trigger:
                self._show(TextPiece, before.rstrip())
                return self._go_on_with(self._read_opening, after=len(before))
        self._show_settled(TextPiece, "" if self._is_anchored else self._syntax.trigger)
        return False

    def _read_opening(self) -> bool:
        assert self._syntax is not None
        opening = self._syntax.opening
        if self._held.startswith(opening):
            return self._go_on_with(self._read_name, after=len(opening))
        return False if opening.startswith(self._held) else self._go_on_with(self._read_rest)

    def _read_name(self) -> bool:
        assert self._syntax is not None
        name, middle, _ = self._held.partition(self._syntax.middle)
        if not middle:
            return False
        self._pieces.append(CallBegun(self._num_calls, name))
        self._object_end = ObjectEnd()
        return self._go_on_with(self._read_arguments, after=len(name) + len(middle))

    def _read_arguments(self) -> bool:
        end = self._object_end.find(self._held)
        arguments = self._held[:end]
        if arguments:
            self._pieces.append(CallArguments(self._num_calls, arguments))
        if end is None:
            self._held = ""
            return False
        self._pieces.append(CallEnded(self._num_calls))
        self._num_calls += 1
        return self._go_on_with(self._read_between, after=end)

    def _read_between(self) -> bool:
        """After a call: the next one's opening, or the end of all calls."""
        assert self._syntax is not None
        last = self._syntax.close + self._syntax.end
        if self._syntax.separator is not None:
            opening = self._syntax.close + self._syntax.separator + self._syntax.open
            if self._held.startswith(opening):
                return self._go_on_with(self._read_name, after=len(opening))
            if opening.startswith(self._held):
                return False
        if self._held.startswith(last):
            return self._go_on_with(self._read_rest, after=len(last))
        return False if last.startswith(self._held) else self._go_on_with(self._read_rest)

    def _read_rest(self) -> bool:
        """What no call can follow."""
        self._show(TextPiece, self._held)
        self._held = ""
        return False

    def _may_become(self, text: str, marker: str) -> bool:
        """Whether more text could still make the marker of it."""
        return not self._is_last and len(text) < len(marker) and marker.startswith(text)

    def _show_settled(self, kind: type[TextPiece] | type[ReasoningPiece], marker: str) -> None:
        """Show what is held but for the tail that ``marker`` may begin with, and the space before it."""
        end = len(self._held)
        if not self._is_last:
            end -= _longest_overlap(self._held, marker)
            end = len(self._held[:end].rstrip()) if marker else end
        self._show(kind, self._held[:end])
        self._held = self._held[end:]

    def _show(self, kind: type[TextPiece] | type[ReasoningPiece], text: str) -> None:
        if text:
            self._pieces.append(kind(text))


def _longest_overlap(text: str, marker: str) -> int:
    """Length of the longest tail of ``text`` that is a proper beginning of ``marker``."""
    longest = min(len(text), len(marker) - 1)
    return next((length for length in range(longest, 0, -1) if marker.startswith(text[-length:])), 0)
