"""Forms that equality proves: PostgreSQL's types guarantee them, so the contents check alone names every damage."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from typing import Any, Iterator, List

import pytest

from migration.model import Table, shared
from migration.settings import Settings
from migration.validation import forms
from migration.validation.forms import BY_KIND
from support.migrations import export_and_import, own_copy, settings_of
from support.places import Place
from support.servers import Server
from validate_migration import validate

# kind → (PostgreSQL's type, SQLite's, a value, damages that the check of forms would find)
KINDS = {
    "uuid": ("uuid", "TEXT", "0123abcd-89ef-4000-8000-0123456789ab", ["x", None]),
    "boolean": ("boolean", "INTEGER", "true", [2, None]),
    "integer": ("bigint", "INTEGER", "7", [7.5, "x"]),
    "numeric": ("numeric(6,2)", "REAL", "1234.50", ["x", None]),
    "date": ("date", "TEXT", "2024-02-29", ["2024-02-30", "29.2.2024"]),
    "time": ("time", "TEXT", "12:30:00", ["25:00:00", "12:30"]),
    "timetz": ("timetz", "TEXT", "12:30:00+01", ["12:30:00", b"x"]),
    "timestamp": ("timestamp", "TEXT", "2024-02-29 12:30:00", ["2024-02-29 12:30:00", "2026-21-25T00:00:00"]),
    "timestamptz": ("timestamptz", "TEXT", "2024-02-29 12:30:00+00", ["2024-02-29T12:30:00Z", ""]),
}


@pytest.fixture(scope="module")
def finished(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("kinds")
    place = Place(folder)
    with server.new_database() as database:
        columns = ", ".join("%s_ %s NOT NULL" % (kind, made[0]) for kind, made in KINDS.items())
        values = ", ".join("'%s'" % made[2] for made in KINDS.values())
        database.execute("CREATE TABLE kinds (id int PRIMARY KEY, %s)" % columns)
        database.execute("INSERT INTO kinds VALUES (1, %s), (2, %s)" % (values, values))
        targets = ", ".join("%s_ %s" % (kind, made[1]) for kind, made in KINDS.items())
        lite = "CREATE TABLE kinds (id INTEGER PRIMARY KEY, %s);" % targets
        settings = settings_of(database.url, place, lite=lite, more=[Table("kinds", shared())])
        export_and_import(settings)
        yield settings


@pytest.fixture()
def settings(finished: Settings, place: Place) -> Settings:
    return own_copy(finished, place)


def test_every_kind_with_a_form_is_tried() -> None:
    assert set(KINDS) == set(BY_KIND)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_cell_is_named_without_the_check_of_forms(
    settings: Settings, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "BY_KIND", {})
    assert validate(settings).passed
    damages: List[Any] = KINDS[kind][3]
    for damage in damages:
        with contextlib.closing(sqlite3.connect(str(settings.sqlite_path), isolation_level=None)) as database:
            database.execute("UPDATE kinds SET %s_ = ? WHERE id = 2" % kind, (damage,))
        found = {(each.check, each.row, each.column) for each in validate(settings).findings}
        assert found >= {("contents", "2", kind + "_")}, damage


def test_form_is_looked_at_only_where_no_type_of_postgresql_guarantees_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: List[str] = []
    rules = forms._rules

    def noted(*given: Any) -> Any:
        for rule in rules(*given):
            looked.append(rule.pair.source.name)
            yield rule

    monkeypatch.setattr(forms, "_rules", noted)
    report = validate(settings)
    assert report.passed and not any(name.endswith("_") for name in looked)
    assert report.validation_results["kinds"].proved_forms == len(KINDS) + 1
    offline = validate(dataclasses.replace(settings, offline=True))
    assert {name[:-1] for name in looked if name.endswith("_")} == set(KINDS)
    assert offline.validation_results["kinds"].proved_forms == 0
