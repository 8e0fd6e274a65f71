"""The page's routes. What they show and do is asked of a :class:`Source`; nothing here knows a log or a model."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Callable, Sequence
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

import msgspec
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from streamlstm.adapters.web.guard import Guard, Guarded
from streamlstm.adapters.web.hub import Hub
from streamlstm.core.feedback import LONGEST_MUTE_MS, LONGEST_NAME, LONGEST_NOTE, Action
from streamlstm.errors import LogError

PAGE = Path(__file__).parent / "page"
MOST_READERS = 64
SEND_TIMEOUT_S = 20.0  # a reader that takes nothing for so long is let go; it comes back by itself
LARGEST_BODY = 8_192
MOST_ROWS = 200
LONGEST_KEY = 1_024
LARGEST_NUMBER = 2**53  # what a browser counts up to, and every log can take

T = TypeVar("T")


class Said(msgspec.Struct, forbid_unknown_fields=True):
    """What the page sends when somebody says something; ``minutes`` with a mute."""

    id: str
    action: Action
    key: str
    partition: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    who: str
    alert: str | None = None
    note: str = ""
    minutes: float = 0.0

    def problem(self) -> str | None:
        """Return what is wrong with it, if anything is."""
        if not self.who.strip():
            return "say who you are"
        if len(self.who) > LONGEST_NAME or len(self.note) > LONGEST_NOTE or not 8 <= len(self.id) <= 64:
            return f"too long: a name has {LONGEST_NAME} characters at most, a note {LONGEST_NOTE}"
        if self.action == "mute" and not 0 < self.minutes * 60_000 <= LONGEST_MUTE_MS:
            return "a mute lasts a week at most"
        if self.action in ("acknowledge", "true", "false") and not self.alert:
            return "say which alert is meant"
        return None


class Token(msgspec.Struct, forbid_unknown_fields=True):
    """What signs a browser in."""

    token: str


class Watch(Protocol):
    """One reader's look at one key."""

    def next(self) -> dict[str, Any] | None:
        """Return what is new of the key since the last call, or None."""


class Source(Protocol):
    """What the page shows and does; all calls may block, and come from threads."""

    def watch(self, key: str, partition: int | None, span_ms: int | None, features: Sequence[str]) -> Watch | None:
        """Begin to watch a key."""

    def rows(self, find: str, most: int) -> list[dict[str, Any]]:
        """Return the rows of keys with this text in their name."""

    def series(
        self, key: str, partition: int, span: tuple[int, int], width_ms: int | None, features: Sequence[str]
    ) -> dict[str, Any]:
        """Return a key's series in a span of event time, from memory or from the log."""

    def record(self, partition: int, offset: int) -> dict[str, Any]:
        """Return an input record as it is."""

    def moment(self, alert: str) -> dict[str, Any] | None:
        """Return key, partition and time of an alert."""

    def say(self, said: Said) -> None:
        """Store feedback; it is committed on return."""


def make_app(source: Source, hub: Hub, guard: Guard, *, read_only: bool) -> ASGIApp:
    """Return the page as an ASGI application."""
    routes = Routes(source, hub, guard, read_only)
    app = Starlette(
        routes=[
            Route("/", routes.index),
            Route("/static/{name}", routes.static),
            Route("/plotly.js", routes.plotly),
            Route("/api/me", routes.me),
            Route("/api/login", routes.login, methods=["POST"]),
            Route("/api/stream", routes.stream),
            Route("/api/keys", routes.keys),
            Route("/api/series", routes.series),
            Route("/api/record", routes.record),
            Route("/api/alert", routes.alert),
            Route("/api/feedback", routes.feedback, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _told, LogError: _log_failed},
    )
    return Guarded(app, guard)


class Routes:
    """One method per route."""

    def __init__(self, source: Source, hub: Hub, guard: Guard, read_only: bool) -> None:
        self._source, self._hub, self._guard, self._read_only = source, hub, guard, read_only

    async def index(self, _request: Request) -> Response:
        """The page; it holds nothing of the stream."""
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    async def static(self, request: Request) -> Response:
        """A file of the page."""
        name = request.path_params["name"]
        if name not in _page_files():
            raise HTTPException(404)
        return FileResponse(PAGE / name, headers={"Cache-Control": "no-cache"})

    async def plotly(self, _request: Request) -> Response:
        """Plotly's script, as its Python package ships it."""
        data = await run_in_threadpool(_plotly)
        headers = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding", "Cache-Control": "max-age=86400"}
        return Response(data, media_type="text/javascript", headers=headers)

    async def me(self, request: Request) -> Response:
        """What this browser may do."""
        return JSONResponse({"signed_in": self._guard.knows(request), "read_only": self._read_only})

    async def login(self, request: Request) -> Response:
        """Take the token for a cookie."""
        given = await _body(request, Token)
        return self._guard.sign_in(given.token, secure=request.url.scheme == "https")

    async def stream(self, request: Request) -> Response:
        """Everything that changes, pushed."""
        if self._hub.readers >= MOST_READERS:
            raise HTTPException(503, f"{MOST_READERS} browsers look already")
        begin = None
        if key := request.query_params.get("key"):
            partition, span_ms = _number(request, "partition", None), _number(request, "span", None)
            features = request.query_params.getlist("feature")
            begin = partial(self._source.watch, key, partition, span_ms, features)
        return EventSourceResponse(self._events(begin), ping=5, send_timeout=SEND_TIMEOUT_S, sep="\n")

    async def _events(self, begin: Callable[[], Watch | None] | None) -> AsyncIterator[ServerSentEvent]:
        """Yield states and changes; a reader that was slow gets a whole state instead of what it missed.

        ``begin`` watches a key as soon as it is known: a dashboard that was started just now still reads.
        """
        if self._hub.readers >= MOST_READERS:  # more than that came at once
            return
        self._hub.readers += 1
        try:
            number: int | None = None
            watch: Watch | None = None
            while frame := await self._hub.after(number):
                follows = frame.change is not None and number == frame.number - 1
                yield _event("change", frame.change or b"") if follows else _event("state", frame.whole())
                if begin is not None and watch is None:
                    watch = await run_in_threadpool(begin)
                    if watch is None and number is None:
                        yield _event("nokey", b"{}")
                number = frame.number
                if watch is not None and (new := await run_in_threadpool(watch.next)) is not None:
                    yield _event("key", msgspec.json.encode(new))
        finally:
            self._hub.readers -= 1

    async def keys(self, request: Request) -> Response:
        """Keys by name."""
        find = request.query_params.get("find", "")[:LONGEST_KEY]
        return _json(await run_in_threadpool(self._source.rows, find, MOST_ROWS))

    async def series(self, request: Request) -> Response:
        """A key's past."""
        key, partition = request.query_params.get("key", ""), _number(request, "partition", 0) or 0
        span = _number(request, "from", 0) or 0, _number(request, "until", 0) or 0
        if not span[0] < span[1]:
            raise HTTPException(400, "from must lie before until")
        width_ms, features = _number(request, "width", None), request.query_params.getlist("feature")
        return _json(await run_in_threadpool(self._source.series, key, partition, span, width_ms, features))

    async def record(self, request: Request) -> Response:
        """An input record as it is."""
        partition, offset = _number(request, "partition", 0) or 0, _number(request, "offset", 0) or 0
        return _json(await run_in_threadpool(self._source.record, partition, offset))

    async def alert(self, request: Request) -> Response:
        """Where and when an alert was, for links that only know its id."""
        name = request.query_params.get("id", "")
        found = await run_in_threadpool(self._source.moment, name)
        if found is None:
            raise HTTPException(404, "there is no such alert among the last ones")
        return _json(found)

    async def feedback(self, request: Request) -> Response:
        """Store what somebody says."""
        if self._read_only:
            raise HTTPException(403, "this page is read-only")
        said = await _body(request, Said)
        if problem := said.problem():
            raise HTTPException(400, problem)
        await run_in_threadpool(self._source.say, said)
        return JSONResponse({"id": said.id}, 201)


def _event(kind: Literal["state", "change", "key", "nokey"], data: bytes) -> ServerSentEvent:
    return ServerSentEvent(data=data.decode(), event=kind)


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


async def _body(request: Request, kind: type[T]) -> T:
    """Return a request's body; refuse one that is too large or not what is wanted."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > LARGEST_BODY:
            raise HTTPException(413, "too much")
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise HTTPException(400, str(error)) from error


def _number(request: Request, name: str, otherwise: int | None) -> int | None:
    given = request.query_params.get(name)
    if given is None:
        return otherwise
    try:
        number = int(float(given))
    except (ValueError, OverflowError) as error:
        raise HTTPException(400, f"{name} must be a number") from error
    if abs(number) > LARGEST_NUMBER:
        raise HTTPException(400, f"{name} must be a number up to 2^53")
    return number


async def _told(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


async def _log_failed(_request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 503)


@lru_cache
def _page_files() -> frozenset[str]:
    return frozenset(path.name for path in PAGE.iterdir() if path.is_file())


@lru_cache
def _plotly() -> bytes:
    return gzip.compress((files("plotly") / "package_data" / "plotly.min.js").read_bytes(), compresslevel=6)
