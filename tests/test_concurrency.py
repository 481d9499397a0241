"""Others at work at the same time: writers in PostgreSQL, second runs, and programs that have the database open."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Iterator, List, Sequence, Tuple

import psycopg2
import pytest

import config
from migration.bundle.manifest import files_of
from migration.bundle.reading import open_bundle
from migration.errors import MigrationError
from migration.settings import Backups
from migration.sqlite import publishing
from support.migrations import export_and_import, settings_of
from support.places import ANNA, BRUNO, SCHEMA, SUITE, Place
from support.runs import Run
from support.servers import Database
from support.sqlite_files import OLD_ROWS, make_old_database, rows_of
from validate_migration import validate

# A writer in PostgreSQL


class Writer(threading.Thread):
    """Inserts, moves and deletes clients together with all that hangs on them, one transaction each, until stopped.

    At any moment each of its clients has one birth, two charts with a transit each, and three notes, all of one user.
    """

    def __init__(self, url: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.random = random.Random(seed)
        self.ended = threading.Event()
        self.commits = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            connection = psycopg2.connect(self.url)
            cursor = connection.cursor()
            cursor.execute("SELECT id::text FROM users WHERE email IN (%s, %s)", (ANNA, BRUNO))
            users = [row[0] for row in cursor.fetchall()]
            clients: List[str] = []
            while not self.ended.is_set():
                act = self.random.random()
                if len(clients) < 10 or act < 0.3:
                    clients.append(self.insert(cursor, self.random.choice(users)))
                elif act < 0.7:
                    self.move(cursor, self.random.choice(clients), self.random.choice(users))
                else:
                    cursor.execute(
                        "DELETE FROM clients WHERE id = %s",
                        (clients.pop(self.random.randrange(len(clients))),),
                    )
                connection.commit()
                self.commits += 1
            connection.close()
        except BaseException as error:
            self.error = error
            raise

    def insert(self, cursor: psycopg2.extensions.cursor, user: str) -> str:
        client, birth = str(uuid.uuid4()), str(uuid.uuid4())
        # children before parents would not pass: the order of the export, and its reverse, are both crossed
        cursor.execute(
            "INSERT INTO clients (id, user_id, first_name, created_at, updated_at) VALUES (%s, %s, 'Written', now(), now())",
            (client, user),
        )
        cursor.execute(
            "INSERT INTO birth_data (id, client_id, birth_date, time_unknown, latitude, longitude, timezone, created_at, updated_at)"
            " VALUES (%s, %s, '2000-01-01', true, 1, 2, 'UTC', now(), now())",
            (birth, client),
        )
        for _ in range(2):
            chart = str(uuid.uuid4())
            cursor.execute(
                "INSERT INTO charts (id, user_id, client_id, birth_data_id, chart_type, astro_system, zodiac_type, chart_data,"
                " created_at, updated_at) VALUES (%s, %s, %s, %s, 'natal', 'western', 'tropical', '{}', now(), now())",
                (chart, user, client, birth),
            )
            cursor.execute(
                "INSERT INTO transit_events (id, chart_id, event_date, transiting_planet, natal_planet, aspect_type,"
                " created_at, updated_at) VALUES (%s, %s, now(), 'sun', 'moon', 'trine', now(), now())",
                (str(uuid.uuid4()), chart),
            )
        for _ in range(3):
            cursor.execute(
                "INSERT INTO session_notes (id, user_id, client_id, note_date, created_at, updated_at)"
                " VALUES (%s, %s, %s, now(), now(), now())",
                (str(uuid.uuid4()), user, client),
            )
        return client

    def move(self, cursor: psycopg2.extensions.cursor, client: str, user: str) -> None:
        for table, column in (("session_notes", "client_id"), ("clients", "id"), ("charts", "client_id")):
            cursor.execute("UPDATE %s SET user_id = %%s WHERE %s = %%s" % (table, column), (user, client))


def test_export_while_others_write_is_of_one_moment(database: Database, place: Place) -> None:
    writer = Writer(database.url, 15)
    writer.start()
    try:
        seen = set()
        for _ in range(10):
            before = writer.commits
            while writer.commits < before + 3:
                assert writer.error is None
                time.sleep(0.001)
            settings = settings_of(database.url, place, offline=True)
            export_and_import(settings)
            made = validate(settings)
            assert made.passed, made.errors
            seen.add(assert_whole(place.app))
            shutil.rmtree(str(place.backups), ignore_errors=True)
    finally:
        writer.ended.set()
        writer.join()
    assert writer.error is None
    assert len(seen) > 1, "the writer wrote between the exports"


def assert_whole(app: Path) -> tuple:
    """Each client of the writer has all that it was committed with."""
    found = rows_of(
        app,
        """
        SELECT id,
               (SELECT count(*) FROM birth_data b WHERE b.client_id = c.id),
               (SELECT count(*) FROM charts h WHERE h.client_id = c.id),
               (SELECT count(*) FROM transit_events t JOIN charts h ON h.id = t.chart_id WHERE h.client_id = c.id),
               (SELECT count(*) FROM session_notes n WHERE n.client_id = c.id)
        FROM clients c WHERE first_name = 'Written' ORDER BY id
        """,
    )
    assert all(row[1:] == (1, 2, 2, 3) for row in found), found
    return tuple(row[0] for row in found)


# Two runs at once


# A run that stops itself once a file has something in it, when it opens the next file; it waits for nobody's locks
STOPPING = """
import importlib, os, signal, sys
from migration.sqlite import connecting
connecting.BUSY_SECONDS = 0.1
awaited, script = sys.argv.pop(1), sys.argv.pop(1)
main = importlib.import_module(script).main

def stop(event, arguments):
    global awaited
    if event == "open" and awaited and os.path.exists(awaited) and os.path.getsize(awaited):
        awaited = ""
        os.kill(os.getpid(), signal.SIGSTOP)

sys.addaudithook(stop)
sys.exit(main())
"""


def start(script: str, place: Place, *options: object, begin: Sequence[object] = ()) -> subprocess.Popen:
    command = [sys.executable, *map(str, (*(begin or [SUITE / script]), *options))]
    given = {
        "--data-dir": place.data,
        "--schema-path": SCHEMA,
        **(
            {} if script.startswith("export") else {"--sqlite-path": place.app, "--backup-dir": place.backups}
        ),
    }
    for name, value in given.items():
        if name not in command:
            command += [name, str(value)]
    environment = {**os.environ, "PYTHONPATH": str(SUITE)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=str(place.folder), env=environment
    )


@contextlib.contextmanager
def stopped(file: Path, script: str, place: Place, *options: object) -> Iterator[subprocess.Popen]:
    """A run that is stopped (SIGSTOP) after it has written to a file; it goes on when the block ends, or is killed."""
    process = start(script, place, *options, begin=["-c", STOPPING, file, script[: -len(".py")]])
    try:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert process.poll() is None, process.communicate()[0]
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.communicate(timeout=60)


def go_on(process: subprocess.Popen) -> tuple[int, str]:
    process.send_signal(signal.SIGCONT)
    output = process.communicate(timeout=60)[0].decode("utf-8")
    return process.returncode, output


def assert_held_by(process: subprocess.Popen, what: object, output: str) -> None:
    assert "error: %s is in use by another migration (process %d)\n" % (what, process.pid) in output
    assert "try: wait until it has ended, then run again\n" in output
    assert "Traceback" not in output


def test_second_run_on_one_target_is_refused(bundle: Path, place: Place, tmp_path: Path, run: Run) -> None:
    make_old_database(place.app)
    shutil.copytree(str(bundle), str(tmp_path / "other"))
    with stopped(tmp_path / ".app.db.lock", "import_to_sqlite.py", place) as first:
        second = run("import_to_sqlite.py", "--data-dir", tmp_path / "other")
        assert second.code == 5
        assert_held_by(first, place.app, second.err)
        restore = run("migrate.py", "--restore", make_backup(tmp_path), "--data-dir", tmp_path / "other")
        assert restore.code == 5
        assert_held_by(first, place.app, restore.err)
        # past SQLite's locks: the first run may have been stopped while it holds one
        unlocked = sqlite3.connect(place.app.as_uri() + "?immutable=1", uri=True)
        assert unlocked.execute("SELECT note FROM old").fetchall() == OLD_ROWS
        unlocked.close()
        code, output = go_on(first)
    assert code == 0, output
    assert rows_of(place.app, "SELECT count(*) FROM clients") == [(12,)]
    assert run("import_to_sqlite.py").code == 0


def make_backup(folder: Path) -> Path:
    make_old_database(folder / "backup.db")
    return folder / "backup.db"


@pytest.mark.parametrize("script", ["export_from_postgres.py", "import_to_sqlite.py", "migrate.py"])
def test_second_run_on_one_data_folder_is_refused(
    script: str, sample_database: Database, bundle: Path, place: Place, tmp_path: Path, run: Run
) -> None:
    exporting = ("--user-email", BRUNO, "--postgres-url", sample_database.url)
    options = () if script.startswith("import") else exporting
    elsewhere = () if script.startswith("export") else ("--sqlite-path", tmp_path / "other.db")
    with stopped(place.data / ".lock", "export_from_postgres.py", place, *exporting) as first:
        second = run(script, *options, *elsewhere, code=4)
        assert_held_by(first, "the data folder %s" % place.data, second.err)
        assert not (tmp_path / "other.db").exists()
        code, output = go_on(first)
    assert code == 0, output
    assert json.loads((place.data / "manifest.json").read_text(encoding="utf-8"))["user_email"] == BRUNO
    assert run(script, *options, *elsewhere).code == 0


def test_of_many_runs_at_once_one_at_a_time_works(bundle: Path, place: Place, tmp_path: Path) -> None:
    make_old_database(place.app)
    folders = [tmp_path / ("data%d" % number) for number in range(4)]
    for folder in folders:
        shutil.copytree(str(bundle), str(folder))
    running = [start("import_to_sqlite.py", place, "--data-dir", folder) for folder in folders]
    ended = {
        process.pid: (process.communicate(timeout=60)[0].decode("utf-8"), process.returncode)
        for process in running
    }
    worked = [pid for pid, (_, code) in ended.items() if code == 0]
    assert worked
    for output, code in ended.values():
        assert code in (0, 5), output
        if code == 5:
            assert "is in use by another migration" in output
            assert any("(process %d)" % pid in output for pid in ended) or "(process" not in output
    assert rows_of(place.app, "SELECT count(*) FROM clients") == [(12,)]
    assert len(list(place.in_backups())) == len(worked)


def test_lock_of_a_killed_run_does_not_block(bundle: Path, place: Place, tmp_path: Path, run: Run) -> None:
    make_old_database(place.app)
    with stopped(tmp_path / ".app.db.lock", "import_to_sqlite.py", place) as first:
        first.kill()
        first.wait()
    assert (tmp_path / ".app.db.lock").read_text() == str(first.pid)
    assert (place.data / ".lock").read_text() == str(first.pid)
    run("migrate.py", "--skip-export", "--offline", code=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app.db", "backups", "data"]
    assert not (place.data / ".lock").exists()


UNLOCKED = """
import sys
from pathlib import Path

import migrate

def refuse(event, arguments):
    if event in ("os.fork", "os.posix_spawn", "os.system", "subprocess.Popen") and [*Path().rglob("*.lock")]:
        sys.exit("a process was started while a lock was held: %s %s" % (event, arguments[:2]))

sys.addaudithook(refuse)
sys.exit(migrate.main())
"""


def test_run_starts_no_process_that_would_hold_its_locks_where_it_is_killed(
    sample_database: Database, place: Place
) -> None:
    options = ["--user-email", ANNA, "--postgres-url", sample_database.url, "--schema-path", SCHEMA]
    options += ["--data-dir", str(place.data), "--sqlite-path", str(place.app)]
    environment = {**os.environ, "PYTHONPATH": str(SUITE)}
    done = subprocess.run(
        [sys.executable, "-c", UNLOCKED, *options],
        cwd=str(place.folder),
        env=environment,
        stderr=subprocess.PIPE,
    )
    assert done.returncode == 0, done.stderr


def test_readers_of_one_bundle_exclude_each_other_and_say_so(bundle: Path, place: Place, run: Run) -> None:
    with open_bundle(bundle, files_of(config.TABLES)):
        done = run("migrate.py", "--skip-export", "--offline")
    assert done.code == 4
    assert (
        "the data folder %s is in use by another migration (process %d)" % (bundle, os.getpid()) in done.err
    )


# The database in use


@contextlib.contextmanager
def building(place: Place) -> Iterator[Tuple[subprocess.Popen, sqlite3.Connection]]:
    """A run that is stopped while it builds the new database, and an application that opens the old one just then."""
    make_old_database(place.app)
    staging = place.folder / ".app.db.staging"
    with stopped(staging, "import_to_sqlite.py", place) as process, contextlib.closing(
        sqlite3.connect(str(place.app), isolation_level=None)
    ) as application:
        yield process, application


def test_writer_that_comes_during_the_import_keeps_its_database(
    bundle: Path, place: Place, tmp_path: Path
) -> None:
    with building(place) as (run_, application):
        application.execute("BEGIN IMMEDIATE")
        application.execute("INSERT INTO old VALUES ('being written')")
        code, output = go_on(run_)
        assert code == 5, output
        assert "error: %s is open in another program (database is locked)\n" % place.app in output
        application.execute("COMMIT")
    assert rows_of(place.app, "SELECT note FROM old") == [*OLD_ROWS, ("being written",)]
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert not place.backups.exists() or not list(place.in_backups())


def test_rows_written_during_the_import_are_in_the_backup(bundle: Path, place: Place) -> None:
    with building(place) as (run_, application):
        application.execute("INSERT INTO old VALUES ('written meanwhile')")
        application.close()
        code, output = go_on(run_)
    assert code == 0, output
    (backup,) = place.in_backups()
    assert rows_of(backup, "SELECT note FROM old") == [*OLD_ROWS, ("written meanwhile",)]


def test_reader_that_comes_during_the_import_is_not_disturbed(bundle: Path, place: Place) -> None:
    with building(place) as (run_, application):
        application.execute("BEGIN")
        assert application.execute("SELECT note FROM old").fetchall() == OLD_ROWS
        code, output = go_on(run_)
        assert code == 5, output
        assert application.execute("SELECT note FROM old").fetchall() == OLD_ROWS
        application.execute("COMMIT")
        application.execute("INSERT INTO old VALUES ('later')")
    assert rows_of(place.app, "SELECT note FROM old") == [*OLD_ROWS, ("later",)]


def test_idle_connection_without_write_ahead_log_cannot_lose_a_write(
    bundle: Path, place: Place, run: Run
) -> None:
    """In the rollback journal's mode an idle connection holds no lock that could be seen: it must notice the change itself."""
    make_old_database(place.app)
    application = sqlite3.connect(str(place.app), isolation_level=None)
    application.execute("PRAGMA journal_mode = DELETE")
    assert application.execute("SELECT note FROM old").fetchall() == OLD_ROWS
    run("import_to_sqlite.py", code=0)
    with pytest.raises(sqlite3.OperationalError):
        application.execute("INSERT INTO old VALUES ('into a file that has no name any more')")
    application.close()
    assert rows_of(place.app, "SELECT count(*) FROM clients") == [(12,)]
    assert rows_of(place.app, "PRAGMA integrity_check") == [("ok",)]
    (backup,) = place.in_backups()
    assert rows_of(backup, "SELECT note FROM old") == OLD_ROWS


# What a killed program left of the old database

LEFT = {
    "write-ahead log": """
database.execute("PRAGMA wal_autocheckpoint = 0")
database.executemany("INSERT INTO old VALUES (?)", [("in the log %d" % n,) for n in range(50)])
database.commit()
""",
    "write-ahead log with an open transaction": """
database.execute("PRAGMA wal_autocheckpoint = 0")
database.executemany("INSERT INTO old VALUES (?)", [("in the log %d" % n,) for n in range(50)])
database.commit()
database.execute("PRAGMA cache_size = 2")
database.executemany("INSERT INTO old VALUES (?)", [("never committed" * 200,) for n in range(50)])
""",
    "rollback journal": """
database.execute("PRAGMA journal_mode = DELETE")
database.executemany("INSERT INTO old VALUES (?)", [("in the log %d" % n,) for n in range(50)])
database.commit()
database.execute("PRAGMA cache_size = 2")
database.execute("UPDATE old SET note = 'never committed'")
database.execute("CREATE TABLE more (note)")
database.executemany("INSERT INTO more VALUES (?)", [("never committed" * 200,) for n in range(50)])
database.executemany("INSERT INTO old VALUES (?)", [("never committed" * 200,) for n in range(50)])
""",
}
COMMITTED = [*OLD_ROWS, *[("in the log %d" % number,) for number in range(50)]]


@pytest.fixture(params=LEFT)
def crashed(request: pytest.FixtureRequest, place: Place) -> Path:
    """A database whose last program was killed: its file alone lacks rows, or has some that were never committed."""
    make_old_database(place.app)
    code = "import os, signal, sqlite3, sys\ndatabase = sqlite3.connect(sys.argv[1])\n%s\nos.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", code % LEFT[request.param], str(place.app)])
    assert done.returncode == -signal.SIGKILL
    alone = place.folder / "alone.db"
    shutil.copyfile(str(place.app), str(alone))
    with contextlib.suppress(sqlite3.DatabaseError):  # torn, without its journal
        assert rows_of(alone, "SELECT note FROM old") != COMMITTED
    for path in place.folder.glob("alone.db*"):
        path.unlink()
    assert place.folder.joinpath("app.db-wal").exists() or place.folder.joinpath("app.db-journal").exists()
    return place.app


def test_rows_of_a_crashed_database_are_in_the_backup(
    crashed: Path, bundle: Path, place: Place, run: Run
) -> None:
    run("import_to_sqlite.py", code=0)
    (backup,) = place.in_backups()
    assert rows_of(backup, "SELECT note FROM old") == COMMITTED
    assert rows_of(place.app, "SELECT count(*) FROM clients") == [(12,)]
    assert rows_of(place.app, "PRAGMA integrity_check") == [("ok",)]
    assert sorted(path.name for path in place.folder.iterdir()) == ["app.db", "backups", "data"]


@pytest.mark.parametrize("failure", ["bundle", "rejected row", "backup"])
def test_rows_of_a_crashed_database_survive_an_import_that_fails(
    failure: str, crashed: Path, bundle: Path, place: Place, run: Run
) -> None:
    if failure == "bundle":
        (bundle / "charts.json").write_bytes(b"[\n]\n")
    elif failure == "rejected row":
        manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        manifest["row_counts"]["location_cache"] += 1  # found when all other rows are in
        (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    else:
        place.backups.write_bytes(b"no folder")
    done = run("import_to_sqlite.py", code=5 if failure == "backup" else 4)
    assert "Traceback" not in done.err
    assert rows_of(place.app, "SELECT note FROM old") == COMMITTED
    assert rows_of(place.app, "PRAGMA integrity_check") == [("ok",)]


def test_new_database_does_not_meet_the_log_of_a_crashed_one(
    crashed: Path, bundle: Path, place: Place, run: Run
) -> None:
    assert run("import_to_sqlite.py", "--no-backup").code == 0
    assert sorted(path.name for path in place.folder.iterdir()) == ["app.db", "data"]
    assert rows_of(place.app, "SELECT count(*) FROM sqlite_master WHERE name = 'old'") == [(0,)]
    assert rows_of(place.app, "PRAGMA integrity_check") == [("ok",)]


def test_crashed_database_is_replaced_by_a_restore_and_kept(
    crashed: Path, place: Place, tmp_path: Path, run: Run
) -> None:
    run("migrate.py", "--restore", make_backup(tmp_path), code=0)
    assert rows_of(place.app, "SELECT note FROM old") == OLD_ROWS
    (backup,) = place.in_backups()
    assert rows_of(backup, "SELECT note FROM old") == COMMITTED


@pytest.mark.parametrize("attempt", range(3))
def test_target_is_held_from_the_backup_to_the_replacement(attempt: int, place: Place) -> None:
    """Nobody can write what neither the backup nor the new database has."""
    make_old_database(place.app)
    with contextlib.closing(sqlite3.connect(str(place.app))) as database:  # so that its backup takes a moment
        database.execute("CREATE TABLE more AS SELECT zeroblob(8000000)")
    with publishing.replacing(place.app) as staged:
        make_old_database(staged)
        enough, stop = threading.Event(), threading.Event()
        written: List[int] = []

        def write() -> None:
            while not stop.wait(0.001):  # without any rest, SQLite might let nobody else in
                with contextlib.suppress(sqlite3.Error):
                    connection = sqlite3.connect(str(place.app), timeout=0)
                    connection.execute("INSERT INTO old VALUES (?)", ("written %d" % len(written),))
                    connection.commit()
                    connection.close()
                    written.append(1)
                if len(written) == 5:
                    enough.set()

        writer = threading.Thread(target=write)
        writer.start()
        try:
            assert enough.wait(60)
            saved = None
            for _ in range(20):
                if saved is None:
                    # the writer may be there first: then it is refused, and tried again
                    with contextlib.suppress(MigrationError):
                        saved = publishing.publish(staged, place.app, Backups(place.backups, "app"))
        finally:
            stop.set()
            writer.join()
    assert saved is not None
    kept = {note for (note,) in rows_of(saved, "SELECT note FROM old")}
    now = {note for (note,) in rows_of(place.app, "SELECT note FROM old")}
    assert {"written %d" % number for number in range(len(written))} <= kept | now
