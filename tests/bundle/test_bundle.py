"""The export bundle as it is read: any layout of JSON, and nothing that is not what the manifest says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any, Callable, Dict, List

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from import_to_sqlite import import_
from migration.bundle import records
from migration.bundle.manifest import Manifest
from migration.bundle.reading import Reader
from migration.bundle.writing import new_bundle
from migration.errors import ExitCode, MigrationError
from migration.settings import Settings
from support.bundles import forget_types, rewrite
from support.migrations import OWN_ROWS, WHOLE, export_and_import, refused, settings_of
from support.places import Place
from support.servers import Database
from validate_migration import validate

LAYOUTS: Dict[str, Callable[[Any], str]] = {
    "pretty printed": lambda rows: json.dumps(rows, indent=2),
    "indent of 0": lambda rows: json.dumps(rows, indent=0),
    "one line": json.dumps,
    "tight": lambda rows: json.dumps(rows, separators=(",", ":"), ensure_ascii=False),
    "tabs": lambda rows: json.dumps(rows, indent="\t"),
    "CRLF": lambda rows: json.dumps(rows, indent=1).replace("\n", "\r\n"),
    "spaces around": lambda rows: "  \n\t " + json.dumps(rows, indent=4, separators=(" , ", " : ")) + " \n\n",
    "a record a line, CRLF": lambda rows: "[\r\n" + ",\r\n".join(map(json.dumps, rows)) + "\r\n]\r\n",
    "a record a line, comma first": lambda rows: "[\n" + "\n,".join(map(json.dumps, rows)) + "\n]",
    "bracket beside the first": lambda rows: "[" + ",\n".join(map(json.dumps, rows)) + "]",
    "begins as ours, then differs": lambda rows: (
        "[\n"
        + ",\n".join([*map(json.dumps, rows[:3]), *(json.dumps(row, indent=1) for row in rows[3:])])
        + "]"
    ),
    "two on a line": lambda rows: "[\n" + ", ".join(map(json.dumps, rows)) + "\n]\n",
}


@pytest.fixture(scope="module")
def exported(sample_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("exported"))
    settings = settings_of(sample_database.url, place)
    export_and_import(settings)
    return place


@pytest.fixture()
def settings(exported: Place, sample_database: Database, place: Place) -> Settings:
    shutil.copytree(str(exported.data), str(place.data))
    return settings_of(sample_database.url, place)


def dump(path: Path) -> List[str]:
    """Every row; JSON columns as values, since their white space is the bundle's."""
    connection = sqlite3.connect(str(path))
    found = []
    for table in WHOLE:
        for row in connection.execute("SELECT * FROM %s ORDER BY id" % table.name):
            found.append(repr([_value(cell) for cell in row]))
    connection.close()
    return found


def _value(cell: Any) -> Any:
    return json.loads(cell) if isinstance(cell, str) and cell[:1] in ("{", "[") else cell


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_json_is_read(settings: Settings, exported: Place, layout: str) -> None:
    for table in WHOLE:
        rows = json.loads((settings.data_dir / table.file).read_text(encoding="utf-8"))
        rewrite(settings.data_dir, table.file, LAYOUTS[layout](rows))
    import_(settings)
    assert dump(settings.sqlite_path) == dump(exported.app)


@pytest.mark.parametrize("text", ["[]", "[\n]\n", "[ ]", "\n[\n\n]\n", "[\r\n]"])
def test_empty_array_in_any_layout(settings: Settings, text: str) -> None:
    rewrite(settings.data_dir, "session_notes.json", text)
    _with_manifest(settings, lambda said: said["row_counts"].update(session_notes=0))
    import_(settings)


def _with_manifest(settings: Settings, act: Callable[[Dict[str, Any]], Any]) -> None:
    path = settings.data_dir / "manifest.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    act(said)
    path.write_text(json.dumps(said), encoding="utf-8")


def test_record_larger_than_a_block_is_read_in_any_layout(settings: Settings) -> None:
    rows = json.loads((settings.data_dir / "clients.json").read_text(encoding="utf-8"))
    rows[1]["notes"] = 'né☉🌙"\\' * 500_000
    rewrite(settings.data_dir, "clients.json", json.dumps(rows, indent=1, ensure_ascii=False))
    import_(settings)
    connection = sqlite3.connect(str(settings.sqlite_path))
    assert connection.execute("SELECT notes FROM clients ORDER BY id LIMIT 1 OFFSET 1").fetchone() == (
        rows[1]["notes"],
    )
    connection.close()


def test_manifest_with_its_five_keys_is_enough(settings: Settings, exported: Place) -> None:
    """As a program in Python writes it: no types, and times as isoformat() gives them."""
    for table in WHOLE:
        text = (settings.data_dir / table.file).read_text(encoding="utf-8")
        text = re.sub(
            r'(T\d\d:\d\d:\d\d|"\d\d:\d\d:\d\d)\.(\d{1,6})"',
            lambda found: '%s.%s"' % (found[1], found[2].ljust(6, "0")),
            text,
        )
        rewrite(settings.data_dir, table.file, text)
    forget_types(settings.data_dir)
    import_(settings)
    connection = sqlite3.connect(str(settings.sqlite_path))
    kinds = "SELECT DISTINCT typeof(latitude), typeof(time_unknown), typeof(birth_date) FROM birth_data"
    assert connection.execute(kinds).fetchall() == [("real", "integer", "text")]
    connection.close()
    assert dump(settings.sqlite_path) == dump(exported.app)
    assert validate(dataclasses.replace(settings, offline=True)).errors == []


# What is no bundle


def lines(settings: Settings, name: str = "birth_data.json") -> List[str]:
    return (settings.data_dir / name).read_text(encoding="utf-8").split("\n")


BROKEN: Dict[str, Callable[[List[str]], List[str]]] = {
    "a comma is missing": lambda text: [text[0], text[1].rstrip(","), *text[2:]],
    "a comma before the end": lambda text: [*text[:-3], text[-3] + ",", *text[-2:]],
    "text after the end": lambda text: [*text, "{}"],
    "a second array after the end": lambda text: [*text, "[]"],
    "the bracket is missing": lambda text: text[:-2],
    "cut within a record": lambda text: [*text[:4], text[4][:50]],
    "cut after a comma": lambda text: text[:4],
    "no array": lambda text: text[1:-2],
    "an object instead": lambda text: ['{"rows":', *text, "}"],
    "a number among the records": lambda text: [text[0], "5,", *text[1:]],
    "null among the records": lambda text: [text[0], "null,", *text[1:]],
    "an array among the records": lambda text: [text[0], "[],", *text[1:]],
    "two commas": lambda text: [text[0], text[1] + ",", *text[2:]],
    "empty": lambda text: [],
    "a NaN token": lambda text: [
        text[0],
        text[1].replace('"latitude":', '"latitude":NaN,"x":', 1),
        *text[2:],
    ],
    "a member too many": lambda text: [text[0], "{" + '"more":1,' + text[1][1:], *text[2:]],
    "a member twice": lambda text: [
        text[0],
        "{" + text[1].split(",", 1)[0][1:] + "," + text[1][1:],
        *text[2:],
    ],
    "a member missing": lambda text: [text[0], "{" + text[1].split(",", 1)[1], *text[2:]],
}


@pytest.mark.parametrize("spread", [False, True], ids=["our layout", "another layout"])
@pytest.mark.parametrize("fault", BROKEN)
def test_faulty_array_is_refused_by_name(settings: Settings, fault: str, spread: bool) -> None:
    text = "\n".join(BROKEN[fault](lines(settings)))
    if spread:
        text = text.replace("[\n", "[", 1)
    rewrite(settings.data_dir, "birth_data.json", text)
    assert "birth_data.json" in refused(settings, ExitCode.BUNDLE).message


def test_other_row_count_than_the_manifests_is_refused(settings: Settings) -> None:
    _with_manifest(settings, lambda said: said["row_counts"].update(charts=17))
    error = refused(settings, ExitCode.BUNDLE)
    assert "charts.json holds 18 records; the manifest says 17" in error.message


def test_edited_file_is_refused(settings: Settings) -> None:
    path = settings.data_dir / "charts.json"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert "charts.json does not match its SHA256" in refused(settings, ExitCode.BUNDLE).message


def test_bytes_that_are_not_utf8_are_refused(settings: Settings) -> None:
    text = "\n".join(lines(settings, "clients.json")).replace("Test", "Te\udcffst")
    path = settings.data_dir / "clients.json"
    rewrite(settings.data_dir, "clients.json", "[]")
    data = text.encode("utf-8", "surrogateescape")
    assert b"\xff" in data
    path.write_bytes(data)
    _with_manifest(
        settings, lambda said: said["checksums"].update({"clients.json": hashlib.sha256(data).hexdigest()})
    )
    assert "clients.json" in refused(settings, ExitCode.BUNDLE).message


@pytest.mark.parametrize("name", ["user_data.json", "location_cache.json", "manifest.json"])
def test_missing_file_is_refused(settings: Settings, name: str) -> None:
    (settings.data_dir / name).unlink()
    assert name in refused(settings, ExitCode.BUNDLE).message


def test_failed_block_publishes_nothing(tmp_path: Path) -> None:
    with pytest.raises(MigrationError), new_bundle(tmp_path / "data", ["clients.json"]) as out:
        out.single_rows(dict.fromkeys(OWN_ROWS))
        raise OSError(28, "No space left on device")
    assert list((tmp_path / "data").iterdir()) == []


OURS = {"ours": lambda rows: "[\n" + ",\n".join(map(json.dumps, rows)) + ("\n]\n" if rows else "]\n")}


@pytest.mark.parametrize("layout", [*OURS, *LAYOUTS])
@given(
    rows=st.lists(
        st.dictionaries(st.text(max_size=3), st.text('ab,{}[]"\\\n', max_size=30), max_size=3), max_size=8
    ),
    size=st.integers(1, 120),
    end=st.integers(0, 200),
)
@hypothesis_settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
def test_records_are_the_same_wherever_a_block_ends_and_a_cut_file_is_damaged(
    layout: str, rows: List[Any], size: int, end: int, tmp_path: Path
) -> None:
    text = {**OURS, **LAYOUTS}[layout](rows).encode("utf-8")
    path = tmp_path / "rows.json"
    checksums = {path.name: hashlib.sha256(text).hexdigest()}
    reader = Reader(tmp_path, Manifest("", "", "", {}, checksums), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "LINES", size)
        path.write_bytes(text)
        assert list(reader.records(path.name, msgspec.json.decode)) == rows
        cut = text[: max(0, len(text.rstrip()) - 1 - end)]
        path.write_bytes(cut)
        with pytest.raises(MigrationError, match="rows.json is damaged in record"):
            list(reader.records(path.name, msgspec.json.decode))
