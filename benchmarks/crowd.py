"""Generated data for the benchmark of all users: many users of ordinary size, 200 rows each.

python -m benchmarks.crowd postgresql:///empty_database --users 2000
"""

from __future__ import annotations

import argparse
import sys
from typing import Mapping, Optional, Sequence

from benchmarks.data import FUNCTIONS, INSERTS, insert_all

# What one user has, 200 rows with the user's own and the preferences; some 250 kB of JSON.
ROWS = {
    "clients": 10,
    "birth_data": 10,
    "charts": 15,
    "chart_interpretations": 60,
    "interpretations": 4,
    "aspect_patterns": 15,
    "transit_events": 76,
    "session_notes": 8,
}
# What everybody shares: default interpretations and the location cache.
SHARED = {"interpretations": 30, "location_cache": 20}

# The n-th row of a table is that of user n modulo their number.
OWNER = """
CREATE OR REPLACE FUNCTION pg_temp.owner(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
    AS $$ SELECT md5('user' || mod(n, %(users)s))::uuid $$;
"""
OWN = {
    **INSERTS,
    "users": """
        SELECT pg_temp.key('user', n), 'user' || n || '@example.com',
            '$2b$12$' || rpad('SampleHashThatOpensNothing', 53, '.'), 'Sample User ' || n, NULL,
            mod(n, 10) > 0, true, false, 'professional', NULL, pg_temp.moment(n), pg_temp.moment(n + 1)
        FROM generate_series(0, %(users)s - 1) AS n""",
    "user_preferences": """
        SELECT pg_temp.key('preferences', n), pg_temp.key('user', n), 'whole_sign', 'raman', 'sidereal',
            '{"trine": 7.5, "square": 7.0}', 'dark', to_jsonb(planets), pg_temp.moment(9)
        FROM words, generate_series(0, %(users)s - 1) AS n""",
    "interpretations": """
        SELECT pg_temp.key('text', n), CASE WHEN n < %(interpretations)s THEN pg_temp.owner(n) END, 'planet_in_sign',
            pg_temp.one_of(planets, n) || '_' || pg_temp.one_of(signs, n / 11), 'western', left(text, 400),
            NULL, n < %(interpretations)s, pg_temp.moment(n), pg_temp.moment(n + 1)
        FROM words, generate_series(0, %(interpretations)s + %(shared)s - 1) AS n JOIN texts ON number = mod(n, 500)""",
}


def fill(postgres_url: str, users: int, rows: Mapping[str, int] = ROWS) -> None:
    """Create the schema in an empty database and ``users`` users with ``rows`` each in it, as a superuser."""
    sizes = {table: number * users for table, number in rows.items()}
    sizes.update(users=users, shared=SHARED["interpretations"], location_cache=SHARED["location_cache"])
    insert_all(postgres_url, FUNCTIONS + OWNER % sizes, OWN, sizes)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.crowd", description="Fill an empty database with many users."
    )
    parser.add_argument("postgres_url", metavar="POSTGRES_URL")
    parser.add_argument("--users", type=int, default=2000, help="(default: %(default)s)")
    arguments = parser.parse_args(argv)
    fill(arguments.postgres_url, arguments.users)
    print(f"{arguments.users} users are there.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
