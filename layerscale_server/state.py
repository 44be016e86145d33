"""What the HTTP application knows: the settings, the licence, and the model once it is loaded."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field

from layerscale_core.dialogue import Dialogue
from layerscale_core.errors import ShuttingDownError
from layerscale_core.memory_plan import MemoryPlan
from layerscale_core.models import ModelSpec
from layerscale_core.sessions import Adoption, SavedSessions, Sessions
from layerscale_core.specs import FREE_TIER, DeviceInfo, License, Tier, Tokenizer
from layerscale_server.constraint_workers import ConstraintWorkers
from layerscale_server.errors import LicenseExpiredError, ModelLoadingError
from layerscale_server.generation import AsyncEngine
from layerscale_server.metrics import Metrics
from layerscale_server.settings import Settings
from layerscale_server.stored_responses import StoredResponses
from layerscale_server.subscriptions import Subscriptions


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that can be asked.

    Attributes:
        model_id: what clients call it.
        size_bytes: of its file.
        dialogue: None: the model has no chat template, and no chat.
        max_tokens_per_step: its engine's token budget.
        created: Unix seconds at which it was loaded.
        constraints: compiles what answers must match.
        saved: its sessions on disk; None without a state directory.
        adoption: finds sessions for conversations that name themselves; None: they get none.
    """

    model_id: str
    spec: ModelSpec
    size_bytes: int
    tokenizer: Tokenizer
    dialogue: Dialogue | None
    engine: AsyncEngine
    sessions: Sessions
    plan: MemoryPlan
    devices: tuple[DeviceInfo, ...]
    max_tokens_per_step: int
    created: int
    constraints: ConstraintWorkers
    saved: SavedSessions | None = None
    adoption: Adoption | None = None


def digest_of(key: bytes) -> bytes:
    """What is kept of a key, and compared instead of it."""
    return hashlib.sha256(key).digest()


@dataclass(slots=True)
class ServerState:
    """One server. Used on the event loop.

    Attributes:
        license: what the key grants; the free one without a key.
        key_digest: SHA-256 of the key, which authenticates clients. The key itself is kept nowhere.
        model: None until it is loaded.
        is_draining: running requests finish, nothing new is taken.
        subscriptions: to the events of all sessions.
        responses: that can be gone on from by their id.
    """

    settings: Settings
    license: License
    metrics: Metrics
    key_digest: bytes = field(default=b"", repr=False)
    model: LoadedModel | None = None
    is_draining: bool = False
    subscriptions: Subscriptions = field(init=False)
    responses: StoredResponses = field(init=False)

    def __post_init__(self) -> None:
        limits = self.settings.limits
        self.subscriptions = Subscriptions(limits.event_subscribers)
        self.responses = StoredResponses(limits.stored_responses, limits.stored_response_chars)
        self.metrics.watch_subscribers(self.subscriptions.__len__)

    @property
    def tier(self) -> Tier:
        """What was granted at start; it says who needs a key even after it has expired."""
        return self.license.tier

    def is_licensed(self) -> bool:
        """Whether a key grants more than the free tier, now."""
        return self.tier != FREE_TIER and not self.license.has_expired(time.time())

    def loaded_model(self) -> LoadedModel:
        """The model.

        Raises:
            ModelLoadingError: not yet.
        """
        if self.model is None:
            raise ModelLoadingError
        return self.model

    def model_for_new_work(self) -> LoadedModel:
        """The model, if it takes new requests.

        Raises:
            ModelLoadingError, LicenseExpiredError, ShuttingDownError: it does not.
            QueueFullError: too much is waiting.
        """
        model = self.model_for_sessions()
        model.engine.check_accepting()
        return model

    def model_for_sessions(self) -> LoadedModel:
        """The model, if its sessions take new work; none of it waits in the engine's queue.

        Raises:
            ModelLoadingError, LicenseExpiredError, ShuttingDownError: they do not.
        """
        model = self.loaded_model()
        if self.is_draining:
            raise ShuttingDownError("the server is shutting down and accepts no work")
        if self.license.has_expired(time.time()):
            raise LicenseExpiredError
        return model

    def is_ready(self) -> bool:
        """Whether new work is taken and makes progress."""
        if self.model is None or self.is_draining or self.license.has_expired(time.time()):
            return False
        stats = self.model.engine.stats()
        stalled_s = time.monotonic() - stats.last_progress if stats.has_work else 0.0
        return stats.healthy and stalled_s < self.settings.limits.stall_s
