"""POST alerts to a webhook.

Only 2xx is success. What else is answered means:

===============================================  ==============================================================
2xx                                              delivered
400, 413, 415, 422 and other 4xx                 refused: this alert will never be taken; it becomes a dead
                                                 letter at once, and the others go on
401, 403, 404, 405, 407, 410; 3xx                failed: the address or the secret is wrong, not the alert; it
                                                 waits as in an outage, until somebody has mended the settings
408, 425, 429; 5xx; no answer, or none in time   failed: it is sent again, not before ``Retry-After``
===============================================  ==============================================================

Redirects are not followed: they would take a signed body to an address nobody chose. Proxies of the
environment are not used. Of the answer at most 4 KiB are read, in the same time limit as all the rest.

With ``public_only`` the address of the peer is looked at when the connection stands, before a byte is
sent on it. No name is resolved for the check, so no name server can answer it one address and the
connection another (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self, cast

import httpx
import msgspec

from streamlstm import __version__
from streamlstm.adapters.alert_body import Template, body, idempotency_key
from streamlstm.adapters.signature import HEADER, signature
from streamlstm.core.delivery import Delivery, Outcome
from streamlstm.core.log import Record
from streamlstm.core.record import decode_alert
from streamlstm.core.trace import trace_headers

READ_BYTES = 4096  # of an answer
SUCCESS_BODY_S = 1.0  # how long the body of a 2xx may take
SHOWN_CHARACTERS = 200  # of an answer, in a log line or dead letter
ANSWER_LATER = {408, 425, 429}
WRONG_SETTINGS = {401, 403, 404, 405, 407, 410}
ALERTMANAGER_PATH = "/api/v2/alerts"
NAT64 = ipaddress.ip_network("64:ff9b::/96")

logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs addresses whole, and some are secrets


@dataclass(frozen=True)
class Webhook:
    """One receiver. ``url`` and ``secrets`` are never shown; ``clock`` gives unix seconds."""

    url: httpx.URL = field(repr=False)
    template: Template = "json"
    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    timeout_s: float = 10.0
    public_only: bool = False
    link: str | None = None
    hold_s: float = 86_400.0
    clock: Callable[[], float] = time.time

    async def post(self, client: httpx.AsyncClient, record: Record) -> Outcome:
        """Send one alert record once. Never raises for what a record holds or a receiver does."""
        contents = self.contents(record)
        return contents if isinstance(contents, Outcome) else await self._send(client, *contents)

    def contents(self, record: Record) -> tuple[bytes, dict[str, str]] | Outcome:
        """Return body and headers of a request sent now; an outcome if the record is no alert."""
        now_s = self.clock()
        try:
            alert = decode_alert(record.value)
            content = body(self.template, alert, self.link, now_s, self.hold_s)
            key = idempotency_key(alert)
        except (msgspec.MsgspecError, ArithmeticError, ValueError) as error:  # a number or text beyond all bounds
            return Outcome("refused", f"not an alert record: {error}")
        trace = {name: value.decode("ascii") for name, value in trace_headers(record.headers)}
        headers = {"Content-Type": "application/json", "Idempotency-Key": key, **trace}
        return content, headers | ({HEADER: signature(content, self.secrets, now_s)} if self.secrets else {})

    async def _send(self, client: httpx.AsyncClient, content: bytes, headers: dict[str, str]) -> Outcome:
        response, answer, fault = None, bytearray(), ""
        extensions = {"trace": self._check_peer} if self.public_only else {}
        request = client.build_request("POST", self._address(), content=content, headers=headers, extensions=extensions)
        try:
            async with asyncio.timeout(self.timeout_s) as limit:
                response = await client.send(request, stream=True)
                if response.is_success:  # the rest is of no interest; read, it lets the connection be used again
                    limit.reschedule(min(limit.when() or 0.0, asyncio.get_running_loop().time() + SUCCESS_BODY_S))
                chunks = cast(AsyncGenerator[bytes, None], response.aiter_raw())
                async with aclosing(response), aclosing(chunks):
                    async for chunk in chunks:
                        answer += chunk[: READ_BYTES - len(answer)]
                        if len(answer) == READ_BYTES:
                            break
        except TimeoutError:
            fault = f"no answer within {self.timeout_s:g} s"
        except (httpx.HTTPError, OSError, ValueError) as error:  # an odd name or address is a ValueError
            fault = f"{type(error).__name__}: {error}"
        if response is None:
            return Outcome("failed", self._shown(fault))
        return self._outcome(response, bytes(answer))

    def _outcome(self, response: httpx.Response, answer: bytes) -> Outcome:
        status = response.status_code
        if 200 <= status < 300:
            return Outcome("delivered", str(status))
        detail = self._shown(f"{status} {answer.decode(errors='replace')}")
        if status in WRONG_SETTINGS or status < 400:
            return Outcome("failed", f"{detail} (check the webhook's address and secret)")
        if status >= 500 or status in ANSWER_LATER:
            return Outcome("failed", detail, retry_after_s(response.headers.get("retry-after"), self.clock()))
        return Outcome("refused", detail)

    def _address(self) -> httpx.URL:
        path = self.url.path.rstrip("/")
        if self.template == "alertmanager" and not path.endswith(ALERTMANAGER_PATH):
            return self.url.copy_with(path=path + ALERTMANAGER_PATH)
        return self.url

    async def _check_peer(self, event: str, details: Mapping[str, Any]) -> None:
        """Refuse a connection to an address that is not public; called by httpx at each step of a request."""
        if event != "connection.connect_tcp.complete":
            return
        stream = details["return_value"]
        peer = str(stream.get_extra_info("server_addr")[0])
        if not is_public(peer):
            await stream.aclose()
            raise httpx.ConnectError(f"{peer} is not a public address, and only such are allowed")

    def _shown(self, text: str) -> str:
        """Return a text fit for logs: short, one line, without the parts of the address that may be secret."""
        url = self.url
        parts = [*url.path.split("/"), *url.params.values(), url.username, url.password, url.query.decode()]
        for part in sorted(parts, key=len, reverse=True):
            if len(part) >= 6:  # shorter ones are words such as "api"
                text = text.replace(part, "***")
        return "".join(c if c.isprintable() else " " for c in text[:SHOWN_CHARACTERS]).strip()


async def connect(webhook: Webhook) -> str:
    """Connect to a receiver, with TLS if its address says so, and leave; return what went wrong, or nothing."""
    url, tls = webhook.url, webhook.url.scheme == "https"
    try:
        async with asyncio.timeout(webhook.timeout_s):
            _, writer = await asyncio.open_connection(
                url.host, url.port or (443 if tls else 80), ssl=httpx.create_ssl_context() if tls else None
            )
            peer = str(writer.get_extra_info("peername")[0])
            writer.close()
            await writer.wait_closed()
    except TimeoutError:
        return f"no connection within {webhook.timeout_s:g} s"
    except OSError as error:  # names, sockets and certificates
        return f"{type(error).__name__}: {error}"
    if webhook.public_only and not is_public(peer):
        return f"{peer} is not a public address, and only such are allowed"
    return ""


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """Return the wait (s, not negative) that a ``Retry-After`` header asks for; None if it cannot be read.

    >>> retry_after_s("120", 0.0), retry_after_s("Thu, 01 Jan 1970 00:01:30 GMT", 60.0), retry_after_s("soon", 0.0)
    (120.0, 30.0, None)
    """
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the open internet; an IPv4 address within an IPv6 one counts.

    >>> [is_public(a) for a in ("1.1.1.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::a00:1")]
    [True, False, False, False, False, False]
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else None)
        ip = inner or ip
    return ip.is_global and not ip.is_multicast


class Courier:
    """Sends deliveries side by side, in a thread of its own; used by one thread, as a context."""

    def __init__(self, webhook: Webhook, connections: int) -> None:
        self._webhook = webhook
        self._connections = connections
        self._results: queue.SimpleQueue[tuple[Delivery, Future[Outcome]]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="courier")
        self._ready: Future[tuple[asyncio.AbstractEventLoop, httpx.AsyncClient]] = Future()
        self._stop = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Abandon what is under way."""
        loop, _ = self._ready.result()
        loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def start(self, delivery: Delivery) -> None:
        """Begin to send; the outcome comes from :meth:`outcomes`."""
        loop, client = self._ready.result()
        future = asyncio.run_coroutine_threadsafe(self._webhook.post(client, delivery.record), loop)
        future.add_done_callback(lambda done: self._results.put((delivery, done)))

    def outcomes(self, timeout_s: float) -> list[tuple[Delivery, Outcome]]:
        """Return the outcomes since the last call; waits up to ``timeout_s`` for the first."""
        found = []
        try:
            delivery, future = self._results.get(timeout=timeout_s)
            found.append((delivery, future.result()))
            while True:
                delivery, future = self._results.get_nowait()
                found.append((delivery, future.result()))
        except queue.Empty:
            return found

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        async with httpx.AsyncClient(
            headers={"User-Agent": f"streamlstm/{__version__}", "Accept-Encoding": "identity"},
            timeout=None,  # Webhook.timeout_s covers the whole
            limits=httpx.Limits(max_connections=self._connections),
            verify=httpx.create_ssl_context(),  # honours SSL_CERT_FILE
            trust_env=False,
            follow_redirects=False,
        ) as client:
            self._ready.set_result((asyncio.get_running_loop(), client))
            await self._stop.wait()
            abandoned = asyncio.all_tasks() - {asyncio.current_task()}
            for task in abandoned:
                task.cancel()
            await asyncio.gather(*abandoned, return_exceptions=True)
