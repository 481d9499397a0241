"""Every column of every table, damaged in every way, one cell at a time: the validation names exactly that cell."""

from __future__ import annotations

import json
import shutil
import sqlite3
from decimal import Decimal
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

import pytest

from import_to_sqlite import import_
from migration.bundle import records
from migration.model import Table
from migration.settings import Settings
from migration.validation.report import Report
from support.bundles import array, forget_types, rewrite
from support.migrations import OWN_ROWS, WHOLE, copy_of, migrate_to, settings_of
from support.places import BRUNO, Place
from support.servers import Database
from support.sqlite_files import lawless
from validate_migration import validate

EVERY = 10_000  # --max-differences: all are listed

Cell = Tuple[str, str, str]  # table, row, column
NO_UUID = "00000000-0000-4000-8000-000000000000"
LAST_UUID = "ffffffff-ffff-4fff-8fff-ffffffffffff"


@pytest.fixture(scope="module")
def finished(sample_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A migration to make damaged copies of."""
    return migrate_to(tmp_path_factory.mktemp("finished"), sample_database.url, BRUNO)


@pytest.fixture()
def settings(finished: Place, sample_database: Database, place: Place) -> Settings:
    copy_of(finished, place)
    return settings_of(sample_database.url, place, user_email=BRUNO, offline=True, max_differences=EVERY)


@pytest.fixture(scope="module")
def untyped(finished: Place, sample_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The same from a bundle without types."""
    place = Place(tmp_path_factory.mktemp("untyped"))
    copy_of(finished, place)
    forget_types(place.data)
    import_(settings_of(sample_database.url, place, user_email=BRUNO))
    return place


def named(report: Report, check: str = "contents") -> Set[Tuple[Optional[str], Optional[str], Optional[str]]]:
    return {(found.table, found.row, found.column) for found in report.findings if found.check == check}


# One cell in SQLite


def _character(value: Any) -> Any:
    """Another last character, in text; another last digit, in a number."""
    if isinstance(value, str) and value:
        return value[:-1] + ("x" if value[-1] != "x" else "y")
    if isinstance(value, int):
        return value ^ 1
    if isinstance(value, float):
        return value + 2**-20
    return value


def _json_digit(value: Any) -> Any:
    """One digit within JSON or text."""
    places = [i for i, sign in enumerate(value) if sign.isdigit()] if isinstance(value, str) else []
    if not places:
        return value
    place = places[len(places) // 2]
    return value[:place] + str((int(value[place]) + 1) % 10) + value[place + 1 :]


def _json_member(value: Any) -> Any:
    """One member of a JSON object less, one element of a list less."""
    try:
        parsed = json.loads(value)
    except (TypeError, ValueError):
        return value
    if isinstance(parsed, dict) and parsed:
        parsed.popitem()
    elif isinstance(parsed, list) and parsed:
        parsed.pop()
    else:
        return value
    return json.dumps(parsed)


def _as_other_type(value: Any) -> Any:
    """1 for 1.0 for '1'; text as bytes."""
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, (int, float)):
        return b"%r" % value
    return value


DAMAGES: Dict[str, Callable[[Any], Any]] = {
    "another last character": _character,
    "another digit": _json_digit,
    "a JSON member less": _json_member,
    "another type": _as_other_type,
    "NULL": lambda value: None,
    "empty text": lambda value: "" if isinstance(value, str) else value,
    "something instead of NULL": lambda value: "x" if value is None else value,
    "empty text instead of NULL": lambda value: "" if value is None else value,
    "cut short": lambda value: value[:-1] if isinstance(value, str) else value,
    "a space more": lambda value: value + " " if isinstance(value, str) and value[:1] not in "{[" else value,
    "a space for a T": lambda value: value.replace("T", " ") if isinstance(value, str) else value,
    "other case": lambda value: value.swapcase() if isinstance(value, str) else value,
    "the text null": lambda value: "null",
    "zero": lambda value: 0,
    "negative": lambda value: -value if isinstance(value, (int, float)) else value,
}


@pytest.mark.parametrize("types", ["with types", "without types"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cell_is_named_and_no_other(
    settings: Settings, untyped: Place, damage: str, types: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cell of every column is damaged, each in a row of its own, wherever the damage changes a value."""
    monkeypatch.setattr(records, "LINES", 1)  # a block a record: one cell has each row of its block looked at
    if types == "without types":
        shutil.rmtree(str(settings.data_dir))
        copy_of(untyped, Place(settings.data_dir.parent))
    with lawless(settings) as database:
        hurt = set(damaged_cells(database, DAMAGES[damage]))
    assert hurt
    report = validate(settings)
    assert named(report) == hurt
    assert not report.passed
    assert sum(result.differences for result in report.validation_results.values()) == len(hurt)


def damaged_cells(database: sqlite3.Connection, damage: Callable[[Any], Any]) -> Iterator[Cell]:
    for table in WHOLE:
        used = set()
        for column in columns_of(database, table.name):
            for row, value in database.execute(
                "SELECT id, %s FROM %s ORDER BY id" % (column, table.name)
            ).fetchall():
                if row not in used and set_cell(database, (table.name, row, column), damage(value)):
                    used.add(row)
                    yield table.name, row, column
                    break


def set_cell(database: sqlite3.Connection, cell: Cell, value: Any) -> bool:
    """Whether there is another value now: an affinity may have brought the old one back."""
    table, row, column = cell
    read = "SELECT %s, typeof(%s) FROM %s WHERE id = ?" % (column, column, table)
    before = database.execute(read, (row,)).fetchone()
    try:
        database.execute("UPDATE %s SET %s = ? WHERE id = ?" % (table, column), (value, row))
    except sqlite3.IntegrityError:  # a UNIQUE column that has this value already
        return False
    return database.execute(read, (row,)).fetchone() != before


def columns_of(database: sqlite3.Connection, table: str) -> List[str]:
    """All but the id: a row with another id is another row."""
    described = database.execute("PRAGMA table_info(%s)" % table).fetchall()
    return [column for _, column, *_ in described if column != "id"]


def test_sample_has_a_value_in_every_column(finished: Place) -> None:
    """What the damages need to reach every column."""
    database = sqlite3.connect(str(finished.app))
    empty = [
        (table.name, column)
        for table in WHOLE
        for column in columns_of(database, table.name)
        if database.execute("SELECT count(%s) FROM %s" % (column, table.name)).fetchone() == (0,)
    ]
    database.close()
    assert empty == []


# Whole rows in SQLite


@pytest.mark.parametrize("table", WHOLE, ids=lambda table: table.name)
def test_row_too_few_and_row_too_many_are_named(settings: Settings, table: Table) -> None:
    with lawless(settings) as database:
        names = ", ".join(columns_of(database, table.name))
        unique = "geonames_id"  # the one UNIQUE column
        copied = names.replace(unique, "NULL")
        first, second, last = (
            database.execute(
                "SELECT id FROM %s ORDER BY id LIMIT 1 OFFSET %s" % (table.name, offset)
            ).fetchone()[0]
            for offset in ("0", "1", "(SELECT count(*) - 1 FROM %s)" % table.name)
        )
        for made in (NO_UUID, LAST_UUID):
            database.execute(
                "INSERT INTO %s (id, %s) SELECT ?, %s FROM %s WHERE id = ?"
                % (table.name, names, copied, table.name),
                (made, first),
            )
        database.execute("DELETE FROM %s WHERE id = ?" % table.name, (second,))
        database.execute("UPDATE %s SET id = ? WHERE id = ?" % table.name, (last.upper(), last))
    report = validate(settings)
    assert {row for _, row, _ in named(report)} == {NO_UUID, LAST_UUID, second, last, last.upper()}
    assert {name for name, _, column in named(report) if column is None} == {table.name}
    assert report.validation_results[table.name].differences == 5


def test_values_swapped_between_two_rows_are_found_in_both(settings: Settings) -> None:
    with lawless(settings) as database:
        (one, text), (other, other_text) = database.execute(
            "SELECT id, note_content FROM session_notes WHERE note_content NOTNULL ORDER BY id LIMIT 2"
        )
        for row, value in ((one, other_text), (other, text)):
            database.execute("UPDATE session_notes SET note_content = ? WHERE id = ?", (value, row))
        assert text != other_text
    assert named(validate(settings)) == {("session_notes", row, "note_content") for row in (one, other)}


def test_order_of_json_keys_does_not_count(settings: Settings) -> None:
    with lawless(settings) as database:
        for row, text in database.execute("SELECT id, chart_data FROM charts").fetchall():
            turned = json.dumps(dict(reversed(list(json.loads(text, parse_float=str).items()))))
            if "." not in text:
                database.execute("UPDATE charts SET chart_data = ? WHERE id = ?", (turned, row))
    assert named(validate(settings)) == set()


# The user's own row and the preferences


@pytest.mark.parametrize("damage", ["another last character", "NULL", "another type"])
@pytest.mark.parametrize("single", OWN_ROWS, ids=lambda table: table.target)
def test_damaged_cell_of_the_user_is_named(settings: Settings, single: Table, damage: str) -> None:
    ours = ("id", "app_version", "database_version", "created_at" if single is OWN_ROWS[1] else "")
    with lawless(settings) as database:
        columns = [name for name in columns_of(database, single.target) if name not in ours]
        hurt = set()
        for column in columns:
            (value,) = database.execute("SELECT %s FROM %s" % (column, single.target)).fetchone()
            if set_cell(database, (single.target, 1, column), DAMAGES[damage](value)):  # type: ignore[arg-type]
                hurt.add((single.target, "1", column))
    assert hurt
    assert named(validate(settings), "user") == hurt


# One record in the bundle, with its checksum made right again


@pytest.mark.parametrize(
    "damage", ["another last character", "NULL", "cut short", "another digit", "a JSON member less"]
)
def test_damaged_record_is_named_and_no_other(settings: Settings, damage: str) -> None:
    hurt = set()
    for table in WHOLE:
        path = settings.data_dir / table.file
        records = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
        names = [name for name in records[0] if name not in ("id", table.owner)]
        used = set()
        for name in names:
            for record in records:
                value = record[name]
                text = json.dumps(value, default=float) if isinstance(value, (dict, list)) else value
                wanted = DAMAGES[damage](text)
                if record["id"] in used or wanted == text or not _same_kind(value, wanted):
                    continue
                record[name] = (
                    json.loads(wanted) if isinstance(value, (dict, list)) and wanted is not None else wanted
                )
                used.add(record["id"])
                hurt.add((table.name, record["id"], name))
                break
        rewrite(settings.data_dir, table.file, array(records))
    assert hurt
    assert named(validate(settings)) == hurt


def _same_kind(value: Any, wanted: Any) -> bool:
    """The bundle's reader refuses a record of another type before anything is compared."""
    return (
        wanted is None
        or isinstance(wanted, type(value))
        or (isinstance(value, (dict, list)) and _is_json(wanted))
    )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("table", "owner"),
    [
        (table, owner)
        for table in WHOLE
        for owner in (NO_UUID, None)
        if table.owner and (owner or not table.ownership.or_shared)
    ],
    ids=lambda value: getattr(value, "name", "nobody" if value is None else "another"),
)
def test_record_of_another_user_in_the_bundle_is_named(
    settings: Settings, table: Table, owner: Optional[str]
) -> None:
    records = json.loads((settings.data_dir / table.file).read_text(encoding="utf-8"), parse_float=Decimal)
    records[1][table.owner] = owner
    rewrite(settings.data_dir, table.file, array(records))
    report = validate(settings)
    assert named(report, "isolation") == {(table.name, records[1]["id"], table.owner)}
    assert not report.passed
