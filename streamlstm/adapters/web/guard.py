"""Who may see the page and write through it: host, origin, token, and what a browser is told to allow.

Stands before all routes. Without a token only programs of this machine can reach the page, and the Host header is
checked, so that no web page elsewhere reaches it under a name of its own (DNS rebinding). With a token all but the page
itself, which holds nothing, asks for the cookie that the token buys. A write must come from the page's own origin.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
COOKIE_S = 7 * 86_400
OPEN_PATHS = ("/", "/api/me", "/api/login")

# Plotly sets styles from script, which a style-src without 'unsafe-inline' forbids; scripts come from here only.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """The rules of one page. ``token`` None: none is asked for. ``port`` tells the cookies of two pages apart."""

    def __init__(self, token: str | None, port: int) -> None:
        self._token = token
        self._name = f"streamlstm-{port}"
        self._cookie = "" if token is None else hmac.new(token.encode(), b"cookie", hashlib.sha256).hexdigest()

    def knows(self, request: Request) -> bool:
        """Say whether a request may see what is behind the page."""
        given = request.cookies.get(self._name, "")
        return self._token is None or hmac.compare_digest(given.encode(), self._cookie.encode())

    def refusal(self, request: Request) -> Response | None:
        """Return why a request is refused, or None."""
        if self._token is None and _host_name(request.headers.get("host", "")) not in LOOPBACK:
            return _refused(421, "this page is only for this machine, under localhost or 127.0.0.1")
        if request.method not in ("GET", "HEAD") and not _from_here(request.headers):
            return _refused(403, "a write must come from the page itself")
        path = request.url.path
        if path.startswith("/api/") and path not in OPEN_PATHS and not self.knows(request):
            return _refused(401, "sign in with the token")
        return None

    def sign_in(self, token: str, *, secure: bool) -> Response:
        """Return the cookie for the right token."""
        if self._token is None or not hmac.compare_digest(token.encode(), self._token.encode()):
            return _refused(401, "this is not the token")
        response = Response(status_code=204)
        response.set_cookie(
            self._name, self._cookie, max_age=COOKIE_S, path="/", secure=secure, httponly=True, samesite="strict"
        )
        return response


class Guarded:
    """An application behind a guard."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it; either way with the headers that protect the page."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if "cache-control" not in headers:
                    headers["Cache-Control"] = "no-store"
            await send(message)

        refusal = self._guard.refusal(Request(scope))
        await (refusal or self._app)(scope, receive, send_guarded)


def _host_name(host: str) -> str:
    """Return a Host header's name without its port, in lower case."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


def _from_here(headers: Headers) -> bool:
    """Say whether a browser sent this from our own page, as JSON: no form of another page can do that."""
    origin, host = headers.get("origin", ""), headers.get("host", "")
    same = origin in (f"http://{host}", f"https://{host}")
    return same and headers.get("content-type", "").partition(";")[0] == "application/json"


def _refused(status: int, why: str) -> Response:
    return JSONResponse({"error": why}, status)
