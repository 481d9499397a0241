"""Sample data in the shape of the source: made-up people, the same rows and ids every time.

create_schema(connection)
fill(connection)
"""

from __future__ import annotations

import json
import random
import uuid
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Sequence, TypeVar

from psycopg2.extras import execute_values

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

SCHEMA = Path(__file__).resolve().parent.parent / "schema_design" / "postgres_schema.sql"

# Every timestamp is counted from here and never from the clock, so that two fills are identical.
TODAY = datetime(2025, 11, 15, 9, 30)

# In order of their foreign keys.
TABLES = (
    "users",
    "user_preferences",
    "clients",
    "birth_data",
    "charts",
    "chart_interpretations",
    "interpretations",
    "aspect_patterns",
    "transit_events",
    "session_notes",
    "location_cache",
)

Row = Dict[str, Any]
Rows = Dict[str, List[Row]]
T = TypeVar("T")


class Size(NamedTuple):
    """How much a user has; the last three are per chart."""

    clients: int
    charts: int
    notes: int
    custom_texts: int
    interpretations: int
    patterns: int
    transits: int


class User(NamedTuple):
    """One account of the sample."""

    email: str
    full_name: str
    business_name: str | None
    size: Size
    is_active: bool = True
    has_preferences: bool = True


ACCOUNTS = (
    User("anna@example.com", "Anna Sample", "Sample Star Charts", Size(12, 18, 20, 6, 6, 2, 4)),
    User("bruno@example.com", "Bruno Muster", None, Size(80, 200, 150, 12, 10, 2, 5)),
    User(
        "carla@example.com",
        "Çarla Örnek 星",
        "Ωmega & Söhne",
        Size(1, 2, 2, 1, 2, 1, 1),
        has_preferences=False,
    ),
    User("dora@example.com", "Dora Empty", None, Size(0, 0, 0, 0, 0, 0, 0), is_active=False),
)
USERS = tuple(user.email for user in ACCOUNTS)

FIRST_NAMES = (
    "Test",
    "Demo",
    "Sample",
    "Mock",
    "Pretend",
    "Zoë",
    "Ñandú",
    "Łukasz",
    "晴",
    "Олена",
    "D'Arcy",
    "Fictional",
)
LAST_NAMES = (
    "Person",
    "Muster",
    "O'Example",
    "de la Prueba",
    "Śnieżny",
    "見本",
    "Doe-Roe",
    "Invented",
    "Nobody",
)
NOTES = (
    None,
    "",
    "Prefers mornings.",
    'Said: "call me back", then didn\'t.\nSecond line; a tab\there, a backslash \\ there.',
    "Likes emoji 🌙✨ and old scripts 𐍈𒀭; family 👩‍👧",
    "Percent % signs, %s and $1, are plain text.",
)
PLACES = (
    ("Lisbon", "Lisboa", "Portugal", "38.7222524", "-9.1393366", "Europe/Lisbon", 0, 2267057),
    ("São Paulo", "SP", "Brazil", "-23.5505199", "-46.6333094", "America/Sao_Paulo", -180, 3448439),
    ("Kathmandu", None, "Nepal", "27.7172453", "85.3239605", "Asia/Kathmandu", 345, 1283240),
    ("Tromsø", "Troms", "Norway", "69.6492047", "18.9553238", "Europe/Oslo", 60, 3133895),
    ("Suva", "Central", "Fiji", "-18.1248086", "178.4500789", "Pacific/Fiji", 720, 2198148),
    ("Null Island", None, "Nowhere", "0", "0", "UTC", None, None),
)
PLANETS = (
    "sun",
    "moon",
    "mercury",
    "venus",
    "mars",
    "jupiter",
    "saturn",
    "uranus",
    "neptune",
    "pluto",
    "chiron",
)
SIGNS = (
    "aries",
    "taurus",
    "gemini",
    "cancer",
    "leo",
    "virgo",
    "libra",
    "scorpio",
    "sagittarius",
    "capricorn",
    "aquarius",
    "pisces",
)
ASPECTS = (
    ("conjunction", 0, 8),
    ("sextile", 60, 4),
    ("square", 90, 7),
    ("trine", 120, 7),
    ("opposition", 180, 8),
)
PATTERNS = ("grand_trine", "t_square", "yod", "stellium")
SENTENCES = (
    "Made-up text that stands for an interpretation.",
    "The placement asks for patience – and rewards it.",
    'Some call it "the quiet one".',
    "Nothing here describes anybody.",
    "In the second half of life, the theme returns ♄.",
    "Compare the house ruler before drawing conclusions.",
)


def create_schema(connection: Connection) -> None:
    """Create the source's tables and indexes, and commit."""
    with connection, connection.cursor() as cursor:
        cursor.execute(SCHEMA.read_text(encoding="utf-8"))


def fill(connection: Connection) -> None:
    """Insert the sample into the empty tables, and commit."""
    rows = sample_rows()
    with connection, connection.cursor() as cursor:
        for table in TABLES:
            columns = list(rows[table][0])
            execute_values(
                cursor,
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES %s",
                [[row[column] for column in columns] for row in rows[table]],
                page_size=500,
            )


def sample_rows() -> Rows:
    """Return the rows of each table; JSON columns are JSON text, ids are text."""
    rng = random.Random(20251115)
    rows: Rows = {table: [] for table in TABLES}
    for user in ACCOUNTS:
        _add_user(rows, rng, user)
    _add_shared(rows, rng)
    return rows


def _add_user(rows: Rows, rng: random.Random, user: User) -> None:
    user_id = _uuid(rng)
    rows["users"].append(
        {
            "id": user_id,
            "email": user.email,
            "password_hash": "$2b$12$" + "SampleHashThatOpensNothing".ljust(53, "."),
            "full_name": user.full_name,
            "business_name": user.business_name,
            "is_active": user.is_active,
            "is_verified": user.is_active,
            "is_superuser": False,
            "subscription_tier": "professional" if user.business_name else "free",
            "last_login": _moment(rng) if user.is_active else None,
            **_stamps(rng),
        }
    )
    if user.has_preferences:
        rows["user_preferences"].append(_preferences(rng, user_id))
    clients = [_client(rng, user_id, number) for number in range(user.size.clients)]
    births = [_birth(rng, client["id"], number) for number, client in enumerate(clients)]
    charts = [_chart(rng, user_id, births[n % len(births)], n) for n in range(user.size.charts)]
    rows["clients"] += clients
    rows["birth_data"] += births
    rows["charts"] += charts
    for chart in charts:
        rows["chart_interpretations"] += [
            _chart_interpretation(rng, chart["id"], n) for n in range(user.size.interpretations)
        ]
        rows["aspect_patterns"] += [_pattern(rng, chart["id"]) for _ in range(user.size.patterns)]
        rows["transit_events"] += [_transit(rng, chart["id"]) for _ in range(user.size.transits)]
    rows["interpretations"] += [_interpretation(rng, user_id, n) for n in range(user.size.custom_texts)]
    rows["session_notes"] += [
        _session_note(rng, user_id, clients[n % len(clients)]["id"], n) for n in range(user.size.notes)
    ]


def _add_shared(rows: Rows, rng: random.Random) -> None:
    rows["interpretations"] += [_interpretation(rng, None, number) for number in range(24)]
    for city, state, country, latitude, longitude, timezone, _, geonames_id in PLACES:
        rows["location_cache"].append(
            {
                "id": _uuid(rng),
                "city_name": city,
                "state_province": state,
                "country": country,
                "latitude": Decimal(latitude),
                "longitude": Decimal(longitude),
                "timezone": timezone,
                "geonames_id": geonames_id,
                **_stamps(rng),
            }
        )


def _preferences(rng: random.Random, user_id: str) -> Row:
    return {
        "id": _uuid(rng),
        "user_id": user_id,
        "default_house_system": "whole_sign",
        "default_ayanamsa": "raman",
        "default_zodiac": "sidereal",
        "aspect_orbs": json.dumps({name: orb + 0.5 for name, _, orb in ASPECTS}),
        "color_scheme": "dark",
        "displayed_points": json.dumps([*PLANETS, "north_node"]),
        "updated_at": _moment(rng),
    }


def _client(rng: random.Random, user_id: str, number: int) -> Row:
    # The second client of a user is the one of whom next to nothing is known.
    known = number != 1
    return {
        "id": _uuid(rng),
        "user_id": user_id,
        "first_name": _turn(FIRST_NAMES, number + 5),
        "last_name": _turn(LAST_NAMES, number) if known else None,
        "email": f"client{number + 1}@example.com" if known else None,
        "phone": f"555-01{number % 100:02d}" if known else None,
        "notes": _turn(NOTES, number + 4) if known else None,
        **_stamps(rng),
    }


def _birth(rng: random.Random, client_id: str, number: int) -> Row:
    city, state, country, latitude, longitude, timezone, utc_offset, _ = _turn(PLACES, number)
    unknown = number % 4 == 3
    return {
        "id": _uuid(rng),
        "client_id": client_id,
        "birth_date": date(1930, 1, 1) + timedelta(days=rng.randrange(28_000)),
        "birth_time": None if unknown else _time_of_day(rng, number),
        "time_unknown": unknown,
        "latitude": Decimal(latitude),
        "longitude": Decimal(longitude),
        "timezone": timezone,
        "utc_offset": utc_offset,
        "city": city,
        "state_province": state,
        "country": country,
        "rodden_rating": "X" if unknown else rng.choice(["AA", "A", "B"]),
        "gender": rng.choice(["female", "male", None]),
        **_stamps(rng),
    }


def _time_of_day(rng: random.Random, number: int) -> time:
    if number == 0:
        return time(0, 0)
    microsecond = rng.randrange(1_000_000) if number % 3 == 0 else 0
    return time(rng.randrange(24), rng.randrange(60), rng.randrange(60), microsecond)


def _chart(rng: random.Random, user_id: str, birth: Row, number: int) -> Row:
    vedic = number % 3 == 2
    return {
        "id": _uuid(rng),
        "user_id": user_id,
        # A chart of the moment has a birth record and nobody whom it is for.
        "client_id": None if number % 7 == 6 else birth["client_id"],
        "birth_data_id": birth["id"],
        "chart_name": None if number % 5 == 4 else f"Sample chart № {number + 1}",
        "chart_type": rng.choice(["natal", "solar_return", "progressed"]),
        "astro_system": "vedic" if vedic else "western",
        "house_system": rng.choice(["placidus", "whole_sign", None]),
        "ayanamsa": "lahiri" if vedic else None,
        "zodiac_type": "sidereal" if vedic else "tropical",
        "calculation_params": rng.choice(
            [None, "{}", json.dumps({"node": "true", "topocentric": False, "orb": None})]
        ),
        "chart_data": json.dumps(_chart_data(rng), ensure_ascii=False),
        "last_viewed": _moment(rng) if number % 2 else None,
        **_stamps(rng),
    }


def _chart_data(rng: random.Random) -> Row:
    longitudes = {planet: round(rng.uniform(0, 360), 10) for planet in PLANETS}
    ascendant = rng.uniform(0, 360)
    return {
        "julian_day": round(rng.uniform(2_425_000, 2_453_000), 9),
        "planets": {planet: _position(rng, planet, longitude) for planet, longitude in longitudes.items()},
        "houses": [
            {
                "number": n + 1,
                "cusp": round((ascendant + 30 * n) % 360, 6),
                "sign": _sign((ascendant + 30 * n) % 360),
            }
            for n in range(12)
        ],
        "aspects": _aspects(longitudes),
    }


def _position(rng: random.Random, planet: str, longitude: float) -> Row:
    speed = round(rng.uniform(-0.3, 1.4), 8)
    return {
        "name": planet.title(),
        "longitude": longitude,
        "latitude": round(rng.uniform(-5, 5), 8),
        "speed": speed,
        "retrograde": speed < 0,
        "sign": _sign(longitude),
        "degree": int(longitude % 30),
        "house": rng.randrange(1, 13),
        "dignity": rng.choice([None, "domicile", "detriment"]),
    }


def _aspects(longitudes: dict[str, float]) -> list[Row]:
    found: list[Row] = []
    for index, first in enumerate(PLANETS):
        for second in PLANETS[index + 1 :]:
            distance = abs(longitudes[first] - longitudes[second])
            separation = min(distance, 360 - distance)
            found += [
                {"planet1": first, "planet2": second, "type": name, "orb": round(abs(separation - angle), 4)}
                for name, angle, orb in ASPECTS
                if abs(separation - angle) <= orb
            ]
    return found


def _chart_interpretation(rng: random.Random, chart_id: str, number: int) -> Row:
    kind = rng.choice(["planet", "house", "aspect"])
    return {
        "id": _uuid(rng),
        "chart_id": chart_id,
        "element_type": kind,
        "element_key": f"{rng.choice(PLANETS)}_{kind}_{number + 1}",
        "ai_description": _prose(rng, 8, 20),
        "ai_model": rng.choice(["sample-model", None]),
        "ai_prompt_version": "v1" if number % 2 else None,
        "version": rng.randrange(1, 4),
        "is_approved": rng.choice(["pending", "approved", "rejected", None]),
        **_stamps(rng),
    }


def _interpretation(rng: random.Random, user_id: str | None, number: int) -> Row:
    return {
        "id": _uuid(rng),
        "user_id": user_id,
        "interpretation_type": "planet_in_sign",
        "key_identifier": f"{_turn(PLANETS, number)}_{_turn(SIGNS, number)}",
        "tradition": rng.choice(["western", "vedic", None]),
        "text_content": _prose(rng, 2, 5),
        "source": None if user_id is not None else "Sample handbook",
        "is_user_custom": user_id is not None,
        **_stamps(rng),
    }


def _pattern(rng: random.Random, chart_id: str) -> Row:
    return {
        "id": _uuid(rng),
        "chart_id": chart_id,
        "pattern_type": rng.choice(PATTERNS),
        "planets_involved": json.dumps(rng.sample(PLANETS, rng.randrange(3, 5))),
        "description": rng.choice([None, _prose(rng, 1, 2)]),
        **_stamps(rng),
    }


def _transit(rng: random.Random, chart_id: str) -> Row:
    return {
        "id": _uuid(rng),
        "chart_id": chart_id,
        "event_date": TODAY + timedelta(hours=rng.randrange(-5000, 5000)),
        "transiting_planet": rng.choice(PLANETS),
        "natal_planet": rng.choice(PLANETS),
        "aspect_type": rng.choice(ASPECTS)[0],
        "orb": rng.choice([None, Decimal(rng.randrange(0, 800)) / 100]),
        "is_applying": rng.choice([True, False, None]),
        **_stamps(rng),
    }


def _session_note(rng: random.Random, user_id: str, client_id: str, number: int) -> Row:
    return {
        "id": _uuid(rng),
        "user_id": user_id,
        "client_id": client_id,
        "note_date": (TODAY - timedelta(days=rng.randrange(700))).date(),
        "note_content": _turn(NOTES, number),
        **_stamps(rng),
    }


def _stamps(rng: random.Random) -> Row:
    created = _moment(rng)
    return {"created_at": created, "updated_at": created + timedelta(minutes=rng.randrange(0, 50_000))}


def _moment(rng: random.Random) -> datetime:
    """A time before `TODAY`, with microseconds or, as often, without: the two are written differently."""
    moment = TODAY - timedelta(seconds=rng.randrange(3_600, 60_000_000))
    return moment.replace(microsecond=rng.choice([0, rng.randrange(1, 1_000_000)]))


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _prose(rng: random.Random, fewest: int, most: int) -> str:
    return " ".join(rng.choice(SENTENCES) for _ in range(rng.randrange(fewest, most + 1)))


def _sign(longitude: float) -> str:
    return SIGNS[int(longitude // 30) % 12]


def _turn(values: Sequence[T], number: int) -> T:
    return values[number % len(values)]
