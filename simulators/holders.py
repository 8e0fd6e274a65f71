"""How people pay by card: how often and when, where, what for and how much.

A holder goes shopping as an inhomogeneous Poisson process by hour of the day and day of the week; a payment may bring
on another one soon (a Hawkes process, drawn as its clusters). Amounts are log-normal in each merchant category. Now and
then the holder travels. Constants marked "chosen" have no source but plausibility. Sources:

- ECB, Insights into euro area statistics, payment statistics, 27 September 2019: in 2018 a card payment was 44 EUR
  on average; 121 a year per inhabitant, cards in a drawer included.
- Le Borgne, Siblini, Lebichot & Bontempi 2022: Reproducible Machine Learning for Credit Card Fraud Detection,
  Practical Handbook: simulated holders with 0 to 4 payments a day, each with habits of amount and place.
- Hawkes & Oakes 1974: A cluster process representation of a self-exciting process, J. Appl. Probab. 11(3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simulators.daily import Floats, hour_of, weekday_of
from simulators.feed import Event, time_of


class Category(NamedTuple):
    """A kind of merchant: median amount (EUR), deviation of its logarithm, share of payments."""

    median_eur: float
    spread: float
    share: float
    online: bool = False


# Chosen, so that the mean is about the ECB's 44 EUR.
CATEGORIES = {
    "groceries": Category(29.0, 0.8, 0.33),
    "restaurant": Category(21.0, 0.7, 0.16),
    "transport": Category(9.0, 0.9, 0.10),
    "online_shop": Category(38.0, 0.9, 0.10, online=True),
    "fuel": Category(50.0, 0.4, 0.07),
    "clothing": Category(48.0, 0.7, 0.07),
    "pharmacy": Category(14.0, 0.7, 0.06),
    "digital": Category(9.0, 0.6, 0.04, online=True),
    "entertainment": Category(17.0, 0.7, 0.04),
    "electronics": Category(85.0, 1.0, 0.015),
    "travel": Category(200.0, 0.9, 0.01),
    "jewellery": Category(160.0, 1.0, 0.005),
}
NAMES = tuple(CATEGORIES)
SHARES = np.array([category.share for category in CATEGORIES.values()])
COUNTRIES = ("DE", "FR", "IT", "ES", "NL", "AT", "GB", "US")

# Payments by hour of the day and by weekday, Monday first, relative to their means; chosen.
HOURS = np.array([8, 4, 2, 2, 3, 8, 25, 60, 90, 110, 125, 150, 180, 160, 140, 140, 160, 190, 180, 130, 95, 75, 45, 20])
DAYS = np.array([0.95, 0.95, 1.0, 1.0, 1.2, 1.3, 0.6])
FOLLOWED, FOLLOWED_AFTER_S = 0.25, 25 * 60.0  # a payment brings on another with this chance, and when; chosen
FOREIGN_SHOP, SHOP_SPREAD = 0.15, 0.9  # of online payments; of the logarithm of a distance; chosen
JOURNEYS_PER_DAY, JOURNEY_DAYS, JOURNEY_KM = 1 / 60, (2, 7), (150.0, 2500.0)  # chosen
ABROAD_KM = 400.0  # further away is another country; chosen


@dataclass(frozen=True)
class Habits:
    """How somebody uses a card."""

    per_day: float
    level: float  # of amounts, relative to others
    tastes: Floats  # share of each category
    later_h: float  # than others
    country: str
    around_km: float  # median distance of shops


def draw_habits(rng: np.random.Generator) -> Habits:
    """Return a random holder's; spreads are chosen, payments a day within the Handbook's."""
    return Habits(
        per_day=float(np.clip(np.exp(rng.normal(np.log(1.5), 0.35)), 0.5, 4.0)),
        level=float(np.exp(rng.normal(0.0, 0.25))),
        tastes=rng.dirichlet(30 * SHARES),
        later_h=rng.normal(0.0, 1.0),
        country=str(rng.choice(COUNTRIES)),
        around_km=float(np.exp(rng.normal(np.log(3.0), 0.4))),
    )


class Away(NamedTuple):
    """Somewhere else, for so many more days, this one included."""

    days: int
    away_km: float
    country: str


def visits_per_hour(habits: Habits, time_s: Floats) -> Floats:
    """Return the rate at times (s since 1970), without the payments that others bring on; constant within an hour."""
    hour = np.floor(hour_of(time_s) - habits.later_h).astype(np.int64) % 24
    relative = HOURS[hour] / HOURS.mean() * DAYS[weekday_of(time_s)] / DAYS.mean()
    return np.asarray(habits.per_day / 24 * (1 - FOLLOWED) * relative)


def travel(rng: np.random.Generator, away: Away, habits: Habits) -> Away:
    """Return where a holder is the next day."""
    if away.days > 1:
        return away._replace(days=away.days - 1)
    if rng.random() >= JOURNEYS_PER_DAY:
        return Away(0, 0.0, habits.country)
    away_km = float(np.exp(rng.uniform(*np.log(JOURNEY_KM))))
    country = str(rng.choice(COUNTRIES)) if away_km > ABROAD_KM else habits.country
    return Away(int(rng.integers(*JOURNEY_DAYS, endpoint=True)), away_km, country)


def payments(
    rng: np.random.Generator, key: str, habits: Habits, start_ms: int, end_ms: int, away: Away | None
) -> list[Event]:
    """Return the payments of visits between two times, and those that they bring on, maybe later."""
    hours_s = np.arange(start_ms / 1000, end_ms / 1000, 3600.0)
    visits = np.repeat(hours_s, rng.poisson(visits_per_hour(habits, hours_s)))
    paid = []
    for visit_s in visits + rng.uniform(0.0, 3600.0, len(visits)):
        time_s = float(visit_s)
        paid.append(payment(rng, key, habits, round(1000 * time_s), away))
        while rng.random() < FOLLOWED:
            time_s += rng.exponential(FOLLOWED_AFTER_S)
            paid.append(payment(rng, key, habits, round(1000 * time_s), away))
    return sorted(paid, key=time_of)


def payment(
    rng: np.random.Generator, key: str, habits: Habits, time_ms: int, away: Away | None, merchant: str | None = None
) -> Event:
    """Return one payment, as the card's bank sees it; at a merchant of the holder's taste unless given."""
    merchant = merchant or str(rng.choice(NAMES, p=habits.tastes))
    category = CATEGORIES[merchant]
    amount = habits.level * category.median_eur * np.exp(category.spread * rng.standard_normal())
    if category.online:
        distance, foreign = None, rng.random() < FOREIGN_SHOP
        country = str(rng.choice(COUNTRIES)) if foreign else habits.country
    else:
        around_km = habits.around_km * float(np.exp(SHOP_SPREAD * rng.standard_normal()))
        distance = round(around_km + (away.away_km if away else 0.0), 2)
        country = away.country if away else habits.country
    return {
        "key": key,
        "time": time_ms,
        "amount": max(round(float(amount), 2), 0.01),
        "distance": distance,
        "merchant": merchant,
        "country": country,
    }
