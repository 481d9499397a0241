"""Generated data for the benchmarks: one user with much, and three others beside.

    python -m benchmarks.data postgresql:///empty_database --scale 1

The server makes the rows itself, the same rows and ids every time; the people are made up. At scale 1 the user
has about 720,000 rows, half a gigabyte as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Dict, Mapping, Optional, Sequence

import psycopg2

from demo.sample import create_schema

USER_EMAIL = "heavy@example.com"

# What the user has at scale 1; users, preferences and the scale's rounding aside.
ROWS = {
    "clients": 2_000,
    "birth_data": 2_000,
    "charts": 10_000,
    "chart_interpretations": 160_000,
    "interpretations": 2_000,
    "aspect_patterns": 20_000,
    "transit_events": 500_000,
    "session_notes": 4_000,
    "location_cache": 20_000,
}
STEP = 6  # of so many clients in a row, one is another user's, and with it what hangs on it
LOWEST_SCALE = 0.01

# Ids and numbers follow from the row's number: md5 for what should be without order, arithmetic for the rest.
FUNCTIONS = """
CREATE FUNCTION pg_temp.key(kind text, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
    AS $$ SELECT md5(kind || n)::uuid $$;
CREATE FUNCTION pg_temp.owner(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
    AS $$ SELECT md5('user' || CASE WHEN mod(n, 6) = 5 THEN 1 + mod(n / 6, 3) ELSE 0 END)::uuid $$;
CREATE FUNCTION pg_temp.moment(n bigint) RETURNS timestamp LANGUAGE sql IMMUTABLE
    AS $$ SELECT timestamp '2021-03-01 08:00' + mod(n * 7919, 140000000) * interval '1 s'
        + mod(n, 3) * interval '1234 us' $$;
CREATE FUNCTION pg_temp.angle(n bigint) RETURNS float8 LANGUAGE sql IMMUTABLE
    AS $$ SELECT mod(n * 104729017, 3600000000) / 1e7::float8 $$;
CREATE FUNCTION pg_temp.one_of(words text[], n bigint) RETURNS text LANGUAGE sql IMMUTABLE
    AS $$ SELECT words[1 + mod(n, array_length(words, 1))] $$;
CREATE TEMP TABLE words AS SELECT
    '{sun,moon,mercury,venus,mars,jupiter,saturn,uranus,neptune,pluto,chiron}'::text[] AS planets,
    '{aries,taurus,gemini,cancer,leo,virgo,libra,scorpio,sagittarius,capricorn,aquarius,pisces}'::text[] AS signs,
    '{conjunction,sextile,square,trine,opposition}'::text[] AS aspects,
    '{Test,Demo,Sample,Zoë,Łukasz,晴,Олена,D''Arcy,Fictional}'::text[] AS first_names,
    '{Person,Muster,O''Example,de la Prueba,Śnieżny,見本,Doe-Roe}'::text[] AS last_names,
    '{Lisbon,São Paulo,Kathmandu,Tromsø,Suva,Reykjavík,Wellington}'::text[] AS cities,
    ARRAY[
        'Made-up text that stands for an interpretation.',
        'The placement asks for patience – and rewards it.',
        'Some call it "the quiet one".',
        'Nothing here describes anybody.',
        'In the second half of life, the theme returns ♄.',
        E'Compare the house ruler before drawing conclusions.\\nThen look again.',
        'What the ancients wrote about it, they wrote about somebody else.'
    ] AS sentences;
-- Texts of about 1,200 characters, put together once and used often.
CREATE TEMP TABLE texts AS
    SELECT k AS number, string_agg(pg_temp.one_of(sentences, k * i + i / 3), ' ' ORDER BY i) AS text
    FROM words, generate_series(0, 499) AS k, generate_series(1, 25) AS i GROUP BY k;
CREATE UNIQUE INDEX ON texts (number);
ANALYZE texts;
"""

# In order of their foreign keys. The sixth part that is another user's is on top of the counts.
INSERTS = {
    "users": """
        SELECT pg_temp.key('user', n), CASE n WHEN 0 THEN %(email)s ELSE 'other' || n || '@example.com' END,
            '$2b$12$' || rpad('SampleHashThatOpensNothing', 53, '.'), 'Sample User ' || n, NULL,
            true, true, false, 'professional', NULL, pg_temp.moment(n), pg_temp.moment(n + 1)
        FROM generate_series(0, 3) AS n""",
    "user_preferences": """
        SELECT pg_temp.key('preferences', 0), pg_temp.key('user', 0), 'whole_sign', 'raman', 'sidereal',
            '{"trine": 7.5, "square": 7.0}', 'dark', to_jsonb(planets), pg_temp.moment(9)
        FROM words""",
    "clients": """
        SELECT pg_temp.key('client', n), pg_temp.owner(n), pg_temp.one_of(first_names, n),
            pg_temp.one_of(last_names, n / 3), 'client' || n || '@example.com', '555-01' || mod(n, 100),
            CASE WHEN mod(n, 4) > 0 THEN pg_temp.one_of(sentences, n) END,
            pg_temp.moment(n), pg_temp.moment(n + 1)
        FROM words, generate_series(0, %(clients)s - 1) AS n""",
    "birth_data": """
        SELECT pg_temp.key('birth', n), pg_temp.key('client', n), date '1930-01-01' + mod(n * 7919, 28000),
            CASE WHEN mod(n, 5) > 0 THEN time '00:00' + mod(n * 977, 86400) * interval '1 s' END, mod(n, 5) = 0,
            pg_temp.angle(n) / 2 - 90, pg_temp.angle(n + 7) - 180, 'Europe/Lisbon', 60 * mod(n, 12),
            pg_temp.one_of(cities, n), NULL, 'Nowhere', 'AA', pg_temp.one_of('{female,male}', n),
            pg_temp.moment(n), pg_temp.moment(n + 1)
        FROM words, generate_series(0, %(birth_data)s - 1) AS n""",
    # 10 kB of JSON: the planets, the houses and seventy aspects.
    "charts": """
        SELECT pg_temp.key('chart', n), pg_temp.owner(mod(n, %(clients)s)),
            pg_temp.key('client', mod(n, %(clients)s)), pg_temp.key('birth', mod(n, %(clients)s)),
            'Sample chart № ' || n, pg_temp.one_of('{natal,solar_return,progressed}', n),
            pg_temp.one_of('{western,vedic}', n), 'placidus', CASE mod(n, 2) WHEN 1 THEN 'lahiri' END, 'tropical',
            '{"node": "true", "topocentric": false, "orb": null}',
            jsonb_build_object(
                'julian_day', 2425000 + n / 7.0,
                'planets', (
                    SELECT jsonb_object_agg(planet, jsonb_build_object(
                        'name', initcap(planet), 'longitude', pg_temp.angle(n * 11 + i),
                        'latitude', pg_temp.angle(n * 13 + i) / 72, 'speed', pg_temp.angle(n * 17 + i) / 300 - 0.3,
                        'retrograde', mod(n + i, 4) = 0, 'sign', pg_temp.one_of(signs, n * i),
                        'degree', mod(n * i, 30), 'house', 1 + mod(n + i, 12), 'dignity', NULL))
                    FROM unnest(planets) WITH ORDINALITY AS p (planet, i)),
                'houses', (
                    SELECT jsonb_agg(jsonb_build_object(
                        'number', i, 'cusp', pg_temp.angle(n * 19 + i), 'sign', pg_temp.one_of(signs, n + i)))
                    FROM generate_series(1, 12) AS i),
                'aspects', (
                    SELECT jsonb_agg(jsonb_build_object(
                        'planet1', pg_temp.one_of(planets, i), 'planet2', pg_temp.one_of(planets, i / 11 + n),
                        'type', pg_temp.one_of(aspects, n * i), 'orb', pg_temp.angle(n * 23 + i) / 45,
                        'applying', mod(n * i, 3) = 0))
                    FROM generate_series(1, 70) AS i)),
            CASE WHEN mod(n, 2) = 0 THEN pg_temp.moment(n + 2) END, pg_temp.moment(n), pg_temp.moment(n + 1)
        FROM words, generate_series(0, %(charts)s - 1) AS n""",
    "chart_interpretations": """
        SELECT pg_temp.key('reading', n), pg_temp.key('chart', mod(n, %(charts)s)),
            pg_temp.one_of('{planet,house,aspect}', n), pg_temp.one_of(planets, n / 5) || '_' || n,
            'No. ' || n || ': ' || text, 'sample-model', 'v' || mod(n, 3), 1 + mod(n, 3),
            pg_temp.one_of('{pending,approved,rejected}', n), pg_temp.moment(n), pg_temp.moment(n + 1)
        FROM words, generate_series(0, %(chart_interpretations)s - 1) AS n JOIN texts ON number = mod(n, 500)""",
    "interpretations": """
        SELECT pg_temp.key('text', n), CASE WHEN mod(n, 6) > 0 THEN pg_temp.owner(n) END, 'planet_in_sign',
            pg_temp.one_of(planets, n) || '_' || pg_temp.one_of(signs, n / 11), 'western', left(text, 400),
            CASE mod(n, 6) WHEN 0 THEN 'Sample handbook' END, mod(n, 6) > 0, pg_temp.moment(n), pg_temp.moment(n + 1)
        FROM words, generate_series(0, %(interpretations)s - 1) AS n JOIN texts ON number = mod(n, 500)""",
    "aspect_patterns": """
        SELECT pg_temp.key('pattern', n), pg_temp.key('chart', mod(n, %(charts)s)),
            pg_temp.one_of('{grand_trine,t_square,yod,stellium}', n), to_jsonb(planets[mod(n, 8) : mod(n, 8) + 3]),
            CASE WHEN mod(n, 3) > 0 THEN pg_temp.one_of(sentences, n) END, pg_temp.moment(n), pg_temp.moment(n + 1)
        FROM words, generate_series(0, %(aspect_patterns)s - 1) AS n""",
    "transit_events": """
        SELECT pg_temp.key('transit', n), pg_temp.key('chart', mod(n, %(charts)s)), pg_temp.moment(n * 31),
            pg_temp.one_of(planets, n), pg_temp.one_of(planets, n / 11), pg_temp.one_of(aspects, n / 7),
            CASE WHEN mod(n, 9) > 0 THEN mod(n, 800) / 100.0 END, CASE WHEN mod(n, 5) > 0 THEN mod(n, 2) = 0 END,
            pg_temp.moment(n), pg_temp.moment(n + 1)
        FROM words, generate_series(0, %(transit_events)s - 1) AS n""",
    "session_notes": """
        SELECT pg_temp.key('note', n), pg_temp.owner(mod(n, %(clients)s)),
            pg_temp.key('client', mod(n, %(clients)s)), pg_temp.moment(n * 29)::date, left(text, 300),
            pg_temp.moment(n), pg_temp.moment(n + 1)
        FROM generate_series(0, %(session_notes)s - 1) AS n JOIN texts ON number = mod(n, 500)""",
    "location_cache": """
        SELECT pg_temp.key('place', n), pg_temp.one_of(cities, n) || ' ' || n, NULL, 'Nowhere',
            pg_temp.angle(n) / 2 - 90, pg_temp.angle(n + 7) - 180, 'Europe/Lisbon', n,
            pg_temp.moment(n), pg_temp.moment(n + 1)
        FROM words, generate_series(0, %(location_cache)s - 1) AS n""",
}


def fill(postgres_url: str, scale: float) -> None:
    """Create the schema in an empty database and the rows of ``scale`` in it, as a superuser."""
    sizes: Dict[str, int] = {}
    for table, rows in ROWS.items():
        shared = table == "location_cache"
        sizes[table] = round(rows * scale) if shared else round(rows * scale / (STEP - 1)) * STEP
    insert_all(postgres_url, FUNCTIONS, INSERTS, {**sizes, "email": USER_EMAIL})


def insert_all(
    postgres_url: str, functions: str, inserts: Mapping[str, str], values: Mapping[str, object]
) -> None:
    """Create the schema in an empty database and insert rows, as a superuser. ``inserts``: table → SELECT on ``values``."""
    with contextlib.closing(psycopg2.connect(postgres_url)) as connection:
        create_schema(connection)
        with connection, connection.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")  # no foreign keys to check
            cursor.execute(functions)
            for table, select in inserts.items():
                cursor.execute("INSERT INTO " + table + select, values)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")  # else whoever reads first does the work


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data", description="Fill an empty database with the benchmarks' data."
    )
    parser.add_argument("postgres_url", metavar="POSTGRES_URL")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="1 is about 720,000 rows (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    if arguments.scale < LOWEST_SCALE:
        parser.error(f"--scale is at least {LOWEST_SCALE}")
    fill(arguments.postgres_url, arguments.scale)
    print(f"{USER_EMAIL} and three other users are there.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
