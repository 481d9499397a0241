"""Coordinators, workers and connections that end in the middle of a run of many users, and the run after it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Iterator

import psycopg2
import pytest

from benchmarks import crowd
from demo.postgres import temp_postgres
from migration.fleet import cluster
from migration.fleet.coordinator import MOST_IN_TASK
from support.fleet import Going, Output, migrate_all
from support.places import SUITE
from support.runs import gone
from support.servers import Database, Server

USERS = 34


@pytest.fixture(scope="module")
def many(server: Server) -> Iterator[Database]:
    """Users enough to be in the middle of them."""
    with server.new_database(of="") as database:
        crowd.fill(database.url, USERS)
        yield database


def check_resumed(output: Output, url: str) -> None:
    """``--resume`` does who is left, touches nobody who is done, and then all are whole."""
    before = as_done(output)
    resumed = migrate_all(output, url, "--resume")
    assert resumed.code == 0, resumed.err
    assert "%d users to migrate" % (USERS - len(before)) in resumed.err
    after = as_done(output)
    assert len(after) == len(output.states()) == USERS
    assert {user: after[user] for user in before} == before
    for user in after:
        check_whole(output.folder / user)
    assert not (output.folder / ".shared").exists()
    summary = output.summary
    assert (summary["overall_status"], summary["totals"]["done"]) == ("PASS", USERS)
    # each user is of the instant of one run, and the ledger says which
    snapshots = {run["run"]: run["snapshot"] for run in summary["runs"]}
    assert len({run["instant"] for run in summary["runs"]}) == len(snapshots) > 1
    for run, snapshot in output.query("SELECT run, snapshot FROM users"):
        assert snapshots[run] == snapshot


def as_done(output: Output) -> dict:
    """User who is done → run, attempts, exit code, time of the database."""
    return {
        user: (*state[1:], (output.folder / user / "app.db").stat().st_mtime_ns)
        for user, state in output.states().items()
        if state[0] == "done"
    }


def check_whole(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"app.db", "bundle"}
    check_database(folder / "app.db")
    assert not [path.name for path in (folder / "bundle").iterdir() if path.name.startswith(".")]
    report = json.loads((folder / "bundle" / "validation_report.json").read_text(encoding="utf-8"))
    assert report["overall_status"] == "PASS"


def check_database(path: Path) -> None:
    database = sqlite3.connect(str(path))
    try:
        assert database.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        assert database.execute("SELECT count(*) FROM transit_events").fetchone() == (
            crowd.ROWS["transit_events"],
        )
    finally:
        database.close()


def test_coordinator_that_is_killed_again_and_again_leaves_a_run_to_resume(
    many: Database, output: Output, going: Callable[..., Going]
) -> None:
    chance = random.Random(6)
    tasks = 2 * (1 + cluster.AHEAD)
    window = tasks * min(MOST_IN_TASK, USERS // tasks)
    for users in (0, 3, 8):
        run = going(many.url, "--workers", 2, "--resume")
        run.until_done(users)
        time.sleep(chance.uniform(0, 0.1))
        workers = run.children()
        run.process.kill()
        assert run.wait() == -signal.SIGKILL
        for _ in range(1000):
            if all(map(gone, workers)):
                break
            time.sleep(0.01)
        assert all(map(gone, workers))  # they end with the coordinator
        states = [row[0] for row in output.query("SELECT state FROM users")]
        assert states.count("running") <= window < USERS
        assert set(output.query("SELECT ended, exit_code FROM runs")) <= {(None, None)}
    check_resumed(output, many.url)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_run_ends_and_can_be_resumed(
    number: int, many: Database, output: Output, going: Callable[..., Going]
) -> None:
    run = going(many.url, "--workers", 2)
    run.until_done(5)
    if number == signal.SIGINT:
        os.killpg(run.process.pid, number)  # as a terminal sends it, to the workers too
    else:
        run.process.send_signal(number)
    assert run.wait() == 130
    assert run.text.endswith("error: interrupted; nothing is half done, run again when ready\n")
    assert "Traceback" not in run.text
    assert output.query("SELECT exit_code, error FROM runs") == [(130, "interrupted")]
    assert output.query("SELECT count(*) FROM users WHERE state = 'running'") == [(0,)]
    assert output.summary["overall_status"] == "INCOMPLETE"
    if number == signal.SIGTERM:
        check_resumed(output, many.url)


MADE_HALF = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from migration.cli import running
running.begin()
import distributed
made, init = [], distributed.Future.__init__
def interrupted(self, *given, **named):
    made.append(1)
    if len(made) == 3:
        raise KeyboardInterrupt
    init(self, *given, **named)
distributed.Future.__init__ = interrupted
import migrate_all_users
if __name__ == "__main__":
    sys.exit(migrate_all_users.main(sys.argv[1:]))
"""


def test_object_that_an_interrupt_leaves_half_made_says_nothing(
    many: Database, output: Output, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(MADE_HALF, encoding="utf-8")
    options = ["--output-dir", str(output.folder), "--postgres-url", many.url, "--workers", "1"]
    done = subprocess.run(
        [sys.executable, str(script), str(SUITE), *options], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 130
    assert done.stderr.endswith("error: interrupted; nothing is half done, run again when ready\n")


def backends(database: Database, coordinator: bool) -> list[int]:
    """PostgreSQL's processes for this database: the coordinator's, which came first, or the workers'."""
    found = database.rows(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND application_name = 'theprogram_migration' ORDER BY backend_start"
    )
    return [pid for (pid,) in (found[:1] if coordinator else found[1:])]


def test_lost_connection_of_the_coordinator_stops_the_run(
    many: Database, output: Output, going: Callable[..., Going]
) -> None:
    run = going(many.url, "--workers", 1)
    run.until_done(1)
    many.execute("SELECT pg_terminate_backend(%s)", *backends(many, coordinator=True))
    assert run.wait() == 3
    assert (
        "error: the run is stopped, as the connection that held the snapshot of all users has ended"
        in run.text
    )
    assert "try: check the server, then run again with --resume" in run.text
    assert "Traceback" not in run.text
    assert output.query("SELECT exit_code FROM runs") == [(3,)]
    assert len(set(output.query("SELECT snapshot FROM users WHERE state = 'done'"))) == 1


def test_killed_worker_and_lost_connections_of_workers_are_replaced(
    many: Database, output: Output, going: Callable[..., Going]
) -> None:
    run = going(many.url, "--workers", 2)
    run.until_done(2)
    for backend in backends(many, coordinator=False):
        many.execute("SELECT pg_terminate_backend(%s)", backend)
    run.until_done(5)
    os.kill(run.children()[0], signal.SIGKILL)
    second = migrate_all(output, many.url)
    assert second.code == 5
    in_use = "error: the output folder %s is in use by another migration (process %d)"
    assert in_use % (output.folder, run.process.pid) in second.err
    run.until_done(12)
    for backend in backends(many, coordinator=False):
        many.execute("SELECT pg_terminate_backend(%s)", backend)
    assert run.wait() == 0, run.text
    states = output.states()
    assert {state[:2] for state in states.values()} == {("done", 1)}
    assert len(set(output.query("SELECT snapshot FROM users"))) == 1  # still the same instant
    for user in states:
        check_whole(output.folder / user)


def test_crashed_server_stops_the_run(output: Output, going: Callable[..., Going]) -> None:
    """A killed backend makes PostgreSQL end all connections and start again."""
    with temp_postgres() as url:
        crowd.fill(url, USERS)
        database = Database(url)
        run = going(url, "--workers", 1)
        run.until_done(5)
        os.kill(backends(database, coordinator=False)[0], signal.SIGKILL)
        assert run.wait() == 3, run.text
        assert "Traceback" not in run.text
        for _ in range(1000):
            with contextlib.suppress(psycopg2.OperationalError):
                database.rows("SELECT 1")
                break
            time.sleep(0.01)
        check_resumed(output, url)


def test_connections_are_no_more_than_allowed(
    many: Database, output: Output, going: Callable[..., Going]
) -> None:
    some = output.folder.with_name("users")
    some.write_text("".join("user%d@example.com\n" % number for number in range(8)), encoding="utf-8")
    run = going(many.url, "--workers", 4, "--max-connections", 2, "--users-from", some)
    most = 0
    run.until_done(1)
    while run.process.poll() is None:
        most = max(most, 1 + len(backends(many, coordinator=False)))
        time.sleep(0.05)
    assert run.wait() == 0, run.text
    assert most == 2
    assert re.search(r"\b1 worker processes", run.text)
