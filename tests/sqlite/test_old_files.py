"""What lies in the database's place, beside it, or among its backups, is never lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict

import pytest

import validate_migration
from migration import lock
from migration.errors import MigrationError, TargetError
from migration.files import make_folder, sync_folder
from migration.sqlite import errors, old_files
from migration.validation import checked_file
from support.migrations import settings_of
from support.places import SCHEMA, Place, extended_schema
from support.runs import Run
from support.servers import NOWHERE
from support.sqlite_files import OLD_ROWS, make_old_database, rows_of

ENDS = ("", "-wal", "-shm", "-journal")


def crashed(path: Path, mode: str, rows: int = 50) -> None:
    """A database as a process leaves it that is killed: its last rows are in the log, or its journal is hot."""
    code = """
import os, sqlite3, sys
path, mode, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
database = sqlite3.connect(path, isolation_level=None)
database.execute("PRAGMA journal_mode = " + mode)
database.execute("PRAGMA wal_autocheckpoint = 0")
database.execute("CREATE TABLE old (note)")
if mode == "WAL":
    database.execute("PRAGMA synchronous = OFF")  # a journal that nobody syncs would look otherwise
    database.execute("PRAGMA wal_checkpoint")
database.executemany("INSERT INTO old VALUES (?)", [("committed",)] * rows)
if mode == "DELETE":
    database.execute("PRAGMA cache_size = 2")
    database.execute("PRAGMA cache_spill = 1")
    database.execute("BEGIN")
    database.execute("UPDATE old SET note = 'not committed' || hex(zeroblob(2000))")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code, str(path), mode, str(rows)], check=True)
    assert Path(str(path) + ("-wal" if mode == "WAL" else "-journal")).stat().st_size


def damage(path: Path, at: int, content: bytes = b"\xee\xee\xee\xee") -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def files(path: Path) -> Dict[str, bytes]:
    return {end: Path(str(path) + end).read_bytes() for end in ENDS if Path(str(path) + end).exists()}


# An empty database beside its log


def test_empty_database_beside_its_log_is_refused_and_nothing_touched(
    bundle: Path, place: Place, run: Run
) -> None:
    crashed(place.app, "WAL")
    os.truncate(str(place.app), 0)
    before = files(place.app)
    for words in (("import_to_sqlite.py",), ("migrate.py", "--skip-export", "--offline")):
        done = run(*words, code=5)
        assert "app.db is empty, and app.db-wal beside it is not" in done.err
        assert files(place.app) == before


def test_restore_sets_an_unsound_databases_files_aside_as_they_were(place: Place, run: Run) -> None:
    crashed(place.app, "WAL")
    os.truncate(str(place.app), 0)
    before = files(place.app)
    backup = place.folder / "saved.db"
    make_old_database(backup)
    done = run("migrate.py", "--restore", backup, code=0)
    assert rows_of(place.app, "SELECT note FROM old") == OLD_ROWS
    (aside,) = place.backups.glob("theprogram_damaged_*.db")
    assert files(aside) == before
    assert "its files are set aside as %s" % aside in done.err


@pytest.mark.parametrize("what", ["header", "page"])
def test_unsound_database_with_a_log_is_set_aside_before_sqlite_opens_it(
    what: str, bundle: Path, place: Place, run: Run
) -> None:
    crashed(place.app, "WAL")
    with place.app.open("r+b") as file:
        if what == "header":
            file.write(b"no database at all")
        else:
            file.seek(0, os.SEEK_END)
            file.write(b"\xee" * 8192)
    log = Path(str(place.app) + "-wal")
    log.write_bytes(log.read_bytes()[:100] + b"\xee" * 5000)
    before = files(place.app)
    backup = place.folder / "saved.db"
    make_old_database(backup)
    run("migrate.py", "--restore", backup, code=0)
    (aside,) = place.backups.glob("theprogram_damaged_*.db")
    assert files(aside) == before
    assert not list(place.backups.glob(".*.partial*"))


def test_committed_rows_of_a_log_are_in_the_backup(bundle: Path, place: Place, run: Run) -> None:
    crashed(place.app, "WAL")
    run("import_to_sqlite.py", code=0)
    (backup,) = place.backups.glob("theprogram_backup_*.db")
    assert rows_of(backup, "SELECT count(*) FROM old WHERE note = 'committed'") == [(50,)]
    assert not list(place.backups.glob(".damaged*"))


# Logs that SQLite cannot take whole, and throws away

FRAME = 24 + 4096
DAMAGED_LOGS = {
    "wal header": ("WAL", "-wal", 0),
    "wal salt": ("WAL", "-wal", 17),
    "wal frame": ("WAL", "-wal", 32 + 5 * FRAME + 100),
    "wal frame's salt": ("WAL", "-wal", 32 + 5 * FRAME + 8),
    "journal header": ("DELETE", "-journal", 0),
    "journal page size": ("DELETE", "-journal", 24),
    "journal page": ("DELETE", "-journal", 512 + 4 + 4096 - 200),
}


@pytest.mark.parametrize("mode, end, at", DAMAGED_LOGS.values(), ids=list(DAMAGED_LOGS))
def test_old_database_whose_log_is_damaged_is_kept_as_it_was(
    mode: str, end: str, at: int, bundle: Path, place: Place, run: Run
) -> None:
    crashed(place.app, mode)
    damage(Path(str(place.app) + end), at)
    before = files(place.app)
    done = run("validate_migration.py", "--offline", code=1)
    assert "app.db%s is damaged: the last changes may be missing" % end in done.err
    assert files(place.app) == before
    done = run("import_to_sqlite.py", code=0)
    (aside,) = place.backups.glob("theprogram_damaged_*.db")
    assert files(aside) == before
    assert (
        "app.db%s is damaged: the old database's files are kept as they were as %s" % (end, aside) in done.err
    )
    assert not [name for name in os.listdir(place.backups) if name.startswith(".damaged")]


def test_log_that_a_crash_cut_off_is_no_damaged_one(place: Place) -> None:
    crashed(place.app, "WAL")
    (log,) = old_files.logs_of(place.app)
    whole = log.read_bytes()
    for length in (0, 20, 31, 32, 300, len(whole) - 1, len(whole)):
        log.write_bytes(whole[:length])
        assert old_files.is_whole(log)


def test_journal_that_is_cut_off_behind_its_header_is_damaged(place: Place) -> None:
    """It was synced before the database was written."""
    crashed(place.app, "DELETE")
    (log,) = old_files.logs_of(place.app)
    whole = log.read_bytes()
    for length in (0, 20, 27, 28, 600, 5000, len(whole)):
        log.write_bytes(whole[:length])
        assert old_files.is_whole(log) == (length < 28 or length == len(whole))


def test_log_that_is_used_again_is_no_damaged_one(place: Place) -> None:
    """Behind the frames of this round, those of the one before are left."""
    with contextlib.closing(sqlite3.connect(str(place.app), isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE old (note)")
        database.executemany("INSERT INTO old VALUES (?)", [("x" * 3000,)] * 40)
        database.execute("PRAGMA wal_checkpoint")
        database.execute("INSERT INTO old VALUES ('of the next round')")
        log = Path(str(place.app) + "-wal")
        assert old_files.is_whole(log)
        damage(log, 32 + 100)
        assert not old_files.is_whole(log)


@pytest.mark.parametrize("mode", ["PERSIST", "TRUNCATE"])
def test_journal_that_is_not_in_use_is_no_damaged_one(mode: str, place: Place) -> None:
    with contextlib.closing(sqlite3.connect(str(place.app), isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = " + mode)
        database.execute("CREATE TABLE old (note)")
        database.execute("INSERT INTO old VALUES ('committed')")
    assert old_files.trouble(place.app) is None


@pytest.mark.parametrize("mode, hurt", [("WAL", "header"), ("WAL", "cut off"), ("DELETE", "cut off")])
def test_check_of_a_database_takes_no_log_away(
    mode: str, hurt: str, bundle: Path, place: Place, run: Run
) -> None:
    crashed(place.app, mode)
    if hurt == "header":
        damage(place.app, 0)
    else:
        os.truncate(str(place.app), 0)
    before = files(place.app)
    for words in (
        ("validate_migration.py", "--offline"),
        ("migrate.py", "--skip-export", "--offline"),
        ("migrate.py", "--restore", place.app, "--sqlite-path", place.folder / "other.db"),
    ):
        run(*words, code=5)
        assert files(place.app) == before
    assert not (place.folder / "other.db").exists()


def test_backup_with_a_log_is_restored_and_stays(place: Place, run: Run) -> None:
    for mode in ("WAL", "DELETE"):
        backup = place.folder / (mode + ".db")
        crashed(backup, mode)
        before = files(backup)
        assert run("migrate.py", "--restore", backup).code == 0
        assert rows_of(place.app, "SELECT count(*) FROM old WHERE note = 'committed'") == [(50,)]
        assert files(backup) == before


def test_unsound_database_is_refused_with_its_log_before_any_work(
    bundle: Path, place: Place, run: Run
) -> None:
    crashed(place.app, "WAL", 5000)
    with contextlib.closing(sqlite3.connect(str(place.app))) as database:
        database.execute("PRAGMA wal_checkpoint")
    crashed_again = "import os, sqlite3, sys; d = sqlite3.connect(sys.argv[1], isolation_level=None);"
    crashed_again += " d.execute('CREATE TABLE more (note)'); os._exit(0)"
    subprocess.run([sys.executable, "-c", crashed_again, str(place.app)], check=True)
    damage(place.app, 3 * 4096, b"\xee" * 4096)
    before = files(place.app)
    assert before["-wal"]
    for words in (("import_to_sqlite.py",), ("import_to_sqlite.py", "--no-backup")):
        done = run(*words, code=5)
        assert "app.db is not a sound SQLite database: " in done.err
        assert files(place.app) == before
        assert not place.backups.exists() or not place.in_backups()


@pytest.mark.parametrize("after", ["link", "replace", "unlink"])
def test_what_a_killed_run_has_set_aside_by_half_is_cleared_by_the_next(
    after: str, place: Place, run: Run
) -> None:
    crashed(place.app, "WAL")
    os.truncate(str(place.app), 0)
    before = files(place.app)
    backup = place.folder / "saved.db"
    make_old_database(backup)
    code = """
import os, signal, sys
from pathlib import Path
from migration.settings import Backups
from migration.sqlite import old_files
real = getattr(os, sys.argv[3])
def kill(*words):
    if sys.argv[3] == "unlink" and "damaged" not in words[0]:
        return real(*words)
    real(*words)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, sys.argv[3], kill)
old_files.set_aside(Path(sys.argv[1]), Backups(Path(sys.argv[2]), "theprogram"))
"""
    killed = subprocess.run([sys.executable, "-c", code, str(place.app), str(place.backups), after])
    assert killed.returncode == -9
    assert files(place.app) == before
    assert run("migrate.py", "--restore", backup).code == 0
    found = {path.name: files(path) for path in place.backups.glob("theprogram_damaged_*.db")}
    assert list(found.values()) == [before] * len(found)
    assert len(found) == (2 if after == "unlink" else 1)
    assert not [name for name in os.listdir(place.backups) if name.startswith(".damaged")]


# A journal in a folder that cannot be written


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_database_with_a_journal_in_a_read_only_folder_is_read_as_it_was_committed(
    mode: str, tmp_path: Path, permissions_count: None, place: Place, run: Run
) -> None:
    media = tmp_path / "media"
    media.mkdir()
    backup = media / "theprogram_backup_20250102_030405.db"
    crashed(backup, mode)
    before = files(backup)
    for end in before:
        os.chmod(str(backup) + end, 0o444)
    media.chmod(0o555)
    try:
        run("migrate.py", "--restore", backup, ordinary=True, code=0)
        assert rows_of(place.app, "SELECT count(*) FROM old WHERE note = 'committed'") == [(50,)]
        assert files(backup) == before
    finally:
        media.chmod(0o755)


# Only files are replaced


def test_device_is_no_target(bundle: Path, place: Place, run: Run) -> None:
    backup = place.folder / "saved.db"
    make_old_database(backup)
    pipe = place.folder / "pipe"
    os.mkfifo(str(pipe))
    for path in ("/dev/null", pipe):
        for words in (("import_to_sqlite.py",), ("migrate.py", "--restore", backup)):
            done = run(*words, "--sqlite-path", path, code=5)
            assert "%s is a device, a pipe or a socket, not a file" % path in done.err
    assert Path("/dev/null").is_char_device()
    done = run("migrate.py", "--restore", pipe, code=5)
    assert "%s is no file" % pipe in done.err


# Whose a backup is


def test_backups_of_other_databases_and_of_nobody_are_never_pruned(
    bundle: Path, place: Place, run: Run
) -> None:
    other = place.folder / "other.db"
    make_old_database(other)
    assert run("import_to_sqlite.py", "--sqlite-path", other).code == 0
    (of_other,) = place.backups.glob("*.db")
    unknown = place.backups / "theprogram_backup_20990101_000000.db"
    make_old_database(unknown)
    make_old_database(place.app)
    made = []
    for _ in range(3):
        assert run("import_to_sqlite.py", "--keep-backups", 1).code == 0
        made.append(max(place.backups.glob("*.db"), key=lambda path: path.stat().st_mtime_ns))
    assert set(place.backups.glob("*.db")) == {of_other, unknown, made[-1]}


def test_newest_backup_is_that_of_the_database_in_question(bundle: Path, place: Place, run: Run) -> None:
    make_old_database(place.app)
    assert run("import_to_sqlite.py").code == 0
    other = place.folder / "other.db"
    with contextlib.closing(sqlite3.connect(str(other))) as database:
        database.execute("CREATE TABLE others (note)")
    assert run("import_to_sqlite.py", "--sqlite-path", other).code == 0
    assert run("migrate.py", "--restore").code == 0
    assert rows_of(place.app, "SELECT note FROM old") == OLD_ROWS
    third = place.folder / "third.db"
    done = run("migrate.py", "--restore", "--sqlite-path", third, code=5)
    assert "no backup of %s in %s" % (third, place.backups) in done.err
    assert not third.exists()


# What only the application can look through

FOREIGN = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.create_collation("latin", lambda a, b: (a > b) - (a < b))
database.create_function("folded", 1, str.lower, deterministic=True)
database.execute("CREATE TABLE old (note TEXT COLLATE latin, n INTEGER)")
database.execute("CREATE INDEX by_note ON old (note)")
database.execute("CREATE INDEX by_folded ON old (folded(note))")
database.execute("INSERT INTO old VALUES ('what was there before', 1), ('and more of it', 2)")
"""


def test_database_that_needs_its_application_is_backed_up_and_restored(
    bundle: Path, place: Place, run: Run
) -> None:
    subprocess.run([sys.executable, "-c", FOREIGN, str(place.app)], check=True)
    before = rows_of(place.app, "SELECT note || '' FROM old ORDER BY n")
    done = run("import_to_sqlite.py", code=0)
    assert "the old database is kept as it is; not all of it can be looked at: " in done.err
    done = run("migrate.py", "--restore", code=0)
    assert rows_of(place.app, "SELECT note || '' FROM old ORDER BY n") == before == OLD_ROWS


# Paths of any bytes


@pytest.mark.parametrize("name", [b"\xff\xfe odd", b"a?b#c%41&d", b"quo'te\"", b"new\nline"])
def test_paths_of_any_bytes(name: bytes, bundle: Path, place: Place, run: Run) -> None:
    folder = place.folder / os.fsdecode(name)
    folder.mkdir()
    app, backups, data = folder / "app.db", folder / "backups", folder / "data"
    shutil.copytree(str(bundle), str(data))
    places = ("--sqlite-path", app, "--backup-dir", backups, "--data-dir", data, "--log-file", folder / "log")
    make_old_database(app)
    for _ in range(2):
        done = run("migrate.py", "--skip-export", "--offline", "--keep-backups", 1, *places, code=0)
        assert "Traceback" not in done.err
    assert len(list(backups.glob("*.db"))) == 1
    done = run("migrate.py", "--restore", *places, code=0)
    assert rows_of(app, "SELECT count(*) FROM clients") == [(12,)]


# What SQLite and the system refuse


@pytest.mark.parametrize("word", ["full", "locked", "busy", "readonly", "unable to open", "malformed"])
def test_constraint_that_holds_a_word_of_sqlites_is_told_as_a_constraint(
    word: str, bundle: Path, place: Place, run: Run
) -> None:
    schema = extended_schema(
        place.folder,
        "CREATE TRIGGER refuse BEFORE UPDATE ON clients BEGIN SELECT 1; END; DROP TABLE clients;"
        " CREATE TABLE clients (id TEXT PRIMARY KEY, first_name TEXT, last_name TEXT, email TEXT, phone TEXT, notes TEXT,"
        ' created_at TEXT, updated_at TEXT, CONSTRAINT "%s" CHECK (length(id) < 5))' % word,
    )
    old = make_old_database(place.app)
    done = run("import_to_sqlite.py", "--schema-path", schema, code=5)
    assert "is rejected by SQLite: CHECK constraint failed: %s" % word in done.err
    assert place.app.read_bytes() == old


def test_errors_are_told_apart_by_code() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        for sql, code in (
            ("SELECT * FROM full", errors.ERROR),
            ("SELECT locked()", errors.ERROR),
            ("CREATE TABLE t (a CHECK (a <> 'database is locked'))", None),
            ("INSERT INTO t VALUES ('database is locked')", errors.CONSTRAINT),
        ):
            if code is None:
                database.execute(sql)
                continue
            with pytest.raises(sqlite3.Error) as caught:
                database.execute(sql)
            assert errors.code_of(caught.value) == code


def test_file_larger_than_the_limit_is_told_from_a_full_disk(bundle: Path, place: Place) -> None:
    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536));"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    suite = Path(__file__).resolve().parents[2]
    words = ["--sqlite-path", place.app, "--backup-dir", place.backups, "--data-dir", place.data]
    done = subprocess.run(
        [sys.executable, "-c", code, str(suite / "import_to_sqlite.py")]
        + [str(word) for word in (*words, "--schema-path", SCHEMA)],
        capture_output=True,
        text=True,
        cwd=str(suite),
    )
    assert done.returncode == 5, done.stderr
    assert "would be larger than is allowed" in done.stderr
    assert "ulimit -f" in done.stderr
    assert not place.app.exists()


# Locks


@pytest.mark.parametrize("number", ["ENOSYS", "ENOLCK", "EIO", "EOPNOTSUPP"])
def test_file_system_without_locks_is_not_a_run_that_holds_one(
    number: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import fcntl

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(MigrationError) as caught, lock.held(place.folder / ".lock", "it", TargetError):
        pass
    assert "it cannot be locked: " in caught.value.message
    assert "local disk" in str(caught.value.hint)
    assert "another migration" not in caught.value.message


# The disk's own refusals


def test_folder_that_cannot_be_synced_ends_the_run(
    bundle: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def refuse(path: Path, flags: int = os.O_RDWR) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr("migration.files.sync_path", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(place.folder)


def test_new_folders_name_is_synced_into_its_parent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr("migration.files.sync_folder", synced.append)
    make_folder(place.folder / "a" / "b")
    assert set(synced) == {place.folder, place.folder / "a"}


# SQLite's locks


def test_validation_keeps_its_lock_while_it_reads(
    migrated: Place, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To close a file takes away all locks that this process has on it, SQLite's too."""
    with contextlib.closing(sqlite3.connect(str(place.app))) as database:
        database.execute("PRAGMA journal_mode = DELETE")
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN EXCLUSIVE')"
    hashed, written = checked_file.sha256, []

    def look(*words: Any) -> Any:
        found = hashed(*words)
        written.append(subprocess.run([sys.executable, "-c", code, str(place.app)], capture_output=True))
        return found

    monkeypatch.setattr(checked_file, "sha256", look)
    made = validate_migration.validate(settings_of(NOWHERE, place, offline=True))
    assert made.passed and made.database.sha256
    assert [b"database is locked" in each.stderr for each in written] == [True]
