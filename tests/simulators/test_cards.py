"""Simulated card payments against published means and their processes, and fraud against the truth."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from scipy import stats

from simulators.cards import DURATIONS_S, TESTING_EUR, Card, deck
from simulators.daily import hour_of, weekday_of
from simulators.feed import Event, Fault, irregular_events, time_of
from simulators.holders import CATEGORIES, COUNTRIES, DAYS, FOLLOWED, HOURS, draw_habits, visits_per_hour

START_MS = 1_767_225_600_000  # a Thursday
DAY_S, DAY_MS = 86_400, 86_400_000


def make_card(kind: str | None = None, *, seed: int = 3, per_week: float = 0.5) -> Card:
    """Return a card with one kind of fault, or with none."""
    return Card("a", seed, START_MS, fault_rates_per_hour={kind: per_week / 168} if kind else {})


def payments(card: Card, days: int) -> list[Event]:
    """Return a card's payments of the first days."""
    return card.until(START_MS + days * DAY_MS)


def frauds(kind: str, cards: int = 20, days: int = 120) -> list[tuple[Card, Fault, list[Event], list[Event]]]:
    """Return each whole fault of some cards, with the payments in its extent, and all of the card before it."""
    found = []
    for seed in range(cards):
        card = make_card(kind, seed=seed)
        paid = payments(card, days)
        for fault in card.faults:
            if fault.end_ms < START_MS + days * DAY_MS:
                inside = [event for event in paid if fault.start_ms <= time_of(event) < fault.end_ms]
                found.append((card, fault, inside, [event for event in paid if time_of(event) < fault.start_ms]))
    assert len(found) > 20
    return found


def amounts(events: list[Event]) -> np.ndarray:
    """Return the amounts in EUR."""
    return np.array([event["amount"] for event in events], dtype=np.float64)


def km_of(event: Event) -> float:
    """Return the distance of a payment, 0 of one online."""
    distance = event["distance"]
    return distance if isinstance(distance, float) else 0.0


@pytest.fixture(scope="module")
def honest() -> tuple[list[Card], list[Event]]:
    """Half a year of 60 cards without fraud."""
    cards = deck(60, 5, START_MS)
    return cards, list(irregular_events(cards, start_ms=START_MS, duration_s=182.0 * DAY_S))


def test_payments_are_as_many_and_as_large_as_published(honest: tuple[list[Card], list[Event]]) -> None:
    """About the ECB's 44 EUR on average, and half of them below 30; between the Handbook's 0 and 4 a day."""
    cards, paid = honest
    assert 36 < amounts(paid).mean() < 52
    assert 18 < np.median(amounts(paid)) < 30
    per_day = Counter(event["key"] for event in paid)
    for card in cards:
        assert per_day[card.key] / 182 == pytest.approx(card.habits.per_day, rel=0.3)
        assert 0.3 < per_day[card.key] / 182 < 4.5
    assert 1.2 < len(paid) / 60 / 182 < 2.0


def test_amounts_of_a_category_are_log_normal(honest: tuple[list[Card], list[Event]]) -> None:
    """Less each holder's level, the logarithm is normal, with the category's median and spread."""
    cards, paid = honest
    level = {card.key: card.habits.level for card in cards}
    logs = defaultdict(list)
    for event in paid:
        logs[event["merchant"]].append(np.log(event["amount"] / level[event["key"]]))
    assert set(logs) == set(CATEGORIES)
    for name, category in CATEGORIES.items():
        count = len(logs[name])
        standard = (np.array(logs[name]) - np.log(category.median_eur)) / category.spread
        assert abs(standard.mean()) < 4 / np.sqrt(count), name
        assert stats.kstest(standard, "norm").pvalue > 1e-3, name
    assert stats.kstest(np.exp(np.array(logs["groceries"])) / 30, "norm").pvalue < 1e-6  # what is no log is not normal


def test_payments_come_by_hour_and_weekday(honest: tuple[list[Card], list[Event]]) -> None:
    """Few at night, most at noon and after work; most on Fridays and Saturdays, least on Sundays."""
    times_s = np.array([time_of(event) for event in honest[1]]) / 1000
    by_hour = np.bincount(hour_of(times_s).astype(int), minlength=24) / len(times_s)
    by_day = np.bincount(weekday_of(times_s), minlength=7) / 26 / (len(times_s) / 182)
    assert by_hour[1:5].sum() < 0.02
    assert {*np.argsort(by_hour)[-8:]} <= set(range(11, 20))
    assert np.corrcoef(by_hour, HOURS)[0, 1] > 0.95
    np.testing.assert_allclose(by_day, DAYS / DAYS.mean(), atol=0.08)


def test_visits_are_poisson_and_payments_cluster() -> None:
    """Without those that a payment brings on, counts have Poisson's variance; with them, that of their clusters."""
    card = Card("a", 9, START_MS)
    paid = payments(card, 1400)
    times_s = np.array([time_of(event) for event in paid]) / 1000
    day = ((times_s - START_MS / 1000) // DAY_S).astype(int)
    counts = np.bincount(day, minlength=1400)
    weekday = (np.arange(1400) + 3) % 7
    dispersion = np.mean([counts[weekday == d].var() / counts[weekday == d].mean() for d in range(7)])
    # A geometric cluster of mean m = 1/(1-p) has E[n²]/E[n] = (1+p)/(1-p).
    assert dispersion == pytest.approx((1 + FOLLOWED) / (1 - FOLLOWED), rel=0.15)
    gaps_s = np.diff(times_s)
    assert 0.2 < (gaps_s < 2 * 3600).mean() < 0.4
    heads = np.concatenate([[True], gaps_s > 4 * 25 * 60])  # nearly every visit begins after a longer gap
    heads_per_day = np.bincount(day[heads], minlength=1400)
    regular = np.mean([heads_per_day[weekday == d].var() / heads_per_day[weekday == d].mean() for d in range(7)])
    assert 0.7 < regular < 1.1


def test_rate_of_a_week_is_what_the_holder_pays() -> None:
    """The intensity integrates, over a week, to visits; times what each brings on, to payments."""
    habits = draw_habits(np.random.default_rng(4))
    hours_s = START_MS / 1000 + 3600.0 * np.arange(168)
    assert visits_per_hour(habits, hours_s).sum() / (1 - FOLLOWED) == pytest.approx(7 * habits.per_day)


def test_holders_shop_near_home_and_travel_now_and_then(honest: tuple[list[Card], list[Event]]) -> None:
    """Kilometres, as a rule; hundreds on some days, and there abroad; nothing for what is bought online."""
    cards, paid = honest
    home = {card.key: card.habits.country for card in cards}
    online = {name for name, category in CATEGORIES.items() if category.online}
    assert all((event["distance"] is None) == (event["merchant"] in online) for event in paid)
    km = np.array([km_of(event) for event in paid if event["distance"] is not None])
    assert 2 < np.median(km) < 5
    assert 0.02 < (km > 150).mean() < 0.12
    abroad = [event for event in paid if event["distance"] is not None and event["country"] != home[event["key"]]]
    assert len(abroad) > 100
    assert min(map(km_of, abroad)) > 300
    assert {event["country"] for event in paid} <= set(COUNTRIES)


# Seeds and continuation


def test_payments_taken_in_pieces_are_the_same() -> None:
    """However time goes on, payments and faults are the same, in time order and never twice."""
    rates = dict.fromkeys(DURATIONS_S, 1 / 3000)
    whole, pieces = (Card("a", 1, START_MS, fault_rates_per_hour=rates) for _ in range(2))
    expected = payments(whole, 300)
    got = []
    for hours in (0, 1, 5, 24, 25, 1000, 300 * 24):
        got += pieces.until(START_MS + hours * 3_600_000)
    assert got == expected
    times = [time_of(event) for event in got]
    assert times == sorted(set(times))
    assert pieces.faults == whole.faults != []


def test_seed_decides_and_keys_do_not_depend_on_how_many_there_are() -> None:
    """The same seed gives the same cards, also in a larger deck; another gives others; a feed is in time order."""
    two, five, other = deck(2, 1, START_MS), deck(5, 1, START_MS), deck(2, 2, START_MS)
    assert [card.key for card in five] == [f"card-{n:02d}" for n in range(1, 6)]
    feeds = [list(irregular_events(cards, start_ms=START_MS, duration_s=20.5 * DAY_S)) for cards in (two, five, other)]
    of_second = [[event for event in feed if event["key"] == "card-02"] for feed in feeds]
    assert of_second[0] == of_second[1] != of_second[2]
    times = [time_of(event) for event in feeds[1]]
    assert times == sorted(times)
    assert START_MS + 19 * DAY_MS < times[-1] < START_MS + 20.5 * DAY_MS


# Fraud


@pytest.mark.parametrize("kind", DURATIONS_S)
def test_fraud_changes_payments_within_its_extent_and_nowhere_else(kind: str) -> None:
    """The holder pays as without it before and after; its first and last payment are the truth's ends."""
    faulty, healthy = make_card(kind), make_card()
    paid, usual = payments(faulty, 120), payments(healthy, 120)
    assert len(faulty.faults) > 2
    assert healthy.faults == []
    extra = [event for event in paid if event not in usual]
    genuine = 1 if kind == "double_charge" else 0  # the first of them
    for fault in faulty.faults[:-1]:
        of_it = [time_of(e) for e in extra if fault.start_ms - 200_000 <= time_of(e) < fault.end_ms + DAY_MS]
        assert (of_it[genuine], of_it[-1] + 1) == (fault.start_ms, fault.end_ms)
    missing = [time_of(event) for event in usual if event not in paid]
    if kind == "takeover":  # the holder cannot pay from a little before the first fraud to a little after the last
        inside = [any(f.start_ms <= time_ms < f.end_ms for f in faulty.faults) for time_ms in missing]
        assert len(inside) > 10
        assert np.mean(inside) > 0.75
    else:
        assert missing == []


def test_testing_is_a_burst_of_small_amounts_online() -> None:
    """Six payments or more within half an hour, none of which has a place."""
    for _, fault, inside, _ in frauds("testing"):
        assert len(inside) >= 6
        assert fault.end_ms - fault.start_ms <= 1_500_000
        wrong = amounts([event for event in inside if event["distance"] is None])
        assert (wrong <= TESTING_EUR[1]).sum() >= 6


def test_stolen_card_buys_dearly_far_away() -> None:
    """Four payments or more in hours, half a thousand kilometres away or more, of many times what the holder pays."""
    ratios = []
    for _, fault, inside, before in frauds("stolen"):
        far = [event for event in inside if km_of(event) > 500]
        assert len(far) >= 4
        assert fault.end_ms - fault.start_ms <= 4 * 3_600_000
        ratios.append(np.median(amounts(far)) / np.median(amounts(before)) if before else np.nan)
    assert np.nanmedian(ratios) > 8


def test_takeover_lasts_days_with_other_habits() -> None:
    """More payments a day, larger ones, and elsewhere."""
    lasts, amount, often, away = [], [], [], []
    for card, fault, inside, _ in frauds("takeover", cards=30, days=200):
        days = (fault.end_ms - fault.start_ms) / DAY_MS
        lasts.append(days)
        often.append(len(inside) / days / card.habits.per_day)
        usual = [np.log(c.median_eur) + c.spread**2 / 2 for c in CATEGORIES.values()]
        amount.append(amounts(inside).mean() / (card.habits.level * card.habits.tastes @ np.exp(usual)))
        away += [event["distance"] for event in inside if event["distance"] is not None]
    assert max(lasts) < 12.5
    assert 7 < np.mean(lasts) < 11
    assert 1.2 < np.median(often) < 2.0
    assert 1.5 < np.median(amount) < 4.0
    assert min(away) > 25


def test_double_charge_repeats_a_payment_within_minutes() -> None:
    """Same amount, merchant and country as one just before, which is genuine and not in the extent."""
    for _, fault, inside, before in frauds("double_charge"):
        assert len(inside) >= 1
        assert fault.end_ms - time_of(before[-1]) <= 200_000
        same = [{**event, "time": 0} for event in (before[-1], *inside)]
        assert sum(event == same[0] for event in same) >= 2


def test_unusual_hour_is_night() -> None:
    """Between half past one and half past five, with what the holder buys anyway."""
    for _, _, inside, _ in frauds("unusual_hour"):
        hours = hour_of(np.array([time_of(event) for event in inside]) / 1000)
        assert 2 <= len(inside) <= 8
        assert hours.min() >= 1.5
        assert hours.max() <= 5.5


def test_faults_keep_rate_distance_and_truth() -> None:
    """Each kind about as often as ordered, two days between two, none before it may, listed with its first payment."""
    rates = dict.fromkeys(DURATIONS_S, 1 / 2500)
    cards = [Card(str(n), n, START_MS, fault_rates_per_hour=rates, faults_from_s=30.0 * DAY_S) for n in range(20)]
    for card in cards:
        payments(card, 30)
        assert card.faults == []
        payments(card, 330)
        ends, starts = ([getattr(f, name) for f in card.faults] for name in ("end_ms", "start_ms"))
        assert min(np.subtract(starts[1:], ends[:-1])) >= 2 * DAY_MS
        assert all(fault.key == card.key for fault in card.faults)
    counts = Counter(fault.kind for card in cards for fault in card.faults)
    expected = 20 * 300 * 24 / 2500
    assert set(counts) == set(DURATIONS_S)
    assert all(abs(count - expected) < 4 * np.sqrt(expected) for count in counts.values()), counts
    first = cards[0].faults[0]
    again = Card("0", 0, START_MS, fault_rates_per_hour=rates, faults_from_s=30.0 * DAY_S)
    again.until(first.start_ms)
    assert again.faults == []
    again.until(first.start_ms + 1)
    assert again.faults == [first]


def test_events_tell_nothing_of_the_truth() -> None:
    """An event has key, time, two numbers and two categories; nothing else, fraud or not."""
    rates = dict.fromkeys(DURATIONS_S, 1 / 1000)
    cards = [Card(str(n), n, START_MS, fault_rates_per_hour=rates) for n in range(3)]
    feed = list(irregular_events(cards, start_ms=START_MS, duration_s=60.0 * DAY_S))
    assert all(card.faults for card in cards)
    for event in feed:
        assert list(event) == ["key", "time", "amount", "distance", "merchant", "country"]
        assert type(event["amount"]) is float
        assert event["amount"] > 0
        assert type(event["distance"]) in (float, type(None))
        assert event["merchant"] in CATEGORIES
    with pytest.raises(ValueError, match="unknown faults"):
        make_card("gremlin")
