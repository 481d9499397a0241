"""Runs that are killed or interrupted anywhere: the old bundle and database or the new ones, and a next run that works."""

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
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Sequence

import psycopg2
import pytest
from conftest import (
    ANNA,
    CARLA,
    OLD_ROWS,
    SCHEMA,
    SUITE,
    Database,
    Place,
    contents,
    make_old_database,
    settings_of,
)

import config
from demo import sample
from demo.postgres import temp_postgres
from export_from_postgres import export
from migration import bundle

FILES = {"manifest.json", "user_data.json", *(table.file for table in config.TABLES)}
SECRET = "pass-word-that-nobody-may-see"
LANES = 3  # processes at once; more than the cores, as they wait for the disk


class Ended(NamedTuple):
    """How a run ended: exit code (negative: the signal that killed it), output, seconds from start to end."""

    code: int
    output: str
    seconds: float


class Phase(NamedTuple):
    """A command to end early, over an existing bundle of ``bundle_of`` and an existing database."""

    script: str
    options: Sequence[str]
    bundle_of: str


PHASES = {
    "export": Phase("export_from_postgres.py", ("--user-email", ANNA), CARLA),
    "import": Phase("import_to_sqlite.py", (), ANNA),
    "validate": Phase("validate_migration.py", ("--offline",), ANNA),
    "migrate": Phase("migrate.py", ("--user-email", ANNA), CARLA),
    "restore": Phase("migrate.py", ("--restore",), ANNA),
}


class Lane:
    """One folder in which runs follow each other, with what is allowed to be there after each."""

    def __init__(
        self, folder: Path, url: str, phase: Phase, bundles: Dict[str, Path], new_rows: list
    ) -> None:
        self.place = Place(folder)
        self.url = url
        self.phase = phase
        self.bundles = bundles
        self.new_rows = new_rows
        self.finished = 0
        self.untouched = 0
        self.replaced = 0
        self.left = 0

    def reset(self) -> None:
        shutil.rmtree(str(self.place.folder), ignore_errors=True)
        shutil.copytree(str(self.bundles[self.phase.bundle_of]), str(self.place.data))
        make_old_database(self.place.app)
        if self.phase.options == ("--restore",):
            make_new_database(self.backup_to_restore, self.new_rows)

    @property
    def backup_to_restore(self) -> Path:
        return self.place.backups / "theprogram_backup_20250101_000000.db"

    def command(self) -> List[str]:
        command = [sys.executable, str(SUITE / self.phase.script), *self.phase.options]
        command += ["--data-dir", str(self.place.data), "--schema-path", SCHEMA]
        if self.phase.script != "export_from_postgres.py":
            command += ["--sqlite-path", str(self.place.app)]
        if self.phase.script in ("import_to_sqlite.py", "migrate.py"):
            command += ["--backup-dir", str(self.place.backups)]
        return command

    def run(self, end: Callable[[subprocess.Popen], None] = lambda process: None) -> Ended:
        started = time.monotonic()
        process = subprocess.Popen(
            self.command(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "POSTGRES_URL": self.url, "POSTGRES_PASSWORD": SECRET, "LOG_LEVEL": "DEBUG"},
            cwd=str(self.place.folder),
        )
        assert process.stdout is not None
        end(process)
        output = process.stdout.read().decode("utf-8")
        code = process.wait()
        assert SECRET not in output
        assert "SampleHash" not in output
        return Ended(code, output, time.monotonic() - started)

    def check(self) -> None:
        """The database is the old or the new one, whole, and so is the bundle."""
        rows = every_row(self.place.app)
        assert rows in (OLD_ROWS, self.new_rows), "neither the old rows nor the new"
        if rows == OLD_ROWS:
            self.untouched += 1
        else:
            self.replaced += 1
        with bundle.reading(self.place.data, bundle.files(config.TABLES)) as found:
            email = found.manifest.user_email
            for table in config.TABLES:
                assert found.count(table.file) == found.manifest.row_counts[table.name]
        assert email in (ANNA, self.phase.bundle_of)
        expected = contents(self.bundles[email])
        for name in FILES - {"manifest.json"}:
            assert (self.place.data / name).read_bytes() == expected[name], name
        report = self.place.data / "validation_report.json"
        if report.exists():
            assert json.loads(report.read_text(encoding="utf-8"))["overall_status"] in ("PASS", "FAIL")
        for path in self.place.backups.glob("*.db"):
            assert every_row(path) in (OLD_ROWS, self.new_rows), "a backup is whole or not there"

    def check_next_run(self) -> None:
        """A plain run works and clears what the killed one left."""
        ended = self.run()
        allowed = (0, 1) if self.phase.script == "validate_migration.py" else (0,)
        assert ended.code in allowed, ended.output
        assert "Traceback" not in ended.output
        self.check()
        self.check_nothing_is_left()

    def check_nothing_is_left(self) -> None:
        files = {
            str(path.relative_to(self.place.folder))
            for path in self.place.folder.rglob("*")
            if path.is_file()
        }
        known = {"app.db", "data/validation_report.json", *("data/" + name for name in FILES)}
        stale = {name for name in files - known if not name.startswith("backups/theprogram_backup_")}
        assert stale == set()
        assert not [name for name in files if name.endswith(("-wal", "-shm", "-journal"))]


def every_row(path: Path) -> list:
    """The rows of a database that passes its integrity check: the old ones, or (table, count, digest) of the new."""
    assert path.is_file(), path
    database = sqlite3.connect(str(path))
    try:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        if names == ["old"]:
            return database.execute("SELECT note FROM old").fetchall()
        rows: list = []
        for name in sorted(names):
            # the preferences' created_at is the time of the import, by the schema's default
            columns = [
                c[1] for c in database.execute('PRAGMA table_info("%s")' % name) if c[1] != "created_at"
            ]
            found = database.execute(
                'SELECT %s FROM "%s" ORDER BY id' % (", ".join(columns), name)
            ).fetchall()
            rows.append((name, len(found), hash(tuple(found))))
        return rows
    finally:
        database.close()


def make_new_database(path: Path, rows: list) -> None:
    path.parent.mkdir(exist_ok=True)
    shutil.copyfile(str(rows.path), str(path))  # type: ignore[attr-defined]


class NewRows(list):
    """What the new database holds, and a database that holds it."""

    def __init__(self, path: Path) -> None:
        super().__init__(every_row(path))
        self.path = path


@pytest.fixture(scope="session")
def lanes(
    sample_database: Database, annas_run: Place, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], List[Lane]]:
    folder = tmp_path_factory.mktemp("kill")
    bundles = {}
    for email in (ANNA, CARLA):
        place = Place(folder / email)
        export(settings_of(sample_database.url, place, email))
        bundles[email] = place.data
    new_rows = NewRows(annas_run.app)
    numbers = iter(range(1000))

    def make(phase: str) -> List[Lane]:
        return [
            Lane(folder / ("lane%d" % next(numbers)), sample_database.url, PHASES[phase], bundles, new_rows)
            for _ in range(LANES)
        ]

    return make


def kill_many(lanes: List[Lane], times: int, seed: str) -> None:
    """Kill runs at random moments between start and end, in all lanes at once."""
    random_ = random.Random(seed)
    lanes[0].reset()
    whole = lanes[0].run()
    assert whole.code in (0, 1), whole.output
    for lane in lanes:
        lane.reset()
    usual = whole.seconds * 1.1 + 0.03  # with its neighbours a run takes a little longer
    # half of them anywhere, half in the last part, where files take their places
    moments = [
        random_.uniform(0, usual) if number % 2 else random_.uniform(0.5 * usual, 1.3 * usual)
        for number in range(times)
    ]

    def one_lane(lane: Lane, share: List[float]) -> None:
        for number, moment in enumerate(share):

            def kill(process: subprocess.Popen, moment: float = moment) -> None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(moment)
                process.kill()

            ended = lane.run(kill)
            assert ended.code in (-signal.SIGKILL, 0, 1), ended.output
            assert "Traceback" not in ended.output
            lane.finished += ended.code >= 0
            lane.check()
            if number % 6 == 5 or number == len(share) - 1:
                lane.check_next_run()
            if number % 3 == 2:
                lane.reset()

    with ThreadPoolExecutor(len(lanes)) as pool:
        done = [
            pool.submit(one_lane, lane, moments[number :: len(lanes)]) for number, lane in enumerate(lanes)
        ]
        for one in done:
            one.result()


@pytest.mark.parametrize("phase", PHASES)
def test_killed_run_leaves_the_old_or_the_new(phase: str, lanes: Callable[[str], List[Lane]]) -> None:
    kill_many(lanes(phase), 6 if phase != "migrate" else 9, phase)


@pytest.mark.slow
@pytest.mark.parametrize(
    "phase, times", [("export", 40), ("import", 66), ("validate", 12), ("migrate", 66), ("restore", 30)]
)
def test_run_killed_hundreds_of_times_leaves_the_old_or_the_new(
    phase: str, times: int, lanes: Callable[[str], List[Lane]]
) -> None:
    made = lanes(phase)
    kill_many(made, times, phase + " often")
    finished = sum(lane.finished for lane in made)
    assert finished < times * 0.75, "killed too late to show much"
    if phase in ("import", "migrate"):
        assert sum(lane.untouched for lane in made) and sum(lane.replaced for lane in made)


# Kills at each step that changes what is on the disk: random moments miss the short ones.

STEPS = ("replace", "rename", "link", "unlink", "rmdir", "mkdir", "chmod", "fsync", "open")
DIE_AT = """
import os, signal, sys
at, number, script = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
sys.argv = sys.argv[3:]
sys.path.insert(0, os.path.dirname(script))
import runpy, importlib
for name in ("config", "export_from_postgres", "import_to_sqlite", "validate_migration", "psycopg2", "rich.table", "rich.console"):
    importlib.import_module(name)
count = 0
def counted(function):
    def call(*arguments, **options):
        global count
        count += 1
        if count == at:
            os.kill(os.getpid(), number)
        return function(*arguments, **options)
    return call
for name in %r:
    setattr(os, name, counted(getattr(os, name)))
try:
    runpy.run_path(script, run_name="__main__")
finally:
    print("steps: %%d" %% count)
""" % (STEPS,)


def run_to_step(lane: Lane, step: int, number: int = signal.SIGKILL) -> Ended:
    command = lane.command
    lane.command = lambda: [sys.executable, "-c", DIE_AT, str(step), str(int(number)), *command()[1:]]  # type: ignore[method-assign]
    try:
        return lane.run()
    finally:
        lane.command = command  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "phase", [pytest.param(name, marks=pytest.mark.slow) for name in ("export", "import")]
)
def test_run_killed_at_each_file_system_call_leaves_the_old_or_the_new(
    phase: str, lanes: Callable[[str], List[Lane]]
) -> None:
    made = lanes(phase)
    made[0].reset()
    whole = run_to_step(made[0], 0)
    assert whole.code in (0, 1), whole.output
    steps = int(whole.output.rpartition("steps: ")[2])
    assert steps > 5

    def one_lane(lane: Lane, share: Sequence[int]) -> None:
        for step in share:
            lane.reset()
            ended = run_to_step(lane, step)
            assert ended.code == -signal.SIGKILL, ended.output
            lane.check()
            if step % 3 == 0:
                lane.check_next_run()

    with ThreadPoolExecutor(len(made)) as pool:
        shares = [range(number + 1, steps + 1, len(made)) for number in range(len(made))]
        for done in [pool.submit(one_lane, lane, share) for lane, share in zip(made, shares)]:
            done.result()


@pytest.mark.parametrize("phase", [pytest.param(p, marks=pytest.mark.slow) for p in ("import", "validate")])
def test_run_interrupted_at_each_file_system_call_says_so(
    phase: str, lanes: Callable[[str], List[Lane]]
) -> None:
    made = lanes(phase)
    made[0].reset()
    steps = int(run_to_step(made[0], 0).output.rpartition("steps: ")[2])

    def one_lane(lane: Lane, share: Sequence[int]) -> None:
        for step in share:
            lane.reset()
            ended = run_to_step(lane, step, signal.SIGTERM)
            assert ended.code == 130, (step, ended.output)
            assert "Traceback" not in ended.output, (step, ended.output)
            assert "error: interrupted; nothing is half done, run again when ready\n" in ended.output
            lane.check()
            if step % 3 == 0:
                lane.check_next_run()

    with ThreadPoolExecutor(len(made)) as pool:
        shares = [range(number + 1, steps + 1, len(made)) for number in range(len(made))]
        for done in [pool.submit(one_lane, lane, share) for lane, share in zip(made, shares)]:
            done.result()


# Signals that ask


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize(
    "phase",
    [
        "export",
        "import",
        "migrate",
        *(pytest.param(p, marks=pytest.mark.slow) for p in ("validate", "restore")),
    ],
)
def test_interrupted_run_says_so_and_leaves_nothing_behind(
    phase: str, number: signal.Signals, lanes: Callable[[str], List[Lane]]
) -> None:
    interrupt_many(lanes(phase), 6, number, phase)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("phase", ["migrate"])
def test_run_interrupted_many_times_leaves_nothing_behind(
    phase: str, number: signal.Signals, lanes: Callable[[str], List[Lane]]
) -> None:
    interrupt_many(lanes(phase), 24, number, phase + " often")


def interrupt_many(lanes: List[Lane], times: int, number: signal.Signals, seed: str) -> None:
    random_ = random.Random(seed + number.name)
    lanes[0].reset()
    whole = lanes[0].run()
    for lane in lanes:
        lane.reset()
    moments = [random_.uniform(0, whole.seconds) for _ in range(times)]

    def one_lane(lane: Lane, share: List[float]) -> None:
        for moment in share:
            sent: List[float] = []

            def ask(process: subprocess.Popen, moment: float = moment, sent: List[float] = sent) -> None:
                # Python itself ends by a signal in its own way until main() has begun
                caught = "SigCgt"
                while process.poll() is None and not catches(process.pid, signal.SIGTERM, caught):
                    time.sleep(0.002)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(moment)
                if process.poll() is None and catches(process.pid, signal.SIGTERM, caught):
                    process.send_signal(number)
                    sent.append(moment)

            ended = lane.run(ask)
            if sent and ended.code not in (0, 1):
                if ended.code == -number:  # main() ended in the moment between
                    assert "interrupted" not in ended.output
                else:
                    assert ended.code == 130, ended.output
                    assert "error: interrupted; nothing is half done, run again when ready\n" in ended.output
            assert "Traceback" not in ended.output, ended.output
            lane.check()
            try:
                lane.check_nothing_is_left()
            except AssertionError:  # the signal fell into the clearing itself: that is rare
                lane.left += 1
                lane.check_next_run()
            if random_.random() < 0.3:
                lane.check_next_run()
                lane.reset()

    with ThreadPoolExecutor(len(lanes)) as pool:
        done = [pool.submit(one_lane, lane, moments[n :: len(lanes)]) for n, lane in enumerate(lanes)]
        for one in done:
            one.result()
    assert sum(lane.left for lane in lanes) <= max(1, times // 10)


def catches(pid: int, number: signal.Signals, field: str) -> bool:
    """Whether a process has a handler for a signal. https://man7.org/linux/man-pages/man5/proc_pid_status.5.html"""
    try:
        status = Path("/proc/%d/status" % pid).read_text(encoding="utf-8")
    except OSError:
        return False
    for line in status.splitlines():
        if line.startswith(field):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


# PostgreSQL stopped


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGQUIT,
        *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGKILL,)),
    ],
    ids=lambda number: number.name,
)
def test_postgresql_stopped_in_the_middle_leaves_the_old_bundle(how: signal.Signals, tmp_path: Path) -> None:
    place = Place(tmp_path)
    with temp_postgres() as url:
        connection = psycopg2.connect(url)
        sample.create_schema(connection)
        sample.fill(connection)
        cursor = connection.cursor()
        export(settings_of(url, place, CARLA))
        old = contents(place.data)
        # compressed it is small; to render it takes seconds
        cursor.execute("ALTER TABLE clients ALTER notes TYPE text")
        cursor.execute("UPDATE clients SET notes = repeat('day \" and night \\ ', 400000)")
        connection.commit()
        cursor.execute("SHOW data_directory")
        folder = Path(cursor.fetchone()[0])
        connection.close()
        process = subprocess.Popen(
            [sys.executable, str(SUITE / "migrate.py"), "--user-email", ANNA, "--postgres-url", url]
            + ["--data-dir", str(place.data), "--sqlite-path", str(place.app), "--schema-path", SCHEMA],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        staged = place.data / ".staging" / "clients.json"
        while process.poll() is None and not (staged.exists() and staged.stat().st_size):
            time.sleep(0.005)
        assert process.poll() is None
        server = int((folder / "postmaster.pid").read_text().split()[0])
        os.kill(server, how)
        output = process.communicate(timeout=60)[0].decode("utf-8")
    assert process.returncode == 3, output
    assert "error: lost the connection to PostgreSQL" in output
    assert "try: " in output
    assert "Traceback" not in output
    assert "and night" not in output
    assert contents(place.data) == old
    assert not place.app.exists()
    assert [path.name for path in place.folder.iterdir()] == ["data"]
