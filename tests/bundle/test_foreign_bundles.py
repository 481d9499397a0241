"""Bundles of another exporter: five keys in the manifest, rows as psycopg2 and json.dumps give them."""

from __future__ import annotations

import datetime
import decimal
import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any, Dict, List, Tuple

import msgspec
import psycopg2
import psycopg2.extras
import pytest

from import_to_sqlite import import_
from migration import conversion
from migration.errors import ExitCode, MigrationError
from migration.validation import pairing_texts, record_changes
from support.bundles import edit_manifest, forget_types, rewrite
from support.migrations import export_and_import, settings_of
from support.places import ANNA, Place
from support.servers import Database
from validate_migration import validate

CONDITIONS = {
    "clients": "user_id = %(user)s",
    "birth_data": "client_id IN (SELECT id FROM clients WHERE user_id = %(user)s)",
    "charts": "user_id = %(user)s",
    "chart_interpretations": "chart_id IN (SELECT id FROM charts WHERE user_id = %(user)s)",
    "interpretations": "user_id = %(user)s OR user_id IS NULL",
    "aspect_patterns": "chart_id IN (SELECT id FROM charts WHERE user_id = %(user)s)",
    "transit_events": "chart_id IN (SELECT id FROM charts WHERE user_id = %(user)s)",
    "session_notes": "user_id = %(user)s",
    "location_cache": "true",
}
CHILDREN = ("birth_data", "chart_interpretations", "aspect_patterns", "transit_events")


def plain(value: Any) -> Any:
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)


def other_export(url: str, folder: Path, email: str = ANNA, **layout: Any) -> None:
    connection = psycopg2.connect(url)
    cursor = connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor)

    def rows(table: str, condition: str) -> List[Dict[str, Any]]:
        cursor.execute(
            "SELECT * FROM {} t WHERE {}".format(table, condition), {"user": user["id"] if user else email}
        )
        return [dict(row) for row in cursor.fetchall()]

    user: Any = None
    user = rows("users", "email = %(user)s")[0]
    preferences = rows("user_preferences", "user_id = %(user)s")
    contents: Dict[str, Any] = {
        "user_data": {"user": user, "preferences": preferences[0] if preferences else None},
        **{table: rows(table, condition) for table, condition in CONDITIONS.items()},
    }
    connection.close()
    # as an exporter does that stops at a user without charts
    counts = {name: len(found) for name, found in contents.items() if found and name != "user_data"}
    checksums = {}
    folder.mkdir()
    for name, rows_ in contents.items():
        text = json.dumps(rows_, default=plain, **layout)
        (folder / (name + ".json")).write_text(text, encoding="utf-8")
        checksums[name + ".json"] = hashlib.sha256(text.encode("utf-8")).hexdigest()
    manifest = {
        "export_timestamp": datetime.datetime.now().isoformat(),
        "user_email": email,
        "user_id": str(user["id"]),
        "row_counts": counts,
        "checksums": checksums,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")


LAYOUTS = [{"indent": 2}, {}, {"separators": (",", ":"), "ensure_ascii": False}]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_what_has_not_changed_is_no_change_however_it_is_spelled(
    layout: Dict[str, Any], database: Database, place: Place
) -> None:
    spelled = '{"tiny": 0.0000123, "padded": 1.50, "whole": 2.0, "big": 1e20, "nested": [1.10, {"ü": -0.0}], "no": null}'
    database.execute("UPDATE charts SET calculation_params = %s::jsonb", spelled)
    database.execute(
        "UPDATE charts SET calculation_params = 'null' WHERE id IN (SELECT id FROM charts LIMIT 3)"
    )
    database.execute(
        "UPDATE user_preferences SET aspect_orbs = %s::jsonb, displayed_points = 'null'", spelled
    )
    other_export(database.url, place.data, **layout)
    settings = settings_of(database.url, place)
    import_(settings)
    report = validate(settings)
    assert report.passed, report.errors
    assert report.facts["compared_with"] == ["bundle", "source"]
    database.execute(
        "UPDATE charts SET calculation_params = jsonb_set(calculation_params, '{padded}', '1.51') WHERE calculation_params <> 'null'"
    )
    changed = validate(settings)
    assert [f.table for f in changed.findings if f.check == "source"] == ["charts"]


NOW = {
    '{"a": 1.5}': True,
    '{"a": 1.50}': True,
    '{"a": 15e-1}': True,
    '{"a": 1.5000000000000000000001}': False,
    '{"a": "1.5"}': False,
    '{"a": null}': False,
    '{"b": 1.5}': False,
    "[1.5]": False,
    "null": False,
}


def test_another_value_is_a_change(database: Database, place: Place) -> None:
    database.execute("""UPDATE charts SET chart_data = '{"a": 1.5}'""")
    other_export(database.url, place.data, indent=2)
    settings = settings_of(database.url, place)
    import_(settings)
    for now, same in NOW.items():
        database.execute("UPDATE charts SET chart_data = %s::jsonb", now)
        assert validate(settings).passed is same, now


@pytest.mark.parametrize(
    ("theirs", "now", "same"),
    [
        ("2025-03-30T02:30:00.500000+02:00", "2025-03-30T00:30:00.5+00:00", True),
        ("2024-12-31T20:00:00-05:30", "2025-01-01T01:30:00+00:00", True),
        ("2025-01-01T00:00:00Z", "2025-01-01T00:00:00+00:00", True),
        ("2025-01-01T00:00:00+00:00", "2025-01-01T00:00:01+00:00", False),
        ("2025-01-01T00:00:00.1+00:00", "2025-01-01T00:00:00+00:00", False),
        ("2025-13-01T00:00:00+00:00", "2025-01-01T00:00:00+00:00", False),
    ],
)
def test_an_instant_is_the_same_in_another_zone(theirs: str, now: str, same: bool) -> None:
    assert record_changes._foreign_test("timestamptz")(msgspec.Raw(json.dumps(theirs).encode()), now) is same
    form = pairing_texts._spoken("timestamptz")
    assert (form(msgspec.Raw(json.dumps(theirs).encode())) == form(now)) is same


def test_own_bundles_tell_every_digit(database: Database, place: Place) -> None:
    database.execute("""UPDATE charts SET chart_data = '{"a": 1.5}'""")
    settings = settings_of(database.url, place)
    export_and_import(settings)
    database.execute("""UPDATE charts SET chart_data = '{"a": 1.50}'""")
    assert not validate(settings).passed


# Row counts


def test_table_without_rows_need_not_be_counted(database: Database, place: Place) -> None:
    database.execute("DELETE FROM clients; DELETE FROM charts")
    other_export(database.url, place.data, indent=2)
    manifest = json.loads((place.data / "manifest.json").read_text(encoding="utf-8"))
    assert not set(CHILDREN) & set(manifest["row_counts"])
    settings = settings_of(database.url, place)
    import_(settings)
    report = validate(settings)
    assert report.passed and report.validation_results["birth_data"].sqlite_count == 0


@pytest.mark.parametrize("text", [b"[{}]", b"", b"[", b"{}", b"null", b"[]" + b" " * 100 + b"{}"])
def test_table_that_is_not_counted_has_an_empty_array(
    text: bytes, bundle: Path, place: Place, sample_database: Database
) -> None:
    rewrite(bundle, "transit_events.json", text)
    edit_manifest(bundle, lambda manifest: manifest["row_counts"].pop("transit_events"))
    with pytest.raises(MigrationError, match="the manifest has no row count for transit_events") as caught:
        import_(settings_of(sample_database.url, place))
    assert caught.value.exit_code == ExitCode.BUNDLE


# The form of JSON


def stored(place: Place) -> List[Any]:
    columns = {"charts": ("calculation_params", "chart_data"), "aspect_patterns": ("planets_involved",)}
    found: List[Any] = []
    database = sqlite3.connect(str(place.app))
    for table, names in {**columns, "user_preferences": ("aspect_orbs", "displayed_points")}.items():
        found += database.execute("SELECT {} FROM {} ORDER BY id".format(", ".join(names), table)).fetchall()
    database.close()
    return found


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_json_is_stored_in_one_form_whoever_wrote_the_bundle(
    layout: Dict[str, Any], database: Database, place: Place, tmp_path: Path
) -> None:
    database.execute(
        """UPDATE charts SET chart_data = '{"ü": "a, b: c\\n\\"x\\" \\\\ /", "l": [1, [2.50, []], {}, "🌙"], "t\\u0001": true}'"""
    )
    own = Place(tmp_path / "own")
    own.folder.mkdir()
    settings = settings_of(database.url, own)
    export_and_import(settings)
    other_export(database.url, place.data, **layout)
    theirs = settings_of(database.url, place)
    import_(theirs)
    report = validate(theirs)
    assert report.passed, report.errors
    assert [json.dumps(row).replace("2.50", "2.5") for row in stored(own)] == [
        json.dumps(row) for row in stored(place)
    ]


@pytest.mark.parametrize("types", ["named", "forgotten"])
@pytest.mark.parametrize("separators", [(",", ":"), (",\r\n\t", " : ")])
def test_bundle_that_was_laid_out_anew_gives_the_same_database(
    separators: Tuple[str, str],
    types: str,
    annas_run: Place,
    bundle: Path,
    place: Place,
    sample_database: Database,
) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    for name in manifest["checksums"]:
        rewrite(bundle, name, conversion._laid_out((bundle / name).read_text(encoding="utf-8"), *separators))
    if types == "forgotten":
        forget_types(bundle)
    settings = settings_of(sample_database.url, place)
    import_(settings)
    assert stored(place) == stored(annas_run)
    report = validate(settings)  # without types, moments stay as PostgreSQL writes them
    assert [finding for finding in report.findings if finding.check != "types"] == []


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('{"a":1}', '{"a": 1}'),
        ('{ "a" : 1 }', '{"a": 1}'),
        ('{\n  "a": [\n    1,\n    2\n  ]\n}', '{"a": [1, 2]}'),
        ("[1,2]", "[1, 2]"),
        ("[ ]", "[]"),
        ('{"a,b":"c,d:e  f"}', '{"a,b": "c,d:e  f"}'),
        ('"a\\nb"', '"a\\nb"'),
        ('{"a": 1.50e+10, "b": -0.0, "a": 12345678901234567890123}', None),
        ('{"a": "x,y:z", "b": {}}', None),
        ('[[], {"a": [1, 2]}]', None),
        ('"\\ud800"', None),
        ("12", None),
        ("null", None),
    ],
)
def test_form_of_json(text: str, form: str) -> None:
    for layout in (conversion._as_jsonb, conversion._as_jsonb_unescaped):
        assert layout(text) == (text if form is None else form)
        assert layout(layout(text)) == layout(text)


def test_escapes_of_what_is_not_ascii_are_undone() -> None:
    text = r'{"\u00fc":"\ud83c\udf19 \u0001 \/ \" \\u00fc \ud800"}'
    assert (
        conversion._as_jsonb_unescaped(text) == '{"ü": ' + r'"\ud83c\udf19 \u0001 \/ \" \\u00fc \ud800"' + "}"
    )
    assert conversion._as_jsonb_unescaped(r'["\ud83c\udf19\/\u0001"]') == '["🌙/\\u0001"]'
