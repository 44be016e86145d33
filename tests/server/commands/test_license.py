"""``layerscale license``: from a new authority to a key that a server accepts."""

from __future__ import annotations

import io
import json
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from layerscale_core.licensing import SignedKey, SignedKeyVerifier
from layerscale_core.licensing.verifier import AUTHORITIES_VARIABLE
from layerscale_server.cli import main
from layerscale_server.settings import LICENSE_KEY_VARIABLE
from tests.support.license_authority import TODAY, LicenseAuthority

TOMORROW = str(TODAY + timedelta(days=1))


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["license", *arguments])
    return int(ended.value.code or 0)


def last_error(capsys: pytest.CaptureFixture[str]) -> str:
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    return line


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder with a new authority."""
    folder = tmp_path / "new" / "authority"
    assert run("make-authority", str(folder)) == 0
    assert "PRIVATE" not in capsys.readouterr().out
    return folder


@pytest.fixture
def key(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run("issue", "--authority", str(folder / "private.pem"), "--holder", "Acme", "--expires", TOMORROW) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return line


def test_private_key_is_for_its_owner_alone_and_never_overwritten(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    private = folder / "private.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    before = private.read_bytes()
    assert run("make-authority", str(folder)) == 1
    assert str(private) in last_error(capsys)
    assert private.read_bytes() == before
    (public,) = (folder / "public").iterdir()
    assert b"PUBLIC" in public.read_bytes()


def test_an_issued_key_grants_pro_where_its_authority_is_known(folder: Path, key: str) -> None:
    claims = SignedKey.parse(key).claims
    assert (claims.tier, claims.holder, str(claims.expires)) == ("pro", "Acme", TOMORROW)
    granted = SignedKeyVerifier((folder / "public",)).verify(key)
    assert granted is not None
    assert granted.tier.name == "pro"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--expires", "2020-01-01"], "before the first"),
        (["--expires", "soon"], "soon"),
        (["--expires", TOMORROW, "--holder", ""], "holder"),
        (["--expires", TOMORROW, "--tier", "Gold!"], "tier"),
        ([], "--expires"),
    ],
)
def test_claims_that_cannot_be_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert run("issue", "--authority", str(folder / "private.pem"), "--holder", "Acme", *options) == 2
    assert words in last_error(capsys)


@pytest.mark.parametrize("content", [None, b"", b"nonsense secret"])
def test_a_private_key_that_is_none_is_named_and_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    path = tmp_path / "private.pem"
    if content is not None:
        path.write_bytes(content)
    assert run("issue", "--authority", str(path), "--holder", "Acme", "--expires", TOMORROW) == 1
    line = last_error(capsys)
    assert str(path) in line
    assert "secret" not in line


@pytest.mark.parametrize("way", ["environment", "input"])
def test_inspect_shows_the_claims_and_not_the_key(
    folder: Path, key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    monkeypatch.setenv(AUTHORITIES_VARIABLE, str(folder / "public"))
    monkeypatch.setenv(LICENSE_KEY_VARIABLE, key if way == "environment" else "")
    monkeypatch.setattr("sys.stdin", io.StringIO("" if way == "environment" else f"{key}\n"))
    assert run("inspect") == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("Acme", "pro", TOMORROW, SignedKey.parse(key).claims.key_id, "yes"))
    assert key[-20:] not in shown


def test_inspect_says_why_a_key_is_not_valid(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = LicenseAuthority(tmp_path / "stranger")
    monkeypatch.setenv(AUTHORITIES_VARIABLE, str(stranger.folder))
    monkeypatch.setenv(LICENSE_KEY_VARIABLE, key)
    assert run("inspect", "--json") == 1
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["holder"], verdict["valid"]) == ("Acme", False)
    assert "unknown authority" in verdict["problem"]
    assert run("inspect") == 1
    assert "unknown authority" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize("malformed", ["SECRET", "lsk1_SECRET", ""])
def test_inspect_refuses_what_is_no_key_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], malformed: str
) -> None:
    monkeypatch.setenv(LICENSE_KEY_VARIABLE, malformed)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run("inspect") == 1
    line = last_error(capsys)
    assert "malformed" in line
    assert "SECRET" not in line
