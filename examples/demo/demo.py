"""The demo: real bars stream into a session, three questions stay answered, and asking costs only the question.

Usage: ``python examples/demo/demo.py --model FILE --bars FILE [--port PORT] [--once] [--save-screen FILE]``.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
import tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NoReturn

from board import Board
from layerscale import LayerScale, LayerScaleError
from market_data import read_bars
from replay import Replay
from rich.console import Console
from rich.live import Live
from screen import WIDTH, Screen
from server_process import ServerFailedError, ServerProcess

LOG_TAIL_LINES = 30
NUM_BARS_ONCE = 60
QUICK_S = 0.1
GENTLE_S = 0.5

HOW_TO_ASK = """\
from layerscale import LayerScale

client = LayerScale("{url}")
session = client.sessions.list().sessions[0]
print(client.sessions.query(session.session_id, prompt="Last: high ", max_tokens=6).text)
"""


def main() -> int:
    """Run the demo; exits 0 unless the server fails."""
    options = parse_arguments()
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, interrupt)
    with tempfile.TemporaryDirectory(prefix="layerscale-demo-") as folder:
        command = [
            sys.executable,
            "-m",
            "layerscale_server",
            "--model",
            str(options.model),
            "--port",
            str(options.port),
        ]
        server = ServerProcess(command, Path(folder, "server.log"))
        try:
            show(console, server, options)
        except (ServerFailedError, LayerScaleError) as error:
            console.print(f"[red]the server failed[/]: {error}; the end of its log:", soft_wrap=True)
            console.print(
                "".join(server.log().splitlines(keepends=True)[-LOG_TAIL_LINES:]), markup=False, soft_wrap=True
            )
            return 1
        except KeyboardInterrupt:
            console.print("\nstopping …")
        finally:
            server.stop()
    console.print("stopped")
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Stream bars into a session, and ask about them.")
    parser.add_argument("--model", type=Path, required=True, help="model file to serve")
    parser.add_argument("--bars", type=Path, required=True, help="CSV file with daily bars, the oldest first")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 = any free one (default)")
    parser.add_argument("--once", action="store_true", help=f"stop after {NUM_BARS_ONCE} bars")
    parser.add_argument("--save-screen", type=Path, metavar="FILE", help="write the last screen to FILE, as an SVG")
    return parser.parse_args()


def interrupt(*_: object) -> NoReturn:
    """End as Ctrl-C does, whichever signal asks for it."""
    raise KeyboardInterrupt


def show(console: Console, server: ServerProcess, options: argparse.Namespace) -> None:
    """Start the server and replay: ``NUM_BARS_ONCE`` bars quickly, then, unless ``--once``, the others gently.

    Raises:
        ServerFailedError: it did not start, or ended by itself.
        LayerScaleError: it does not answer as it should.
    """
    with console.status(f"starting the server with {options.model.name} …"):
        ready_s = server.start()
    console.print(f"[green]ready[/] in {ready_s:.1f} s at [bold]{server.url}[/]")
    bars = read_bars(options.bars)
    say = partial(console.print, markup=False, soft_wrap=True)
    board = Board(say=silence if console.is_terminal else say)
    screen = Screen(board, describe(server.url))
    with Replay(server.url, bars, board) as replay:
        if not options.once:
            console.print("Ctrl-C ends it; until then, ask yourself:\n")
            console.print(HOW_TO_ASK.format(url=server.url), markup=False, soft_wrap=True)
        with Live(screen, console=console, refresh_per_second=8) if console.is_terminal else nullcontext():
            replay.run(NUM_BARS_ONCE, QUICK_S)
            if options.save_screen:
                save_screen(screen, options.save_screen)
            if not options.once:
                replay.run(replay.num_bars_left, GENTLE_S)
        if options.once:
            return
        console.print("all bars are in; serving until Ctrl-C")
        server.wait()


def describe(url: str) -> str:
    """What serves, in a line."""
    with LayerScale(url) as client:
        models = client.models.list()
    assert models.server is not None
    devices = ", ".join(device.description for device in models.server.accelerators) or "CPU"
    return f"LayerScale {models.server.version}  ·  {models.data[0].id}  ·  {devices}"


def silence(_line: str) -> None:
    """Say nothing: there is a screen."""


def save_screen(screen: Screen, path: Path) -> None:
    """Write the screen as a picture."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(screen)
    console.save_svg(str(path), title="nox -s demo")


if __name__ == "__main__":
    sys.exit(main())
