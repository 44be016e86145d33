"""Reasoning before an answer: the markers it stands between, and whether a prompt ends inside them."""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReasoningMarkers:
    """What a model writes before and after its reasoning."""

    begin: str
    end: str


MARKERS = (
    ReasoningMarkers("<think>", "</think>"),
    ReasoningMarkers("[THINK]", "[/THINK]"),
    ReasoningMarkers("<seed:think>", "</seed:think>"),
)


class Reasoning(enum.Enum):
    """Where an answer stands as it begins."""

    NONE = "it does not reason"
    POSSIBLE = "it may begin with reasoning"
    BEGUN = "the prompt ends inside the reasoning"


def recognise_reasoning(template_source: str) -> ReasoningMarkers | None:
    """The markers that a chat template knows of."""
    return next((markers for markers in MARKERS if markers.end in template_source), None)


def reasoning_after(prompt: str, markers: ReasoningMarkers | None) -> Reasoning:
    """Where the answer to a rendered prompt stands."""
    if markers is None or prompt.rstrip().endswith(markers.end):
        return Reasoning.NONE
    return Reasoning.BEGUN if prompt.rstrip().endswith(markers.begin) else Reasoning.POSSIBLE
