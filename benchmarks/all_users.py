"""Measure migrations of many users: ``python -m benchmarks.all_users``, or ``make bench-all``.

Users a second with one worker and two, what a user costs in a worker, in PostgreSQL and in the coordinator, how long the
disk is waited for, what Dask adds to the phases in a loop, and the coordinator's memory.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional, Sequence

import psycopg2

from benchmarks import crowd, results
from demo.postgres import temp_postgres
from migration.cli import configuration
from migration.fleet import selection, worker
from migration.fleet.ledger import Outcome
from migration.postgres import connecting, shared_rows
from migration.settings import Settings
from migration.sqlite.schema import read_schema

ROOT = Path(__file__).resolve().parent.parent
README = results.README
BEGIN, END = "<!-- the newest results of all users -->\n", "<!-- end of the newest results of all users -->\n"
SETTINGS = ("autovacuum=off", "max_wal_size=8GB", "checkpoint_timeout=1d")
MEMORY = Path("/dev/shm")
USER_BYTES = 1 << 20  # of files that a user of 200 rows gets
LOOP = "the phases in a loop"
EARLIER = LOOP + ", an earlier commit"
IN_MEMORY = ", output in memory"
LOOK_SECONDS = 0.05  # between two looks at the coordinator and its workers
LIST_SECONDS = 1.0  # between two looks at which these are
PROC = Path("/proc")
TICK = os.sysconf("SC_CLK_TCK")
MOST_MS, MOST_OWN_MS = 45, 2  # targets
# For the coordinator's memory only the number of users counts.
FEW = {**dict.fromkeys(crowd.ROWS, 0), "clients": 1}


class Measured(NamedTuple):
    """One run: seconds of the whole command, CPU seconds of its parts, peak memory of the coordinator alone.

    ``workers_s``: all processes of the command but the coordinator. ``server_s``: all of PostgreSQL's. ``waiting``: the
    share of the workers' time that they wait for the disk.
    """

    what: str
    users: int
    wall_s: float
    workers_s: float
    server_s: float
    coordinator_s: float
    peak_mb: float
    waiting: float

    @property
    def speed(self) -> float:
        return self.users / self.wall_s

    @property
    def cpu_ms(self) -> List[float]:
        """Of a user: a worker's, the server's, the coordinator's and their sum."""
        parts = [1000 * part / self.users for part in (self.workers_s, self.server_s, self.coordinator_s)]
        return [*parts, sum(parts)]


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.all_users", description="Measure migrations of many users."
    )
    parser.add_argument(
        "--users", type=int, default=2000, metavar="N", help="of 200 rows each (default: 2000)"
    )
    parser.add_argument(
        "--many", type=int, default=20000, metavar="N", help="for the coordinator's memory (default: 20000)"
    )
    parser.add_argument(
        "--keep-results", action="store_true", help="do not write them to benchmarks/README.md"
    )
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="DIR",
        help="a clone of an earlier commit: its loop runs beside this one's",
    )
    parser.add_argument("--loop", nargs=2, metavar=("URL", "DIR"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.loop is not None:
        return _loop(options.loop[0], Path(options.loop[1]))
    try:
        with tempfile.TemporaryDirectory(prefix="migration-bench-") as folder:
            measured = list(_measured(options, Path(folder)))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    if not options.keep_results:
        _write(measured)
        print(f"results written to {README.relative_to(ROOT)}")
    return 0


def _measured(options: argparse.Namespace, folder: Path) -> Iterator[Measured]:
    with temp_postgres(*SETTINGS) as url, contextlib.ExitStack() as stack:
        crowd.fill(url, options.users)
        places = {"": folder}
        if _has_room(MEMORY, 2 * options.users * USER_BYTES):  # the same without a disk to wait for
            memory = tempfile.TemporaryDirectory(prefix="migration-bench-", dir=MEMORY)
            places[IN_MEMORY] = Path(stack.enter_context(memory))
        loop = [sys.executable, "-m", "benchmarks.all_users", "--loop", url]
        if options.beside:
            yield _run(EARLIER, options.users, loop, folder / "beside", url, options.beside)
        yield _run(LOOP, options.users, loop, folder / "loop", url)
        for where, place in places.items():
            for workers in (1, 2):
                what, output = _workers(workers) + where, place / f"workers-{workers}"
                yield _run(what, options.users, _command(url, workers), output, url)
    if options.many:
        with temp_postgres(*SETTINGS) as url:
            crowd.fill(url, options.many, FEW)
            what = _workers(2) + ", users of one client"
            yield _run(what, options.many, _command(url, 2), folder / "many", url)


def _has_room(folder: Path, size: int) -> bool:
    return folder.is_dir() and shutil.disk_usage(folder).free > size


def _workers(number: int) -> str:
    return f"{number} worker{'s' if number > 1 else ''}"


def _command(url: str, workers: int) -> List[str]:
    script = [sys.executable, str(ROOT / "migrate_all_users.py"), "--postgres-url", url]
    return [*script, "--workers", str(workers), "--quiet", "--output-dir"]


def _run(
    what: str, users: int, command: Sequence[str], output: Path, url: str, suite: Path = ROOT
) -> Measured:
    """Run a command of a suite on an empty folder, and count what it made.

    The files stay until the end: ext4 makes new ones more slowly for minutes after many are removed.
    """
    output.mkdir()
    os.sync()  # what was written before is not to be paid for now
    postmaster = process_of_server(url)
    server, before = cpu_of_server(postmaster), _of_children()
    is_loop = "--loop" in command
    started = time.perf_counter()
    # Whoever runs it twice has compiled code
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(
        [*command, str(output)], cwd=str(suite), env=environment, stdout=subprocess.DEVNULL
    )
    cpu = peak = 0.0
    looks = waits = 0
    workers: List[int] = []
    listed = 0.0
    try:
        while process.poll() is None:
            if time.perf_counter() - listed > LIST_SECONDS:
                listed = time.perf_counter()
                workers = [process.pid] if is_loop else list(children_of(process.pid))
            looks += len(workers)
            waits += sum(map(_waits_for_disk, workers))
            with contextlib.suppress(OSError, StopIteration):
                cpu, peak = _used(process.pid)
            time.sleep(LOOK_SECONDS)
    finally:
        process.kill()
        process.wait()
    wall = time.perf_counter() - started
    made = sum(1 for _ in output.glob("*/app.db"))
    if process.returncode != 0 or made != users:
        raise SystemExit(f"{what}: exit code {process.returncode}, {made} of {users} users")
    coordinator = 0.0 if is_loop else cpu
    measured = Measured(
        what, users, wall, _of_children() - before - coordinator, cpu_of_server(postmaster) - server,
        coordinator, peak, waits / max(1, looks),
    )  # fmt: skip
    print(
        f"  {what:32}{wall:8.1f} s {measured.speed:8.1f} users/s, CPU a user"
        + "".join(f" {part:6.2f}" for part in measured.cpu_ms)
        + f" ms, {measured.waiting:4.0%} waiting for the disk, {peak:6.0f} MB",
        flush=True,
    )
    return measured


# What processes use, by what Linux says: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html


def _stat(process: int) -> List[str]:
    """The fields of ``/proc/PID/stat`` from the third one, the state."""
    return (PROC / str(process) / "stat").read_text().rpartition(")")[2].split()


def _used(process: int) -> tuple[float, float]:
    """CPU seconds and peak memory in megabytes of one process, its children aside."""
    fields = _stat(process)
    status = (PROC / str(process) / "status").read_text().splitlines()
    peak = next(line for line in status if line.startswith("VmHWM"))
    return (int(fields[11]) + int(fields[12])) / TICK, int(peak.split()[1]) * 1024 / 1e6


def children_of(process: int) -> Iterator[int]:
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(_stat(int(folder.name))[1]) == process:
                yield int(folder.name)


def _waits_for_disk(process: int) -> bool:
    """Whether a thread of it sleeps uninterruptibly (state D), as it does during a sync."""
    with contextlib.suppress(OSError):
        for thread in (PROC / str(process) / "task").iterdir():
            if (thread / "stat").read_text().rpartition(")")[2].split()[0] == "D":
                return True
    return False


def _of_children() -> float:
    """CPU seconds of the commands that have ended and of their processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def process_of_server(url: str) -> int:
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW data_directory")
        (folder,) = cursor.fetchone()
    return int((Path(folder) / "postmaster.pid").read_text().split("\n")[0])


def cpu_of_server(postmaster: int) -> float:
    """CPU seconds of PostgreSQL since it started: of its processes, those that have ended included."""
    ticks = sum(map(int, _stat(postmaster)[11:15]))  # the last two: of children that have ended
    for process in children_of(postmaster):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, _stat(process)[11:13]))
    return ticks / TICK


def _loop(url: str, output: Path) -> int:
    """What one worker does, without Dask, ledger and summary: the same phases on the same connection."""
    settings = _settings(url, output)
    common = output / "common"
    common.mkdir()
    with connecting.snapshot(settings) as db:
        exported = shared_rows.export_shared(db, settings, read_schema(settings.schema_path), common)
        users = list(selection.users(db, settings, None, active=False))
        with connecting.snapshot(settings, db.share(), exported) as own:
            for user in users:
                outcome: Outcome = worker.phases(settings, user, own)
                assert outcome.exit_code == 0, outcome.error
    return 0


def _settings(url: str, output: Path) -> Settings:
    arguments = argparse.Namespace(postgres_url=url)
    configuration.find(arguments)
    return dataclasses.replace(configuration.settings(arguments), data_dir=output, backup=False)


# The page


def _write(measured: Sequence[Measured]) -> None:
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    page = "\n".join(_page(measured))
    README.write_text(f"{before}{BEGIN}\n{page}\n\n{END}{after}", encoding="utf-8")


def _page(measured: Sequence[Measured]) -> Iterator[str]:
    runs = {run.what: run for run in measured}
    loop, one, two = (runs[what] for what in (LOOP, _workers(1), _workers(2)))
    speeds = {run.what: run.speed for run in measured}
    yield f"{date.today()}, {results.machine()}. Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}."
    yield ""
    yield "| | users | wall | users a second | CPU a user: worker | PostgreSQL | coordinator | in all | wait for the disk | coordinator's peak memory |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    for run in measured:
        worker_ms, server_ms, own_ms, all_ms = (f"{part:.1f} ms" for part in run.cpu_ms)
        own = ("", "") if run.what in (LOOP, EARLIER) else (own_ms, f"{run.peak_mb:.0f} MB")
        yield (
            f"| {run.what} | {run.users:,} | {run.wall_s:.1f} s | {run.speed:.1f} | {worker_ms} | {server_ms} "
            f"| {own[0]} | {all_ms} | {run.waiting:.0%} | {own[1]} |"
        )
    yield ""
    yield "| target | | |"
    yield "|---|---:|---:|"
    for what, limit, value in (
        ("ms of CPU a user in all, two workers", MOST_MS, two.cpu_ms[-1]),
        ("ms of it in the coordinator", MOST_OWN_MS, two.cpu_ms[2]),
    ):
        yield f"| {what} | at most {limit} | {value:.3g} {'✓' if value <= limit else '✗'} |"
    for where in ("", IN_MEMORY):
        if _workers(2) + where in speeds:
            ratio = speeds[_workers(2) + where] / speeds[_workers(1) + where]
            yield f"| two workers / one{where} | at least 1 | {ratio:.3g} {'✓' if ratio >= 1 else '✗'} |"
    yield f"| one worker / the phases in a loop | | {one.speed / loop.speed:.3g} |"
    if EARLIER in runs:
        ratio = loop.cpu_ms[-1] / runs[EARLIER].cpu_ms[-1]
        yield f"| CPU of a user in a loop / at an earlier commit | | {ratio:.2g} |"


if __name__ == "__main__":
    sys.exit(main())
