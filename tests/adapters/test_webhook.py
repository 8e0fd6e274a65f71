"""POSTs to a real receiver on this machine."""

from __future__ import annotations

import doctest
import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlstm.adapters import webhook as module
from streamlstm.adapters.signature import signature
from streamlstm.adapters.webhook import READ_BYTES, Courier, Webhook, is_public
from streamlstm.core.delivery import Delivery, Outcome
from streamlstm.core.log import Record
from tests.alerts import make_alert, make_alert_record
from tests.receiver import Answer, Receiver, Request

NOW_S = 1_700_000_000.0
SECRET = b"a secret of some length"


def make_webhook(url: str, **options: Any) -> Webhook:
    """Return a receiver with a clock that stands still."""
    return Webhook(httpx.URL(url), **{"secrets": (SECRET,), "timeout_s": 5.0, "clock": lambda: NOW_S, **options})


def send(webhook: Webhook, *records: Record) -> list[Outcome]:
    """Send records one after the other through a real courier."""
    outcomes = []
    with Courier(webhook, 2) as courier:
        for record in records or (make_alert_record(),):
            courier.start(Delivery(record))
            ((_, outcome),) = courier.outcomes(30.0)
            outcomes.append(outcome)
    return outcomes


def answer_to(answer: Answer | Callable[[Request], Answer], **options: Any) -> tuple[Outcome, list[Request]]:
    """Send one alert to a receiver with that answer; return the outcome and what the receiver got."""
    with Receiver((lambda request: answer) if isinstance(answer, Answer) else answer) as receiver:
        (outcome,) = send(make_webhook(receiver.url, **options))
    return outcome, receiver.requests


def test_post_accepted_is_delivered_with_key_and_signature() -> None:
    """The receiver gets the alert, an idempotency key, and a signature over exactly these bytes."""
    outcome, (request,) = answer_to(Answer(204))

    assert outcome == Outcome("delivered", "204")
    assert request.path == "/in"
    assert json.loads(request.body)["alert"]["key"] == "pump-7"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Idempotency-Key"] == json.loads(request.body)["idempotency_key"] == "events:0:42/opened/42"
    assert request.headers["Streamlstm-Signature"] == signature(request.body, [SECRET], NOW_S)


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (301, "failed"),
        (304, "failed"),
        (307, "failed"),
        (400, "refused"),
        (401, "failed"),
        (403, "failed"),
        (404, "failed"),
        (408, "failed"),
        (410, "failed"),
        (413, "refused"),
        (415, "refused"),
        (422, "refused"),
        (425, "failed"),
        (429, "failed"),
        (451, "refused"),
        (500, "failed"),
        (503, "failed"),
    ],
)
def test_post_answered_with_a_status_other_than_2xx_is_no_success(status: int, result: str) -> None:
    """What the alert itself is refused for is final; what may pass, or be mended in the settings, is not."""
    outcome, requests = answer_to(Answer(status, headers={"Location": "/elsewhere"}))

    assert outcome.result == result
    assert outcome.detail.startswith(str(status))
    assert [request.path for request in requests] == ["/in"], "redirects are not followed"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("7", 7.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0),
        ("Tue, 99 Nov", None),
        ("-5", None),
        ("²", None),
    ],
)
def test_post_retry_after_in_seconds_or_as_date_is_read(header: str, expected: float | None) -> None:
    """Both forms of the header are understood; nonsense is as if it were not there."""
    outcome, _ = answer_to(Answer(503, headers={"Retry-After": header}))

    assert outcome.retry_after_s == expected


def test_post_refused_connection_fails() -> None:
    """Nobody listens."""
    (outcome,) = send(make_webhook(Receiver().url))

    assert outcome.result == "failed"
    assert "ConnectError" in outcome.detail


def test_post_unknown_name_fails() -> None:
    """A name that does not resolve is an outage, not a crash."""
    (outcome,) = send(make_webhook("http://no-such-host.invalid/"))

    assert outcome.result == "failed"


@pytest.mark.parametrize("answer", [Answer(hang=True), Answer(drip=True)], ids=["no answer", "a byte now and then"])
def test_post_slow_answer_fails_in_time(answer: Answer) -> None:
    """The time limit is for the whole request: dripping bytes do not stretch it. The next one is not harmed."""
    with Receiver(lambda request: answer if request.number == 1 else Answer()) as receiver:
        outcomes = send(make_webhook(receiver.url, timeout_s=0.2), make_alert_record(), make_alert_record())

    assert [outcome.result for outcome in outcomes] == ["failed", "delivered"]
    assert outcomes[0].detail == "no answer within 0.2 s"


def test_post_huge_answer_is_read_in_part() -> None:
    """A receiver cannot fill our memory; what it says is shown in brief, on one line."""
    outcome, _ = answer_to(Answer(400, b"x\n\x1b[31m" + b"y" * 10_000_000))

    assert outcome.result == "refused"
    assert outcome.detail.startswith("400 x  [31myyy")
    assert len(outcome.detail) <= 200


def test_post_endless_answer_is_not_read_to_the_time_limit() -> None:
    """Its beginning is enough."""
    outcome, _ = answer_to(Answer(400, endless=True), timeout_s=600.0)

    assert outcome.detail.startswith("400 xxx")


def test_post_huge_answer_to_a_success_is_still_a_success() -> None:
    """What comes after 2xx changes nothing."""
    outcome, _ = answer_to(Answer(200, b"x" * (READ_BYTES * 100)))

    assert outcome.result == "delivered"


def test_post_connection_is_kept_between_alerts() -> None:
    """A normal answer leaves the connection open for the next alert."""
    with Receiver(lambda request: Answer(200, b"ok")) as receiver:
        outcomes = send(make_webhook(receiver.url), *[make_alert_record()] * 3)

    assert [outcome.result for outcome in outcomes] == ["delivered"] * 3
    assert len({request.client_port for request in receiver.requests}) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
def test_post_public_only_does_not_send_to_a_private_address(host: str) -> None:
    """The peer of the connection is checked, however the address was written or resolved; nothing is sent."""
    with Receiver() as receiver:
        (outcome,) = send(make_webhook(f"http://{host}:{receiver.port}/in", public_only=True))

    assert outcome.result == "failed"
    assert outcome.detail.endswith(" is not a public address, and only such are allowed")
    assert receiver.requests == []


def test_post_public_only_reused_connection_was_checked() -> None:
    """The check is made once per connection, and allows what is allowed."""
    with Receiver() as receiver, pytest.MonkeyPatch.context() as patch:
        seen: list[str] = []
        patch.setattr(module, "is_public", lambda address: bool(seen.append(address) or True))  # type: ignore[func-returns-value]
        outcomes = send(make_webhook(receiver.url, public_only=True), make_alert_record(), make_alert_record())

    assert [outcome.result for outcome in outcomes] == ["delivered"] * 2
    assert seen == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:4700:4700::1111", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:a00:1::", False),
        ("64:ff9b::a9fe:a9fe", False),
    ],
)
def test_is_public_of_an_address_knows_the_reserved_ranges(address: str, public: bool) -> None:
    """Private, loopback, link-local, shared and multicast ranges are not public, nor IPv4 ones within IPv6."""
    assert is_public(address) is public


@pytest.mark.parametrize("path", ["", "/", "/api/v2/alerts", "/api/v2/alerts/"])
def test_post_alertmanager_address_gets_the_path_of_its_api(path: str) -> None:
    """As in Prometheus's settings, the address of the server is enough."""
    with Receiver() as receiver:
        send(make_webhook(f"http://127.0.0.1:{receiver.port}{path}", template="alertmanager"))

    assert [request.path.rstrip("/") for request in receiver.requests] == ["/api/v2/alerts"]


def test_post_without_secret_is_not_signed() -> None:
    """Slack and Alertmanager have no use for a signature."""
    _, (request,) = answer_to(Answer(), template="slack", secrets=())

    assert "Streamlstm-Signature" not in request.headers


def test_post_environment_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would be the peer in our place, and the address check void."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    outcome, _ = answer_to(Answer())

    assert outcome.result == "delivered"


def test_post_secrets_are_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """The address of a webhook may be a secret: neither a receiver that repeats it, nor a library, shows it."""
    caplog.set_level(logging.INFO)
    with Receiver(lambda request: Answer(500, f"no route {request.path}".encode())) as receiver:
        url = f"http://user:password123@127.0.0.1:{receiver.port}/T0000001/token-abcdef?key=querysecret"
        webhook = make_webhook(url)
        (outcome,) = send(webhook)

    shown = f"{outcome} {webhook!r} {caplog.text}"
    assert outcome.detail.startswith("500 no route /***/***")
    for secret in ("T0000001", "token-abcdef", "querysecret", "password123", SECRET.decode()):
        assert secret not in shown


def test_post_undecodable_record_is_refused_without_a_request() -> None:
    """What is no alert never becomes one."""
    with Receiver() as receiver:
        (outcome,) = send(make_webhook(receiver.url), make_alert_record(value=b"{}"))

    assert outcome.result == "refused"
    assert "missing required field" in outcome.detail
    assert receiver.requests == []


@given(
    value=st.binary() | st.text().map(str.encode) | st.recursive(st.none(), st.lists).map(json.dumps).map(str.encode)
)
def test_contents_of_any_bytes_never_raises(value: bytes) -> None:
    """A record that made the process end would make it end again after each restart."""
    assert isinstance(make_webhook("http://r/").contents(make_alert_record(value=value)), Outcome)


@given(
    text=st.text(),
    number=st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.just(10**400),
    template=st.sampled_from(["json", "slack", "alertmanager"]),
)
def test_contents_of_any_text_and_number_can_be_sent(text: str, number: float, template: str) -> None:
    """The same for records that do decode, in every template."""
    fields: dict[str, Any] = {name: int(number) for name in ("since_ms", "time_ms", "offset", "events")}
    fields |= {"id": text, "key": text, "topic": text, "peak_score": number, "score": number}
    value = json.dumps(json.loads(make_alert_record(make_alert(features=[])).value) | fields).encode()

    contents = make_webhook("http://r/", template=template).contents(make_alert_record(value=value))

    if isinstance(contents, Outcome):
        assert abs(number) > 2**60, "only a number beyond all bounds may be refused"
    else:
        httpx.Request("POST", "http://r/", content=contents[0], headers=contents[1])


def test_courier_closed_with_a_request_under_way_abandons_it() -> None:
    """Leaving does not wait for a receiver that hangs."""
    with Receiver(lambda request: Answer(hang=True)) as receiver:
        with Courier(make_webhook(receiver.url, timeout_s=600.0), 2) as courier:
            courier.start(Delivery(make_alert_record()))
            assert courier.outcomes(0.05) == []
        assert not courier._thread.is_alive()


def test_examples_in_the_docstrings_are_true() -> None:
    """Examples are run."""
    assert doctest.testmod(module).failed == 0


def test_post_of_a_traced_alert_carries_the_trace() -> None:
    """The receiver can say which event called it."""
    parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    record = make_alert_record()._replace(headers=(("traceparent", parent), ("tracestate", b"a=1")))
    with Receiver() as receiver:
        send(make_webhook(receiver.url), record, make_alert_record())
    traced, plain = receiver.requests
    headers = {name.lower(): value for name, value in traced.headers.items()}
    assert (headers["traceparent"], headers["tracestate"]) == (parent.decode(), "a=1")
    assert "traceparent" not in {name.lower() for name in plain.headers}
