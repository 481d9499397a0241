"""Values whose text alone would mislead: money, casts to json, arrays that begin elsewhere, what points at large objects."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Iterator, List

import psycopg2
import pytest

from demo import sample
from demo.postgres import temp_postgres
from export_from_postgres import export
from migration.errors import ExitCode, MigrationError
from migration.settings import Settings
from support.migrations import export_and_import, settings_of, typed_settings
from support.places import ANNA, Place, extended_schema
from support.runs import Run
from support.servers import Database
from support.sqlite_files import rows_of
from validate_migration import validate


def table(
    database: Database, place: Place, type_: str, values: List[str], declared: str = "TEXT"
) -> Settings:
    """A table ``odd`` of Anna's with a row for each value in column v, and settings that migrate it."""
    database.execute("CREATE TABLE odd (id int PRIMARY KEY, user_id uuid REFERENCES users, v %s)" % type_)
    for number, value in enumerate(values):
        database.execute(
            "INSERT INTO odd SELECT %d, id, (%s)::%s FROM users WHERE email = '%s'"
            % (number, value, type_, ANNA)
        )
    schema = extended_schema(place.folder, "CREATE TABLE odd (id INTEGER PRIMARY KEY, v %s);" % declared)
    return typed_settings(database, place, schema, ["odd"])


def migrated(settings: Settings) -> List[Any]:
    export_and_import(settings)
    assert validate(settings).errors == []
    return [value for (value,) in rows_of(settings.sqlite_path, "SELECT v FROM odd ORDER BY id")]


def refused(settings: Settings) -> MigrationError:
    with pytest.raises(MigrationError, match="cannot keep odd.v") as caught:
        export(settings)
    assert caught.value.exit_code == ExitCode.SOURCE
    assert not settings.data_dir.exists()
    return caught.value


# Arrays and composites


def test_array_that_begins_elsewhere_keeps_its_bounds(database: Database, place: Place) -> None:
    values = ["'[0:2]={a,NULL,\"b c\"}'", "'{a}'", "'[2:2][-1:0]={{a,b}}'", "'{}'", "NULL"]
    found = migrated(table(database, place, "text[]", values))
    assert found == ['"[0:2]={a,NULL,\\"b c\\"}"', '["a"]', '"[2:2][-1:0]={{a,b}}"', "[]", None]


def test_array_of_json_tells_its_nulls_and_dimensions_apart(database: Database, place: Place) -> None:
    values = ["ARRAY['null', NULL]::json[]", "ARRAY['[1]', NULL]::json[]", "ARRAY[ARRAY['1']]::json[]"]
    found = migrated(table(database, place, "json[]", values))
    assert found == ['"{\\"null\\",NULL}"', "[[1],null]", '"{{1}}"']


def test_composite_of_nulls_is_no_null(database: Database, place: Place) -> None:
    database.execute("CREATE TYPE pair AS (a int, b jsonb)")
    values = ["ROW(NULL, NULL)", "NULL", "ROW(1, '{}')", "ROW(NULL, 'null')"]
    found = migrated(table(database, place, "pair", values))
    assert found == ['{"a":null,"b":null}', None, '{"a":1,"b":{}}', '"(,null)"']


def test_array_of_composites_with_arrays_keeps_the_bounds_inside(database: Database, place: Place) -> None:
    database.execute("CREATE TYPE shelf AS (n int, places int[])")
    values = ["ARRAY[ROW(1, '{1,2}'), NULL]::shelf[]", "ARRAY[ROW(1, '[0:1]={1,2}')]::shelf[]"]
    found = migrated(table(database, place, "shelf[]", values))
    assert found == ['[{"n":1,"places":[1,2]},null]', '"{\\"(1,\\\\\\"[0:1]={1,2}\\\\\\")\\"}"']


# Casts


CASTS = """
CREATE TYPE track AS ENUM ('LINESTRING M (0 0 5,1 1 6)');
CREATE FUNCTION as_json(track) RETURNS json LANGUAGE sql AS $$ SELECT '{"coordinates": [[0,0],[1,1]]}'::json $$;
CREATE CAST (track AS json) WITH FUNCTION as_json(track);
CREATE FUNCTION as_text(track) RETURNS text LANGUAGE sql AS $$ SELECT 'LINESTRING (0 0,1 1)'::text $$;
CREATE CAST (track AS text) WITH FUNCTION as_text(track) AS IMPLICIT;
CREATE DOMAIN way AS track;
CREATE TYPE trip AS (name text, way track);
"""


@pytest.mark.parametrize(
    ("type_", "value", "found"),
    [
        ("track", "'{0}'", "{0}"),
        ("way", "'{0}'", "{0}"),
        ("track[]", "ARRAY['{0}', NULL]::track[]", '{{"{0}",NULL}}'),
        ("trip", "ROW('a', '{0}')", '(a,"{0}")'),
        ("trip[]", "ARRAY[ROW('a', '{0}')]::trip[]", '{{"(a,\\"{0}\\")"}}'),
    ],
)
def test_type_with_casts_keeps_its_own_text(
    database: Database, place: Place, type_: str, value: str, found: str
) -> None:
    database.execute(CASTS)
    line = "LINESTRING M (0 0 5,1 1 6)"
    settings = table(database, place, type_, [value.format(line), "NULL"])
    assert migrated(settings) == [found.format(line), None]


def test_hstore_is_json_whatever_its_words_are(database: Database, place: Place) -> None:
    database.execute("CREATE EXTENSION hstore")
    settings = table(database, place, "hstore", ['\'a=>"1", "b \\"c"=>NULL, d=>"null"\'', "''"])
    assert migrated(settings) == ['{"a": "1", "d": "null", "b \\"c": null}', "{}"]


def test_type_whose_text_says_less_than_its_value_is_refused_for_such_values_alone(
    database: Database, place: Place
) -> None:
    database.execute("CREATE EXTENSION seg")
    settings = table(database, place, "seg", ["'1.50 .. 2.5'", "'~3'"])
    assert migrated(settings) == ["1.50 .. 2.5", "~3"]
    shutil.rmtree(str(settings.data_dir))
    database.execute("UPDATE odd SET v = '1.2345678' WHERE id = 1")  # its text has six digits
    error = refused(settings)
    assert "the same values of their own text, which says less than they do (rows: 1)" in error.message
    database.execute("ALTER TABLE odd ALTER v TYPE seg[] USING ARRAY[v]")
    assert "(rows: 1)" in refused(settings).message


def test_functions_and_operators_of_one_name_stay_apart(database: Database, place: Place) -> None:
    values = ['\'{"abs(bigint)","abs(real)"}\'::regprocedure[]::regproc[]']
    found = migrated(table(database, place, "regproc[]", values))
    assert found == ['["abs(bigint)","abs(real)"]']


def test_byte_that_is_no_character_is_an_escape_or_refused(database: Database, place: Place) -> None:
    settings = table(database, place, '"char"', ["'x'", "'\\'", "-128"])
    if int(database.rows("SHOW server_version_num")[0][0]) < 150000:
        assert "(rows: 1)" in refused(settings).message
    else:
        assert migrated(settings) == ["x", "\\", "\\200"]


# Large objects


@pytest.mark.parametrize("type_", ["oid", "lo", "oid[]", "photos"])
def test_what_points_at_a_large_object_is_refused_until_it_is_left_behind(
    database: Database, place: Place, run: Run, type_: str
) -> None:
    database.execute("CREATE EXTENSION lo; CREATE TYPE photos AS (title text, content oid)")
    value = {"oid[]": "ARRAY[0, {0}]", "photos": "ROW('x', {0})"}.get(type_, "{0}")
    settings = table(database, place, type_, [value.format("0"), "NULL"])
    migrated(settings)  # a number that names no large object stays one
    shutil.rmtree(str(settings.data_dir))
    database.execute("UPDATE odd SET v = %s WHERE id = 1" % value.format("lo_from_bytea(0, 'a picture')"))
    error = refused(settings)
    assert "it points at large objects, whose content would stay behind (rows: 1)" in error.message
    assert "lo_get()" in str(error.hint)


def test_anothers_large_object_refuses_nothing(database: Database, place: Place) -> None:
    settings = table(database, place, "oid", ["7"])
    database.execute(
        "INSERT INTO odd SELECT 9, id, lo_from_bytea(0, 'x') FROM users WHERE email <> '%s' LIMIT 1" % ANNA
    )
    assert migrated(settings) == ["7"]


@pytest.mark.parametrize("type_", ["text", "bigint"])
def test_column_that_may_point_at_large_objects_is_a_warning(
    database: Database, place: Place, caplog: pytest.LogCaptureFixture, type_: str
) -> None:
    settings = table(
        database, place, type_, ["lo_from_bytea(0, 'x')::int8", "NULL", "lo_from_bytea(0, 'y')::int8"]
    )
    migrated(settings)
    assert "odd.v: each value is the number of a large object" in caplog.text
    caplog.clear()
    database.execute("INSERT INTO odd SELECT 9, id, '7' FROM users WHERE email = '%s'" % ANNA)
    migrated(settings)
    assert "large object" not in caplog.text


def test_dry_run_says_what_cannot_be_kept(database: Database, place: Place, run: Run) -> None:
    database.execute("ALTER TABLE clients ADD photo oid; UPDATE clients SET photo = lo_from_bytea(0, 'x')")
    schema = place.folder / "schema.sql"
    schema.write_text(
        Path(settings_of(database.url, place).schema_path)
        .read_text()
        .replace("first_name TEXT", "photo INTEGER, first_name TEXT")
    )
    result = run(
        "migrate.py",
        "--user-email",
        ANNA,
        "--postgres-url",
        database.url,
        "--dry-run",
        "--schema-path",
        schema,
    )
    assert result.code == ExitCode.SOURCE
    assert "cannot keep clients.photo (oid)" in result.err


# Money


def test_money_is_a_number_whatever_holds_it(database: Database, place: Place) -> None:
    database.execute("CREATE DOMAIN fee AS money")
    settings = table(database, place, "fee[]", ["'{$1.50,NULL,-$3}'"])
    assert migrated(settings) == ["[1.50,null,-3.00]"]
    assert export(settings).manifest.lc_monetary == "C"


def test_money_that_roles_read_in_their_own_way_needs_a_decision(database: Database, place: Place) -> None:
    settings = table(database, place, "money", ["'$1.50'"], "NUMERIC")
    role = "cashier_%d" % os.getpid()
    database.execute("CREATE ROLE {0}; ALTER ROLE {0} SET lc_monetary = 'POSIX'".format(role))
    try:
        error = refused(settings)
        assert "lc_monetary, which is C here and is set apart for %s" % role in error.message
        decided = settings_of(
            database.url + "&options=-c%20lc_monetary%3DC",
            place,
            tables=settings.tables,
            excluded_tables=settings.excluded_tables,
            schema_path=settings.schema_path,
        )
        assert migrated(decided) == [1.5]
    finally:
        database.execute("DROP ROLE " + role)


@pytest.fixture(scope="module")
def abroad() -> Iterator[Database]:
    """A server that knows Japan's and Kuwait's locales, which write money without and with three decimal places."""
    if shutil.which("localedef") is None:
        pytest.skip("localedef is not installed")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)  # the server may run as somebody else
        for name in ("ja_JP.UTF-8", "ar_KW.UTF-8"):
            subprocess.run(
                ["localedef", "-i", name[:5], "-f", "UTF-8", os.path.join(folder, name)],
                stderr=subprocess.DEVNULL,
            )
            if not os.path.exists(os.path.join(folder, name, "LC_MONETARY")):
                pytest.skip("the sources of locales are not installed")
        patch.setenv("LOCPATH", folder)
        with temp_postgres() as url:
            connection = psycopg2.connect(url)
            sample.create_schema(connection)
            sample.fill(connection)
            connection.commit()
            connection.close()
            yield Database(url)


@pytest.mark.parametrize(
    ("locale", "shown", "found"),
    [("ja_JP.UTF-8", "￥1,234", "1234"), ("ar_KW.UTF-8", "د.ك. 1,234.000", "1234.000")],
)
def test_money_of_another_country_is_the_number_that_it_is_there(
    abroad: Database, place: Place, locale: str, shown: str, found: str
) -> None:
    abroad.execute("DROP TABLE IF EXISTS odd; ALTER DATABASE postgres SET lc_monetary = '%s'" % locale)
    settings = table(abroad, place, "money", ["'1234'"])
    assert abroad.rows("SELECT v::text FROM odd") == [(shown,)]
    assert migrated(settings) == [found]
    assert export(settings).manifest.lc_monetary == locale
