"""Every exception LayerScale raises on purpose.

::

    LayerScaleError
    ├── StartupError                 the process cannot serve; one line for the user, exit 1
    │   ├── ModelFileError           a model file is missing, truncated, corrupt or hostile
    │   ├── UnsupportedModelError    a well-formed model of a kind this build cannot run
    │   ├── ModelNotFoundError       no such path, and no such repository can be reached
    │   ├── PluginError              a plugin is broken, ambiguous or missing
    │   ├── BackendError             the selected backend cannot load
    │   ├── LicenseError             the licence key does not grant a tier
    │   └── OutOfMemoryError         the plan needs more memory than there is
    └── RequestError                 one request fails; the engine and its neighbours go on
        ├── InvalidRequestError      the client's fault: a field, a value, a size
        │   ├── ContextLengthError   the prompt does not fit the context window
        │   └── GrammarError         a schema, pattern or grammar is wrong, unsupported or too complex
        ├── NotFoundError            no such session, flash query or model
        ├── ConflictError            it exists already
        ├── MaxSessionsError         all sessions that memory is reserved for exist
        ├── SavedStateError          what was saved of a session cannot be used
        ├── StateNotSavedError       a session could not be written to disk, or its file not removed
        ├── StateNotReadError        the disk does not give what was saved of a session
        ├── QueueFullError           too much is waiting; try again later
        ├── NoBurstSlotsError        the pool is too small for this request, ever
        ├── ShuttingDownError        the server is loading or draining
        ├── NumericalError           the model produced NaN or infinite logits
        └── StepError                a forward pass failed

The server maps this tree to HTTP in one place, ``layerscale_server.http.errors``.
"""

from __future__ import annotations


class LayerScaleError(Exception):
    """Base of every error raised on purpose. ``str(error)`` is one clear line for a person."""


class StartupError(LayerScaleError):
    """The process cannot serve. The line names the thing that is wrong and the remedy."""


class ModelFileError(StartupError):
    """A model file is missing, truncated, corrupt or hostile.

    Args:
        path: the file.
        reason: what is wrong, in a few words.
        field: the header field or tensor that is wrong, where one can be named.
        offset: byte offset in the file at which it was found.
    """

    def __init__(self, path: str, reason: str, *, field: str | None = None, offset: int | None = None) -> None:
        self.path = path
        self.reason = reason
        self.field = field
        self.offset = offset
        where = "".join(
            [f", field {field!r}" if field is not None else "", f", at byte {offset}" if offset is not None else ""]
        )
        super().__init__(f"cannot read model file {path}: {reason}{where}")


class UnsupportedModelError(StartupError):
    """A well-formed model of an architecture, type or tokenizer this build cannot run."""


class ModelNotFoundError(StartupError):
    """Neither a local path nor a repository that can be reached."""


class PluginError(StartupError):
    """A selected plugin is broken, two claim the same place, or none serves it."""


class BackendError(StartupError):
    """The selected backend cannot load on this machine."""


class LicenseError(StartupError):
    """A licence key was given and grants nothing. The key itself is never part of the message."""


class OutOfMemoryError(StartupError):
    """The plan needs more memory than the device or the host has."""


class RequestError(LayerScaleError):
    """One request fails; the engine and its neighbours go on."""


class InvalidRequestError(RequestError):
    """The client's fault.

    Args:
        message: one line that names the field and the rule; never echoes the value.
        param: the offending request field.
        code: a stable machine-readable code.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class ContextLengthError(InvalidRequestError):
    """The prompt (with at least one token of room) does not fit the context window.

    Args:
        param: the field of the request that holds it.
    """

    def __init__(self, prompt_len: int, max_context_len: int, *, param: str = "messages") -> None:
        super().__init__(
            f"prompt is too long: {prompt_len} tokens > {max_context_len - 1} maximum "
            f"(context window of {max_context_len} tokens, one of them for the answer)",
            param=param,
            code="context_length_exceeded",
        )
        self.prompt_len = prompt_len
        self.max_context_len = max_context_len


class GrammarError(InvalidRequestError):
    """What an answer must match is wrong, not supported, impossible to satisfy, or beyond the limits.

    Args:
        param: the field of the request that holds it.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message, param=param, code="invalid_grammar")


class NotFoundError(RequestError):
    """What a request names does not exist.

    Args:
        code: a stable machine-readable code, or None.
    """

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class ConflictError(RequestError):
    """What a request wants to make exists already.

    Args:
        code: a stable machine-readable code.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class MaxSessionsError(RequestError):
    """Every session that memory is reserved for exists."""

    code = "max_sessions_reached"

    def __init__(self, max_sessions: int) -> None:
        super().__init__(f"all {max_sessions} sessions exist; delete one, or start the server with more --sessions")


class SavedStateError(RequestError):
    """What was saved of a session cannot be used: damaged, of another model, or not to be trusted."""

    code = "saved_state_refused"


class StateNotSavedError(RequestError):
    """A session could not be written to disk, or what was saved not removed; what was saved of it before is kept."""

    code = "state_not_saved"


class StateNotReadError(RequestError):
    """The disk does not give what was saved of a session; its file may be sound, and stays."""

    code = "state_not_read"


class QueueFullError(RequestError):
    """Too many requests or prompt tokens are waiting.

    Args:
        retry_after_s: whole seconds after which trying again makes sense.
    """

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NoBurstSlotsError(RequestError):
    """The KV pool has too little room beside its reservations for this request, even when nothing else runs."""

    param = "max_tokens"
    code = "no_burst_slots"


class ShuttingDownError(RequestError):
    """The server accepts no work: it is loading or draining."""


class NumericalError(RequestError):
    """The model produced NaN or infinite logits for this sequence."""


class StepError(RequestError):
    """A forward pass failed; every request of its batch ends with this error."""
