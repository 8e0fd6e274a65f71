"""The HTTP port for Prometheus and for probes.

============  =================================================================================
/metrics      the metrics, as Prometheus reads them
/livez        503 if the loop has not turned for too long: replace the process
/readyz       503 while it does no work: starting, restoring, or the log is out of reach; wait
/startupz     503 until the first poll: do not ask the others yet
============  =================================================================================

There is no log-in: who can reach the port can read it. It shows no key, no value and no secret.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from streamlstm.adapters.health import Health

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

CLIENT_TIMEOUT_S = 10.0  # for a client that connects and says nothing


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that go away."""


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: a probe comes every few seconds."""


def application(registry: CollectorRegistry, health: Health) -> WSGIApplication:
    """Return the pages as a WSGI application."""
    metrics = make_wsgi_app(registry)
    probes: dict[str, Callable[[], str]] = {
        "/livez": health.not_alive,
        "/readyz": health.not_ready,
        "/startupz": health.not_started,
    }

    def answer(environment: WSGIEnvironment, start: StartResponse) -> list[bytes]:
        path = environment["PATH_INFO"]
        if path == "/metrics":
            return metrics(environment, start)  # type: ignore[no-any-return]
        if path not in probes:
            status, text = "404 Not Found", "there are /metrics, /livez, /readyz and /startupz"
        else:
            text = probes[path]()
            status = "503 Service Unavailable" if text else "200 OK"
        start(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text or 'ok'}\n".encode()]

    return answer


@contextmanager
def serving(host: str, port: int, pages: WSGIApplication) -> Iterator[int]:
    """Serve pages in threads of their own; yields the port, which 0 leaves to the system. Raises ``OSError``."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    kind = type("Server", (_Server,), {"address_family": family})
    with kind((host, port), _Handler) as server:
        server.set_app(pages)
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
