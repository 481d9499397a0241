"""Tables whose names a file system, SQLite or the bundle itself has another use for."""

from __future__ import annotations

import string
from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st

import config
from export_from_postgres import export
from migration.bundle.manifest import MANIFEST, REPORTS
from migration.errors import ExitCode, MigrationError
from migration.model import USER_DATA, Table, file_name, owned_by
from migration.sql import quote
from migration.well_formed import require_distinct
from support.migrations import export_and_import, settings_of
from support.places import ANNA, Place, extended_schema
from support.servers import Database
from validate_migration import validate

STRANGE = (
    "user_data",
    "MANIFEST",
    "validation_report",
    "a/b",
    "../evil",
    "..",
    ".lock",
    "con",
    "Aux.x",
    "a b",
    "a%2Fb",
    "ж" * 31,
    "C:\\x",
    "-x",
    "select",
)


def test_rows_of_strangely_named_tables_arrive_and_no_file_lies_elsewhere(
    database: Database, place: Place
) -> None:
    schema = ""
    for number, name in enumerate(STRANGE):
        database.execute(
            "CREATE TABLE {0} (id int PRIMARY KEY, user_id uuid REFERENCES users, note text);"
            "INSERT INTO {0} SELECT {1}, id, 'note {1}' FROM users WHERE email = %s".format(
                quote(name).replace("%", "%%"), number
            ),
            ANNA,
        )
        schema += "CREATE TABLE {} (id INTEGER PRIMARY KEY, note TEXT);".format(quote(name))
    inside = place.folder / "inside" / "inside"
    settings = settings_of(
        database.url,
        Place(inside),
        tables=(*config.TABLES, *(Table(name, owned_by("user_id")) for name in STRANGE)),
        schema_path=extended_schema(place.folder, schema),
    )
    inside.mkdir(parents=True)
    export_and_import(settings)
    report = validate(settings)
    assert report.passed, report.errors
    assert [report.validation_results[name].sqlite_count for name in STRANGE] == [1] * len(STRANGE)
    assert not list(place.folder.glob("*.json")) and not list(inside.glob("*.json"))
    assert len(list(settings.data_dir.glob("*.json"))) == 11 + len(STRANGE) + len(REPORTS) - 1


@pytest.mark.parametrize("name", [table.name for table in config.TABLES] + ["Post", "a.b", "x-1", "käse"])
def test_plain_names_stay_readable(name: str) -> None:
    assert file_name(name) == (name if name.isascii() else "k%C3%A4se") + ".json"


@given(st.lists(st.text(min_size=1, max_size=70) | st.text(string.printable, min_size=1), unique=True))
def test_every_name_has_a_file_of_its_own_inside_the_folder(names: List[str]) -> None:
    files = {file_name(name) for name in names}
    assert len(files) == len(names)
    for file in files:
        assert file not in (MANIFEST, USER_DATA, *REPORTS)
        assert len(file.encode("utf-8")) <= 255
        assert not set(file) & set('/\\:*?"<>|\0') and file[0] not in ".-"


@pytest.mark.parametrize("name", ["ж" * 63, "𝄞" * 63, "/" * 400])
def test_names_too_long_for_a_file_system_are_cut_and_stay_apart(name: str) -> None:
    assert len(file_name(name)) <= 255
    assert file_name(name) != file_name(name + name[0]) != file_name(name + "x")


@pytest.mark.parametrize("names", [("post", "Post"), ("x", "x"), ("users", "Users")])
def test_names_that_sqlite_does_not_tell_apart_are_refused(names: tuple) -> None:
    with pytest.raises(MigrationError, match="config.py names table") as caught:
        require_distinct(names)
    assert caught.value.exit_code == ExitCode.USAGE


def test_column_named_as_the_bundle_s_own_member_is_refused(database: Database, place: Place) -> None:
    database.execute('ALTER TABLE clients ADD "$json_null" text')
    with pytest.raises(MigrationError, match=r"a column of clients is called \$json_null") as caught:
        export(settings_of(database.url, place))
    assert caught.value.exit_code == ExitCode.USAGE
    assert not list(place.data.glob("*.json"))
