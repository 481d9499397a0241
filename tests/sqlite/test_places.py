"""Where a database and its helpers lie: a refusal names the right place, and what helps there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from migration.errors import MigrationError
from migration.sqlite import errors
from support.bundles import array, rewrite
from support.mounts import KIB, Mount
from support.places import SUITE, Place, extended_schema
from support.runs import Run
from support.sqlite_files import change, make_old_database, rows_of

# Names


@pytest.mark.parametrize("length", [200, 230, 239, 247])
def test_database_of_a_long_name(length: int, bundle: Path, place: Place, run: Run) -> None:
    for name in ("x" * length, "é" * (length // 2)):
        app = place.folder / name
        make_old_database(app)
        run("migrate.py", "--skip-export", "--offline", "--sqlite-path", app, code=0)
        assert run("migrate.py", "--restore", "--sqlite-path", app).code == 0
        app.unlink()
    assert sorted(os.listdir(place.folder)) == ["backups", "data"]


def test_name_or_path_too_long_for_sqlite_is_told(bundle: Path, place: Place, run: Run) -> None:
    app = place.folder / ("x" * 250)
    done = run("import_to_sqlite.py", "--sqlite-path", app, code=5)
    assert "the name of %s is too long for SQLite" % app in done.err
    folder = place.folder.joinpath(*["d" * 120] * 5)
    folder.mkdir(parents=True)
    done = run("import_to_sqlite.py", "--sqlite-path", folder / "app.db", code=5)
    assert "the path of %s is too long for SQLite" % (folder / "app.db") in done.err
    assert not list(folder.iterdir())


# Mounts


def test_mounted_file_is_refused_before_any_work(bundle: Path, place: Place, mount: Mount, run: Run) -> None:
    host, app = place.folder / "host.db", place.folder / "a b.db"
    old = make_old_database(host)
    app.touch()
    mount(app, bind=host)
    for words in (("migrate.py", "--skip-export", "--offline"), ("migrate.py", "--restore", host)):
        done = run(*words, "--sqlite-path", app, code=5)
        assert "%s cannot be replaced: it is a mount point" % app in done.err
        assert "try: mount the folder that holds the file, not the file itself" in done.err
        assert not place.backups.exists()
    assert app.read_bytes() == old


def test_link_to_another_file_system_is_followed(bundle: Path, place: Place, mount: Mount, run: Run) -> None:
    other = place.folder / "other"
    mount(other, size=4096 * KIB)
    old = make_old_database(other / "real.db")
    place.app.symlink_to(other / "real.db")
    assert run("migrate.py", "--skip-export", "--offline").code == 0
    assert place.app.is_symlink()
    assert (other / "real.db").read_bytes() != old
    assert sorted(os.listdir(other)) == ["real.db"]
    (backup,) = place.backups.glob("*.db")
    assert rows_of(backup, "SELECT count(*) FROM old") == [(2,)]


# What is full


def test_full_temporary_folder_is_told_from_the_databases(bundle: Path, place: Place, mount: Mount) -> None:
    """When SQLite has given up, what it sorted there has gone, and the folder looks empty."""
    (note,) = json.loads((bundle / "session_notes.json").read_text(encoding="utf-8"))[:1]
    notes = [
        {**note, "id": "33333333-3333-4333-8333-%012d" % n, "note_content": "x" * 900} for n in range(5000)
    ]
    rewrite(bundle, "session_notes.json", array(notes), len(notes))
    schema = extended_schema(place.folder, "CREATE INDEX by_content ON session_notes (note_content, id)")
    temporary = place.folder / "temporary"
    mount(temporary, size=1200 * KIB)
    words = ["--sqlite-path", place.app, "--backup-dir", place.backups, "--data-dir", place.data]
    code = (
        "import runpy, sys; from migration.sqlite import connecting; connecting.CACHE = 100;"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    for variable in ("SQLITE_TMPDIR", "TMPDIR"):
        done = subprocess.run(
            [sys.executable, "-c", code, "import_to_sqlite.py"]
            + [str(word) for word in (*words, "--schema-path", schema)],
            env={**os.environ, variable: str(temporary)},
            capture_output=True,
            text=True,
            cwd=str(SUITE),
        )
        assert done.returncode == 5, done.stderr
        assert "no space left for %s" % temporary in done.stderr
        assert "SQLITE_TMPDIR" in done.stderr
        assert not place.app.exists()


def test_full_backup_folder_is_told_with_its_own_option(
    bundle: Path, place: Place, mount: Mount, run: Run
) -> None:
    change(place.app, "CREATE TABLE old (note)", "INSERT INTO old VALUES (zeroblob(300000))")
    old = place.app.read_bytes()
    mount(place.backups, size=128 * KIB)
    done = run("import_to_sqlite.py", code=5)
    assert "no space left for %s" % place.backups in done.err
    assert "choose another place with --backup-dir" in done.err
    assert place.app.read_bytes() == old


# Locks


def test_file_system_without_sqlites_locks_is_no_other_program(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite takes ENOLCK for a database that is in use."""
    make_old_database(place.app)

    def refuse(*words: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with contextlib.closing(sqlite3.connect(str(place.app))) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        for locks, message in ((True, "is open in another program"), (False, "has no locks: No locks avail")):
            if not locks:
                monkeypatch.setattr(fcntl, "lockf", refuse)
            with pytest.raises(MigrationError, match=message), errors.errors(place.app):
                sqlite3.connect(str(place.app), timeout=0).execute("SELECT * FROM old")


# A disk that cannot be read


@pytest.mark.skipif(not Path("/proc/self/mem").is_file(), reason="no file here whose bytes cannot be read")
def test_sector_that_cannot_be_read_is_no_damaged_database() -> None:
    """SQLite calls it malformed."""
    path = Path("/proc/self/mem")
    with pytest.raises(MigrationError) as caught, errors.errors(path):
        raise sqlite3.DatabaseError("database disk image is malformed")
    assert caught.value.message == "%s: the disk reports an error" % path
    assert "dmesg" in str(caught.value.hint)
