"""A real HTTP receiver on this machine, which records what it gets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Request:
    """One request as it came in; ``number`` counts from 1."""

    number: int
    path: str
    headers: Mapping[str, str]
    body: bytes
    client_port: int


@dataclass(frozen=True)
class Answer:
    """What to answer; ``hang`` answers nothing, ``drip`` the header byte by byte, both until the receiver closes;
    ``endless`` goes on for as long as the sender reads."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: bool = False
    drip: bool = False
    endless: bool = False


class Receiver:
    """Answers with ``answer(request)``; listens from :meth:`start` on, at an address known before."""

    def __init__(self, answer: Callable[[Request], Answer] = lambda request: Answer()) -> None:
        self.answer = answer
        self.answered: Callable[[Request], None] = lambda request: None
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/in"
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._server = _Server(("127.0.0.1", self.port), type("Handler", (_Handler,), {"receiver": self}))
        threading.Thread(target=self._server.serve_forever, args=(0.02,)).start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a sender may be killed."""


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        receiver = self.receiver
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:  # the sender was killed while it wrote
            self.close_connection = True
            return
        with receiver.lock:
            request = Request(len(receiver.requests) + 1, self.path, dict(self.headers), body, self.client_address[1])
            receiver.requests.append(request)
            answer = receiver.answer(request)
        with contextlib.suppress(ConnectionError):
            self._write(answer)
        receiver.answered(request)

    def _write(self, answer: Answer) -> None:
        if answer.hang:
            receiver_closed = self.receiver.closing.wait(60)
            self.close_connection = receiver_closed
            return
        if answer.drip:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not self.receiver.closing.wait(0.05):
                self.wfile.write(b"x")
            return
        self.send_response(answer.status)
        if answer.endless:
            self.end_headers()
            while True:
                self.wfile.write(b"x" * 65536)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)
        self.wfile.flush()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Say nothing."""
