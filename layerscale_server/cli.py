"""The ``layerscale`` command: without a subcommand it serves a model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from layerscale_core.errors import LayerScaleError
from layerscale_core.version import __version__
from layerscale_server.commands.lazy_group import LazyGroup
from layerscale_server.options import MODEL_IS_MISSING, option_of
from layerscale_server.settings import LICENSE_KEY_VARIABLE, SETTING_ROWS, Settings, parse_limits
from layerscale_server.text import printable

_COMMANDS = {
    "bench": "layerscale_server.commands.bench:bench",
    "doctor": "layerscale_server.commands.doctor:doctor",
    "license": "layerscale_server.commands.license:license_",
    "plan": "layerscale_server.commands.plan:plan",
    "plugins": "layerscale_server.commands.plugins:plugins",
    "pull": "layerscale_server.hub.pull:pull",
}
"""Subcommands by name; each is imported when it is asked for, so that serving loads none of them."""


def _refuse_license_key(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError(
            f"a licence key is never a flag: set the environment variable {LICENSE_KEY_VARIABLE} instead", ctx
        )


_LIMIT_OPTION = click.Option(
    ["--limit", "assignments"],
    multiple=True,
    metavar="NAME=VALUE",
    help="change one of the limits in the documentation, e.g. body_bytes=33554432; may be given several times",
)
_LICENSE_KEY_OPTION = click.Option(
    ["--license-key"],
    is_flag=False,
    flag_value="",
    hidden=True,
    expose_value=False,
    is_eager=True,
    callback=_refuse_license_key,
)
"""There to be refused with a better message than "no such option"."""


@click.pass_context
def _serve(ctx: click.Context, /, assignments: Sequence[str], **values: Any) -> None:
    if ctx.invoked_subcommand is not None:
        return
    if not values["model"]:
        raise click.UsageError(MODEL_IS_MISSING, ctx)
    try:
        limits = parse_limits(assignments)
    except ValueError as error:
        raise click.UsageError(f"--limit {error}", ctx) from None
    from layerscale_server.serve import serve  # noqa: PLC0415 (the other commands need no server)

    serve(Settings(limits=limits, **values))


cli = LazyGroup(
    "layerscale",
    places=_COMMANDS,
    callback=_serve,
    invoke_without_command=True,
    params=[*(option_of(each) for each in SETTING_ROWS), _LIMIT_OPTION, _LICENSE_KEY_OPTION],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Serve a language model over HTTP: layerscale --model FILE.",
    epilog=f"A licence key is read from the environment variable {LICENSE_KEY_VARIABLE}.",
)
click.version_option(__version__, prog_name="layerscale", message="%(prog)s %(version)s")(cli)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits 0, 1 when it cannot do what was asked, or 2 when the command is wrong."""
    try:
        sys.exit(cli.main(args=arguments, prog_name="layerscale", standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(f"{error.format_message()} (layerscale --help lists the options)", error.exit_code)
    except LayerScaleError as error:
        _fail(str(error), 1)
    except click.Abort:
        sys.exit(130)


def _fail(message: str, code: int) -> None:
    """End with one line for a person."""
    click.echo(f"layerscale: {printable(message)}", err=True)
    sys.exit(code)
