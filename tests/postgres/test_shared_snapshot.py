"""Snapshots that phases share: one instant on several connections, and what everybody has read once."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple

import pytest

import config
import import_to_sqlite
import validate_migration
from export_from_postgres import export
from import_to_sqlite import import_
from migration.bundle.writing import Sink
from migration.errors import ExitCode, MigrationError
from migration.fleet import origin, room, worker
from migration.fleet.ledger import Pending
from migration.fleet.worker import Task, migrate_user
from migration.postgres import connecting, shared_rows
from migration.postgres.rows import rows_of_user
from migration.postgres.snapshot import Snapshot
from migration.settings import Settings
from migration.sqlite.schema import read_schema
from support.migrations import settings_of
from support.places import ANNA, BRUNO, DORA, Place, contents
from support.servers import Database, Server, connections, connections_become
from validate_migration import validate


@pytest.fixture()
def common(tmp_path: Path) -> Path:
    folder = tmp_path / "common"
    folder.mkdir()
    return folder


class Coordinator(NamedTuple):
    """A snapshot that is held, its id, and where what everybody shares has been written."""

    db: Snapshot
    snapshot: str
    common: Path


@pytest.fixture()
def coordinator(database: Database, place: Place, common: Path) -> Iterator[Coordinator]:
    settings = settings_of(database.url, place)
    with connecting.snapshot(settings) as db:
        shared_rows.export_shared(db, settings, read_schema(settings.schema_path), common)
        yield Coordinator(db, db.share(), common)


def of(url: str, folder: Path, email: str = ANNA, **changes: Any) -> Settings:
    folder.mkdir(exist_ok=True)
    return settings_of(url, Place(folder), email, **changes)


def bundle_of(settings: Settings) -> dict[str, bytes]:
    """Files of a bundle; of the manifest, what does not depend on when it was made."""
    files = contents(settings.data_dir)
    manifest = json.loads(files.pop("manifest.json"))
    del manifest["export_timestamp"], manifest["snapshot"]
    return {**files, "manifest.json": json.dumps(manifest).encode("utf-8")}


@pytest.mark.parametrize("email", [ANNA, BRUNO, DORA])
def test_bundle_is_that_of_the_instant_whatever_changed_since(
    email: str, database: Database, coordinator: Coordinator, tmp_path: Path
) -> None:
    alone = of(database.url, tmp_path / "alone", email)
    export(alone)  # nothing has changed yet
    for table in ("session_notes", "location_cache", "interpretations"):
        database.execute("DELETE FROM " + table)
    database.execute("UPDATE clients SET notes = 'later'")

    together = of(database.url, tmp_path / "together", email)
    exported = shared_rows.exported_shared(coordinator.common)
    assert set(exported) == {"interpretations", "location_cache"}
    with connecting.snapshot(together, coordinator.snapshot, exported) as db:
        export(together, db)
        import_(together)
        report = validate(together, db)
    assert report.passed, report.errors
    assert report.facts["compared_with"] == ["bundle", "source"]
    reports = {"validation_report.json", "validation_report.html"}
    ours = {name: text for name, text in bundle_of(together).items() if name not in reports}
    assert ours == bundle_of(alone)
    assert not validate(together).passed  # against what is there now


def test_digest_of_a_table_is_the_same_with_what_is_known_already(
    database: Database, coordinator: Coordinator, place: Place
) -> None:
    settings = settings_of(database.url, place)
    schema = read_schema(settings.schema_path)
    exported = shared_rows.exported_shared(coordinator.common)
    with connecting.snapshot(settings, coordinator.snapshot, exported) as knowing, connecting.snapshot(
        settings
    ) as new:
        known, asked = (rows_of_user(db, settings, schema, ANNA, False) for db in (knowing, new))
        for table in settings.tables:
            assert known.digest(table) == asked.digest(table), table.name
        for table in settings.whole_tables:
            known.copy(table, Sink(io.BytesIO(), check_utf8=False, advance=lambda rows: None))
            assert known.digest(table) == asked.digest(table), table.name


@pytest.mark.parametrize(("given", "many"), [("4", "2"), ("1.1", "1.1")])
def test_page_is_cheaper_where_many_users_are_read(
    given: str,
    many: str,
    coordinator: Coordinator,
    database: Database,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a table of some 20,000 rows, an index is used instead of reading it whole for each user."""
    monkeypatch.setenv("PGOPTIONS", "-c random_page_cost=" + given)
    for shared, cost in ((None, given), (coordinator.snapshot, many)):
        with connecting.snapshot(settings_of(database.url, place), shared) as db:
            assert db.value("SHOW random_page_cost") == cost


def test_queries_of_two_users_of_a_snapshot_differ_by_their_key_alone(
    database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: List[str] = []
    for method in ("rows", "copy"):
        ask = getattr(Snapshot, method)
        monkeypatch.setattr(
            Snapshot, method, lambda db, sql, *others, ask=ask: asked.append(sql) or ask(db, sql, *others)
        )
    schema, found = read_schema(settings_of(database.url, place).schema_path), {}
    with connecting.snapshot(settings_of(database.url, place)) as db:
        ids = dict(db.rows("SELECT email, id::text FROM public.users"))
        for email in (ANNA, ANNA, BRUNO):  # what is the same for everybody is asked for the first
            asked.clear()
            one = settings_of(database.url, place, user_id=ids[email])
            rows = rows_of_user(db, one, schema, None, False)
            assert (rows.orphans(), rows.left_behind()) == ([], [])
            for table in one.tables:
                db.rows(rows.as_json(table))
            found[email] = [sql.replace(ids[email], "the key") for sql in asked]
            assert not any(ids[other] in sql for other in ids if other != email for sql in asked)
        assert found[ANNA] == found[BRUNO]
        fewer = dataclasses.replace(one, tables=one.tables[:-1])
        with pytest.raises(MigrationError, match="location_cache"):
            rows_of_user(db, fewer, schema, None, False)


@pytest.mark.parametrize("key", ["uuid", "bigint", "text"])
def test_shared_rows_are_sorted_in_by_any_key(
    key: str, database: Database, place: Place, common: Path, tmp_path: Path
) -> None:
    numbered = "row_number() OVER (ORDER BY md5(id::text))"
    if key != "uuid":
        database.execute("ALTER TABLE interpretations DROP CONSTRAINT interpretations_pkey")
        database.execute("ALTER TABLE interpretations ADD number bigint")
        database.execute(
            "UPDATE interpretations i SET number = n FROM (SELECT id, %s AS n FROM interpretations) x WHERE x.id = i.id"
            % numbered
        )
        database.execute("ALTER TABLE interpretations DROP id")
        database.execute("ALTER TABLE interpretations RENAME number TO id")
        database.execute("ALTER TABLE interpretations ALTER id TYPE %s USING id::%s" % (key, key))
        database.execute("ALTER TABLE interpretations ADD PRIMARY KEY (id)")
    alone, together = (of(database.url, tmp_path / name) for name in ("alone", "together"))
    with connecting.snapshot(alone) as db:
        exported = shared_rows.export_shared(db, alone, read_schema(alone.schema_path), common)
        assert ("interpretations" in exported) == (key != "text")  # whose order is the server's affair
        export(alone, db)
        with connecting.snapshot(together, db.share(), exported) as other:
            export(together, other)
    assert bundle_of(together) == bundle_of(alone)
    ids = [row["id"] for row in json.loads((together.data_dir / "interpretations.json").read_bytes())]
    assert len(ids) > 24
    assert ids == sorted(ids)


def test_rows_that_depend_on_the_user_are_not_shared(database: Database, place: Place, common: Path) -> None:
    """With --orphans skip, a reference decides who has the row."""
    database.execute("ALTER TABLE interpretations ADD client_id uuid REFERENCES clients")
    settings = settings_of(database.url, place, skip_orphans=True)
    interpretations = next(table for table in settings.tables if table.name == "interpretations")
    tables = tuple(
        dataclasses.replace(table, dropped=("client_id",)) if table is interpretations else table
        for table in settings.tables
    )
    with connecting.snapshot(settings) as db:
        settings = dataclasses.replace(settings, tables=tables)
        found = shared_rows.export_shared(db, settings, read_schema(settings.schema_path), common)
    assert set(found) == {"location_cache"}


# A worker


@pytest.fixture()
def task(
    database: Database, coordinator: Coordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Task]:
    monkeypatch.setenv("POSTGRES_URL", database.url)
    settings = settings_of(database.url, Place(tmp_path), unrelated_tables=config.UNRELATED_TABLES)
    output = tmp_path / "output"
    output.mkdir()
    yield Task(
        str(output),
        str(coordinator.common),
        coordinator.snapshot,
        coordinator.db.visible,
        origin.as_text(origin.database_of(coordinator.db)),
        worker.fingerprint(settings),
        str(settings.schema_path),
        False,
        False,
        60,
    )
    worker.close_connections()


def ids(database: Database) -> dict[str, str]:
    return dict(database.rows("SELECT email, id::text FROM users"))


def test_worker_keeps_one_connection_from_user_to_user(database: Database, task: Task) -> None:
    for user in ids(database).values():
        outcome = migrate_user(task, Pending(user, None))
        assert (outcome.exit_code, outcome.error, outcome.attempts) == (0, None, 1)
        assert connections(database) == 2  # the coordinator's, and the worker's
    migrate_user(task._replace(keep_connection=False), Pending(user, None))
    assert connections_become(1, database)


def test_worker_lets_go_of_an_earlier_run(database: Database, task: Task, tmp_path: Path) -> None:
    user = ids(database)[ANNA]
    assert migrate_user(task, Pending(user, None)).exit_code == 0
    other = tmp_path / "other"
    Path(task.common).rename(other)
    assert migrate_user(task._replace(common=str(other)), Pending(user, None)).exit_code == 0
    assert connections_become(2, database)


def test_worker_does_not_go_on_without_the_snapshot(
    database: Database, task: Task, coordinator: Coordinator
) -> None:
    coordinator.db.close()
    outcome = migrate_user(task, Pending(ids(database)[ANNA], None))
    assert (outcome.exit_code, outcome.fatal) == (3, True)
    assert outcome.error == "the shared snapshot is gone: the connection that held it has ended"


def losing_connections(
    where: str, times: int, database: Database, monkeypatch: pytest.MonkeyPatch
) -> List[int]:
    """The backends that PostgreSQL ends when a method of a snapshot is called, the first few times."""
    whole, lost = getattr(Snapshot, where), []

    def lose(db: Snapshot, *arguments: object, **named: object) -> object:
        if len(lost) < times:
            lost.append(db.connection.info.backend_pid)
            database.rows("SELECT pg_terminate_backend(%s)", lost[-1])
        return whole(db, *arguments, **named)

    monkeypatch.setattr(Snapshot, where, lose)
    return lost


# opened: its first statement, the settings' and the last; then a phase's
@pytest.mark.parametrize(
    ("own", "where"),
    [
        (False, "adopt"),
        (False, "rows"),
        (False, "require_unchanged"),
        (False, "copy"),
        (True, "rows"),
        (True, "copy"),
    ],
)
def test_lost_connection_is_made_again(
    database: Database, task: Task, monkeypatch: pytest.MonkeyPatch, own: bool, where: str
) -> None:
    if own:
        task = task._replace(snapshot=None)
    lost = losing_connections(where, 1, database, monkeypatch)
    outcome = migrate_user(task, Pending(ids(database)[ANNA], None))
    assert lost
    assert (outcome.exit_code, outcome.fatal, outcome.attempts) == (0, False, 2), outcome.error


@pytest.mark.parametrize("where", ["adopt", "copy"])
def test_connection_that_is_always_lost_stops_the_run_where_none_can_be_opened(
    database: Database, task: Task, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    lost = losing_connections(where, 100, database, monkeypatch)
    outcome = migrate_user(task, Pending(ids(database)[ANNA], None))
    assert len(lost) == 3
    assert (outcome.exit_code, outcome.fatal, outcome.attempts) == (3, where == "adopt", 3), outcome.error


def test_worker_takes_no_other_snapshot_of_the_same_id(
    database: Database, task: Task, coordinator: Coordinator
) -> None:
    """As a server gives it out that has crashed and started again."""
    outcome = migrate_user(task._replace(visible="1:1:"), Pending(ids(database)[ANNA], None))
    assert (outcome.exit_code, outcome.fatal) == (3, True)


def test_worker_that_does_not_see_the_folder_stops_the_run(
    database: Database, task: Task, tmp_path: Path
) -> None:
    elsewhere = task._replace(common=str(tmp_path / "elsewhere"))
    outcome = migrate_user(elsewhere, Pending(ids(database)[ANNA], None))
    assert (outcome.exit_code, outcome.fatal) == (2, True)
    assert "does not see %s" % (tmp_path / "elsewhere") in str(outcome.error)


@pytest.mark.parametrize(("shared_snapshot", "code"), [(True, 3), (False, 2)])
def test_worker_whose_settings_name_another_database_stops_the_run(
    shared_snapshot: bool, code: int, server: Server, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shared snapshot is one database's alone; without one, nothing else would tell."""
    task = task if shared_snapshot else task._replace(snapshot=None)
    with server.new_database() as other:
        monkeypatch.setenv("POSTGRES_URL", other.url)
        user = ids(other)[ANNA]
        worker._settings.cache_clear()
        outcome = migrate_user(task, Pending(user, None))
    assert (outcome.exit_code, outcome.fatal) == (code, True), outcome.error
    if not shared_snapshot:
        assert "reads another database than the coordinator" in str(outcome.error)
    assert list(Path(task.output).iterdir()) == []


def test_bug_is_one_users_end_and_tells_no_value(
    database: Database, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **named: object) -> None:
        raise KeyError("Anna Sample")

    monkeypatch.setattr(import_to_sqlite, "import_", broken)
    outcome = migrate_user(task, Pending(ids(database)[ANNA], None))
    assert (outcome.exit_code, outcome.fatal) == (70, False)
    assert str(outcome.error).startswith("internal error: KeyError in test_shared_snapshot.py, line ")


def test_aborted_transaction_is_not_handed_to_the_next_user(
    database: Database, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(settings: Settings, db: Snapshot, *others: object) -> None:
        with connecting.opened(settings, db):
            db.rows("SELECT 1 / 0")

    monkeypatch.setattr(validate_migration, "validate", failing)
    outcome = migrate_user(task, Pending(ids(database)[ANNA], None))
    assert (outcome.exit_code, outcome.attempts) == (3, 1)
    monkeypatch.undo()
    monkeypatch.setenv("POSTGRES_URL", database.url)
    assert migrate_user(task, Pending(ids(database)[BRUNO], None)).exit_code == 0


def test_user_who_is_gone_fails_alone(database: Database, task: Task) -> None:
    outcome = migrate_user(task, Pending("00000000-0000-0000-0000-000000000000", None))
    assert (outcome.exit_code, outcome.fatal) == (3, False)
    assert outcome.error == "user not found: 00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize("user", ["../escape", "ledger.db", ".shared", "a/b", "%2E"])
def test_id_of_any_form_is_a_folder_of_its_own(user: str, tmp_path: Path) -> None:
    folder = worker.folder_of(tmp_path, user)
    assert folder.parent == tmp_path
    assert "." not in folder.name
    assert len({worker.folder_of(tmp_path, other) for other in (user, "%2E", "x")}) == (
        2 if user == "%2E" else 3
    )


# Room


def test_users_that_do_not_fit_are_refused_before_anything_is_written(
    sample_database: Database, place: Place
) -> None:
    settings = settings_of(sample_database.url, place)
    with connecting.snapshot(settings) as db:
        schema = read_schema(settings.schema_path)
        room.require_space(db, settings, schema, {}, 4, 0, place.folder)
        with pytest.raises(MigrationError) as refused:
            room.require_space(db, settings, schema, {}, 10**9, 0, place.folder)
    assert refused.value.exit_code == ExitCode.TARGET
    assert refused.value.message.startswith("no space for 1000000000 users in %s: about " % place.folder)
