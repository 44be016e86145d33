"""One server process: bind the port, load the model on a thread of its own, and serve meanwhile.

The port comes first, so that a busy one is told at once. The HTTP stack is imported while the model loads.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from layerscale_core.errors import StartupError
from layerscale_core.licensing import license_for_key
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import FREE_LICENSE
from layerscale_server.assembly import Assembler, Assembly
from layerscale_server.collector import keep_what_is_there
from layerscale_server.key_protection import forbid_core_files, take_from_environment
from layerscale_server.logging import configure_logging, get_logger
from layerscale_server.metrics import Metrics
from layerscale_server.open_files import allow_many_open_files
from layerscale_server.settings import LICENSE_KEY_VARIABLE, Settings
from layerscale_server.state import ServerState, digest_of

_BACKLOG = 2048

logger = get_logger("layerscale")


def serve(settings: Settings) -> None:
    """Serve until a signal ends the process.

    Raises:
        StartupError: the server cannot start.
    """
    started = time.monotonic()
    _end_on_signals()
    allow_many_open_files()
    configure_logging(settings.log_format, settings.log_level)
    registry = PluginRegistry.discover()
    state = _state(settings, registry)
    tier = state.tier
    with bind(settings.host, settings.port) as listener:
        address = address_of(listener)
        logger.info(f"listening on {address}, loading {settings.model}", tier=tier.name)
        loading = _in_background(Assembler(settings, registry, tier, state.metrics).assemble)
        from layerscale_server.http.process import HttpProcess  # noqa: PLC0415 (half a second, while the model loads)

        HttpProcess(state, loading, address, started).run(listener)
    if not loading.done():
        os._exit(0)  # a load cannot be interrupted, and the interpreter must not be torn down around it


def _end_on_signals() -> None:
    """End at once, with nothing to lose, until ``HttpProcess`` takes the signals over.

    Nothing does so by itself where the server is the first process of a container: the system keeps signals from it
    that it does not handle.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))


def _state(settings: Settings, registry: PluginRegistry) -> ServerState:
    """The server as its licence key makes it; of the key itself nothing is left but a digest.

    Raises:
        LicenseError: the key grants nothing.
    """
    key = take_from_environment(LICENSE_KEY_VARIABLE)
    if key == "":
        logger.warning(
            f"{LICENSE_KEY_VARIABLE} is set and empty: without a key this is the free tier, open to everybody"
        )
    if not key:
        return ServerState(settings, FREE_LICENSE, Metrics())
    forbid_core_files()
    granted = license_for_key(key, registry.license_verifiers())
    return ServerState(settings, granted, Metrics(), digest_of(os.fsencode(key)))


def bind(host: str, port: int) -> socket.socket:
    """Take the port.

    Raises:
        StartupError: it cannot be had.
    """
    try:
        family, kind, protocol, _, address = sorted(
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE),
            key=lambda found: found[0] != socket.AF_INET,
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StartupError(f"cannot listen on {host}:{port}: {reason}; choose another --host or --port") from None
    return listener


def address_of(listener: socket.socket) -> str:
    """The URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _in_background(work: Callable[[], Assembly]) -> Future[Assembly]:
    """Run work on a thread that does not keep the process alive; what has been built when it ends is there for good."""
    future: Future[Assembly] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result = work()
            keep_what_is_there()
            future.set_result(result)
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="layerscale-load", daemon=True).start()
    return future
