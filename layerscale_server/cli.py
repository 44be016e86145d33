"""The ``layerscale`` command: without a subcommand it serves a model."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

from layerscale_core.errors import LayerScaleError
from layerscale_core.version import __version__
from layerscale_server.collector import paused_collector
from layerscale_server.commands.lazy_group import LazyGroup
from layerscale_server.idle_threads import idle_blas_threads_sleep
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


_LICENSE_KEY_FLAG = "--license-key"
"""A flag that no command has, and that each refuses with a better message than "no such option"."""

_OUTPUT_IS_LOST = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
"""Why standard output cannot be written; a pipe that nobody reads is no mistake, and click ends quietly then."""

_LIMIT_OPTION = click.Option(
    ["--limit", "assignments"],
    multiple=True,
    metavar="NAME=VALUE",
    help="change one of the limits in the documentation, e.g. body_bytes=33554432; may be given several times",
)


@click.pass_context
def _serve(ctx: click.Context, /, assignments: Sequence[str], **values: Any) -> None:
    if ctx.invoked_subcommand is not None:
        _refuse_flags_before(ctx.invoked_subcommand, ctx)
        return
    if not values["model"]:
        raise click.UsageError(MODEL_IS_MISSING, ctx)
    try:
        limits = parse_limits(assignments)
    except ValueError as error:
        raise click.UsageError(f"--limit {error}", ctx) from None
    with paused_collector():
        with idle_blas_threads_sleep():
            from layerscale_server.serve import serve  # noqa: PLC0415 (the other commands need no server)

        serve(Settings(limits=limits, **values))


def _refuse_flags_before(subcommand: str, ctx: click.Context) -> None:
    """Flags before a subcommand are those of a server, and none is started: they would change nothing."""
    for option in ctx.command.params:
        assert option.name is not None
        if ctx.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[0]} stands before {subcommand}: give the flags of a command after it")


cli = LazyGroup(
    "layerscale",
    places=_COMMANDS,
    callback=_serve,
    invoke_without_command=True,
    params=[*(option_of(each) for each in SETTING_ROWS), _LIMIT_OPTION],
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
    except click.UsageError as error:
        _fail(_usage(error), error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except LayerScaleError as error:
        _fail(str(error), 1)
    except click.Abort:
        sys.exit(130)
    except OSError as error:
        if error.errno not in _OUTPUT_IS_LOST:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to write is lost as well
        _fail(f"cannot write to standard output: {error.strerror}", 1)


def _usage(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption) and error.option_name == _LICENSE_KEY_FLAG:
        return f"a licence key is never a flag: set the environment variable {LICENSE_KEY_VARIABLE} instead"
    command = error.ctx.command_path if error.ctx else "layerscale"
    return f"{error.format_message()} ({command} --help lists the options)"


def _fail(message: str, code: int) -> None:
    """End with one line for a person."""
    click.echo(f"layerscale: {printable(message)}", err=True)
    sys.exit(code)
