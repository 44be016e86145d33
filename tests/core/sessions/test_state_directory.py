"""Files of saved sessions: whole or not there, for their owner alone, and never lost."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from layerscale_core.errors import (
    NotFoundError,
    SavedStateError,
    StartupError,
    StateNotReadError,
    StateNotSavedError,
)
from layerscale_core.sessions.saved_state import SavedSession
from layerscale_core.sessions.state_directory import REJECTED, SUFFIX, StateDirectory
from tests.support.saved_sessions import FINGERPRINT, SESSION_ID, make_pages, make_saved


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[StateDirectory]:
    directory = StateDirectory(tmp_path / "state")
    yield directory
    directory.close()


def saved_in(directory: StateDirectory, session_id: str = SESSION_ID) -> SavedSession:
    with directory.open(session_id) as reader:
        np.testing.assert_array_equal(reader.read_pages(), make_pages())
        return reader.header.session


def test_reads_what_was_saved_last(directory: StateDirectory) -> None:
    directory.write(FINGERPRINT, make_saved(), make_pages())
    newer = dataclasses.replace(make_saved(), revision=9)
    num_bytes = directory.write(FINGERPRINT, newer, make_pages())
    assert saved_in(directory) == newer
    assert (directory.path / f"{SESSION_ID}{SUFFIX}").stat().st_size == num_bytes
    assert directory.ids() == [SESSION_ID]


def test_only_the_owner_can_read(directory: StateDirectory) -> None:
    previous = os.umask(0)
    try:
        directory.write(FINGERPRINT, make_saved(), make_pages())
    finally:
        os.umask(previous)
    assert (directory.path / f"{SESSION_ID}{SUFFIX}").stat().st_mode & 0o777 == 0o600
    assert directory.path.stat().st_mode & 0o777 == 0o700


def test_lists_the_session_used_last_first(directory: StateDirectory) -> None:
    for number, last_used_at in enumerate((20, 30, 10)):
        saved = dataclasses.replace(make_saved(f"sess_0000000{number}"), last_used_at=last_used_at)
        directory.write(FINGERPRINT, saved, make_pages())
    assert directory.ids() == ["sess_00000001", "sess_00000000", "sess_00000002"]


def test_an_unknown_session_is_not_found(directory: StateDirectory) -> None:
    assert not directory.holds(SESSION_ID)
    assert not directory.remove(SESSION_ID)
    with pytest.raises(NotFoundError), directory.open(SESSION_ID):
        pass


@pytest.mark.parametrize("name", ["../../etc/passwd", "sess_../x", "", "sess_" + "f" * 65, "sess_0123456G"])
def test_no_name_leads_out_of_the_directory(directory: StateDirectory, name: str) -> None:
    assert not directory.holds(name)
    assert not directory.remove(name)
    with pytest.raises(SavedStateError), directory.open(name):
        pass


def test_a_renamed_file_is_refused(directory: StateDirectory) -> None:
    directory.write(FINGERPRINT, make_saved(), make_pages())
    other = SESSION_ID[:-1] + "0"
    (directory.path / f"{SESSION_ID}{SUFFIX}").rename(directory.path / f"{other}{SUFFIX}")
    with pytest.raises(SavedStateError, match="another session"), directory.open(other):
        pass


def test_links_pipes_and_folders_are_refused(directory: StateDirectory, tmp_path: Path) -> None:
    directory.write(FINGERPRINT, make_saved(), make_pages())
    target = directory.path / f"{SESSION_ID}{SUFFIX}"
    elsewhere = target.rename(tmp_path / "elsewhere")
    for make in (lambda: target.symlink_to(elsewhere), lambda: os.mkfifo(target), target.mkdir):
        make()
        with pytest.raises(SavedStateError), directory.open(SESSION_ID):
            pass
        directory.set_aside(SESSION_ID)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO], ids=errno.errorcode.get)
def test_a_file_that_cannot_be_read_now_is_not_called_damaged(
    directory: StateDirectory, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    directory.write(FINGERPRINT, make_saved(), make_pages())

    def fail(path: Path, flags: int) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(StateNotReadError, match=os.strerror(number)), directory.open(SESSION_ID):
            pass
    assert saved_in(directory) == make_saved()


def test_a_file_that_cannot_be_removed_is_told(directory: StateDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.write(FINGERPRINT, make_saved(), make_pages())

    def fail(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        with pytest.raises(StateNotSavedError, match="cannot be removed: Read-only file system"):
            directory.remove(SESSION_ID)
    assert saved_in(directory) == make_saved()


def test_a_leftover_that_cannot_be_removed_is_named(tmp_path: Path) -> None:
    leftover = tmp_path / "sess_00000000.partial"
    leftover.mkdir()
    with pytest.raises(StartupError, match=rf"--state-dir .*: {leftover}"):
        StateDirectory(tmp_path)
    leftover.rmdir()
    StateDirectory(tmp_path).close()


def test_what_is_set_aside_is_kept(directory: StateDirectory) -> None:
    for content in (b"first", b"second", b"third"):
        (directory.path / f"{SESSION_ID}{SUFFIX}").write_bytes(content)
        assert directory.set_aside(SESSION_ID).read_bytes() == content
    kept = sorted(path.read_bytes() for path in (directory.path / REJECTED).iterdir())
    assert kept == [b"first", b"second", b"third"]
    assert directory.ids() == []


def test_one_server_at_a_time(directory: StateDirectory) -> None:
    with pytest.raises(StartupError, match="another server uses it"):
        StateDirectory(directory.path)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match=r"--state-dir .* is no directory"):
        StateDirectory(tmp_path / "file")


def test_a_full_disk_leaves_what_was_saved_before(directory: StateDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.write(FINGERPRINT, make_saved(), make_pages())

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StateNotSavedError, match="No space left on device"):
            directory.write(FINGERPRINT, dataclasses.replace(make_saved(), revision=9), make_pages())
    assert saved_in(directory) == make_saved()
    assert [path.name for path in directory.path.iterdir()] == [f"{SESSION_ID}{SUFFIX}"]


SAVE_FOR_EVER = """
import dataclasses, itertools, sys
from pathlib import Path
import numpy as np
from layerscale_core.sessions.state_directory import StateDirectory
from tests.support.saved_sessions import FINGERPRINT, make_saved

directory = StateDirectory(Path(sys.argv[1]))
print("ready", flush=True)
for revision in itertools.count(5):
    pages = np.full((6, 65_536), revision % 251, np.uint8)
    directory.write(FINGERPRINT, dataclasses.replace(make_saved(), revision=revision), pages)
"""


def test_kill_9_while_saving_leaves_the_last_state_or_none(tmp_path: Path) -> None:
    path, chance = tmp_path / "state", random.Random(3)
    newest = 0
    for _ in range(6):
        saver = subprocess.Popen([sys.executable, "-c", SAVE_FOR_EVER, str(path)], stdout=subprocess.PIPE, text=True)
        assert saver.stdout is not None
        assert saver.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.05))
        saver.send_signal(signal.SIGKILL)
        saver.wait()
        saver.stdout.close()
        with contextlib.closing(StateDirectory(path)) as directory:
            assert not list(path.glob("*.partial"))
            if directory.ids():
                with directory.open(SESSION_ID) as reader:
                    newest = reader.header.session.revision
                    assert (reader.read_pages() == newest % 251).all()
    assert newest >= 5, "nothing was ever saved"
