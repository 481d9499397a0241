"""Runs over many users: what they leave, and runs that go on while the test looks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

import pytest

from demo import sample
from support.places import SCHEMA, SUITE
from support.runs import Result, run_in_fork
from support.servers import Database

LEDGER = "ledger.db"
# What of the sample is somebody's: none of it may stand in ledger, index or log.
PERSONAL = (*sample.USERS, "example.com", *(user.full_name for user in sample.ACCOUNTS), "SampleHash")


class Output(NamedTuple):
    """The folder of a run."""

    folder: Path

    def query(self, sql: str, *parameters: object) -> list:
        connection = sqlite3.connect("file:%s?mode=rw" % (self.folder / LEDGER), uri=True, timeout=30)
        try:
            return connection.execute(sql, parameters).fetchall()
        finally:
            connection.close()

    def states(self) -> dict[str, tuple]:
        """User id → state, run, attempts, exit code."""
        return {
            row[0]: row[1:]
            for row in self.query(
                "SELECT user_id, state, run, attempts, exit_code FROM users ORDER BY user_id"
            )
        }

    @property
    def summary(self) -> Any:
        return json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))


def command(output: Output, url: str | None, *options: object) -> list[str]:
    source = [] if url is None else ["--postgres-url", url]
    words = [sys.executable, str(SUITE / "migrate_all_users.py"), "--output-dir", str(output.folder)]
    return [*words, "--schema-path", SCHEMA, *source, *map(str, options)]


def migrate_all(output: Output, url: str | None, *options: object, env: dict = {}, **how: Any) -> Result:  # noqa: B006
    """A run whose worker is in its own process."""
    words = command(output, url, *options)[2:]
    return run_in_fork("support/one_process.py", words, Path("/"), {**os.environ, **env}, **how)


def migrate_all_with_dask(output: Output, url: str | None, *options: object) -> Result:
    """A run whose workers are what they are for a user."""
    done = subprocess.run(command(output, url, *options), capture_output=True, timeout=120, cwd="/")
    return Result(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))


def ids(database: Database) -> dict[str, str]:
    return dict(database.rows("SELECT email, id::text FROM users"))


class Everybody(NamedTuple):
    """A run over the whole sample, to look at and never to change."""

    output: Output
    result: Result
    log: str
    ids: dict[str, str]


@pytest.fixture(scope="session")
def everybody(sample_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Everybody:
    folder = tmp_path_factory.mktemp("everybody")
    output, log = Output(folder / "output"), folder / "log"
    options = ("--workers", 2, "--verbose", "--log-file", log)
    result = migrate_all_with_dask(output, sample_database.url, *options)
    assert result.code == 0, result.err
    return Everybody(output, result, log.read_text(encoding="utf-8"), ids(sample_database))


@pytest.fixture()
def output(tmp_path: Path) -> Output:
    return Output(tmp_path / "output")


class Going:
    """A run that goes on meanwhile."""

    def __init__(self, output: Output, url: str, *options: object) -> None:
        self.output = output
        self.log = output.folder.with_name("log")
        with open(str(self.log), "wb") as log:
            self.process = subprocess.Popen(
                command(output, url, *options),
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=hear_interrupts,
            )

    def until_done(self, users: int) -> None:
        """Wait until so many users are done."""
        for _ in range(3000):
            with contextlib.suppress(sqlite3.OperationalError):  # not there yet
                if self.done >= users:
                    return
            assert self.process.poll() is None, self.text
            time.sleep(0.01)
        raise AssertionError("no progress: " + self.text)

    @property
    def done(self) -> int:
        return int(self.output.query("SELECT count(*) FROM users WHERE state = 'done'")[0][0])

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait(self) -> int:
        return self.process.wait(60)

    def children(self) -> list[int]:
        return workers_of(self.process.pid)


def hear_interrupts() -> None:
    """Whoever is started in the background of a shell ignores them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def workers_of(process: int) -> list[int]:
    """Worker processes, by what the kernel says."""
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/stat")
        if parent_of(path) == process and b"spawn_main" in command_line(path.parent)
    ]


def parent_of(stat: Path) -> int:
    with contextlib.suppress(OSError):
        return int(stat.read_text().rpartition(")")[2].split()[1])
    return 0


def command_line(process: Path) -> bytes:
    with contextlib.suppress(OSError):
        return (process / "cmdline").read_bytes()
    return b""


@pytest.fixture()
def going(output: Output) -> Iterator[Callable[..., Going]]:
    runs: list[Going] = []

    def start(url: str, *options: object) -> Going:
        runs.append(Going(output, url, *options))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()
