"""Random rows in every table of a user, from PostgreSQL through the bundle to SQLite, compared as values."""

from __future__ import annotations

import json
import sqlite3
import uuid
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Dict, Iterator, List, Set, Tuple

import psycopg2
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from support.migrations import WHOLE, export_and_import, settings_of
from support.places import ANNA, Place
from support.servers import Database, Server
from validate_migration import validate

TEXTS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
VALUES: Dict[str, st.SearchStrategy[Any]] = {
    "character varying": TEXTS,
    "text": TEXTS,
    "boolean": st.booleans(),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "date": st.dates(),
    "time without time zone": st.times(),
    "timestamp without time zone": st.datetimes(),
    "jsonb": JSON,
}
SPECIAL: Dict[Tuple[str, str], st.SearchStrategy[Any]] = {
    ("birth_data", "latitude"): st.decimals(-90, 90, places=7),
    ("birth_data", "longitude"): st.decimals(-180, 180, places=7),
    ("location_cache", "latitude"): st.decimals(-90, 90, places=7),
    ("location_cache", "longitude"): st.decimals(-180, 180, places=7),
    ("transit_events", "orb"): st.decimals(-999, 999, places=2),
    ("aspect_patterns", "planets_involved"): st.lists(JSON, max_size=3),
}

Columns = Dict[str, List[Tuple[str, str, int, bool, str]]]  # table → name, type, length, nullable, references


@pytest.fixture(scope="module")
def empty_database(server: Server) -> Iterator[Tuple[Database, Columns]]:
    """The sample's users without any row in a table that is migrated, and the columns of these tables."""
    with server.new_database() as database:
        database.execute("TRUNCATE user_preferences, %s CASCADE" % ", ".join(table.name for table in WHOLE))
        columns: Columns = {}
        for table, *column in database.rows(
            """
            SELECT c.table_name, c.column_name, c.data_type, coalesce(c.character_maximum_length, 0),
                   c.is_nullable = 'YES', coalesce(u.table_name, '')
            FROM information_schema.columns c
            LEFT JOIN information_schema.key_column_usage k USING (table_schema, table_name, column_name)
            LEFT JOIN information_schema.referential_constraints r USING (constraint_schema, constraint_name)
            LEFT JOIN information_schema.constraint_column_usage u
                   ON u.constraint_name = r.unique_constraint_name AND u.constraint_schema = r.unique_constraint_schema
            WHERE c.table_schema = 'public' ORDER BY c.table_name, c.ordinal_position
            """
        ):
            known = columns.setdefault(table, [])
            if column[0] not in {name for name, *_ in known}:
                known.append(tuple(column))
            elif column[4]:
                known[[name for name, *_ in known].index(column[0])] = tuple(column)
        yield database, columns


def rows_of_a_user(data: st.DataObject, columns: Columns, anna: str) -> Dict[str, List[Dict[str, Any]]]:
    """Rows for every table, parents first; every reference leads to a row of the user."""
    made: Dict[str, List[Dict[str, Any]]] = {"users": [{"id": anna}]}
    taken: Set[int] = set()
    for table in ["user_preferences", *(table.name for table in WHOLE)]:
        made[table] = []
        for number in range(data.draw(st.integers(0, 1 if table == "user_preferences" else 3))):
            row: Dict[str, Any] = {}
            for name, kind, length, nullable, parent in columns[table]:
                if parent:
                    choices = [parents["id"] for parents in made[parent]] + ([None] if nullable else [])
                    if not choices:
                        break
                    row[name] = data.draw(st.sampled_from(choices))
                elif kind == "uuid":
                    number_of_it = data.draw(st.integers(0, 2**127))
                    while number_of_it in taken:
                        number_of_it += 1
                    taken.add(number_of_it)
                    row[name] = str(uuid.UUID(int=number_of_it))
                elif name == "geonames_id":
                    row[name] = data.draw(st.none() | st.just(number))
                else:
                    values = SPECIAL[table, name] if (table, name) in SPECIAL else VALUES[kind]
                    if length:
                        values = values.map(lambda text, length=length: text[:length])
                    row[name] = data.draw(st.none() | values if nullable else values)
            else:
                made[table].append(row)
    return made


def insert(database: Database, columns: Columns, made: Dict[str, List[Dict[str, Any]]]) -> None:
    connection = psycopg2.connect(database.url)
    with connection, connection.cursor() as cursor:
        cursor.execute("TRUNCATE user_preferences, %s CASCADE" % ", ".join(table.name for table in WHOLE))
        for table, rows in made.items():
            for row in [] if table == "users" else rows:
                documents = {
                    name: nullable for name, kind, _, nullable, _ in columns[table] if kind == "jsonb"
                }
                values = [  # None is JSON's null where the column takes no NULL
                    json.dumps(value)
                    if name in documents and (value, documents[name]) != (None, True)
                    else value
                    for name, value in row.items()
                ]
                cursor.execute(
                    "INSERT INTO %s (%s) VALUES (%s)" % (table, ", ".join(row), ", ".join(["%s"] * len(row))),
                    values,
                )
    connection.close()


def read_back(kind: str, value: Any) -> Any:
    """A SQLite value as the Python value that went into PostgreSQL, without the suite's conversions."""
    if value is None:
        return None
    if kind == "jsonb":
        return json.loads(value, parse_float=Decimal)
    if kind == "boolean":
        return {0: False, 1: True}[value]
    if kind == "numeric":
        return Decimal(repr(value))
    if kind == "date":
        return date.fromisoformat(value)
    if kind == "time without time zone":
        return time.fromisoformat(value)
    if kind == "timestamp without time zone":
        return datetime.fromisoformat(value)
    return value


@given(data=st.data())
@hypothesis_settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
def test_random_user_comes_out_as_it_went_in(
    data: st.DataObject, empty_database: Tuple[Database, Columns], tmp_path_factory: pytest.TempPathFactory
) -> None:
    database, columns = empty_database
    place = Place(tmp_path_factory.mktemp("random"))
    anna = database.rows("SELECT id::text FROM users WHERE email = %s", ANNA)[0][0]
    made = rows_of_a_user(data, columns, anna)
    insert(database, columns, made)
    settings = settings_of(database.url, place)
    export_and_import(settings)
    report = validate(settings)
    assert report.passed, report.errors
    connection = sqlite3.connect(str(place.app))
    for table, rows in made.items():
        kinds = {name: kind for name, kind, *_ in columns[table]}
        for row in [] if table == "users" else rows:
            names = [
                name
                for name in row
                if name != "user_id" and not (table == "user_preferences" and name == "id")
            ]
            key = 1 if table == "user_preferences" else row["id"]
            found = connection.execute(
                "SELECT %s FROM %s WHERE id = ?" % (", ".join(names), table), (key,)
            ).fetchone()
            for name, value in zip(names, found):
                wanted = row[name]
                if kinds[name] == "jsonb" and wanted is not None:
                    wanted = json.loads(json.dumps(wanted), parse_float=Decimal)
                if table == "user_preferences" and name == "updated_at" and wanted is None:
                    continue  # the schema's default
                assert read_back(kinds[name], value) == wanted, (table, name)
        if table not in ("users", "user_preferences"):
            assert connection.execute("SELECT count(*) FROM " + table).fetchone() == (len(rows),)
    connection.close()
