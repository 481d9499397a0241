"""Tables that others change, rewrite, swap or lock while a run reads them: the bundle is complete, or the run says no."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from pathlib import Path
from typing import Any, Callable, List

import psycopg2
import pytest
from psycopg2 import errors as pg

import config
import export_from_postgres
from export_from_postgres import export
from migration.bundle.manifest import MANIFEST
from migration.cli.plan import plan
from migration.errors import ExitCode, MigrationError
from migration.model import Table, owned_by
from migration.postgres import catalog_queries, connecting, snapshot, table_locks
from support.bundles import during, table_files
from support.fleet import Output, command
from support.fork_server import Process, server
from support.migrations import settings_of
from support.places import ANNA, SCHEMA, Place, contents
from support.servers import Database, holding, until
from support.sqlite_files import rows_of
from validate_migration import validate

# What a snapshot does not hide, or what waits for or hinders who reads.
CHANGES = {
    "emptied and filled": "CREATE TABLE kept AS TABLE session_notes; TRUNCATE session_notes;"
    "INSERT INTO session_notes SELECT * FROM kept; DROP TABLE kept",
    "emptied": "TRUNCATE session_notes",
    "rewritten": "ALTER TABLE session_notes ALTER note_content TYPE text USING note_content || ''",
    "made anew": "CREATE TABLE anew (LIKE session_notes INCLUDING ALL); INSERT INTO anew SELECT * FROM session_notes;"
    "DROP TABLE session_notes; ALTER TABLE anew RENAME TO session_notes",
    "swapped": "CREATE TABLE anew (LIKE session_notes INCLUDING ALL); INSERT INTO anew SELECT * FROM session_notes;"
    "ALTER TABLE session_notes RENAME TO old; ALTER TABLE anew RENAME TO session_notes; DROP TABLE old",
    "moved": "CREATE SCHEMA elsewhere; ALTER TABLE session_notes SET SCHEMA elsewhere;"
    "CREATE TABLE session_notes (LIKE elsewhere.session_notes INCLUDING ALL);"
    "INSERT INTO session_notes SELECT * FROM elsewhere.session_notes; DROP SCHEMA elsewhere CASCADE",
    "clustered": "CLUSTER session_notes USING session_notes_pkey",
    "indexed": "REINDEX TABLE session_notes",
    "another column": "ALTER TABLE session_notes ADD later int",
}
VACUUM = "VACUUM FULL session_notes"


@pytest.fixture()
def before(database: Database, tmp_path: Path) -> dict[str, bytes]:
    """The files of a bundle that nobody disturbed."""
    place = Place(tmp_path / "before")
    export(settings_of(database.url, place))
    return table_files(place.data)


def change(database: Database, sql: str, wait: str = "200ms") -> None:
    with contextlib.closing(psycopg2.connect(database.url)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("SET lock_timeout = '%s'" % wait)
        cursor.execute(sql)


def disturbing(database: Database, sql: str, refused: List[psycopg2.Error]) -> Callable[[], None]:
    """Make a change, or note that the lock of the run keeps it away."""

    def act() -> None:
        try:
            change(database, sql)
        except pg.LockNotAvailable as error:
            refused.append(error)

    return act


@pytest.mark.parametrize("sql", [*CHANGES.values(), VACUUM], ids=[*CHANGES, "vacuumed"])
def test_table_stays_while_another_one_is_read(
    sql: str, before: dict, database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: List[psycopg2.Error] = []
    acted = during("clients", disturbing(database, sql, refused), monkeypatch)
    export(settings_of(database.url, place))
    assert acted
    assert refused
    assert table_files(place.data) == before


def at(moment: str, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Act once before or after the locks are taken."""
    whole, acted = table_locks.lock, []

    def lock(*arguments: Any) -> None:
        if moment == "before" and not acted:
            acted.append(1)
            act()
        whole(*arguments)
        if moment == "after" and not acted:
            acted.append(1)
            act()

    monkeypatch.setattr(table_locks, "lock", lock)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("sql", [sql for name, sql in CHANGES.items() if name != "another column"])
def test_change_just_before_the_snapshot_is_seen_whole_or_kept_away(
    sql: str, moment: str, before: dict, database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: List[psycopg2.Error] = []
    at(moment, disturbing(database, sql, refused), monkeypatch)
    export(settings_of(database.url, place))
    assert bool(refused) == (moment == "after" and sql != CHANGES["indexed"])  # no index is locked yet
    emptied = sql == CHANGES["emptied"] and moment == "before"
    assert table_files(place.data) == ({**before, "session_notes.json": b"[\n]\n"} if emptied else before)


def partitioned(database: Database) -> None:
    """Notes in two partitions, one of them partitioned again."""
    database.execute(
        "CREATE TABLE anew (LIKE session_notes, PRIMARY KEY (id)) PARTITION BY HASH (id);"
        "CREATE TABLE notes_0 PARTITION OF anew FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        "CREATE TABLE notes_1 PARTITION OF anew FOR VALUES WITH (MODULUS 2, REMAINDER 1) PARTITION BY HASH (id);"
        "CREATE TABLE notes_2 PARTITION OF notes_1 FOR VALUES WITH (MODULUS 1, REMAINDER 0);"
        "INSERT INTO anew SELECT * FROM session_notes; DROP TABLE session_notes;"
        "ALTER TABLE anew RENAME TO session_notes;"
    )


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE session_notes DETACH PARTITION notes_0",
        "ALTER TABLE notes_1 DETACH PARTITION notes_2",
        "TRUNCATE notes_2",
        "DROP TABLE notes_0",
    ],
)
def test_partitions_stay_while_another_table_is_read(
    sql: str, database: Database, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partitioned(database)
    alone = Place(tmp_path / "alone")
    export(settings_of(database.url, alone))
    refused: List[psycopg2.Error] = []
    acted = during("clients", disturbing(database, sql, refused), monkeypatch)
    export(settings_of(database.url, place))
    assert acted
    assert refused
    assert table_files(place.data) == table_files(alone.data)


def test_partition_attached_while_another_table_is_read_stops_the_export(
    database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    partitioned(database)
    database.execute("ALTER TABLE session_notes DETACH PARTITION notes_0; CREATE SCHEMA aside")
    database.execute("ALTER TABLE notes_0 SET SCHEMA aside")
    attach = (
        "ALTER TABLE session_notes ATTACH PARTITION aside.notes_0 FOR VALUES WITH (MODULUS 2, REMAINDER 0)"
    )
    during("clients", lambda: database.execute(attach), monkeypatch)
    settings = settings_of(database.url, place, excluded_tables=("aside.notes_0",))
    with pytest.raises(MigrationError, match="changed in PostgreSQL while it was read: table aside.notes_0"):
        export(settings)
    assert not (place.data / MANIFEST).exists()


def schemas_swapped(database: Database) -> None:
    """What takes no lock of a table."""
    database.execute(
        "CREATE SCHEMA anew;"
        + "".join("CREATE TABLE anew.%s (LIKE %s INCLUDING ALL);" % (name, name) for name in NAMES)
        + "ALTER SCHEMA public RENAME TO old; ALTER SCHEMA anew RENAME TO public"
    )


NAMES = [table.name for table in config.TABLES]


def test_schema_swapped_meanwhile_stops_the_export(
    database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(database.url, place)
    export(settings)
    old = contents(place.data)
    during("clients", lambda: schemas_swapped(database), monkeypatch)
    with pytest.raises(MigrationError, match="changed in PostgreSQL while it was read: table") as refused:
        export(settings)
    assert refused.value.exit_code == ExitCode.SOURCE
    assert contents(place.data) == old


def test_schemas_swapped_between_two_users_stop_the_second(database: Database, place: Place) -> None:
    """The snapshot knows and has locked the tables of both: only which name means which is another."""
    database.execute("CREATE SCHEMA aside; CREATE TABLE aside.clients (LIKE clients)")
    with connecting.snapshot(settings_of(database.url, place)) as db:
        for _ in range(2):
            db.rows("SELECT FROM public.clients, aside.clients LIMIT 0")
            db.require_unchanged()
        database.execute(
            "ALTER SCHEMA public RENAME TO old; ALTER SCHEMA aside RENAME TO public; ALTER SCHEMA old RENAME TO aside"
        )
        assert db.value("SELECT count(*) FROM public.clients") == 0
        with pytest.raises(
            MigrationError, match="changed in PostgreSQL while it was read: table aside.clients"
        ):
            db.require_unchanged()


def test_schema_swapped_meanwhile_stops_dry_run_and_validation(
    own_migration: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = catalog_queries.read_catalog
    swapped: List[int] = []

    def then_swapped(*asked: Any) -> Any:
        found = catalog(*asked)
        if not swapped:
            swapped.append(1)
            schemas_swapped(database)
        return found

    monkeypatch.setattr(snapshot, "read_catalog", then_swapped)
    with pytest.raises(MigrationError, match="user not found|changed in PostgreSQL while it was read"):
        plan(own_migration)
    database.execute("DROP SCHEMA public CASCADE; ALTER SCHEMA old RENAME TO public")
    swapped.clear()
    with pytest.raises(MigrationError, match="user not found|changed in PostgreSQL while it was read"):
        validate(own_migration)


@pytest.fixture()
def unlocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where tables cannot be locked: foreign ones, or SELECT that is granted on columns."""
    monkeypatch.setattr(table_locks, "lock", lambda cursor, tables, settings: cursor.execute(settings))


@pytest.mark.usefixtures("unlocked")
@pytest.mark.parametrize("sql", ["", CHANGES["another column"], CHANGES["indexed"]])
def test_tables_that_cannot_be_locked_are_read_all_the_same(
    sql: str, before: dict, database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sql:
        after_the_snapshot(lambda: change(database, sql), monkeypatch)
    export(settings_of(database.url, place))
    assert table_files(place.data) == before


def test_role_that_may_not_lock_one_table_locks_the_others(database: Database, place: Place) -> None:
    role = "reader_" + database.url.split("/test_")[1].split("?")[0]
    database.execute("CREATE ROLE %s LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO %s" % (role, role))
    database.execute("REVOKE SELECT ON transit_events FROM " + role)
    reader = settings_of(database.url.replace("postgres@", role + "@"), place)
    with connecting.snapshot(reader) as db:
        assert db.share()  # not within a savepoint
        with pytest.raises(pg.LockNotAvailable):
            change(database, "TRUNCATE session_notes")
        change(database, "TRUNCATE transit_events")
    database.execute("DROP OWNED BY %s; DROP ROLE %s" % (role, role))


def after_the_snapshot(act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Act once when the catalog has been read, and no table yet."""
    catalog, acted = catalog_queries.read_catalog, []

    def then_acted(*asked: Any) -> Any:
        found = catalog(*asked)
        if not acted:
            acted.append(1)
            act()
        return found

    monkeypatch.setattr(snapshot, "read_catalog", then_acted)


@pytest.mark.usefixtures("unlocked")
@pytest.mark.parametrize("name", ["emptied and filled", "emptied", "rewritten", "made anew", "swapped"])
def test_tables_that_cannot_be_locked_and_are_changed_stop_the_export(
    name: str, database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_the_snapshot(lambda: change(database, CHANGES[name]), monkeypatch)
    with pytest.raises(MigrationError, match="changed in PostgreSQL while it was read") as refused:
        export(settings_of(database.url, place))
    assert "session_notes" in refused.value.message
    assert not (place.data / MANIFEST).exists()


def test_tables_of_another_schema_stay_too(
    database: Database, before: dict, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("CREATE SCHEMA apart; ALTER TABLE session_notes SET SCHEMA apart")
    tables = [table for table in config.TABLES if table.name != "session_notes"]
    tables.append(Table("apart.session_notes", owned_by("user_id")))
    refused: List[psycopg2.Error] = []
    at("after", disturbing(database, "TRUNCATE apart.session_notes", refused), monkeypatch)
    with connecting.snapshot(settings_of(database.url, place, tables=tuple(tables))):
        pass
    assert refused


# Others' locks


@pytest.fixture()
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls in this process do not wait long for a lock."""
    monkeypatch.setattr(table_locks, "SECONDS", 0.3)
    monkeypatch.setattr(table_locks, "PAUSE", 0.02)
    monkeypatch.setitem(snapshot.PINNED, "lock_timeout", "300ms")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("what", [export, plan, validate])
def test_table_that_somebody_has_locked_is_named_with_who_it_is(
    what: Callable[..., object], own_migration: Any, database: Database
) -> None:
    old = contents(own_migration.data_dir)
    with holding(database, "ALTER TABLE session_notes ADD later int") as other:
        with pytest.raises(MigrationError) as refused:
            what(own_migration)
        process = other.info.backend_pid
    assert refused.value.exit_code == ExitCode.SOURCE
    assert refused.value.message.startswith("table session_notes is locked, and was not free within ")
    assert ": process %d ('the application', for " % process in refused.value.message
    assert "pg_terminate_backend(%d)" % process in str(refused.value.hint)
    assert {name for name, data in contents(own_migration.data_dir).items() if old.get(name) != data} == set()


@pytest.mark.usefixtures("hasty")
def test_who_waits_for_a_lock_is_named_too(database: Database, place: Place) -> None:
    with holding(database, "SELECT FROM session_notes"), contextlib.closing(
        psycopg2.connect(database.url)
    ) as waiting:

        def alter() -> None:
            with contextlib.suppress(psycopg2.Error):
                waiting.cursor().execute("ALTER TABLE session_notes ADD later int")

        thread = threading.Thread(target=alter)
        thread.start()
        process = waiting.info.backend_pid
        until(database, "SELECT FROM pg_locks WHERE NOT granted AND pid = %d" % process)
        with pytest.raises(MigrationError, match="process %d .*waits for it" % process):
            export(settings_of(database.url, place))
        waiting.cancel()
        thread.join()


def test_lock_that_is_given_up_is_waited_for(database: Database, before: dict, place: Place) -> None:
    with holding(database, "LOCK TABLE session_notes") as other:
        timer = threading.Timer(0.3, other.rollback)
        timer.start()
        export(settings_of(database.url, place))
        timer.join()
    assert table_files(place.data) == before


@pytest.mark.usefixtures("hasty")
def test_index_that_is_being_made_is_named_with_its_table(database: Database, place: Place) -> None:
    with holding(database, "REINDEX TABLE session_notes") as other:
        with pytest.raises(MigrationError, match="table session_notes is locked") as refused:
            export(settings_of(database.url, place))
        assert "process %d " % other.info.backend_pid in refused.value.message


@pytest.mark.usefixtures("hasty")
def test_application_that_reads_and_writes_is_not_waited_for(
    database: Database, before: dict, place: Place
) -> None:
    with holding(
        database,
        "LOCK TABLE session_notes IN EXCLUSIVE MODE; SELECT FROM clients FOR UPDATE; DELETE FROM charts",
    ):
        export(settings_of(database.url, place))
    assert table_files(place.data) == before


@pytest.mark.usefixtures("hasty")
def test_waiting_is_said_and_the_end_of_it(
    database: Database, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--user-email", ANNA, "--postgres-url", database.url, "--data-dir", str(place.data)]
    with holding(database, "LOCK TABLE clients"):
        assert export_from_postgres.main([*options, "--schema-path", SCHEMA]) == 3
    said = capsys.readouterr().err
    assert "waiting for a lock on table clients: process " in said
    assert "error: table clients is locked, and was not free within " in said


# Everybody


def test_everybody_has_everything_however_often_a_table_is_changed_meanwhile(
    database: Database, tmp_path: Path
) -> None:
    output, said = Output(tmp_path / "output"), tmp_path / "said"
    words = command(output, database.url)[2:]
    run = Process(server(1), "support/one_process.py", words, tmp_path, os.environ, said, said)
    refused: List[psycopg2.Error] = []
    changes = itertools.cycle(["emptied and filled", "rewritten", "swapped"])
    while run.wait(0.02) is None:
        disturbing(database, CHANGES[next(changes)], refused)()
    assert run.wait() == 0, said.read_text(encoding="utf-8")
    assert refused
    for user, notes in database.rows(
        "SELECT u.id::text, count(n.id) FROM users u LEFT JOIN session_notes n ON n.user_id = u.id GROUP BY 1"
    ):
        assert rows_of(output.folder / user / "app.db", "SELECT count(*) FROM session_notes") == [(notes,)]


def test_partition_that_is_being_detached_is_not_left_out_silently(
    database: Database, place: Place, tmp_path: Path
) -> None:
    if database.rows("SELECT current_setting('server_version_num')::int < 140000") == [(True,)]:
        pytest.skip("DETACH PARTITION … CONCURRENTLY is of version 14")
    database.execute(
        "CREATE TABLE anew (LIKE session_notes, PRIMARY KEY (id)) PARTITION BY RANGE (id);"
        "CREATE TABLE notes_0 PARTITION OF anew FOR VALUES FROM (MINVALUE) TO ('80000000-0000-0000-0000-000000000000');"
        "CREATE TABLE notes_1 PARTITION OF anew FOR VALUES FROM ('80000000-0000-0000-0000-000000000000') TO (MAXVALUE);"
        "INSERT INTO anew SELECT * FROM session_notes; DROP TABLE session_notes;"
        "ALTER TABLE anew RENAME TO session_notes;"
    )
    with holding(database, "SELECT FROM session_notes"), contextlib.closing(
        psycopg2.connect(database.url)
    ) as detaching:
        detaching.autocommit = True

        def detach() -> None:
            with contextlib.suppress(psycopg2.Error):
                detaching.cursor().execute("ALTER TABLE session_notes DETACH PARTITION notes_0 CONCURRENTLY")

        thread = threading.Thread(target=detach)
        thread.start()
        until(
            database, "SELECT FROM pg_inherits WHERE (to_jsonb(pg_inherits) ->> 'inhdetachpending')::boolean"
        )
        try:
            with pytest.raises(MigrationError, match="notes_0"):
                export(settings_of(database.url, place))
        finally:
            detaching.cancel()
            thread.join()
