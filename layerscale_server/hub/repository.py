"""One repository of the hub: list its files, choose a model's, download them into the shared cache.

Only the chosen files are fetched, and nothing of a repository is executed.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_url, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoSibling

from layerscale_core.errors import ModelNotFoundError
from layerscale_core.plugins import PluginRegistry
from layerscale_server.hub.blobs import Blobs, file_size
from layerscale_server.hub.choose_files import Choice, choose_files
from layerscale_server.hub.explain import explain
from layerscale_server.hub.headers import fetch_header
from layerscale_server.hub.progress import show_progress
from layerscale_server.hub.reference import ModelReference
from layerscale_server.paths import user_path

log = logging.getLogger(__name__)

_LIST_TIMEOUT_S = 10.0
_MAX_REQUESTS = 8
"""At a time, for headers: a model may have hundreds of files."""


@dataclass(frozen=True, slots=True)
class _Listing:
    """A repository's files at one commit: a model's are all of the same one, also if a branch moves meanwhile."""

    commit: str
    files: Mapping[str, RepoSibling]


class Repository:
    """The repository that a reference names, and its place in the local cache.

    The exceptions of the HTTP client beneath huggingface_hub are not part of its interface and have changed with the
    client, so that whatever a call of the library raises is translated here.
    """

    def __init__(
        self, reference: ModelReference, *, endpoint: str | None, cache_dir: Path | None, progress: bool
    ) -> None:
        self._reference = reference
        self._api = HfApi(endpoint=endpoint)
        self._cache_dir = user_path(cache_dir or constants.HF_HUB_CACHE).resolve()
        self._blobs = Blobs(self._cache_dir, reference.repo_id)
        self._progress = progress

    def fetch(self, registry: PluginRegistry | None) -> Path:
        """The model's path in the cache, with what is missing there downloaded.

        A hub that cannot be asked is no reason to fail while the cache holds a fitting model.

        Args:
            registry: opens the headers of weights before the weights are downloaded, to refuse what it cannot.

        Raises:
            ModelNotFoundError: with the cause and the remedy in one line.
            ModelFileError, UnsupportedModelError: the model could not be opened.
        """
        try:
            listing = self._list()
        except Exception as error:
            return self._find_in_cache(error)
        choice = self._choose(listing)
        if registry is not None and self._missing(choice.weights, listing):
            with self._headers_of(choice, listing) as headers:
                registry.open_model(headers, metadata_only=True).close()
        self._download_missing(choice.files, listing, is_shown=True)
        first = self._download(choice.files[0], listing.commit)
        self._remember_branch(choice.files[0], first)
        return choice.opened(first)

    @contextlib.contextmanager
    def headers(self) -> Iterator[Path]:
        """The same of a model whose weights may end after their headers; while the block lasts.

        What ends early lies in a folder of its own, the cache gets only whole files.
        """
        try:
            listing = self._list()
        except Exception as error:
            yield self._find_in_cache(error)
            return
        choice = self._choose(listing)
        self._download_missing(choice.described_by, listing)
        if self._missing(choice.weights, listing):
            with self._headers_of(choice, listing) as path:
                yield path
        else:
            yield choice.opened(self._download(choice.files[0], listing.commit))

    @contextlib.contextmanager
    def _headers_of(self, choice: Choice, listing: _Listing) -> Iterator[Path]:
        self._download_missing(choice.described_by, listing)
        texts = {name: self._download(name, listing.commit) for name in choice.described_by}
        with tempfile.TemporaryDirectory(prefix=f"{self._reference.repo_id.replace('/', '--')}-") as name:
            folder = Path(name)
            try:
                for text, source in texts.items():
                    (folder / text).parent.mkdir(exist_ok=True)
                    shutil.copyfile(source, folder / text)
                with ThreadPoolExecutor(_MAX_REQUESTS) as pool:
                    headers = pool.map(lambda weights: self._fetch_header(weights, listing), choice.with_headers)
                    for weights, header in zip(choice.with_headers, headers, strict=True):
                        (folder / Path(weights).name).write_bytes(header)
            except Exception as error:
                raise self._not_found(error) from error
            yield choice.opened(folder / Path(choice.files[0]).name)

    def _fetch_header(self, weights: str, listing: _Listing) -> bytes:
        url = hf_hub_url(self._reference.repo_id, weights, revision=listing.commit, endpoint=self._api.endpoint)
        return fetch_header(url, weights)

    def _list(self) -> _Listing:
        info = self._api.model_info(
            self._reference.repo_id, revision=self._reference.revision, files_metadata=True, timeout=_LIST_TIMEOUT_S
        )
        assert info.sha is not None
        return _Listing(info.sha, {sibling.rfilename: sibling for sibling in info.siblings or ()})

    def _choose(self, listing: _Listing) -> Choice:
        def read(name: str) -> Path:
            self._download_missing([name], listing)
            return self._download(name, listing.commit)

        return choose_files(listing.files, self._reference, read)

    def _find_in_cache(self, hub_error: Exception) -> Path:
        reference = self._reference
        try:
            snapshot = Path(
                snapshot_download(
                    reference.repo_id,
                    revision=reference.revision,
                    cache_dir=self._cache_dir,
                    allow_patterns=[],  # what is missing is found out here, where it is known what is needed
                    local_files_only=True,
                )
            )
        except Exception:
            raise self._not_found(hub_error) from hub_error
        names = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
        try:
            choice = choose_files(names, reference, lambda name: snapshot / name)
        except ModelNotFoundError as error:
            raise ModelNotFoundError(f"{self._explain(hub_error)}; in the cache, {error}") from hub_error
        path = choice.opened(snapshot / choice.files[0])
        if not isinstance(hub_error, OfflineModeIsEnabled):
            log.warning("%s; serving %s from the cache", self._explain(hub_error), path)
        return path

    def _missing(self, names: Iterable[str], listing: _Listing) -> list[RepoSibling]:
        return [listing.files[name] for name in names if self._cached_path(name, listing.commit) is None]

    def _cached_path(self, name: str, revision: str | None) -> Path | None:
        cached = try_to_load_from_cache(self._reference.repo_id, name, cache_dir=self._cache_dir, revision=revision)
        return Path(cached) if isinstance(cached, str) else None

    def _download_missing(self, names: Iterable[str], listing: _Listing, *, is_shown: bool = False) -> None:
        """Fetch what the cache lacks, one file after the other, each checked as soon as it is there.

        Args:
            is_shown: these are the large ones.
        """
        missing = self._missing(names, listing)
        if not missing:
            return
        self._blobs.remove_leftovers()
        new = [file for file in missing if not self._blobs.has(file)]
        num_bytes = sum(file.size or 0 for file in new)
        self._blobs.check_room(num_bytes, str(self._reference))
        if new and is_shown:
            what = new[0].rfilename if len(new) == 1 else f"{len(new)} files"
            log.info("downloading %s of %s (%s)", what, self._reference.repo_id, file_size(num_bytes))
        with show_progress(self._blobs.stored_bytes, num_bytes, wants_bars=self._progress and is_shown):
            for file in missing:
                path = self._download(file.rfilename, listing.commit)
                if file in new:
                    self._blobs.verify(path, file)

    def _download(self, name: str, revision: str | None) -> Path:
        """One file's path in the cache; a commit's file that is there already is not asked for."""
        try:
            return Path(
                self._api.hf_hub_download(self._reference.repo_id, name, revision=revision, cache_dir=self._cache_dir)
            )
        except Exception as error:
            raise self._not_found(error) from error

    def _remember_branch(self, name: str, path: Path) -> None:
        """Let the cache answer for the branch without the network.

        Not before everything is there: what an interrupted download leaves must not replace what was served before.
        """
        if self._cached_path(name, self._reference.revision) != path:
            self._download(name, self._reference.revision)

    def _explain(self, error: Exception) -> str:
        return explain(error, self._reference, self._api.endpoint)

    def _not_found(self, error: Exception) -> ModelNotFoundError:
        return ModelNotFoundError(self._explain(error))
