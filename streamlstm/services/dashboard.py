"""The dashboard: committed records in, a live page out. It claims nothing and moves nothing: the scorer never waits.

Three threads: the main one serves; :class:`Reader` follows the topics and keeps the board; :class:`Desk` looks things
up in the log and writes feedback. Each of the last two has a log of its own.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from functools import partial

import structlog
import uvicorn

from streamlstm.adapters.bundle_files import read_bundle
from streamlstm.adapters.web.app import make_app
from streamlstm.adapters.web.guard import LOOPBACK, Guard
from streamlstm.adapters.web.hub import Hub
from streamlstm.core.log import EventLog
from streamlstm.dashboard.board import Board
from streamlstm.errors import SettingsError
from streamlstm.services.dashboard_desk import Desk
from streamlstm.services.dashboard_reader import Reader
from streamlstm.services.dashboard_source import BoardSource
from streamlstm.services.log_url import open_log
from streamlstm.services.registry import parser_of
from streamlstm.services.settings import DashboardSettings
from streamlstm.services.stop import stop_on_signals

SHORTEST_TOKEN = 16
GRACE_S = 2  # for answers under way when asked to stop

logger = structlog.get_logger()


def serve(settings: DashboardSettings) -> None:
    """Serve the page until a signal stops it; raises :class:`SettingsError`, and what the log raises."""
    check(settings)
    bundle = read_bundle(settings.model)
    parse = parser_of(settings, bundle.schema)
    open_it = partial(open_log, settings)
    with stop_on_signals(), listen(settings) as listener:
        host, port = listener.getsockname()[:2]
        board = Board(settings.topic, bundle, bundle.promised(settings.alarm_rate, settings.alarms), parse)
        asyncio.run(run(settings, board, open_it, listener))
    logger.info("stopped", host=host, port=port)


def check(settings: DashboardSettings) -> None:
    """Refuse to serve others without a token, or with one that can be guessed."""
    token = settings.dashboard_token
    if token is None and settings.host not in (*LOOPBACK, "::1"):
        raise SettingsError(
            f"--host {settings.host}: others could see the page, and there is no token: set "
            "STREAMLSTM_DASHBOARD_TOKEN; `openssl rand -hex 32` makes one"
        )
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise SettingsError(
            f"STREAMLSTM_DASHBOARD_TOKEN is shorter than {SHORTEST_TOKEN} characters; `openssl rand -hex 32` makes one"
        )


def listen(settings: DashboardSettings) -> socket.socket:
    """Return the socket to serve on; raises :class:`SettingsError` if it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host.strip("[]"), settings.port), family=family)
    except OSError as error:
        raise SettingsError(
            f"--host {settings.host} --port {settings.port}: {error.strerror or error}; --port 0 takes a free one"
        ) from error


async def run(
    settings: DashboardSettings, board: Board, open_it: Callable[[], EventLog], listener: socket.socket
) -> None:
    """Serve on a socket until stopped; ends with the reader's error if it cannot go on."""
    loop, hub, lock = asyncio.get_running_loop(), Hub(), threading.Lock()
    host, port = listener.getsockname()[:2]
    desk = Desk(open_it)
    source = BoardSource(board, lock, desk, wall_ms)
    app = make_app(source, hub, Guard(settings.dashboard_token, port), read_only=settings.read_only)
    server = Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=GRACE_S,
        ),
        hub,
    )

    def stop() -> None:
        hub.close()
        server.should_exit = True

    reader = Reader(
        open_it,
        board,
        lock,
        give_up_after_s=settings.give_up_after_s,
        may_write=not settings.read_only,
        publish=lambda frame: _call(loop, partial(hub.publish, frame)),
        on_end=lambda: _call(loop, stop),
    )
    logger.info("dashboard", address=f"http://{_shown(host)}:{port}/", topic=settings.topic, model=board.bundle.name)
    reader.start()
    try:
        await server.serve(sockets=[listener])
    finally:
        await asyncio.to_thread(reader.close)
        await asyncio.to_thread(desk.close)
    if reader.error is not None:
        raise reader.error


class Server(uvicorn.Server):
    """A server whose readers end when it is asked to stop, instead of keeping it."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the readers go, then everybody else."""
        self._hub.close()
        await super().shutdown(sockets)


def wall_ms() -> int:
    """Return the wall clock, UTC milliseconds."""
    return time.time_ns() // 1_000_000


def _call(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    """Have the server's loop do something, unless it is gone."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(what)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
