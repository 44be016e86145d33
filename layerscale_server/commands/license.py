"""``layerscale license``: make an authority, issue keys, look at a key."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from layerscale_core.errors import LicenseError
from layerscale_core.licensing import AUTHORITIES_VARIABLE, SignedKey, SignedKeyVerifier, authority_folders
from layerscale_server.commands.tables import print_table
from layerscale_server.settings import LICENSE_KEY_VARIABLE

# What needs cryptography is imported by the command that needs it.

_DATE = click.DateTime(["%Y-%m-%d"])


@click.group(name="license")
def license_() -> None:
    """Make an authority, issue licence keys, look at a key."""


@license_.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def make_authority(folder: Path) -> None:
    """Make a key pair in FOLDER: private.pem, which issues keys, and public/KEYID.pem, which servers need."""
    from layerscale_core.licensing.authorities import Issuer  # noqa: PLC0415

    issuer = Issuer.generate()
    private, public = folder / "private.pem", folder / "public" / f"{issuer.authority.key_id}.pem"
    try:
        public.parent.mkdir(parents=True, exist_ok=True)
        issuer.write(private)
        public.write_bytes(issuer.authority.pem())
    except OSError as error:
        raise click.ClickException(f"cannot write the key pair: {error.strerror}: {error.filename}") from None
    click.echo(f"authority {issuer.authority.key_id}")
    click.echo(f"{private}: the private key; whoever has it issues keys")
    click.echo(f"{public}: the public key; servers read it with {AUTHORITIES_VARIABLE}={public.parent}")


@license_.command()
@click.option("--authority", required=True, metavar="FILE", type=click.Path(path_type=Path), help="its private key")
@click.option("--holder", required=True, metavar="TEXT", help="whom the key is for")
@click.option("--expires", required=True, type=_DATE, metavar="YYYY-MM-DD", help="last day, by UTC")
@click.option("--issued", type=_DATE, metavar="YYYY-MM-DD", help="first day, by UTC; without it today")
@click.option("--tier", default="pro", show_default=True, metavar="NAME", help="what the key grants")
def issue(authority: Path, holder: str, expires: datetime, issued: datetime | None, tier: str) -> None:
    """Print a new key, and nothing else."""
    from layerscale_core.licensing.authorities import Issuer  # noqa: PLC0415

    first_day = issued.date() if issued else _today()
    issuer = Issuer.read(authority)
    try:
        key = issuer.issue(tier=tier, holder=holder, issued=first_day, expires=expires.date())
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    click.echo(key)


@license_.command()
@click.option("--json", "as_json", is_flag=True, help="print one JSON object instead of a table")
def inspect(as_json: bool) -> None:
    """Show what a key says and whether it is valid here; exits 1 if it is not.

    The key comes from LAYERSCALE_LICENSE_KEY, or else from standard input: never from the command line, which others
    can see. Keys of another kind, which plugins read, are not shown.
    """
    verdict = _inspect(_given_key())
    if as_json:
        click.echo(json.dumps(verdict))
    else:
        print_table(Console(), "Licence key", ("", ""), _rows(verdict))
    sys.exit(0 if verdict["valid"] else 1)


def _inspect(key: str) -> dict[str, Any]:
    """What a key says, whether it is valid here, and why not.

    Raises:
        ClickException: it is malformed, and says nothing.
    """
    try:
        claims = SignedKey.parse(key).claims
    except ValueError:
        raise click.ClickException("this is not a signed licence key: it is malformed, or of another kind") from None
    problem = None
    try:
        SignedKeyVerifier(authority_folders()).claims(key)
    except LicenseError as error:
        problem = str(error)
    said = {name: str(value) for name, value in dataclasses.asdict(claims).items()}
    return said | {"valid": problem is None, "problem": problem}


def _rows(verdict: dict[str, Any]) -> list[tuple[str, str]]:
    state = "yes" if verdict["valid"] else f"no: {verdict['problem']}"
    return [*((name, value) for name, value in verdict.items() if name not in {"valid", "problem"}), ("valid", state)]


def _given_key() -> str:
    return (os.environ.get(LICENSE_KEY_VARIABLE) or sys.stdin.readline()).strip()


def _today() -> date:
    return datetime.now(UTC).date()
