"""Measure migrations of many users: ``python -m benchmarks.all_users``, or ``make bench-all``.

Users a second with one worker and two, what Dask adds to the phases in a loop, and the coordinator's memory.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional, Sequence

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
IN_MEMORY = ", output in memory"
LOOK_SECONDS = 0.2  # between two looks at the coordinator
TICK = os.sysconf("SC_CLK_TCK")
# For the coordinator's memory only the number of users counts.
FEW = {**dict.fromkeys(crowd.ROWS, 0), "clients": 1}


class Measured(NamedTuple):
    """One run: seconds of the whole command, CPU seconds and peak memory of the coordinator alone."""

    what: str
    users: int
    wall_s: float
    cpu_s: float
    peak_mb: float

    @property
    def speed(self) -> float:
        return self.users / self.wall_s


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
        yield _run("the phases in a loop", options.users, loop, folder / "loop")
        for where, place in places.items():
            for workers in (1, 2):
                what, output = _workers(workers) + where, place / f"workers-{workers}"
                yield _run(what, options.users, _command(url, workers), output)
    if options.many:
        with temp_postgres(*SETTINGS) as url:
            crowd.fill(url, options.many, FEW)
            what = _workers(2) + ", users of one client"
            yield _run(what, options.many, _command(url, 2), folder / "many")


def _has_room(folder: Path, size: int) -> bool:
    return folder.is_dir() and shutil.disk_usage(folder).free > size


def _workers(number: int) -> str:
    return f"{number} worker{'s' if number > 1 else ''}"


def _command(url: str, workers: int) -> List[str]:
    script = [sys.executable, str(ROOT / "migrate_all_users.py"), "--postgres-url", url]
    return [*script, "--workers", str(workers), "--quiet", "--output-dir"]


def _run(what: str, users: int, command: Sequence[str], output: Path) -> Measured:
    """Run a command on an empty folder, and count what it made.

    The files stay until the end: ext4 makes new ones more slowly for minutes after many are removed.
    """
    output.mkdir()
    os.sync()  # what was written before is not to be paid for now
    started = time.perf_counter()
    process = subprocess.Popen([*command, str(output)], cwd=str(ROOT), stdout=subprocess.DEVNULL)
    cpu = peak = 0.0
    try:
        while process.poll() is None:
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
    measured = Measured(what, users, wall, cpu, peak)
    print(
        f"  {what:32}{wall:8.1f} s {measured.speed:8.1f} users/s {cpu:8.1f} s CPU {peak:6.0f} MB", flush=True
    )
    return measured


def _used(process: int) -> tuple[float, float]:
    """CPU seconds and peak memory in megabytes of one process, its children aside. Linux."""
    folder = Path("/proc") / str(process)
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    status = (folder / "status").read_text().splitlines()
    peak = next(line for line in status if line.startswith("VmHWM"))
    return (int(fields[11]) + int(fields[12])) / TICK, int(peak.split()[1]) * 1024 / 1e6


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
    loop, one = measured[:2]
    speeds = {run.what: run.speed for run in measured}
    yield f"{date.today()}, {results.machine()}. Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}."
    yield ""
    yield "| | users | wall | users a second | coordinator's CPU | coordinator's peak memory |"
    yield "|---|---:|---:|---:|---:|---:|"
    for run in measured:
        own = ("", "") if run is loop else (f"{run.cpu_s:.1f} s", f"{run.peak_mb:.0f} MB")
        yield f"| {run.what} | {run.users:,} | {run.wall_s:.1f} s | {run.speed:.1f} | {own[0]} | {own[1]} |"
    yield ""
    yield "| target | at least | |"
    yield "|---|---:|---:|"
    for where in ("", IN_MEMORY):
        if _workers(2) + where not in speeds:
            continue
        first, second = (speeds[_workers(number) + where] for number in (1, 2))
        for what, least, value in (
            ("users a second with two workers", 30, second),
            ("two workers / one", 1.8, second / first),
        ):
            yield f"| {what}{where} | {least} | {value:.3g} {'✓' if value >= least else '✗'} |"
    yield f"| one worker / the phases in a loop | | {one.speed / loop.speed:.3g} |"


if __name__ == "__main__":
    sys.exit(main())
