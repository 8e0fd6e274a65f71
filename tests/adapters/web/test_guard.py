"""Who may see the page and write through it, and what a browser is told to allow."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from streamlstm.adapters.web import app as web
from streamlstm.adapters.web.app import Said, make_app
from streamlstm.adapters.web.guard import Guard
from streamlstm.adapters.web.hub import Frame, Hub
from streamlstm.errors import LogUnavailable

TOKEN = "0123456789abcdef0123456789abcdef"
HERE = {"Origin": "http://localhost:8080", "Content-Type": "application/json"}
SAID = {"id": "12345678", "action": "acknowledge", "key": "a", "partition": 0, "who": "ann", "alert": "events:0:1"}


class FakeSource:
    """A source that knows one key, and remembers what was said."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self.away = False

    def watch(self, key: str, partition: int | None, span_ms: int | None, features: Sequence[str]) -> None:
        """Know no key."""

    def rows(self, find: str, most: int) -> list[dict[str, Any]]:
        """Return one row."""
        return [{"key": find}]

    def series(self, *_: object) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def record(self, partition: int, offset: int) -> dict[str, Any]:
        """Return nothing."""
        return {"value": None}

    def moment(self, alert: str) -> None:
        """Know no alert."""

    def say(self, said: Said) -> None:
        """Remember it, or be out of reach."""
        if self.away:
            raise LogUnavailable("log.db: disk full; nothing was committed")
        self.said.append(said)


def ask(
    method: str,
    path: str,
    *,
    token: str | None = None,
    host: str = "localhost:8080",
    read_only: bool = False,
    source: FakeSource | None = None,
    cookies: dict[str, str] | None = None,
    **request: Any,
) -> httpx.Response:
    """Send one request to the page."""
    app = make_app(source or FakeSource(), Hub(), Guard(token, 8080), read_only=read_only)
    return asyncio.run(_send(app, method, path, host, cookies, request))


async def _send(
    app: ASGIApp, method: str, path: str, host: str, cookies: dict[str, str] | None, request: dict[str, Any]
) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}", cookies=cookies) as client:
        return await client.request(method, path, **request)


@pytest.mark.parametrize("path", ["/", "/static/main.js", "/static/page.css", "/plotly.js", "/api/me", "/api/keys"])
def test_every_answer_carries_the_policy(path: str) -> None:
    """Scripts from here only, nobody may frame it, no referrer goes out."""
    answer = ask("GET", path)
    assert answer.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["script-src"] == "'self'"
    assert (policy["default-src"], policy["frame-ancestors"]) == ("'none'", "'none'")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io:8080", "192.168.0.2"])
def test_without_a_token_another_host_name_is_refused(host: str) -> None:
    """A web page elsewhere that points its own name at this machine learns nothing (DNS rebinding)."""
    assert ask("GET", "/api/keys", host=host).status_code == 421
    assert ask("GET", "/", host=host).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST"])
def test_without_a_token_this_machine_is_served(host: str) -> None:
    """Under each of its names."""
    assert ask("GET", "/api/keys", host=host).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json"},
        {**HERE, "Origin": "http://evil.example"},
        {**HERE, "Origin": "http://localhost:9090"},
        {**HERE, "Origin": "null"},
        {**HERE, "Content-Type": "text/plain"},
    ],
)
def test_write_from_anywhere_else_is_refused(headers: dict[str, str]) -> None:
    """No origin, another one, or what a form of another page could send."""
    source = FakeSource()
    assert ask("POST", "/api/feedback", source=source, headers=headers, json=SAID).status_code == 403
    assert ask("POST", "/api/login", token=TOKEN, headers=headers, json={"token": TOKEN}).status_code == 403
    assert source.said == []


def test_token_buys_a_cookie_that_scripts_cannot_read() -> None:
    """Strict, HttpOnly, and Secure where the page is served under TLS; it is not the token."""
    for path in ("/api/keys", "/api/stream", "/api/series", "/api/record"):
        assert ask("GET", path, token=TOKEN).status_code == 401
    assert ask("POST", "/api/login", token=TOKEN, headers=HERE, json={"token": TOKEN[:-1]}).status_code == 401
    answer = ask("POST", "/api/login", token=TOKEN, headers=HERE, json={"token": TOKEN})
    assert answer.status_code == 204
    cookie = answer.headers["Set-Cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie
    assert TOKEN not in cookie
    given = {"streamlstm-8080": answer.cookies["streamlstm-8080"]}
    assert ask("GET", "/api/keys", token=TOKEN, cookies=given, host="page.example").status_code == 200
    assert ask("GET", "/api/keys", token=TOKEN[::-1], cookies=given).status_code == 401
    secure = Guard(TOKEN, 8080).sign_in(TOKEN, secure=True).headers["Set-Cookie"]
    assert "secure" in secure.lower()


def test_page_itself_is_served_without_the_token_and_says_what_is_needed() -> None:
    """It holds nothing; the browser learns that it must sign in."""
    assert ask("GET", "/", token=TOKEN, host="page.example").status_code == 200
    assert ask("GET", "/api/me", token=TOKEN).json() == {"signed_in": False, "read_only": False}


def test_feedback_is_stored_and_what_is_wrong_is_said() -> None:
    """Known fields, known actions, bounded lengths; a log out of reach is no success."""
    source = FakeSource()
    assert ask("POST", "/api/feedback", source=source, headers=HERE, json=SAID).status_code == 201
    assert [said.who for said in source.said] == ["ann"]
    for changed in (
        {"who": " "},
        {"who": "x" * 81},
        {"note": "x" * 501},
        {"id": "short"},
        {"action": "delete"},
        {"alert": None},
        {"action": "mute", "minutes": 0},
        {"action": "mute", "minutes": 1e9},
        {"extra": 1},
        {"partition": "0"},
        {"partition": -1},
        {"partition": 10**30},
    ):
        assert ask("POST", "/api/feedback", source=source, headers=HERE, json=SAID | changed).status_code == 400, (
            changed
        )
    assert ask("POST", "/api/feedback", source=source, headers=HERE, content=b"x" * 9_000).status_code == 413
    assert len(source.said) == 1
    source.away = True
    answer = ask("POST", "/api/feedback", source=source, headers=HERE, json=SAID)
    assert (answer.status_code, answer.json()["error"]) == (503, "log.db: disk full; nothing was committed")


def test_read_only_page_takes_nothing() -> None:
    """Whatever the browser sends."""
    source = FakeSource()
    assert ask("POST", "/api/feedback", source=source, read_only=True, headers=HERE, json=SAID).status_code == 403
    assert source.said == []


@pytest.mark.parametrize("name", ["../app.py", "..%2fapp.py", "nothing.js", "%2e%2e/guard.py"])
def test_no_file_but_the_pages_own_is_served(name: str) -> None:
    """Names are compared, not joined."""
    assert ask("GET", f"/static/{name}").status_code == 404


def test_slow_reader_skips_what_it_missed_and_gets_the_newest_whole() -> None:
    """Nothing is kept for it; one that follows gets changes; at the end all are let go."""

    async def play() -> list[tuple[str, str]]:
        hub = Hub()
        routes = web.Routes(FakeSource(), hub, Guard(None, 8080), read_only=False)
        hub.publish(_frame(1))
        events = routes._events(None)
        got = [await anext(events)]
        hub.publish(_frame(2))
        got.append(await anext(events))
        for number in (3, 4, 5):
            hub.publish(_frame(number))
        got.append(await anext(events))
        assert hub.readers == 1
        hub.close()
        assert [event async for event in events] == []
        assert hub.readers == 0
        return [(str(event.event), str(event.data)) for event in got]

    assert asyncio.run(play()) == [("state", "whole 1"), ("change", "change 2"), ("state", "whole 5")]


def _frame(number: int) -> Frame:
    return Frame(number, b"change %d" % number, lambda: b"whole %d" % number)


@pytest.mark.parametrize("number", ["", "x", "nan", "inf", "-1e300", "9223372036854775808", "1e18"])
@pytest.mark.parametrize(
    "path",
    ["series?from=0&until=5&partition=", "series?from=0&until=5&width=", "record?offset=", "stream?key=a&span="],
)
def test_number_that_no_log_can_take_is_refused(path: str, number: str) -> None:
    """It is the asker's mistake, not the server's."""
    assert ask("GET", f"/api/{path}{number}").status_code == 400


def test_readers_that_come_at_once_are_bounded() -> None:
    """All of them were let in before the first one counted."""

    async def play() -> list[Any]:
        hub = Hub()
        routes = web.Routes(FakeSource(), hub, Guard(None, 8080), read_only=False)
        hub.publish(_frame(1))
        hub.readers = web.MOST_READERS
        return [event async for event in routes._events(None)]

    assert asyncio.run(play()) == []


def test_readers_are_bounded() -> None:
    """One more than there may be is told to come back."""

    async def play() -> int:
        hub = Hub()
        hub.readers = web.MOST_READERS
        app = make_app(FakeSource(), hub, Guard(None, 8080), read_only=False)
        return (await _send(app, "GET", "/api/stream", "localhost", None, {})).status_code

    assert asyncio.run(play()) == 503
