"""A bundle that somebody or something edited is refused before the database is touched, or imported exactly."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any, Dict, List

import pytest

from export_from_postgres import export
from import_to_sqlite import import_
from migration.errors import ExitCode, MigrationError
from support.bundles import FIVE_KEYS, array, rewrite
from support.migrations import WHOLE, settings_of
from support.places import BRUNO, Place
from support.servers import Database
from support.sqlite_files import make_old_database, rows_of

UNUSED = "host=/nowhere"  # an import needs no PostgreSQL
FILES = ("user_data.json", *(table.file for table in WHOLE))


@pytest.fixture()
def old(bundle: Path, place: Place) -> bytes:
    return make_old_database(place.app)


def attempt(place: Place) -> MigrationError | None:
    """Import as the script does. Any other error than the expected one is a bug and fails the test."""
    try:
        import_(settings_of(UNUSED, place, user_email=None, backup=False))  # type: ignore[arg-type]
    except MigrationError as error:
        str(error).encode("utf-8")  # can be shown
        return error
    return None


def assert_refused(place: Place, old: bytes, message: str = "", code: ExitCode = ExitCode.BUNDLE) -> None:
    error = attempt(place)
    assert error is not None, "was imported"
    assert message in error.message
    assert error.exit_code == code, error.message
    assert place.app.read_bytes() == old
    assert {path.name for path in place.folder.iterdir()} - {"elsewhere"} == {"app.db", "data"}
    assert {path.name for path in place.data.iterdir() if path.name.startswith(".")} == set()


def manifest_of(place: Place) -> Dict[str, Any]:
    return json.loads((place.data / "manifest.json").read_text(encoding="utf-8"))


def write_manifest(place: Place, manifest: object) -> None:
    (place.data / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def records(place: Place, table: str) -> List[Dict[str, Any]]:
    return json.loads((place.data / (table + ".json")).read_text(encoding="utf-8"))


def replace_in(place: Place, name: str, old: bytes, new: bytes) -> None:
    content = (place.data / name).read_bytes()
    assert old in content
    rewrite(place.data, name, content.replace(old, new, 1))


def dump(path: Path) -> Dict[str, list]:
    """Every row of every table, whatever the page layout."""
    database = sqlite3.connect(str(path))
    try:
        return {
            table: database.execute('SELECT * FROM "%s" ORDER BY 1' % table).fetchall()
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        }
    finally:
        database.close()


# Bits, ends, names


def test_damage_at_every_tenth_byte_is_named_as_damage(place: Place, old: bytes) -> None:
    """Of a bundle with one record of each table that can have one: whatever breaks while it is loaded."""
    shrink(place)
    assert attempt(place) is None
    for name in FILES:
        content = (place.data / name).read_bytes()
        for position in range(0, len(content), 10):
            changed = bytearray(content)
            others = {content[position] ^ 1, content[position] ^ 128, *b'"}\n0'} - {content[position]}
            changed[position] = sorted(others)[position // 10 % len(others)]
            place.app.write_bytes(old)
            (place.data / name).write_bytes(bytes(changed))
            assert_refused(place, old, "%s does not match its SHA256 checksum" % name)
        (place.data / name).write_bytes(content)


def shrink(place: Place) -> None:
    """Leave one client with birth data, a chart and an event, the smallest of each."""
    kept: Dict[str, Dict[str, Any]] = {}
    for table, reference, parent in (
        ("clients", "id", ""),
        ("birth_data", "client_id", "clients"),
        ("charts", "birth_data_id", "birth_data"),
        ("transit_events", "chart_id", "charts"),
    ):
        path = place.data / (table + ".json")
        rows = [
            row
            for row in json.loads(path.read_text(encoding="utf-8"))
            if not parent or row[reference] == kept[parent]["id"]
        ]
        kept[table] = min(rows, key=lambda row: len(json.dumps(row)))
    for name in FILES[1:]:
        rows = [kept[name[:-5]]] if name[:-5] in kept else []
        rewrite(place.data, name, array(rows), len(rows))


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_flipped_bit_of_the_manifest_is_refused_or_changes_no_row(
    seed: int, place: Place, annas_run: Place, old: bytes
) -> None:
    content = (place.data / "manifest.json").read_bytes()
    expected = dump(annas_run.app)
    random_ = random.Random(seed)
    refused = 0
    for _ in range(60 if seed == 1 else 200):
        changed = bytearray(content)
        changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
        (place.data / "manifest.json").write_bytes(bytes(changed))
        error = attempt(place)
        if error is None:
            assert unstamped(dump(place.app)) == unstamped(expected)
            place.app.write_bytes(old)
        else:
            refused += 1
            assert error.exit_code in (ExitCode.BUNDLE, ExitCode.USAGE, ExitCode.SOURCE), error.message
            assert place.app.read_bytes() == old
    assert refused > 20


def unstamped(rows: Dict[str, list]) -> Dict[str, list]:
    """Without the preferences' created_at, which the schema's default sets at each import.

    A bundle whose manifest names no types keeps fractions of seconds as they stand, without their last zeros.
    """

    def plain(value: Any) -> Any:
        return re.sub(r"(:\d\d\.\d*?)0+\Z", r"\1", value) if isinstance(value, str) else value

    return {
        table: [tuple(map(plain, row[:-2] if table == "user_preferences" else row)) for row in found]
        for table, found in rows.items()
    }


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_flipped_bit_under_a_fixed_checksum_is_refused_or_imported_exactly(
    seed: int, place: Place, old: bytes
) -> None:
    random_ = random.Random(seed)
    imported = refused = 0
    for table in ("clients", "charts", "session_notes", "aspect_patterns"):
        name = table + ".json"
        content = (place.data / name).read_bytes()
        for _ in range(25 if seed == 1 else 80):
            changed = bytearray(content)
            changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
            rewrite(place.data, name, bytes(changed))
            error = attempt(place)
            if error is None:
                imported += 1
                assert_same_rows(place, table)
                place.app.write_bytes(old)
            else:
                refused += 1
                assert error.exit_code in (ExitCode.BUNDLE, ExitCode.TARGET, ExitCode.SOURCE)
                assert place.app.read_bytes() == old
        rewrite(place.data, name, content)
    assert imported and refused


def assert_same_rows(place: Place, table: str) -> None:
    """What an independent JSON parser finds in the file is what the database holds."""
    text = (place.data / (table + ".json")).read_text(encoding="utf-8")
    database = sqlite3.connect(str(place.app))
    database.row_factory = sqlite3.Row
    found = {row["id"]: row for row in database.execute("SELECT * FROM " + table)}
    database.close()
    expected = json.loads(text, parse_float=Decimal)
    assert len(found) == len(expected)
    for record in expected:
        row = found[record["id"]]
        record.pop("user_id", None)
        assert set(record) == set(row.keys())
        for column, value in record.items():
            if isinstance(value, (dict, list)):
                assert json.loads(row[column], parse_float=Decimal) == value
            elif column in ("created_at", "updated_at", "last_viewed") and value and "." in value:
                whole, _, fraction = value.partition(".")
                assert row[column] == (whole + "." + fraction.ljust(6, "0") if int(fraction) else whole)
            else:
                assert row[column] == value, column


@pytest.mark.parametrize("name", ["manifest.json", "charts.json", "user_data.json", "location_cache.json"])
def test_truncated_file_is_refused(name: str, place: Place, old: bytes) -> None:
    content = (place.data / name).read_bytes()
    for length in (0, 1, len(content) // 2, len(content) - 3):
        (place.data / name).write_bytes(content[:length])
        assert_refused(place, old)


@pytest.mark.parametrize("name", ["charts.json", "user_data.json", "location_cache.json"])
def test_truncated_file_with_a_fixed_checksum_is_refused(name: str, place: Place, old: bytes) -> None:
    content = (place.data / name).read_bytes()
    for length in (0, 1, 2, len(content) // 2, len(content) - 2, len(content) - 3):
        rewrite(place.data, name, content[:length])
        assert_refused(place, old, name)


def test_text_after_the_array_is_refused(place: Place, old: bytes) -> None:
    content = (place.data / "clients.json").read_bytes()
    for more in (b"[]", b"{}", b"x", b"\x00", b"]"):
        rewrite(place.data, "clients.json", content + more)
        assert_refused(place, old, "clients.json")


def test_swapped_files_are_refused(place: Place, old: bytes) -> None:
    ours, theirs = place.data / "clients.json", place.data / "session_notes.json"
    contents = ours.read_bytes(), theirs.read_bytes()
    theirs.write_bytes(contents[0])
    ours.write_bytes(contents[1])
    assert_refused(place, old)
    rewrite(place.data, "clients.json", contents[1], rows=20)
    rewrite(place.data, "session_notes.json", contents[0], rows=12)
    assert_refused(place, old, "clients.json is damaged in record 1")


@pytest.mark.parametrize("count", ["kept", "fixed"])
def test_added_row_is_refused_unless_it_is_accounted_for(count: str, place: Place, old: bytes) -> None:
    rows = records(place, "clients")
    rows.append({**rows[0], "id": "ffffffff-ffff-4fff-8fff-ffffffffffff", "first_name": "Added"})
    (place.data / "clients.json").write_bytes(array(rows))
    assert_refused(place, old, "clients.json has ")
    if count == "kept":
        rewrite(place.data, "clients.json", array(rows))
        assert_refused(place, old, "clients.json holds 13 records; the manifest says 12")
    else:
        rewrite(place.data, "clients.json", array(rows), rows=13)
        assert attempt(place) is None
        assert_same_rows(place, "clients")


def test_removed_row_that_others_refer_to_is_refused(place: Place, old: bytes) -> None:
    rows = records(place, "clients")
    (place.data / "clients.json").write_bytes(array(rows[1:]))
    assert_refused(place, old, "clients.json has ")
    rewrite(place.data, "clients.json", array(rows[1:]))
    assert_refused(place, old, "clients.json holds 11 records; the manifest says 12")
    rewrite(place.data, "clients.json", array(rows[1:]), rows=11)
    assert_refused(place, old, "lead nowhere", ExitCode.TARGET)


def test_row_that_has_anothers_id_is_refused(place: Place, old: bytes) -> None:
    rows = records(place, "clients")
    rows[3]["id"] = rows[2]["id"]
    rewrite(place.data, "clients.json", array(rows))
    assert_refused(place, old, "UNIQUE constraint failed: clients.id", ExitCode.TARGET)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../secret.json",
        "..",
        ".",
        "",
        "data/../../secret.json",
        r"\\host\x",
        "a\0b",
        "charts.json/",
    ],
)
def test_names_that_lead_elsewhere_are_refused(name: str, place: Place, old: bytes) -> None:
    manifest = manifest_of(place)
    manifest["checksums"][name] = hashlib.sha256(b"[]").hexdigest()
    write_manifest(place, manifest)
    assert_refused(place, old, "names a file that no table in config.TABLES has")
    del manifest["checksums"]["charts.json"]
    write_manifest(place, manifest)
    assert_refused(place, old, "names a file that no table in config.TABLES has")


# What is no plain file


@pytest.mark.parametrize("name", ["manifest.json", "user_data.json", "charts.json"])
@pytest.mark.parametrize("leads_to", ["elsewhere", "itself", "nowhere", "device"])
def test_symbolic_link_is_refused(name: str, leads_to: str, place: Place, old: bytes) -> None:
    path = place.data / name
    aim = {
        "elsewhere": place.folder / "elsewhere",
        "itself": path,
        "nowhere": place.folder / "gone",
        "device": Path("/dev/zero"),
    }[leads_to]
    path.rename(place.folder / "elsewhere")
    path.symlink_to(aim)
    assert_refused(place, old, "symbolic link")


@pytest.mark.parametrize("name", ["manifest.json", "user_data.json", "charts.json"])
def test_named_pipe_is_refused_and_not_waited_for(name: str, place: Place, old: bytes) -> None:
    (place.data / name).unlink()
    os.mkfifo(str(place.data / name))
    assert_refused(place, old, "%s is not a plain file" % name)


@pytest.mark.parametrize("name", ["manifest.json", "user_data.json", "charts.json"])
def test_folder_in_place_of_a_file_is_refused(name: str, place: Place, old: bytes) -> None:
    (place.data / name).unlink()
    (place.data / name).mkdir()
    assert_refused(place, old, name)


@pytest.mark.parametrize("name", [".lock", ".complete"])
def test_symbolic_link_in_place_of_the_suites_own_files_is_not_followed(
    name: str, place: Place, old: bytes
) -> None:
    elsewhere = place.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "clients.json").write_bytes(b"[]")
    (place.data / name).symlink_to(elsewhere if name == ".complete" else elsewhere / "clients.json")
    error = attempt(place)
    assert error is None or error.exit_code == ExitCode.BUNDLE
    assert (elsewhere / "clients.json").read_bytes() == b"[]"
    if error is not None:
        assert place.app.read_bytes() == old


def test_data_folder_may_be_a_symbolic_link(place: Place, annas_run: Place, old: bytes) -> None:
    place.data.rename(place.folder / "elsewhere")
    place.data.symlink_to(place.folder / "elsewhere")
    assert attempt(place) is None
    assert unstamped(dump(place.app)) == unstamped(dump(annas_run.app))


# JSON


@pytest.mark.parametrize(
    "again", ['"first_name":"Eve"', '"id":"ffffffff-ffff-4fff-8fff-ffffffffffff"', '"user_id":"x"']
)
@pytest.mark.parametrize("where", ["first", "last"])
def test_member_twice_in_a_record_is_refused(again: str, where: str, place: Place, old: bytes) -> None:
    if where == "first":
        replace_in(place, "clients.json", b'\n{"', b"\n{" + again.encode() + b',"')
    else:
        replace_in(place, "clients.json", b"},\n", b"," + again.encode() + b"},\n")
    assert_refused(place, old, "clients.json is damaged in record 1: it has ")


@pytest.mark.parametrize(
    "before, twice",
    [
        (b'{"user": ', b'{"user": {}, "user": '),
        (b'"preferences": ', b'"preferences": null, "preferences": '),
        (b'"password_hash":', b'"password_hash":"x","password_hash":'),
        (b'"color_scheme":', b'"color_scheme":"x","color_scheme":'),
    ],
)
def test_member_twice_in_user_data_is_refused(before: bytes, twice: bytes, place: Place, old: bytes) -> None:
    replace_in(place, "user_data.json", before, twice)
    assert_refused(place, old, "user_data.json")


@pytest.mark.parametrize("key", ["user_id", "row_counts", "checksums", "clients", "clients.json"])
def test_member_twice_in_the_manifest_is_refused(key: str, place: Place, old: bytes) -> None:
    text = (place.data / "manifest.json").read_text(encoding="utf-8")
    at = text.index('"%s": ' % key)
    value = json.JSONDecoder().raw_decode(text, at + len(key) + 4)[0]
    again = '"%s": %s, ' % (key, json.dumps(value))
    (place.data / "manifest.json").write_text(text[:at] + again + text[at:], encoding="utf-8")
    assert_refused(place, old, "manifest.json is damaged")


WRONG = {
    "boolean": ["1", '"true"', "[]", "{}", "0.0"],
    "integer": ["true", '"1"', "1.5", "[]", "1e400", "NaN"],
    "numeric": ["true", '"abc"', "[1]", "{}", "NaN", "Infinity"]
    + ["0x10", "1e400", "1e-99999999999999999999", "-"],
    "text": ["1", "true", "[]", "{}", "NaN"],
    "uuid": ["1", "true", "[]", "null"],
    "date": ["20200101", '"2020-1-1"', '"tomorrow"', '"2020-01-01T00:00:00"', '""'],
    "time": ["0", '"noon"', '"2020-01-01"', '"12:00:00+00:00"'],
    "timestamp": ["0", '"2020-01-01"', '"2020-01-01T00:00:00Z"', '"now"'],
    "jsonb": ["NaN", "Infinity", "-Infinity", "[NaN]", "undefined", "nul", "01"]
    + ["{'a': 1}", "[1,]", '{"a" 1}', '"\\x"'],
}
CELLS = {
    "boolean": ("birth_data", "time_unknown"),
    "integer": ("chart_interpretations", "version"),
    "numeric": ("birth_data", "latitude"),
    "text": ("clients", "first_name"),
    "uuid": ("birth_data", "client_id"),
    "date": ("birth_data", "birth_date"),
    "time": ("birth_data", "birth_time"),
    "timestamp": ("clients", "created_at"),
    "jsonb": ("charts", "chart_data"),
}


@pytest.mark.parametrize("kind, value", [(kind, value) for kind, values in WRONG.items() for value in values])
def test_value_of_another_type_is_refused(kind: str, value: str, place: Place, old: bytes) -> None:
    table, column = CELLS[kind]
    rows = records(place, table)
    rows[0][column] = "@@"
    rewrite(place.data, table + ".json", array(rows).replace(b'"@@"', value.encode("utf-8")))
    error = attempt(place)
    assert error is not None, "was imported"
    # no JSON or another type: the bundle; a value that SQLite cannot hold, or a rejected NULL: 3 and 5
    assert error.exit_code in (ExitCode.BUNDLE, ExitCode.SOURCE, ExitCode.TARGET)
    assert table in error.message
    assert place.app.read_bytes() == old
    assert sorted(path.name for path in place.folder.iterdir()) == ["app.db", "data"]


@pytest.mark.parametrize("digits", ["9223372036854775808", "-9223372036854775809", "9" * 100, "9" * 5000])
def test_integer_that_sqlite_has_no_room_for_is_refused(digits: str, place: Place, old: bytes) -> None:
    replace_in(place, "chart_interpretations.json", b'"version":', b'"version":' + digits.encode() + b',"@":')
    content = (place.data / "chart_interpretations.json").read_bytes()
    start = content.index(b',"@":')
    rewrite(
        place.data, "chart_interpretations.json", content[:start] + content[content.index(b",", start + 1) :]
    )
    error = attempt(place)
    assert error is not None and "chart_interpretations" in error.message
    assert place.app.read_bytes() == old


def test_huge_numbers_inside_json_stay_as_they_are(place: Place, old: bytes) -> None:
    document = '{"big": %s, "wide": 1e400, "exact": 1.10, "tiny": 1e-99999999999999999999}' % ("9" * 5000)
    rows = records(place, "charts")
    rows[0]["chart_data"] = "@@"
    rewrite(place.data, "charts.json", array(rows).replace(b'"@@"', document.encode()))
    assert attempt(place) is None
    assert rows_of(place.app, "SELECT chart_data FROM charts WHERE id = '%s'" % rows[0]["id"]) == [
        (document,)
    ]


def test_deep_nesting_is_refused_or_kept(place: Place, old: bytes) -> None:
    document = "[" * 100000 + "]" * 100000
    rows = records(place, "charts")
    rows[0]["chart_data"] = "@@"
    rewrite(place.data, "charts.json", array(rows).replace(b'"@@"', document.encode()))
    error = attempt(place)
    if error is None:
        assert rows_of(place.app, "SELECT chart_data FROM charts WHERE id = '%s'" % rows[0]["id"]) == [
            (document,)
        ]
    else:
        assert error.exit_code == ExitCode.BUNDLE
        assert place.app.read_bytes() == old
    (place.data / "manifest.json").write_text(document, encoding="utf-8")
    before = place.app.read_bytes()
    again = attempt(place)
    assert again is not None and again.exit_code == ExitCode.BUNDLE
    assert place.app.read_bytes() == before


# Encodings


@pytest.mark.parametrize("name", ["manifest.json", "user_data.json", "clients.json", "charts.json"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_other_encoding_is_refused_or_the_same(
    name: str, encoding: str, place: Place, annas_run: Place, old: bytes
) -> None:
    content = (place.data / name).read_bytes().decode("utf-8").encode(encoding)
    if name == "manifest.json":
        (place.data / name).write_bytes(content)
    else:
        rewrite(place.data, name, content)
    error = attempt(place)
    if error is None:
        assert encoding == "utf-8-sig", "only a byte order mark says nothing else"
        assert unstamped(dump(place.app)) == unstamped(dump(annas_run.app))
    else:
        assert error.exit_code == ExitCode.BUNDLE
        assert name in error.message
        assert place.app.read_bytes() == old


@pytest.mark.parametrize(
    "table, column", [("clients", "first_name"), ("charts", "chart_data"), ("charts", "chart_name")]
)
@pytest.mark.parametrize(
    "text", [b'"Zo\xeb"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xff\xfe"', b'"\xf0\x9f\x8c"']
)
def test_text_that_is_not_utf8_is_refused(
    table: str, column: str, text: bytes, place: Place, old: bytes
) -> None:
    rows = records(place, table)
    rows[0][column] = "@@"
    rewrite(place.data, table + ".json", array(rows).replace(b'"@@"', text))
    assert_refused(place, old, table + ".json is damaged")


@pytest.mark.parametrize("member", ["password_hash", "aspect_orbs"])
def test_user_data_that_is_not_utf8_is_refused(member: str, place: Place, old: bytes) -> None:
    replace_in(place, "user_data.json", b'"%s":' % member.encode(), b'"%s":"\xeb","@":' % member.encode())
    assert_refused(place, old, "user_data.json is damaged")


# The manifest's own content


MANIFESTS: List[Any] = [[], "text", 1, 1.5, None, True, {}]


@pytest.mark.parametrize("content", MANIFESTS, ids=repr)
def test_manifest_of_another_type_is_refused(content: object, place: Place, old: bytes) -> None:
    write_manifest(place, content)
    assert_refused(place, old, "manifest.json is damaged")


VALUES: List[Any] = [None, True, -1, 1.5, 10**30, "", "text", "\ud800"]
VALUES += [[], ["x"], {}, {"x": "y"}, {"clients": None}]
KEYS = (
    *FIVE_KEYS,
    "format_version",
    "sizes",
    "columns",
    "orphans_skipped",
    "source",
    "server_version",
    "snapshot",
)


@pytest.mark.parametrize("key", KEYS)
def test_manifest_member_of_another_type_is_refused_or_imported_exactly(
    key: str, place: Place, annas_run: Place, old: bytes
) -> None:
    original = manifest_of(place)
    for value in VALUES:
        write_manifest(place, {**original, key: value})
        assert_refused_or_same(place, annas_run, old)
    write_manifest(place, {name: value for name, value in original.items() if name != key})
    assert_refused_or_same(place, annas_run, old)


@pytest.mark.parametrize("key", ["row_counts", "checksums", "sizes"])
def test_manifest_entry_of_another_type_is_refused_or_imported_exactly(
    key: str, place: Place, annas_run: Place, old: bytes
) -> None:
    original = manifest_of(place)
    for value in [*VALUES, float("nan"), float("inf")]:
        entry = "clients" if key == "row_counts" else "clients.json"
        write_manifest(place, {**original, key: {**original[key], entry: value}})
        assert_refused_or_same(place, annas_run, old)


def test_manifest_columns_of_another_shape_are_refused_or_imported_exactly(
    place: Place, annas_run: Place, old: bytes
) -> None:
    original = manifest_of(place)
    column = original["columns"]["clients"][0]
    others = original["columns"]["clients"][1:]
    wrong: List[Any] = [*VALUES, [None], [[]], [{}]]
    wrong += [[column], [column, column, *others], [*others], [*others, column]]
    wrong += [[{**column, part: value}, *others] for part in column for value in VALUES]
    for value in wrong:
        write_manifest(place, {**original, "columns": {**original["columns"], "clients": value}})
        assert_refused_or_same(place, annas_run, old)


def assert_refused_or_same(place: Place, annas_run: Place, old: bytes) -> None:
    error = attempt(place)
    if error is None:
        assert unstamped(dump(place.app)) == unstamped(dump(annas_run.app))
        place.app.write_bytes(old)
    else:
        assert error.exit_code in (ExitCode.BUNDLE, ExitCode.USAGE, ExitCode.SOURCE), error.message
        assert place.app.read_bytes() == old


# Another user's


@pytest.fixture(scope="session")
def bruno(sample_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(tmp_path_factory.mktemp("bruno"))
    export(settings_of(sample_database.url, made, BRUNO))
    return made


OWNED = ("clients", "charts", "interpretations", "session_notes")
CHILDREN = ("birth_data", "chart_interpretations", "aspect_patterns", "transit_events")


@pytest.mark.parametrize("table", OWNED + CHILDREN)
def test_table_file_of_another_user_is_refused(table: str, bruno: Place, place: Place, old: bytes) -> None:
    name = table + ".json"
    theirs = (bruno.data / name).read_bytes()
    rewrite(place.data, name, theirs, rows=manifest_of(bruno)["row_counts"][table])
    if table in OWNED:
        assert_refused(place, old, "belongs to another user")
    else:
        assert_refused(place, old, "lead nowhere", ExitCode.TARGET)


def test_one_row_of_another_user_among_ours_is_refused_with_types_or_without(
    bruno: Place, place: Place, old: bytes
) -> None:
    rows = [*records(place, "clients"), records(bruno, "clients")[0]]
    rewrite(place.data, "clients.json", array(rows), rows=len(rows))
    message = "clients.json: the row %s belongs to another user" % rows[-1]["id"]
    assert_refused(place, old, message)
    manifest = manifest_of(place)
    del manifest["columns"]
    write_manifest(place, manifest)
    assert_refused(place, old, message)


def test_account_of_another_user_is_refused(bruno: Place, place: Place, old: bytes) -> None:
    rewrite(place.data, "user_data.json", (bruno.data / "user_data.json").read_bytes())
    assert_refused(place, old, "user_data.json: the row of the user belongs to another user")


def test_preferences_of_another_user_are_refused(bruno: Place, place: Place, old: bytes) -> None:
    theirs = (bruno.data / "user_data.json").read_bytes().partition(b',\n"preferences": ')[2]
    ours = (place.data / "user_data.json").read_bytes().partition(b',\n"preferences": ')[0]
    rewrite(place.data, "user_data.json", ours + b',\n"preferences": ' + theirs)
    assert_refused(place, old, "user_data.json: the row of the user belongs to another user")


def test_manifest_of_another_user_is_refused(bruno: Place, place: Place, old: bytes) -> None:
    shutil.copyfile(str(bruno.data / "manifest.json"), str(place.data / "manifest.json"))
    assert_refused(place, old)
    manifest = manifest_of(annas := place)
    manifest.update(checksums={name: digest(annas.data / name) for name in FILES}, sizes={})
    write_manifest(place, manifest)
    assert_refused(place, old, "belongs to another user")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("extra", [b',"extra":1', b',"chart_data":1'])
def test_other_members_are_refused_where_pythons_own_reader_is_needed(
    place: Place, bundle: Path, old: bytes, extra: bytes
) -> None:
    """Half a surrogate pair, which PostgreSQL takes, has the record read by it."""
    replace_in(place, "charts.json", b'"chart_data":{', b'"chart_data":{"a":"\\ud800",')
    assert attempt(place) is None
    place.app.write_bytes(old)
    replace_in(place, "charts.json", b"},\n", extra + b"},\n")
    assert_refused(place, old, "charts.json is damaged in record 1: ")


def test_json_null_that_names_no_column_is_refused(place: Place, bundle: Path, old: bytes) -> None:
    replace_in(place, "clients.json", b"},\n", b',"$json_null":["nope"]},\n')
    assert_refused(place, old, "names no column")


def test_row_of_nobody_is_refused(place: Place, bundle: Path, old: bytes) -> None:
    records = json.loads((place.data / "clients.json").read_text(encoding="utf-8"))
    records[1]["user_id"] = None
    rewrite(place.data, "clients.json", array(records))
    assert_refused(place, old, records[1]["id"] + " belongs to another user")
