"""Faults for as long as they take, which is too long for every day: ``pytest tests/fleet/faults.py`` (about twenty minutes).

Short forms of them are in ``test_all_users_kill.py`` and ``test_all_users_waits.py``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest

from benchmarks import crowd
from fleet.test_all_users_cluster import started
from support.fleet import Going, Output
from support.mounts import Mount
from support.places import SUITE
from support.servers import Database, Server

KILLS = 100
STOPPED_SECONDS = 60
LONG = 1200  # seconds, on a busy machine
SMALL = dict.fromkeys(crowd.ROWS, 2)


@pytest.fixture()
def users() -> int:
    return 400


@pytest.fixture()
def many(server: Server, users: int) -> Iterator[Database]:
    with server.new_database(of="") as database:
        crowd.fill(database.url, users, SMALL)
        yield database


def check_everybody(output: Output, database: Database) -> None:
    """Each user is there once, validated, with the rows that PostgreSQL has, and the folder holds nothing else."""
    wanted: dict[str, set] = {}
    events = "SELECT user_id::text, e.id::text FROM transit_events e JOIN charts ON charts.id = chart_id"
    for user, event in database.rows(events):
        wanted.setdefault(user, set()).add(event)
    ledger = output.query("SELECT user_id, state, exit_code, database_sha256, run, attempts FROM users")
    assert len(ledger) == len(wanted)
    assert {row[1:3] for row in ledger} == {("done", 0)}
    assert {path.name for path in output.folder.iterdir()} == {
        *wanted, "ledger.db", "summary.json", "summary.html",
    }  # fmt: skip
    for user, _, _, digest, _, _ in ledger:
        folder = output.folder / user
        assert {path.name for path in folder.iterdir()} == {"app.db", "bundle"}, user
        assert hashlib.sha256((folder / "app.db").read_bytes()).hexdigest() == digest
        with contextlib.closing(sqlite3.connect(str(folder / "app.db"))) as made:
            assert made.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert {row[0] for row in made.execute("SELECT id FROM transit_events")} == wanted[user]
        report = json.loads((folder / "bundle" / "validation_report.json").read_text(encoding="utf-8"))
        assert report["overall_status"] == "PASS"
        assert not [path.name for path in (folder / "bundle").iterdir() if path.name.startswith(".")]
    summary = output.summary
    assert (summary["overall_status"], summary["totals"]["done"]) == ("PASS", len(wanted))
    assert {user["user_id"] for user in summary["users"]} == set(wanted)


def resume(going: Callable[..., Going], database: Database) -> None:
    run = going(database.url, "--workers", 2, "--resume")
    assert run.process.wait(LONG) == 0, run.text


@pytest.mark.parametrize("users", [1500])
def test_coordinator_killed_a_hundred_times(
    many: Database, output: Output, going: Callable[..., Going], users: int
) -> None:
    chance = random.Random(18)
    codes = []
    for number in range(KILLS):
        run = going(many.url, "--workers", 2, "--resume")
        if number % 2:  # at any moment since its start
            time.sleep(chance.uniform(0, 5))
        else:  # while users are migrated
            done = run.done if (output.folder / "ledger.db").exists() else 0
            with contextlib.suppress(AssertionError):  # nobody is left
                run.until_done(done + 1)
            time.sleep(chance.uniform(0, 1.5))
        run.process.kill()
        codes.append(run.wait())
        assert codes[-1] in (0, -signal.SIGKILL), run.text
    assert codes.count(-signal.SIGKILL) > KILLS / 2
    resume(going, many)
    check_everybody(output, many)


@pytest.mark.parametrize("seconds", [STOPPED_SECONDS / 2, STOPPED_SECONDS + 10])
def test_worker_stopped_for_a_minute(
    seconds: float, many: Database, output: Output, going: Callable[..., Going]
) -> None:
    run = going(many.url, "--workers", 2)
    run.until_done(5)
    stopped = run.children()[0]
    os.kill(stopped, signal.SIGSTOP)
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):  # ended and replaced
        os.kill(stopped, signal.SIGCONT)
    assert run.process.wait(LONG) == 0, run.text
    assert ("a worker has given no sign of life" in run.text) == (seconds > STOPPED_SECONDS)
    check_everybody(output, many)


def test_worker_of_a_cluster_stopped_for_a_minute(
    many: Database, output: Output, going: Callable[..., Going], tmp_path: Path
) -> None:
    with started(tmp_path, [[], []], {"POSTGRES_URL": many.url}) as cluster:
        run = going(many.url, "--scheduler", cluster.address)
        run.until_done(5)
        session = cluster.processes[1].pid
        os.killpg(session, signal.SIGSTOP)
        time.sleep(STOPPED_SECONDS)
        os.killpg(session, signal.SIGCONT)
        assert run.process.wait(LONG) == 0, run.text
    check_everybody(output, many)


def test_scheduler_killed(
    many: Database, output: Output, going: Callable[..., Going], tmp_path: Path
) -> None:
    for users in (5, 100):
        folder = tmp_path / str(users)
        folder.mkdir()
        with started(folder, [[], []], {"POSTGRES_URL": many.url}) as cluster:
            run = going(many.url, "--scheduler", cluster.address, "--resume")
            run.until_done(users)
            cluster.processes[0].kill()
            assert run.process.wait(LONG) == 2, run.text
            assert "Traceback" not in run.text
            # The workers finish what they have: the next run begins while they still do.
            if users > 5:
                resume(going, many)
    assert output.query("SELECT exit_code FROM runs") == [(2,), (2,), (0,)]
    check_everybody(output, many)


def fill(folder: Path, left: int) -> None:
    """Take the room of a file system but for ``left`` bytes."""
    size, block = shutil.disk_usage(folder).total, 1 << 16
    with open(str(folder / "ballast"), "wb") as ballast:
        for start in range(0, size, block):  # the run takes some of it at the same time
            if shutil.disk_usage(folder).free - block <= left:
                break
            with contextlib.suppress(OSError):
                os.posix_fallocate(ballast.fileno(), start, block)


@pytest.mark.parametrize("left", [0, 1 << 20, 5 << 20])
def test_disk_full_halfway_and_then_enlarged(
    left: int, many: Database, tmp_path: Path, mount: Mount, going: Callable[..., Going], output: Output
) -> None:
    size = 1 << 30
    mount(output.folder, size=size)
    run = going(many.url, "--workers", 2)
    run.until_done(20)
    fill(output.folder, left)
    code = run.process.wait(LONG)
    assert code in (1, 5), run.text
    assert "Traceback" not in run.text
    assert "no space left for " in run.text
    mount(output.folder, size=2 * size)
    resume(going, many)
    (output.folder / "ballast").unlink()
    check_everybody(output, many)


DDL = """
CREATE TABLE people (id int PRIMARY KEY, name text); INSERT INTO people SELECT g, 'p' || g FROM generate_series(1, 40) g;
CREATE TABLE icons (id int PRIMARY KEY); INSERT INTO icons SELECT generate_series(1, 20000);
CREATE TABLE docs (id int PRIMARY KEY, owner int, icon int REFERENCES icons);
INSERT INTO docs SELECT 20000 * p.id + i.id, p.id, i.id FROM people p, icons i; ANALYZE;
"""
CONFIG = """
from migration.model import referenced
ROOT = root("people", key="id", named_by="name")
TABLES = (Table("people", the_root()), Table("icons", referenced()), Table("docs", owned_by("owner")))
del UNRELATED_TABLES
"""
LITE = """
CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE icons (id INTEGER PRIMARY KEY);
CREATE TABLE docs (id INTEGER PRIMARY KEY, owner INTEGER, icon INTEGER REFERENCES icons);
"""


@pytest.mark.parametrize("left", [0, 1 << 20, 20 << 20])
def test_disk_full_while_rows_are_counted_and_then_enlarged(
    left: int, empty: Database, tmp_path: Path, mount: Mount, going: Callable[..., Going], output: Output
) -> None:
    empty.execute(DDL)
    text = (SUITE / "config.py").read_text(encoding="utf-8")
    (tmp_path / "config.py").write_text(text + CONFIG, encoding="utf-8")
    (tmp_path / "lite.sql").write_text(LITE, encoding="utf-8")
    options = ["--config", tmp_path / "config.py", "--schema-path", tmp_path / "lite.sql", "--workers", 2]
    size = 1 << 30
    mount(output.folder, size=size)
    run = going(empty.url, *options)
    while not list(output.folder.glob("*/*/coverage.db")):
        assert run.process.poll() is None, run.text
        time.sleep(0.001)
    fill(output.folder, left)
    assert run.process.wait(LONG) == 5, run.text
    assert "Traceback" not in run.text
    assert "no space left for " in run.text
    assert output.query("SELECT count(*) FROM users WHERE state = 'done'") == [(40,)]
    mount(output.folder, size=2 * size)
    resumed = going(empty.url, *options, "--resume")
    assert resumed.process.wait(LONG) == 0, resumed.text
    (output.folder / "ballast").unlink()
    coverage = {table["table"]: table for table in output.summary["coverage"]["tables"]}
    assert output.summary["coverage"]["complete"]
    assert (coverage["icons"]["in_files"], coverage["icons"]["in_several"]) == (20000, 20000)
    assert not list(output.folder.glob("*/*/coverage.db"))
