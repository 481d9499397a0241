"""Workers and users that do not go on: stopped, hung, killed before they have begun. No run of many users waits for ever."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import dask
import distributed
import pytest

import config
import export_from_postgres
from benchmarks import crowd
from migration.errors import ExitCode, MigrationError
from migration.fleet import cluster, local_workers, origin, worker
from migration.fleet.ledger import Pending
from migration.fleet.worker import Task, migrate_user
from migration.postgres import connecting, shared_rows, waits
from migration.sqlite.schema import read_schema
from support.fleet import Going, Output, workers_of
from support.migrations import settings_of
from support.places import ANNA, BRUNO, SUITE, Place
from support.runs import gone
from support.servers import Database, Server
from support.sqlite_files import make_old_database


@pytest.fixture(scope="module")
def some(server: Server) -> Iterator[Database]:
    with server.new_database(of="") as database:
        crowd.fill(database.url, 16)
        yield database


def children() -> list[int]:
    return workers_of(os.getpid())


def until(condition: Callable[[], Any]) -> Any:
    for _ in range(3000):
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("in vain")


# Workers


def stopped_once(marker: str, names: object) -> str:
    with contextlib.suppress(FileExistsError):
        Path(marker).touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGSTOP)
    return "done"


@pytest.mark.slow
def test_stopped_worker_is_replaced_and_its_task_done_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_workers, "SILENT_SECONDS", 2)
    with local_workers.started(1, 10**9) as workers:
        stopped = children()
        workers.submit([["one"]], stopped_once, str(tmp_path / "marker"))
        results: list = []
        until(lambda: workers.threads() < 0 or results.extend(workers.results(0.5)) or results)
    assert results == [(["one"], "done")]
    until(lambda: all(map(gone, stopped)))


# Dask before 2025, which older Pythons have, starts another process for one that ends while it starts.
starts_once = pytest.mark.skipif(distributed.__version__ < "2025", reason="this Dask starts another worker")


@pytest.mark.parametrize("number", [pytest.param(signal.SIGKILL, marks=starts_once), signal.SIGSTOP])
def test_workers_that_end_or_stop_while_they_start_are_an_error_with_words(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_workers, "START_SECONDS", 2)
    monkeypatch.setattr(local_workers, "SETTLED_SECONDS", 0.5)
    monkeypatch.setattr(local_workers, "CLOSE_SECONDS", 1)
    struck: list = []

    def strike() -> None:
        struck.extend(until(children))
        os.kill(struck[0], number)

    thread = threading.Thread(target=strike)
    thread.start()
    with pytest.raises(MigrationError) as refused, local_workers.started(1, 10**9):
        pass
    thread.join()
    assert refused.value.exit_code == ExitCode.INTERNAL
    assert refused.value.message.startswith("no worker process could be started: ")
    until(lambda: all(map(gone, struck)))  # none is left that Python would wait for at its end


def test_worker_that_is_killed_while_it_starts_is_missed_and_the_run_goes_on(
    some: Database, output: Output, going: Callable[..., Going]
) -> None:
    run = going(some.url, "--workers", 2)
    os.kill(until(run.children)[0], signal.SIGKILL)
    assert run.wait() == 0, run.text
    if distributed.__version__ >= "2025":
        assert "WARNING 1 of 2 worker processes could not be started\n" in run.text
    assert "16 users, 0 failed" in run.text


@starts_once
def test_run_whose_only_worker_is_killed_at_its_start_says_so(
    some: Database, output: Output, going: Callable[..., Going]
) -> None:
    run = going(some.url, "--workers", 1)
    os.kill(until(run.children)[0], signal.SIGKILL)
    assert run.wait() == 70
    assert "error: no worker process could be started: each ended, or gave no sign of life" in run.text
    assert "Traceback" not in run.text
    assert output.query("SELECT exit_code FROM runs") == [(70,)]


def lost_once_and_again(marker: str, names: object) -> str:
    """The result is lost with its worker, and whoever makes it again ends, too."""
    with contextlib.suppress(FileExistsError):
        Path(marker).touch(exist_ok=False)

        threading.Timer(0.03, os._exit, (1,)).start()
        return "done"
    os._exit(1)


@pytest.mark.slow
def test_result_that_is_lost_for_good_is_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "TOGETHER_SECONDS", 0.5)  # before we ask for it
    few_failures = dask.config.set({"distributed.scheduler.allowed-failures": 1})
    with few_failures, local_workers.started(1, 10**9) as workers:
        workers.submit([["one"]], lost_once_and_again, str(tmp_path / "marker"))
        results: list = []
        until(lambda: results.extend(workers.results(0.5)) or results)
    assert [(names, type(result), result.hint) for names, result in results] == [
        (["one"], cluster.Lost, None)
    ]


# Users


@pytest.fixture()
def task(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    monkeypatch.setenv("POSTGRES_URL", database.url)
    settings = settings_of(database.url, Place(tmp_path), unrelated_tables=config.UNRELATED_TABLES)
    output, common = tmp_path / "output", tmp_path / "common"
    output.mkdir()
    common.mkdir()
    with connecting.snapshot(settings) as db:
        shared_rows.export_shared(db, settings, read_schema(settings.schema_path), common)
        yield Task(
            str(output), str(common), db.share(), db.visible, origin.as_text(origin.database_of(db)),
            worker.fingerprint(settings), str(settings.schema_path), False, False, 60,
        )  # fmt: skip
    worker.close_connections()


def users(database: Database) -> dict[str, Pending]:
    return {email: Pending(user, None) for email, user in database.rows("SELECT email, id::text FROM users")}


def test_user_whose_server_process_does_not_go_on_is_given_up(
    database: Database, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list = []
    export = export_from_postgres.export
    monkeypatch.setattr(waits, "GRACE", 0.3)

    def frozen(settings: Any, db: Any) -> Any:
        stopped.append(db.process)
        os.kill(db.process, signal.SIGSTOP)
        return export(settings, db)

    monkeypatch.setattr(export_from_postgres, "export", frozen)
    anna, bruno = (users(database)[email] for email in (ANNA, BRUNO))
    try:
        begun = time.monotonic()
        outcome = migrate_user(task._replace(seconds=1), anna)
        assert time.monotonic() - begun < 10
        assert (outcome.exit_code, outcome.error, outcome.fatal) == (
            70,
            "the user took longer than 1 s",
            False,
        )
        assert "--user-timeout" in str(outcome.hint)
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)
    monkeypatch.undo()
    monkeypatch.setenv("POSTGRES_URL", database.url)
    assert migrate_user(task, bruno).exit_code == 0  # on a connection of its own
    again = migrate_user(task, anna)  # Dask hands a task to others, too
    assert (again.exit_code, again.attempts) == (70, 0)


def test_work_that_hangs_outside_of_postgresql_ends_its_process(
    database: Database, task: Task, tmp_path: Path
) -> None:
    user = users(database)[ANNA]
    code = (
        "import sys, time; sys.path.insert(0, %r); from migration.fleet import worker;"
        "worker.GRACE = 0.2; import import_to_sqlite; import_to_sqlite.import_ = lambda *given, **named: time.sleep(1000);"
        "from migration.fleet.worker import *; from migration.fleet.ledger import Pending;"
        "migrate_user(Task(*%r), Pending(*%r))" % (str(SUITE), tuple(task._replace(seconds=1)), tuple(user))
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True)
    assert (done.returncode, done.stderr) == (1, b"")
    again = migrate_user(task, user)
    assert (again.exit_code, again.error) == (70, "the user took longer than 60 s")


def test_user_of_a_lost_worker_is_done_again_and_only_what_somebody_else_made_is_kept(
    database: Database, task: Task
) -> None:
    anna, bruno = (users(database)[email] for email in (ANNA, BRUNO))
    folders = [Path(task.output, user.user_id) for user in (anna, bruno)]
    folders[1].mkdir()
    make_old_database(folders[1] / "app.db")
    arguments = str(SUITE), tuple(task), tuple(anna)
    code = (
        "import sys; sys.path.insert(0, %r); from migration.fleet.worker import *; from migration.fleet.ledger import Pending;"
        "migrate_user(Task(*%r), Pending(*%r))" % arguments
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
    assert [migrate_user(task, user).exit_code for user in (anna, bruno)] == [0, 0]
    assert [sorted(path.name for path in folder.iterdir()) for folder in folders] == [
        ["app.db", "bundle"],
        ["app.db", "backups", "bundle"],
    ]


def test_frozen_server_process_of_one_user_fails_that_user_and_the_run_ends(
    some: Database, output: Output, going: Callable[..., Going]
) -> None:
    run = going(some.url, "--workers", 1, "--user-timeout", 1)
    run.until_done(1)
    found: Optional[list] = until(
        lambda: some.rows(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND application_name = 'theprogram_migration' ORDER BY backend_start OFFSET 1"
        )
    )
    assert found
    os.kill(found[0][0], signal.SIGSTOP)
    try:
        assert run.wait() == 1, run.text
    finally:
        os.kill(found[0][0], signal.SIGCONT)
    assert "15 users, 1 failed" in run.text
    assert output.query("SELECT exit_code, error FROM users WHERE state = 'failed'")[0][1].startswith(
        "the user took longer than 1 s\ntry: "
    )
