"""The live page in a real browser: it shows what happens, says why, takes what people say, and stays safe.

Screenshots of each view and state are kept in ``out/screens``.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser_fixtures import PATIENCE_MS, Visitor
from tests.end_to_end.page_stage import KEYS, SCRIPT, Dashboard, Stage, dashboard

TOKEN = "0123456789abcdef0123456789abcdef"
WARM = 120  # steps, after which every key has scores
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
def stage(tmp_path: Path, bundle_directory: Path) -> Stage:
    """A log whose keys are warm and calm."""
    stage = Stage(tmp_path, bundle_directory)
    stage.feed(WARM)
    stage.score()
    return stage


@pytest.fixture
def shown(stage: Stage) -> Iterator[Dashboard]:
    """The page of that log."""
    with dashboard(stage) as running:
        yield running


def raise_alert(stage: Stage, key: str = "pump-02") -> None:
    """Let a key do what it never did, and the others go on."""
    stage.feed(1, **{key: 30.0})
    stage.feed(2)
    stage.score()


def open_key(page: Page, running: Dashboard, key: str = "pump-02") -> None:
    """Go to a key's page by its link, and wait for the chart."""
    page.goto(running.address)
    page.locator("a.row", has_text=key).click()
    expect(page.locator(".chart .xaxislayer-above, .chart .xtick").first).to_be_attached()


def name_oneself(page: Page, name: str = "Ann") -> None:
    """Answer the question that comes before the first thing said."""
    page.get_by_role("textbox", name="Name").fill(name)
    page.get_by_role("button", name="Save").click()


def test_page_loads_and_shows_keys_figures_and_bundle(stage: Stage, shown: Dashboard, visitor: Visitor) -> None:
    """All keys, calm; counts, lag, promise and bundle; connected."""
    page = visitor.page
    page.goto(shown.address)
    expect(page.locator("a.row")).to_have_count(len(KEYS))
    expect(page.locator("#connection")).to_have_text("● Live")
    expect(page.locator("#figure-keys dd").first).to_have_text(str(len(KEYS)))
    expect(page.locator("#figure-lag dd").first).to_have_text("0")
    expect(page.locator("#figure-flagged .more")).to_contain_text("promised 1 in 10,000")
    expect(page.locator("#figure-alarms dd").first).to_have_text("0 so far")
    told = re.compile(r"promised at most 8\.64 a day; 0\.0\d+ due by now, too few to tell")
    expect(page.locator("#figure-alarms .more")).to_have_text(told)
    expect(page.locator("#foot")).to_contain_text("Bundle ")
    visitor.keep("fleet-calm")


def test_injected_anomaly_appears_within_seconds_with_its_reason(
    stage: Stage, shown: Dashboard, visitor: Visitor
) -> None:
    """Worst first, alert open, the feature blamed, and time to look: no reload."""
    page = visitor.page
    page.goto(shown.address)
    expect(page.locator("a.row")).to_have_count(len(KEYS))
    raise_alert(stage)
    alert = page.locator(".alerts .card").first
    expect(alert).to_contain_text("pump-02", timeout=5_000)
    expect(alert).to_contain_text("open for")
    expect(alert).to_contain_text("flow")
    expect(alert).to_contain_text(re.compile(r"(Far from|Off) the forecast|never seen|far from its usual|Outside the"))
    expect(alert).to_contain_text(re.compile(r"peak score \d+\.\d"))
    expect(page.locator("#figure-open dd").first).to_have_text("1")
    page.mouse.move(0, 0)
    expect(page.locator("a.row").first).to_contain_text("pump-02")
    visitor.keep("fleet-alert")


def test_key_view_shows_series_band_evidence_and_payload(stage: Stage, shown: Dashboard, visitor: Visitor) -> None:
    """Why: shares, came against expected, the records; live, then back through time and forth."""
    raise_alert(stage)
    page = visitor.page
    open_key(page, shown)
    row = page.locator(".episodes table tbody tr").first
    expect(row).to_contain_text("flow (l/min)")
    expect(row).to_contain_text("30")
    expect(page.locator(".chart")).to_contain_text("threshold")
    names = page.evaluate("document.querySelector('.chart').data.map((trace) => trace.name)")
    assert {"actual", "expected", "expected, 99 % band", "score", "threshold", "alert opens"} <= set(names)
    page.get_by_text("The event itself").click()
    expect(page.locator(".episodes pre").last).to_contain_text('"flow":30.0')
    visitor.keep("key-alert")
    page.get_by_role("button", name="Earlier").click()
    expect(page.get_by_role("button", name="Go live")).to_be_visible()
    expect(page.locator(".under")).to_contain_text("From ")
    visitor.keep("key-history")
    page.get_by_role("button", name="Go live").click()
    expect(page.get_by_role("button", name="● Live")).to_be_visible()


def test_history_comes_from_the_log_where_memory_is_too_short(stage: Stage, shown: Dashboard, visitor: Visitor) -> None:
    """Fifty minutes back, more than a key's ring of points holds."""
    stage.feed(1_500, KEYS[:1])
    stage.score()
    page = visitor.page
    open_key(page, shown, "pump-01")
    page.get_by_role("button", name="1 h", exact=True).click()
    first_ms = stage.start_ms
    page.wait_for_function(
        "(first) => { const at = document.querySelector('.chart').data?.find((t) => t.name === 'score')?.x[0];"
        " return at !== undefined && Math.abs(at - new Date(first).getTimezoneOffset() * -60000 - first) < 60000; }",
        arg=first_ms,
        timeout=PATIENCE_MS,
    )
    visitor.keep("key-hour")


def test_feedback_lands_in_its_topic_with_who_and_when(stage: Stage, shown: Dashboard, visitor: Visitor) -> None:
    """Acknowledge, judge with a word why, mute, unmute: each a record, and seen on the page."""
    raise_alert(stage)
    page = visitor.page
    page.goto(shown.address)
    page.get_by_role("button", name="Acknowledge").click()
    visitor.keep("name")
    name_oneself(page)
    expect(page.locator(".alerts .card").first).to_contain_text("Ann looks at it")
    open_key(page, shown)
    page.get_by_placeholder("A word why").fill("The pump was <b>serviced</b>")
    page.get_by_role("button", name="False alarm").click()
    expect(page.locator(".episodes .said")).to_contain_text("False alarm, says Ann")
    expect(page.locator(".episodes .said")).to_contain_text("The pump was <b>serviced</b>")
    page.get_by_label("Mute for").select_option("an hour")
    page.get_by_role("button", name="Mute", exact=True).click()
    expect(page.get_by_text("Muted until")).to_be_visible()
    visitor.keep("key-judged-and-muted")
    page.get_by_role("button", name="Unmute").click()
    expect(page.get_by_text("Muted until")).to_be_hidden()
    said = {record.action: record for record in stage.feedback()}
    assert set(said) == {"acknowledge", "false", "mute", "unmute"}
    assert {(record.who, record.key, record.partition) for record in said.values()} == {("Ann", "pump-02", 1)}
    assert said["false"].note == "The pump was <b>serviced</b>"
    assert said["false"].alert == said["acknowledge"].alert
    assert said["mute"].until_ms is not None
    assert abs(said["mute"].until_ms - said["mute"].at_ms - 3_600_000) < 1_000


def test_what_is_typed_stays_while_the_alert_goes_on(stage: Stage, shown: Dashboard, visitor: Visitor) -> None:
    """An open alert changes under the hands of the one who writes about it, and a newer one comes."""
    page = visitor.page
    raise_alert(stage)
    open_key(page, shown)
    why = page.get_by_label("Why the alert of").first
    why.fill("probe mo")
    page.evaluate("document.activeElement.dataset.typing = 1")
    stage.feed(40)
    stage.score()
    expect(page.locator("article.card").first).to_contain_text("lasted")
    page.keyboard.type("ved")
    expect(page.locator("[data-typing]")).to_have_value("probe moved")
    expect(page.locator("[data-typing]")).to_be_focused()


def test_what_the_page_answers_is_seen_wherever_one_has_scrolled_to(
    stage: Stage, shown: Dashboard, visitor: Visitor
) -> None:
    """That something was not stored, above all."""
    page = visitor.page
    raise_alert(stage)
    open_key(page, shown)
    page.route("**/api/feedback", lambda route: route.fulfill(status=400, json={"error": "no room"}))
    page.set_viewport_size({"width": 390, "height": 500})
    page.get_by_role("button", name="False alarm").click()
    name_oneself(page)
    expect(page.locator("#notices")).to_have_text(re.compile("Not stored: no room"))
    expect(page.locator("#notices .notice")).to_be_in_viewport(ratio=1)
    visitor.keep("not-stored-phone")


def test_tab_that_nobody_sees_gives_its_connection_back(shown: Dashboard, visitor: Visitor) -> None:
    """A browser has six for all its tabs: the seventh would wait for ever. When it is seen again it catches up."""
    page = visitor.page
    page.goto(shown.address)
    expect(page.locator("#connection")).to_have_text("● Live")
    see = "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
    see += "document.dispatchEvent(new Event('visibilitychange')); }"
    with page.expect_event("requestfailed", lambda request: "/api/stream" in request.url):
        page.evaluate(see, True)
    with page.expect_request(re.compile("/api/stream")):
        page.evaluate(see, False)
    expect(page.locator("#connection")).to_have_text("● Live")


def test_page_says_that_nothing_is_scored_while_no_scorer_runs(
    stage: Stage, shown: Dashboard, visitor: Visitor
) -> None:
    """Events wait: it is connected, and yet not live; and live again with the next score."""
    page = visitor.page
    page.goto(shown.address)
    expect(page.locator("#connection")).to_have_text("● Live")
    stage.feed(2)
    expect(page.locator("#connection")).to_have_text("○ Nothing is scored", timeout=30_000)
    expect(page.locator("#figure-lag dd").first).to_have_text(str(2 * len(KEYS)))
    expect(page.locator("#figure-lag .more")).to_have_text(re.compile(r"nothing scored for \d+ s: does a scorer run\?"))
    visitor.keep("fleet-nothing-scored")
    stage.score()
    expect(page.locator("#connection")).to_have_text("● Live")
    expect(page.locator("#figure-lag .more")).to_have_text("the scorer keeps up")


def test_link_that_was_cut_short_is_no_failure(shown: Dashboard, visitor: Visitor) -> None:
    """It names a key that is not there, and the page says so."""
    visitor.page.goto(f"{shown.address}#/key/100%")
    expect(visitor.page.get_by_text("No such key")).to_be_visible()


def test_script_in_the_name_of_a_key_stays_text(stage: Stage, shown: Dashboard, visitor: Visitor) -> None:
    """In the list, in the alert, in the chart and in the payload."""
    raise_alert(stage, SCRIPT)
    page = visitor.page
    page.goto(shown.address)
    expect(page.locator(".alerts .card").first).to_contain_text("<script>")
    page.locator("a.row", has_text="<script>").click()
    expect(page.locator("h1")).to_have_text(SCRIPT)
    expect(page.locator(".chart .xtick").first).to_be_attached()
    page.get_by_text("The event itself").click()
    expect(page.locator(".episodes pre").last).to_contain_text("<script>")
    assert page.locator("main script, main img").count() == 0
    assert page.title() != "owned"
    visitor.keep("key-script")


def test_reconnect_catches_up_with_what_was_missed(stage: Stage, visitor: Visitor) -> None:
    """The page says that it is cut off; when the server is back, it shows what happened meanwhile by itself."""
    page = visitor.page
    with dashboard(stage) as running:
        port = running.port
        page.goto(running.address)
        expect(page.locator("#connection")).to_have_text("● Live")
        running.process.send_signal(signal.SIGKILL)
        expect(page.locator("#connection")).to_contain_text("Cut off")
        visitor.keep("fleet-cut-off")
    raise_alert(stage)
    with dashboard(stage, "--port", port):
        expect(page.locator("#connection")).to_have_text("● Live")
        expect(page.locator(".alerts .card").first).to_contain_text("pump-02")


def test_link_to_a_moment_opens_it_for_a_colleague(stage: Stage, shown: Dashboard, visitor: Visitor) -> None:
    """The address alone says key, time and span; so does an alert's id."""
    raise_alert(stage)
    page = visitor.page
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_key(page, shown)
    page.get_by_role("button", name="Earlier").click()
    expect(page.locator(".under")).to_contain_text("From ")
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator(".notice.done")).to_contain_text("copied")
    link = page.evaluate("navigator.clipboard.readText()")
    before = page.evaluate("document.querySelector('.chart').layout.xaxis.range")
    colleague = visitor.context.new_page()
    colleague.goto(link)
    expect(colleague.locator(".chart .xtick").first).to_be_attached()
    colleague.wait_for_function(
        "(wanted) => Math.abs(document.querySelector('.chart').layout.xaxis.range[0] - wanted) < 2", arg=before[0]
    )
    colleague.goto(shown.address + f"#/key/pump-02?alert=events:1:{3 * WARM}")
    expect(colleague.get_by_role("button", name="Go live")).to_be_visible()


def test_empty_log_unknown_key_and_loading_look_meant(tmp_path: Path, bundle_directory: Path, visitor: Visitor) -> None:
    """Nothing is scored yet: the page says what to start, and fills by itself."""
    stage = Stage(tmp_path, bundle_directory)
    page = visitor.page
    with dashboard(stage) as running:
        page.goto(running.address)
        expect(page.locator(".empty")).to_contain_text("Nothing is scored yet")
        visitor.keep("fleet-empty")
        page.goto(running.address + "#/key/nobody")
        expect(page.locator(".empty")).to_contain_text("No such key")
        visitor.keep("key-unknown")
        page.goto(running.address + "#/")
        stage.feed(10)
        stage.score()
        expect(page.locator("a.row").first).to_contain_text("Warming up")
        visitor.keep("fleet-warming-up")


def test_loading_and_a_log_out_of_reach_look_meant(stage: Stage, shown: Dashboard, visitor: Visitor) -> None:
    """What the server says while it waits is shown beside what was known; so is a bundle of another kind."""
    page = visitor.page
    page.route("**/api/stream*", lambda route: None)  # never answered
    with page.expect_request("**/api/stream*"):
        page.goto(shown.address)
    expect(page.locator(".loading")).to_contain_text("Reading the log")
    visitor.keep("loading")

    with httpx.stream("GET", shown.address + "api/stream") as answer:
        state = json.loads(next(line for line in answer.iter_lines() if line.startswith("data: "))[6:])
    state["head"] |= {"trouble": "log.db: disk I/O error", "model": "another"}
    page.unroute("**/api/stream*")
    told = f"event: state\ndata: {json.dumps(state)}\n\n"
    page.route("**/api/stream*", lambda route: route.fulfill(content_type="text/event-stream", body=told))
    page.reload()
    expect(page.locator("#trouble")).to_contain_text("The log cannot be reached, this page waits for it: log.db")
    expect(page.locator("a.row")).to_have_count(len(KEYS))
    visitor.keep("fleet-log-out-of-reach")
    state["head"]["trouble"] = None
    told = told.replace('"log.db: disk I/O error"', "null")
    page.reload()
    expect(page.locator("#trouble")).to_contain_text("Scored with bundle another")


def test_without_explained_scores_the_page_says_where_the_band_is(
    tmp_path: Path, bundle_directory: Path, visitor: Visitor
) -> None:
    """The values are there, and the band at alerts."""
    stage = Stage(tmp_path, bundle_directory)
    stage.feed(WARM)
    stage.score(explain="alerts")
    with dashboard(stage) as running:
        open_key(visitor.page, running)
        expect(visitor.page.locator(".under")).to_contain_text("without --explain all")
        visitor.keep("key-not-explained")


def test_token_is_asked_for_and_read_only_shows_no_hands(stage: Stage, visitor: Visitor) -> None:
    """Nothing of the stream is shown before the token; then all but what writes."""
    raise_alert(stage)
    page = visitor.page
    with dashboard(stage, "--port", 0, "--host", "0.0.0.0", "--read-only", STREAMLSTM_DASHBOARD_TOKEN=TOKEN) as running:
        address = f"http://127.0.0.1:{running.port}/"
        page.goto(address)
        expect(page.get_by_label("Token")).to_be_visible()
        visitor.keep("sign-in")
        page.get_by_label("Token").fill("not the token")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert").filter(has_text="That is not the token")).to_be_visible()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("a.row")).to_have_count(len(KEYS))
        expect(page.get_by_role("button", name="Acknowledge")).to_have_count(0)
        visitor.keep("fleet-read-only")
        (cookie,) = visitor.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert TOKEN not in cookie["value"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_accessibility_checker_finds_nothing_serious(
    stage: Stage, shown: Dashboard, visitor: Visitor, scheme: str, width: int
) -> None:
    """Both views, light and dark, phone and laptop; and nothing is wider than a phone."""
    raise_alert(stage)
    page = visitor.page
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(shown.address)
    expect(page.locator(".alerts .card").first).to_contain_text("pump-02")
    page.get_by_text("What the signs mean").click()
    look(page, visitor, f"fleet-{scheme}-{width}")
    open_key(page, shown)
    expect(page.locator(".episodes table")).to_be_visible()
    look(page, visitor, f"key-{scheme}-{width}")


def look(page: Page, visitor: Visitor, name: str) -> None:
    """Keep a screenshot, and fail on what the checker calls serious or critical."""
    visitor.keep(name)
    found = Axe().run(page).response["violations"]
    assert [
        (one["id"], [node["html"] for node in one["nodes"]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_keyboard_reaches_everything_in_order(stage: Stage, shown: Dashboard, visitor: Visitor) -> None:
    """From the address bar to a key, and back."""
    page = visitor.page
    page.goto(shown.address)
    expect(page.locator("a.row")).to_have_count(len(KEYS))
    reached = []
    for _ in range(16):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent || document.activeElement.placeholder"))
    assert reached[0] == "Skip to content"
    assert "Find a key" in reached
    assert any(re.search("pump-01", text) for text in reached)
    page.locator("a.row").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).not_to_have_text("All keys")
