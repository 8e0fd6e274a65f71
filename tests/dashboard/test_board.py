"""The board: how keys stand, what is pushed, what is bounded, and what people said."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest

from streamlstm.core.log import Record
from streamlstm.dashboard import board as boards
from streamlstm.dashboard.board import Board, change
from streamlstm.dashboard.episodes import Episodes
from streamlstm.dashboard.fleet import ALERT, CALM, RAISED, SILENT, UNUSUAL, WARMS, Fleet
from streamlstm.dashboard.recent import OVERHEAD_BYTES, Recent
from streamlstm.dashboard.strip import NONE
from tests.alerts import make_alert
from tests.builders import START_MS, STEP_MS, bundle, changed, make_feed
from tests.core.test_feedback import make_feedback
from tests.dashboard.boards import make_score, records, scored


def new_board() -> Board:
    """Return an empty board with an alarm rate of one in a thousand."""
    return Board("events", bundle(), bundle().promised(1e-3))


def levels(board: Board, wall_ms: int = START_MS) -> dict[str, int]:
    """Return how each key stands, in the order in which they are shown."""
    state = board.state(wall_ms)
    return {state["rows"][number]["key"]: state["rows"][number]["level"] for number in state["order"]}


def test_keys_stand_by_what_they_did_lately_the_worst_first() -> None:
    """Alert, unusual, raised, calm by name, warming up, silent."""
    board = new_board()
    old = [make_score("gone", 0), make_score("gone", 1)]
    now = [
        make_score("calm-b", 900),
        make_score("calm-a", 900),
        make_score("rare", 900, 1e-4),
        make_score("raised", 900, 5e-3),
        make_score("new", 900, None),
        make_score("bad", 900, 1e-6, alert="events:0:900"),
    ]
    board.take_scores(records(old + now))
    assert levels(board) == {
        "bad": ALERT,
        "rare": UNUSUAL,
        "raised": RAISED,
        "calm-a": CALM,
        "calm-b": CALM,
        "new": WARMS,
        "gone": SILENT,
    }
    assert list(levels(board)) == ["bad", "rare", "raised", "calm-a", "calm-b", "new", "gone"]
    (row,) = [row for row in board.rows("new", 5, START_MS) if row["key"] == "new"]
    assert row["warm_in"] == bundle().calibration.warmup_events - 1


def test_alert_that_ended_with_its_keys_last_event_is_over() -> None:
    """The score record of that event still names it; the alert's own record counts."""
    board = new_board()
    board.take_scores(records([make_score("pump-7", 5, 1e-6, alert="events:0:5")]))
    board.take_alerts(records([make_alert("pump-7", "opened", 5)]))
    assert levels(board) == {"pump-7": ALERT}
    board.take_alerts(records([make_alert("pump-7", "resolved", 6, id="events:0:5")]))
    assert levels(board, START_MS + 10) == {"pump-7": UNUSUAL}


def test_promised_and_realised_alarms_are_counted() -> None:
    """Of the scored events only; missing values and warm-up are neither."""
    board = new_board()
    scores = [make_score(step=i, probability=None if i < 3 else 1e-3 if i == 7 else 0.4) for i in range(10)]
    board.take_scores(records([*scores, make_score(step=10, probability=None, status="no_value")]))
    head = board.state(START_MS)["head"]
    assert (head["scored"], head["flagged"], head["promised"]) == (7, 1, 1e-3)
    assert board.key((0, "a"), START_MS)["missing"] == 1  # type: ignore[index]


def merged(state: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    """Do what the page does with a change."""
    state = copy.deepcopy(state)
    shift = delta["head"].get("until", state["head"]["until"]) - state["head"]["until"]
    state["head"] |= delta["head"]
    for row in state["rows"].values():
        row["strip"] = [*row["strip"], *[NONE] * shift][-len(row["strip"]) :]
    for number, fields in delta["rows"].items():
        tail = fields.get("tail", [])
        row = state["rows"].setdefault(number, {})
        row |= {name: value for name, value in fields.items() if name != "tail"}
        row["strip"] = row["strip"][: len(row["strip"]) - len(tail)] + tail
    if delta["order"] is not None:
        state["order"] = delta["order"]
        state["rows"] = {number: state["rows"][number] for number in delta["order"]}
    state["episodes"] |= delta["episodes"]
    for name in delta["ended"]:
        del state["episodes"][name]
    return state


def test_changes_lead_from_state_to_state_and_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """However keys come, go, rise and fall; a change is a small part of the whole."""
    monkeypatch.setattr(boards, "TOP_KEYS", 12)
    board = new_board()
    had = board.state(START_MS)
    sizes = []
    for step in range(60):
        keys = [f"key-{i:02}" for i in range(20) if (i + step) % 3]
        rare = {f"key-{step % 20:02}": 1e-5}
        board.take_scores(records([make_score(key, 7 * step, rare.get(key, 0.5)) for key in keys]))
        if step % 10 == 5:
            board.take_alerts(records([make_alert("key-01", "opened", step)]))
        state = board.state(START_MS + 700 * step)
        delta = change(had, state)
        assert merged(had, delta) == state
        had = state
        sizes.append(len(msgspec.json.encode(delta)) / len(msgspec.json.encode(state)))
    assert sorted(sizes)[30] < 0.2


def test_one_key_with_a_wrong_clock_does_not_make_the_others_silent() -> None:
    """It is an hour ahead; the present stays where the others are, until they come there, too."""
    board = new_board()
    for step in range(20):
        board.take_scores(records([make_score("a", step), make_score("b", step), make_score("ahead", step + 3_600)]))
    assert levels(board)["a"] == CALM
    assert board.fleet.now_ms == START_MS + 19 * STEP_MS
    board.take_scores(records([make_score(key, 9_000 + step) for step in range(3) for key in "ab"]))
    assert board.fleet.now_ms == START_MS + 9_002 * STEP_MS


def test_silence_of_all_keys_is_told() -> None:
    """The stream's own time stands still then, and every key looks as calm as it was."""
    board = new_board()
    assert board.state(START_MS)["head"]["quiet_ms"] is None
    board.take_scores(records([make_score()]))
    assert board.state(START_MS + 5_000)["head"]["quiet_ms"] is None
    assert board.state(START_MS + 300_400)["head"]["quiet_ms"] == 300_000


def test_more_open_alerts_than_are_remembered_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys know."""
    board = new_board()
    monkeypatch.setattr(board, "episodes", Episodes(most=2))
    board.take_scores(records([make_score(key, 0, 1e-6, alert=f"events:0:{key}") for key in "abc"]))
    board.take_alerts(records([make_alert(key, "opened", 1, id=f"events:0:{key}") for key in "abc"]))
    assert board.state(START_MS)["head"]["open"] == 3


def test_keys_unheard_of_longest_make_room_and_are_counted() -> None:
    """Memory is bounded by keys, whatever the stream sends."""
    fleet = Fleet(boards.promise_of(bundle()), max_keys=3)
    for step, key in enumerate("abcade"):
        fleet.take_score(records([make_score(key, step)])[0])
    assert [card.key[1] for card in fleet.cards()] == ["a", "d", "e"]
    assert (len(fleet), fleet.dropped) == (3, 2)


def test_episodes_that_are_over_make_room_before_open_ones() -> None:
    """An open alert stays; what was said of one that is not known yet finds it."""
    episodes = Episodes(most=2)
    episodes.take_feedback(make_feedback("acknowledge", alert="events:0:3"))
    episodes.take(make_alert("a", "opened", 1))
    episodes.take(make_alert("b", "opened", 2))
    episodes.take(make_alert("b", "resolved", 4, id="events:0:2"))
    episodes.take(make_alert("c", "opened", 3))
    assert [(e.last.key, e.open) for e in episodes] == [("a", True), ("c", True)]
    assert episodes.dropped == 1
    found = episodes.get("events:0:3")
    assert found is not None
    assert found.acknowledged is not None


def test_records_kept_are_bounded_by_bytes() -> None:
    """The oldest make room."""
    recent = Recent(3 * (OVERHEAD_BYTES + 100))
    for offset in range(5):
        recent.add((0, offset), Record("t", 0, offset, 0, None, bytes(100)))
    assert [recent.get((0, offset)) is not None for offset in range(5)] == [False, False, True, True, True]


def test_feedback_counts_once_and_the_later_word_counts() -> None:
    """The same id again is the same record; a verdict can be changed; bytes that are none are counted."""
    board = new_board()
    board.take_alerts(records([make_alert("pump-7", "opened", 5)]))
    said = [
        make_feedback("true", 1, alert="events:0:5", id="12345678"),
        make_feedback("false", 2, alert="events:0:5", note="serviced"),
        make_feedback("true", 3, alert="events:0:5", id="12345678"),
    ]
    board.take_feedback([*records(said), Record("f", 0, 9, 0, None, b"{")])
    shown = board.state(START_MS)["episodes"]["events:0:5"]
    assert shown["verdict"] == {"action": "false", "who": "ann", "at_ms": 2, "note": "serviced"}
    assert board.unreadable == 1
    assert board.known("12345678")


def test_episode_says_why_it_opened_and_its_newest_reason_when_it_is_over_too() -> None:
    """A stuck value is badly forecast first, and still later. The record of the end is about a calm event."""
    board = new_board()
    board.take_alerts(records([make_alert("pump-7", "opened", 5)]))
    assert board.state(START_MS)["episodes"]["events:0:5"]["why"] == "far from the forecast"
    for offset, channels in ((6, {"level": 5.0}), (7, {"stillness": 6.0}), (8, {"forecast_error": 6.0})):
        worse = make_alert("pump-7", "updated", offset, id="events:0:5", channels=channels)
        board.take_alerts(records([worse]))
    calm = make_alert("pump-7", "resolved", 9, id="events:0:5", channels={"level": 0.4})
    board.take_alerts(records([calm]))
    said = "far from the forecast, then stiller than ever seen: flow"
    assert board.state(START_MS)["episodes"]["events:0:5"]["why"] == said


def test_late_events_are_noted_at_their_key_and_letters_counted() -> None:
    """From the dead letters: the reason in the header, key and time in the record as it was."""
    board = new_board()
    board.take_scores(records([make_score("a", 5)]))
    late = make_feed(1, ("a",))[0]
    headers = (("reason", b"late"), ("timestamp_ms", str(START_MS).encode()))
    board.take_letters([late._replace(headers=headers), Record("d", 0, 1, 0, None, b"x", (("reason", b"malformed"),))])
    assert board.letters == {"late": 1, "malformed": 1}
    about = board.key((0, "a"), START_MS)
    assert about is not None
    assert (about["late"], about["late_ms"]) == (1, [START_MS])


def test_series_holds_values_bands_and_scores_as_they_were() -> None:
    """In the schema's units; the spike, its band and its score are in the bin of its time."""
    feed = make_feed(200, ("a",), seed=21)
    feed[150] = changed(feed[150], flow=30.0)
    board = scored(feed)
    found = board.stretch((0, "a"), START_MS, START_MS + 10**9)
    assert found is not None
    stretch, reaches_back = found
    assert reaches_back
    series = board.series.make(stretch, STEP_MS, board.features_of((0, "a"), ()))
    flow, pressure = series["features"]
    at = flow["bin"].index((START_MS + 150 * STEP_MS) // STEP_MS)
    assert (flow["name"], flow["unit"], pressure["name"]) == ("flow", "l/min", "pressure")
    assert (flow["min"][at], flow["max"][at]) == (30.0, 30.0)
    assert flow["low"][at] < flow["expected"][at] < flow["high"][at] < 30
    assert series["score"]["score"][at] > series["score"]["threshold"][at]
    assert series["score"]["alert"][at] == 1
    assert flow["expected"][0] is None
    assert series["score"]["status"][0] == 1
    assert [(one["name"], one["unit"]) for one in series["latest"]] == [("flow", "l/min"), ("pressure", "bar")]


def test_series_sent_in_pieces_is_the_whole() -> None:
    """Each piece replaces what was there from its first bin on."""
    feed = make_feed(200, ("a",), seed=3)
    whole_board = scored(feed)
    width = 5 * STEP_MS
    whole = _make(whole_board, 0, width, None)
    had = _make(scored(feed[:100]), 0, width, None)
    first = had["score"]["bin"][-1]
    piece = _make(whole_board, whole_board.series.starts_ms(first, width), width, first)
    for part, ours, new in (
        (whole["score"], had["score"], piece["score"]),
        (whole["features"][0], had["features"][0], piece["features"][0]),
    ):
        cut = ours["bin"].index(new["bin"][0])
        for name in ("bin", "score", "min", "max", "expected"):
            if name in part:
                assert ours[name][:cut] + new[name] == part[name]
    assert len(piece["score"]["bin"]) < len(whole["score"]["bin"])


def _make(board: Board, since_ms: int, width: int, first: int | None) -> dict[str, Any]:
    found = board.stretch((0, "a"), since_ms, START_MS + 10**9)
    assert found is not None
    return board.series.make(found[0], width, ("flow",), first)


def test_alerts_per_key_and_time_stand_beside_the_budget() -> None:
    """Of the alerts that opened since the page looks, and of the time of all keys; a start anew is not waited for."""
    board = Board("events", bundle(), bundle().promised(alarms="2 per key per hour"))
    hour = 3_600_000 // STEP_MS
    board.take_scores(records([make_score("a", 0, 1e-9, alert="events:0:7"), make_score("b", 0)]))
    assert board.state(START_MS)["head"]["alarms"]["realised"] is None
    scores = [make_score("a", hour, 1e-9, alert=f"events:0:{hour}"), make_score("b", hour)]
    board.take_scores(records([*scores, make_score("b", 3 * hour, None)]))
    assert board.state(START_MS)["head"]["alarms"] == {
        "unit": "hour", "promised": 2.0, "realised": 0.5, "opened": 1, "due": 4.0, "judged": "kept"
    }  # fmt: skip


def test_many_against_a_small_expectation_are_told_as_more_than_promised() -> None:
    """However few are due: of 40 events, .04 may be flagged, and five are."""
    board = new_board()
    assert board.state(START_MS)["head"]["flagged_judged"] == "too few"
    board.take_scores(records([make_score("a", i, 1e-9 if i % 8 == 0 else 0.5) for i in range(40)]))
    assert board.state(START_MS)["head"]["flagged_judged"] == "more"
    assert board.state(START_MS)["head"]["alarms"]["judged"] == "too few"
    board.take_scores(records([make_score("a", 40 + i, 1e-9, alert=f"events:0:{40 + i}") for i in range(4)]))
    assert board.state(START_MS)["head"]["alarms"]["judged"] == "more"


def test_flagged_events_of_one_alert_are_judged_as_one() -> None:
    """They come together: of a single alert nothing can be told, however long it is."""
    board = new_board()
    scores = [make_score("a", i, 1e-9 if i >= 30 else 0.5, alert="events:0:30" if i >= 30 else None) for i in range(40)]
    board.take_scores(records(scores))
    head = board.state(START_MS)["head"]
    assert (head["flagged"], head["flagged_judged"]) == (10, "too few")
