"""The demo: start the server, ask it one thing through the ``openai`` SDK, and keep serving until Ctrl-C.

Usage: ``python examples/demo/demo.py --model FILE [--port PORT] [--once]``.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from ask import Timing, ask
from openai import OpenAIError
from rich.console import Console
from server_process import ServerFailedError, ServerProcess

LOG_TAIL_LINES = 30
QUESTION = "In two sentences: why is the sky blue?"

HOW_TO_ASK = """\
curl {url}/v1/chat/completions \\
  -H 'Content-Type: application/json' \\
  -d '{{"messages": [{{"role": "user", "content": "Hello!"}}]}}'

from openai import OpenAI

client = OpenAI(base_url="{url}/v1", api_key="none")
answer = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "Hello!"}}],
)
print(answer.choices[0].message.content)
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
            serve(console, server, options)
        except (ServerFailedError, OpenAIError) as error:
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
    parser = argparse.ArgumentParser(description="Start the server, ask it one thing, keep serving until Ctrl-C.")
    parser.add_argument("--model", type=Path, required=True, help="model file to serve")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 = any free one (default)")
    parser.add_argument("--once", action="store_true", help="stop after the first answer")
    return parser.parse_args()


def interrupt(*_: object) -> NoReturn:
    """End as Ctrl-C does, whichever signal asks for it."""
    raise KeyboardInterrupt


def serve(console: Console, server: ServerProcess, options: argparse.Namespace) -> None:
    """Start the server, show one answer, and serve on unless ``--once``.

    Raises:
        ServerFailedError: it did not start, or ended by itself.
    """
    with console.status(f"starting the server with {options.model.name} …"):
        ready_s = server.start()
    console.print(f"[green]ready[/] in {ready_s:.1f} s at [bold]{server.url}[/]\n")
    console.print(f"[bold cyan]you[/]        {QUESTION}")
    console.print("[bold cyan]assistant[/]  ", end="")
    answer = ask(server.url, QUESTION, lambda text: console.print(text, end="", markup=False, soft_wrap=True))
    console.print("\n")
    show_timing(console, answer.timing)
    if not options.once:
        console.rule(f"serving at {server.url} until Ctrl-C", align="left")
        console.print(HOW_TO_ASK.format(url=server.url, model=answer.model), markup=False, soft_wrap=True)
        server.wait()


def show_timing(console: Console, timing: Timing) -> None:
    """What the answer took, with the formulas: tools disagree about them."""
    rows = [
        ("tokens", f"{timing.prompt_tokens} + {timing.output_tokens}", "prompt + output"),
        ("TTFT", f"{timing.first_token_s * 1e3:.0f} ms", "request sent → first output token received"),
    ]
    if per_token_s := timing.per_output_token_s:
        rows += [
            ("TPOT", f"{per_token_s * 1e3:.1f} ms", "(last token − first token) ÷ (output tokens − 1)"),
            ("speed", f"{1 / per_token_s:.0f} tokens/s", "1 ÷ TPOT"),
        ]
    for name, value, meaning in rows:
        console.print(f"  {name:<7}{value:>12}   [dim]{meaning}[/]")
    console.print()


if __name__ == "__main__":
    sys.exit(main())
