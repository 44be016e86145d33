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

_UNAUTHORIZED = 401
_FORBIDDEN = 403


def explain(error: BaseException, reference: ModelReference, endpoint: str) -> str:
    """One line for an error that a call of ``huggingface_hub`` raised."""
    repo_id = reference.repo_id
    match _root(error):
        case GatedRepoError():
            remedy = "ask for access there" if get_token() else "accept its conditions there and set HF_TOKEN"
            line = f"{repo_id} is gated: {remedy} ({endpoint}/{repo_id})"
        case RepositoryNotFoundError():
            hint = "" if get_token() else "; if it is private, set HF_TOKEN"
            line = f"no local path {str(reference)!r} and no repository {repo_id} at {endpoint}{hint}"
        case RevisionNotFoundError():
            line = f"{repo_id} has no revision {reference.revision!r}"
        case OfflineModeIsEnabled():
            line = f"{reference} is not in the cache, and HF_HUB_OFFLINE forbids asking {endpoint}"
        case HfHubHTTPError() as refused if refused.response.status_code in {_UNAUTHORIZED, _FORBIDDEN}:
            line = f"{endpoint} refused access to {repo_id}: check HF_TOKEN and what it allows"
        case HfHubHTTPError() as failed if not isinstance(failed, EntryNotFoundError):
            line = f"{endpoint} answered HTTP {failed.response.status_code} for {repo_id}; try again later"
        case OSError() as failed if failed.errno == errno.ENOSPC:
            line = f"the disk is full: {reference} cannot be stored; free some space, or set HF_HOME to another place"
        case root:
            reason = _first_line(root)
            line = f"cannot fetch {reference} from {endpoint}: {reason}; check the network, or give a local file's path"
    return line


def _root(error: BaseException) -> BaseException:
    """``LocalEntryNotFoundError`` says only that the cache could not help either; the reason is its cause."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        return error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
