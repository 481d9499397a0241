"""Which database a backup is of, what only its application understands, and folders that last."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import import_to_sqlite
from migration import files
from migration.bundle.folder import held
from migration.settings import Backups
from migration.sqlite import backups
from support.migrations import settings_of
from support.places import Place
from support.runs import Run
from support.sqlite_files import OLD_ROWS, make_old_database, rows_of

# The list of whose each backup is


def test_list_that_was_cut_off_takes_the_next_backup(place: Place) -> None:
    place.backups.mkdir()
    (place.backups / ".databases").write_bytes(b"theprogram_backup_20240101_000000.db /cut/of")
    backup = place.backups / "theprogram_backup_20250101_000000.db"
    make_old_database(backup)
    backups._note_owner(backup, place.app)
    assert backups.is_backup_of(backup, place.app)
    assert backups.is_backup_of(place.backups / "theprogram_backup_20240101_000000.db", place.app) is False
    assert backups.newest_backup(Backups(place.backups, "theprogram"), place.app) == backup


def test_databases_whose_paths_look_alike_are_told_apart(place: Place) -> None:
    backup = place.folder / "theprogram_backup_20250101_000000.db"
    backup.touch()
    paths = [place.folder / name for name in ("a\nb", "a\\nb", "a\\\nb", "a b", "a  b", " a")]
    for path in paths:
        backups._note_owner(backup, path)
        assert [backups.is_backup_of(backup, other) for other in paths] == [other == path for other in paths]


def test_list_that_is_a_link_is_not_followed(bundle: Path, place: Place, run: Run) -> None:
    old = make_old_database(place.app)
    place.backups.mkdir()
    precious = place.folder / "precious"
    precious.write_text("mine")
    (place.backups / ".databases").symlink_to(precious)
    done = run("import_to_sqlite.py", code=5)
    assert "%s is a symbolic link" % (place.backups / ".databases") in done.err
    assert precious.read_text() == "mine"
    assert place.app.read_bytes() == old


def test_folder_that_is_named_like_a_backup_is_none(bundle: Path, place: Place, run: Run) -> None:
    make_old_database(place.app)
    assert run("import_to_sqlite.py").code == 0
    (place.backups / "theprogram_backup_20990101_000000.db").mkdir()
    assert run("import_to_sqlite.py", "--keep-backups", 1).code == 0
    assert run("migrate.py", "--restore").code == 0
    assert (place.backups / "theprogram_backup_20990101_000000.db").is_dir()


# What only the application understands

RULES = {
    "its own NOCASE": """
database.create_collation("NOCASE", lambda a, b: (a.swapcase() > b.swapcase()) - (a.swapcase() < b.swapcase()))
database.execute("CREATE TABLE old (note TEXT COLLATE NOCASE UNIQUE)")
more = ["[", "_", "a", "B", "c"]
""",
    "its own lower()": """
database.create_function("lower", 1, lambda text: text[::-1], deterministic=True)
database.execute("CREATE TABLE old (note TEXT)")
database.execute("CREATE INDEX by_lower ON old (lower(note))")
more = ["A", "bC"]
""",
    "a CHECK that it passes over": """
database.execute("CREATE TABLE old (note TEXT CHECK (length(note) > 100))")
database.execute("PRAGMA ignore_check_constraints = ON")
more = []
""",
    "a function in a CHECK": """
database.create_function("mine", 1, lambda text: 1, deterministic=True)
database.execute("CREATE TABLE old (note TEXT CHECK (mine(note)))")
more = []
""",
}


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_database_with_rules_of_its_application_is_backed_up_and_restored(
    rule: str, bundle: Path, place: Place, run: Run
) -> None:
    code = "import sqlite3, sys; database = sqlite3.connect(sys.argv[1], isolation_level=None)" + rule
    code += "for (note,) in [*%r, *((note,) for note in more)]:\n" % OLD_ROWS
    code += "    database.execute('INSERT INTO old VALUES (?)', (note,))\n"
    subprocess.run([sys.executable, "-c", code, str(place.app)], check=True)
    pages = place.app.read_bytes()[100:]
    done = run("import_to_sqlite.py", code=0)
    assert "the old database is kept as it is" in done.err
    (backup,) = place.backups.glob("*.db")
    assert backup.read_bytes()[100:] == pages
    done = run("migrate.py", "--restore", code=0)
    assert place.app.read_bytes()[100:] == pages


def test_plain_index_that_lacks_rows_is_damage(place: Place, run: Run) -> None:
    backup = place.folder / "saved.db"
    make_old_database(backup)
    database = sqlite3.connect(str(backup), isolation_level=None)
    database.execute("PRAGMA journal_mode = DELETE")
    database.execute("CREATE INDEX by_note ON old (note)")
    database.execute("PRAGMA writable_schema = ON")
    database.execute("CREATE TABLE twin AS SELECT note || '!' AS note FROM old")
    database.execute(
        "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = 'twin')"
        " WHERE name = 'old'"
    )
    database.execute("DELETE FROM sqlite_master WHERE name = 'twin'")
    database.close()
    done = run("migrate.py", "--restore", backup, code=5)
    assert "the backup %s is damaged: " % backup in done.err


def test_schema_that_this_sqlite_cannot_read_is_told(bundle: Path, place: Place, run: Run) -> None:
    make_old_database(place.app)
    database = sqlite3.connect(str(place.app), isolation_level=None)
    database.execute("PRAGMA journal_mode = DELETE")
    database.execute("PRAGMA writable_schema = ON")
    database.execute("UPDATE sqlite_master SET sql = sql || ' OF TOMORROW'")
    database.close()
    old = place.app.read_bytes()
    for words in (
        ("import_to_sqlite.py",),
        ("migrate.py", "--restore", place.app, "--sqlite-path", place.folder / "new.db"),
    ):
        done = run(*words, code=5)
        assert "it may be a newer SQLite's: this one is " + sqlite3.sqlite_version in done.err
        assert place.app.read_bytes() == old


# Paths of any bytes


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_import_goes_into_a_path_of_any_bytes(encoding: str, bundle: Path, place: Place) -> None:
    folder = place.folder / os.fsdecode(b"\xff\xfe o'dd?a=b#c%41\n")
    folder.mkdir()
    schema = place.folder / "schema.sql"
    settings = settings_of("", Place(folder), user_email="", data_dir=bundle, schema_path=schema)
    schema.write_text(
        "PRAGMA encoding = '%s';\n" % encoding
        + (Path(files.__file__).parents[1] / "schema_design" / "sqlite_schema.sql").read_text(
            encoding="utf-8"
        ),
        encoding="utf-8",
    )
    import_to_sqlite.import_(settings)
    assert rows_of(folder / "app.db", "PRAGMA encoding") == [(encoding,)]
    assert rows_of(folder / "app.db", "SELECT count(*) FROM session_notes") == [(20,)]
    assert sorted(os.listdir(folder)) == ["app.db"]


# Folders


def test_folder_of_a_bundle_lasts_through_a_power_cut(
    bundle: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(files, "sync_folder", synced.append)
    folder = place.folder / "a" / "b"
    with held(folder):
        pass
    assert {place.folder, place.folder / "a"} <= set(synced)
    shutil.rmtree(str(folder))


def test_backups_are_those_of_the_application_that_config_names(place: Place) -> None:
    place.backups.mkdir()
    for name in ("theprogram", "my-reader"):
        (place.backups / ("%s_backup_20250101_000000.db" % name)).write_bytes(b"")
    (found,) = backups.backups(Backups(place.backups, "my-reader"))
    assert found.name == "my-reader_backup_20250101_000000.db"
