"""What each kind of receiver is told."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from streamlstm.adapters import alert_body
from streamlstm.adapters.alert_body import body, idempotency_key, json_schema
from streamlstm.core.record import AlertRecord, FeatureEvidence
from tests.alerts import START_MS, make_alert

SCHEMA_FILE = Path(alert_body.__file__).with_name("alert.schema.json")
NOW_S = START_MS / 1000 + 200
HOLD_S = 3600.0


def body_of(template: Any, alert: AlertRecord, link: str | None = None, now_s: float = NOW_S) -> Any:
    """Return the decoded body."""
    return json.loads(body(template, alert, link, now_s, HOLD_S))


def test_schema_file_generated_anew_is_unchanged() -> None:
    """The documented schema and the code never drift apart; ``json_schema`` says how to write the file anew."""
    assert SCHEMA_FILE.read_text() == json_schema() + "\n"


@pytest.mark.parametrize(
    "alert",
    [
        make_alert(),
        make_alert(action="updated", adapting=True),
        make_alert(action="resolved"),
        make_alert(action="resolved", reason="silence", features=[], channels={}, score=None, tail_probability=None),
    ],
    ids=lambda alert: f"{alert.action}-{alert.reason}",
)
def test_json_body_any_action_matches_the_schema(alert: AlertRecord) -> None:
    """A receiver may rely on the schema."""
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))

    validator.validate(body_of("json", alert, "https://d/{id}"))


@pytest.mark.parametrize("damage", [{"format": "streamlstm.alert.v2"}, {"alert": {}}, {"idempotency_key": 1}])
def test_schema_damaged_body_is_refused(damage: dict[str, Any]) -> None:
    """The schema does say something."""
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))

    with pytest.raises(jsonschema.ValidationError):
        validator.validate(body_of("json", make_alert()) | damage)


def test_json_body_sent_twice_is_the_same() -> None:
    """A retry carries the same bytes, whenever it is."""
    assert body("json", make_alert(), None, 1.0, HOLD_S) == body("json", make_alert(), None, 2.0, HOLD_S)


def test_link_with_placeholders_has_them_quoted() -> None:
    """A key cannot break out of the link."""
    sent = body_of("json", make_alert(key="a/b?c"), "https://d/?key={key}&id={id}")

    assert sent["link"] == "https://d/?key=a%2Fb%3Fc&id=events%3A0%3A42"


def test_idempotency_key_foreign_id_is_safe_in_a_header() -> None:
    """Whatever wrote the alert, no line break and nothing but ASCII gets into the header."""
    key = idempotency_key(make_alert(id="ü\r\nX: y", action="updated"))

    assert key == "%C3%BC%0D%0AX%3A%20y/updated/42".replace("%3A", ":")


@pytest.mark.parametrize(
    ("alert", "expected"),
    [
        (make_alert(), "Anomaly: `pump-7` of events, far from the forecast, score 6.5, tail probability 1.0e-05"),
        (
            make_alert(action="updated"),
            "Worse: `pump-7` of events, far from the forecast, score 6.5, tail probability 1.0e-05",
        ),
        (
            make_alert(action="updated", adapting=True),
            "Still open: `pump-7` of events, far from the forecast, the threshold now follows the stream; score 6.5, "
            "tail probability 1.0e-05",
        ),
        (make_alert(action="resolved"), "Resolved: `pump-7` of events (calm) after 30 events in 1.5 min"),
    ],
    ids=["opened", "worse", "adapting", "resolved"],
)
def test_slack_text_of_an_action_says_what_happened_first(alert: AlertRecord, expected: str) -> None:
    """The first line is what a phone shows."""
    sent = body_of("slack", alert)

    assert list(sent) == ["text"]
    assert sent["text"].splitlines()[0] == expected


def test_slack_text_opened_shows_features_against_their_band() -> None:
    """Scalar features have numbers; one sampled in frames has its share only."""
    lines = body_of("slack", make_alert(), "https://d")["text"].splitlines()

    assert lines[1:] == [
        "• flow 90%: 31 l/min, expected 10 (9 to 11)",
        "• sound 10%",
        "since 2023-11-14T22:13:20.000Z, alert events:0:42",
        "https://d",
    ]


def test_slack_text_hostile_key_neither_mentions_nor_links() -> None:
    """A key is data of the stream, and may say anything."""
    text = body_of("slack", make_alert(key="<!channel>`&" + "x" * 1000))["text"].splitlines()[0]

    assert "<" not in text
    assert text.startswith("Anomaly: `&lt;!channel&gt;'&amp;xxx")
    assert len(text) < 300


def test_alertmanager_episode_keeps_labels_and_start() -> None:
    """Alertmanager knows an alert by its labels, and joins records whose times overlap; a next episode is another."""
    opened, updated, resolved = (
        body_of("alertmanager", make_alert(action=action, model=f"model-{action}"))[0]
        for action in ("opened", "updated", "resolved")
    )

    assert opened["labels"].pop("id") != body_of("alertmanager", make_alert(id="events:0:9"))[0]["labels"]["id"]
    assert opened["labels"] == {"alertname": "StreamlstmAnomaly", "topic": "events", "key": "pump-7"}
    assert updated["labels"] == resolved["labels"] == {**opened["labels"], "id": make_alert().id}
    assert opened["startsAt"] == updated["startsAt"] == resolved["startsAt"] == "2023-11-14T22:13:20.000Z"


def test_alertmanager_open_alert_ends_by_itself_after_the_hold() -> None:
    """Without an end it would be resolved after Alertmanager's ``resolve_timeout``, five minutes."""
    (sent,) = body_of("alertmanager", make_alert(), "https://d/{key}")

    assert sent["endsAt"] == "2023-11-14T23:16:40.000Z"
    assert sent["generatorURL"] == "https://d/pump-7"


def test_texts_of_a_still_value_say_so_and_which() -> None:
    """The share alone does not: nothing else about it is unusual. A feature's name is data of a stream, too."""
    features = [FeatureEvidence("<flow>", "", 1.0, 1.0, 1.0, 0.0, 2.0)]
    alert = make_alert(channels={"novelty": 1.0, "stillness": 4.0}, features=features)

    assert "stiller than ever seen: &lt;flow&gt;, score 6.5" in body_of("slack", alert)["text"].splitlines()[0]
    (sent,) = body_of("alertmanager", alert)
    assert "stiller than ever seen: <flow>, score 6.5" in sent["annotations"]["summary"]
    assert sent["annotations"]["why"] == "stiller than ever seen: <flow>"
    assert "why" not in body_of("alertmanager", make_alert(action="resolved"))[0]["annotations"]


@pytest.mark.parametrize(
    ("now_s", "ends"),
    [
        (NOW_S, "2023-11-14T22:14:50.000Z"),
        (START_MS / 1000 + 10, "2023-11-14T22:13:30.000Z"),
        (START_MS / 1000 - 10, "2023-11-14T22:13:20.000Z"),
    ],
    ids=["usual", "event ahead of the clock", "all ahead of the clock"],
)
def test_alertmanager_resolved_alert_has_ended(now_s: float, ends: str) -> None:
    """The end is the event's time, but not in the future (it would go on), nor before the start (refused)."""
    (sent,) = body_of("alertmanager", make_alert(action="resolved"), now_s=now_s)

    assert sent["endsAt"] == ends
    assert "generatorURL" not in sent
    assert all(isinstance(text, str) for text in sent["annotations"].values())


@pytest.mark.parametrize("template", ["json", "slack", "alertmanager"])
def test_body_time_beyond_the_calendar_is_still_made(template: str) -> None:
    """An absurd event time is no reason to be silent about an alert."""
    assert body_of(template, make_alert(since_ms=-(10**15), time_ms=10**18))


def test_examples_in_the_docstrings_are_true() -> None:
    """Examples are run."""
    assert doctest.testmod(alert_body).failed == 0
