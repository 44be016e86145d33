"""What the hub's errors mean to the user, in one line each, with the remedy."""

from __future__ import annotations

import errno

from huggingface_hub import get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from layerscale_server.hub.reference import ModelReference
from layerscale_server.text import without_credentials

_UNAUTHORIZED = 401
_FORBIDDEN = 403
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR}


def explain(error: BaseException, reference: ModelReference, endpoint: str) -> str:
    """One line for an error that a call of ``huggingface_hub`` raised; a mirror's password is not in it."""
    return without_credentials(_explain(error, reference, endpoint))


def _explain(error: BaseException, reference: ModelReference, endpoint: str) -> str:
    root = _root(error)
    if isinstance(root, HfHubHTTPError):
        return _explain_answer(root, reference, endpoint)
    match root:
        case OfflineModeIsEnabled():
            line = f"{reference} is not in the cache, and HF_HUB_OFFLINE forbids asking {endpoint}"
        case OSError() as failed if failed.errno == errno.ENOSPC:
            line = f"the disk is full: {reference} cannot be stored; free some space, or set HF_HOME to another place"
        case OSError() as failed if failed.errno in _NOT_WRITABLE:
            line = f"{reference} cannot be stored: {failed}; allow that, or set HF_HOME to another place"
        case _:
            reason = _first_line(root)
            line = f"cannot fetch {reference} from {endpoint}: {reason}; check the network, or give a local file's path"
    return line


def _explain_answer(error: HfHubHTTPError, reference: ModelReference, endpoint: str) -> str:
    """One line for an answer that is no success."""
    repo_id, status = reference.repo_id, error.response.status_code
    match error:
        case GatedRepoError():
            remedy = "ask for access there" if get_token() else "accept its conditions there and set HF_TOKEN"
            line = f"{repo_id} is gated: {remedy} ({endpoint}/{repo_id})"
        case RepositoryNotFoundError():
            hint = "" if get_token() else "; if it is private, set HF_TOKEN"
            line = f"no local path {str(reference)!r} and no repository {repo_id} at {endpoint}{hint}"
        case RevisionNotFoundError():
            line = f"{repo_id} has no revision {reference.revision!r}"
        case EntryNotFoundError():
            line = f"{endpoint} lists a file of {repo_id} that it does not have; try again later"
        case _ if status == _UNAUTHORIZED:
            line = f"{endpoint} does not accept the token of HF_TOKEN: replace it, or unset it if {repo_id} is public"
        case _ if status == _FORBIDDEN:
            line = f"{endpoint} refused access to {repo_id}: check what the token of HF_TOKEN allows"
        case _:
            line = f"{endpoint} answered HTTP {status} for {repo_id}; try again later"
    return line


def _root(error: BaseException) -> BaseException:
    """``LocalEntryNotFoundError`` says only that the cache could not help either; the reason is its cause."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        return error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
