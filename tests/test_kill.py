"""Runs that are killed or interrupted anywhere: the old bundle and database or the new ones, and a next run that works."""

from __future__ import annotations

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
from typing import Any, Callable, Dict, List, NamedTuple, Sequence

import psycopg2
import pytest

import config
from demo import sample
from demo.postgres import temp_postgres
from export_from_postgres import export
from migration.bundle.manifest import REPORTS, files_of
from migration.bundle.reading import open_bundle
from support.fork_server import Process, server
from support.migrations import settings_of
from support.places import ANNA, CARLA, SCHEMA, SUITE, Place, contents
from support.servers import Database
from support.sqlite_files import OLD_ROWS, make_old_database

FILES = {"manifest.json", "user_data.json", *(table.file for table in config.TABLES)}
INTERRUPTED = "error: interrupted; nothing is half done, run again when ready\n"
SECRET = "pass-word-that-nobody-may-see"


class Ended(NamedTuple):
    """How a run ended: exit code (negative: the signal that killed it) and output."""

    code: int
    output: str


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
        self,
        folder: Path,
        server: subprocess.Popen,
        url: str,
        phase: Phase,
        bundles: Dict[str, Path],
        new_rows: list,
        quickest: Dict[Phase, float],
    ) -> None:
        self.place = Place(folder)
        self.server = server
        self.url = url
        self.phase = phase
        self.bundles = bundles
        self.new_rows = new_rows
        self._quickest = quickest
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

    def run(
        self,
        end: Callable[[Process], None] = lambda process: None,
        at_call: int | None = None,
        number: int = signal.SIGKILL,
    ) -> Ended:
        """Run the phase; ``end`` may end it, or signal ``number`` at its file system call ``at_call``."""
        options = [*self.phase.options, "--data-dir", str(self.place.data), "--schema-path", SCHEMA]
        if self.phase.script != "export_from_postgres.py":
            options += ["--sqlite-path", str(self.place.app)]
        if self.phase.script in ("import_to_sqlite.py", "migrate.py"):
            options += ["--backup-dir", str(self.place.backups)]
        output_file = self.place.folder.with_suffix(".output")
        process = Process(
            self.server,
            self.phase.script,
            options,
            self.place.folder,
            {**os.environ, "POSTGRES_URL": self.url, "POSTGRES_PASSWORD": SECRET, "LOG_LEVEL": "DEBUG"},
            output_file,
            output_file,
            at_call,
            number,
        )
        started = time.monotonic()
        end(process)
        code = process.wait()
        assert code is not None
        output = output_file.read_text(encoding="utf-8")
        assert SECRET not in output
        assert "SampleHash" not in output
        seconds = time.monotonic() - started
        if code in (0, 1):
            self._quickest[self.phase] = min(seconds, self._quickest.get(self.phase, seconds))
        return Ended(code, output)

    @property
    def seconds(self) -> float:
        """What a whole run takes that nothing holds up."""
        return self._quickest[self.phase]

    def check(self) -> None:
        """The database is the old or the new one, whole, and so is the bundle."""
        rows = every_row(self.place.app)
        assert rows in (OLD_ROWS, self.new_rows), "neither the old rows nor the new"
        if rows == OLD_ROWS:
            self.untouched += 1
        else:
            self.replaced += 1
        with open_bundle(self.place.data, files_of(config.TABLES)) as found:
            email = found.manifest.user_email
        assert email in (ANNA, self.phase.bundle_of)
        expected = contents(self.bundles[email])
        assert found.manifest.row_counts == json.loads(expected["manifest.json"])["row_counts"]
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
        known = {"app.db", "backups/.databases", *("data/" + name for name in (*REPORTS, *FILES))}
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

    quickest: Dict[Phase, float] = {}

    def make(phase: str) -> List[Lane]:
        """Lanes of a phase, ready for its first run."""
        made = []
        for one in (server(0), server(1)):
            at = folder / ("lane%d" % next(numbers))
            made.append(Lane(at, one, sample_database.url, PHASES[phase], bundles, new_rows, quickest))
        for lane in made:
            lane.reset()
            if PHASES[phase] not in quickest:
                ended = lane.run()
                assert ended.code in (0, 1), ended.output
                lane.reset()
        return made

    return make


def in_all(lanes: List[Lane], one_lane: Callable[[Lane, Any], None], tasks: Sequence[Any]) -> None:
    """Share tasks out to the lanes, which work at the same time."""
    with ThreadPoolExecutor(len(lanes)) as pool:
        for done in [pool.submit(one_lane, lane, tasks[n :: len(lanes)]) for n, lane in enumerate(lanes)]:
            done.result()


def kill_many(lanes: List[Lane], times: int, seed: str) -> None:
    """Kill runs at random moments between start and end, in all lanes at once."""
    random_ = random.Random(seed)
    # half of them anywhere, half in the last part, where files take their places
    moments = [
        random_.uniform(0, 1.1) if number % 2 else random_.uniform(0.5, 1.4) for number in range(times)
    ]

    def one_lane(lane: Lane, share: List[float]) -> None:
        for number, moment in enumerate(share):

            def kill(process: Process, moment: float = moment) -> None:
                if process.wait(moment * lane.seconds) is None:
                    process.send(signal.SIGKILL)

            ended = lane.run(kill)
            assert ended.code in (-signal.SIGKILL, 0, 1), ended.output
            assert "Traceback" not in ended.output
            lane.finished += ended.code >= 0
            lane.check()
            if number % 6 == 5 or number == len(share) - 1:
                lane.check_next_run()
            if number % 3 == 2:
                lane.reset()

    in_all(lanes, one_lane, moments)


@pytest.mark.parametrize(
    "phase, times",
    [
        ("restore", 4),
        *(
            pytest.param(*often, marks=pytest.mark.slow)
            for often in (("export", 6), ("import", 12), ("validate", 4), ("migrate", 20))
        ),
    ],
)
def test_run_killed_many_times_leaves_the_old_or_the_new(
    phase: str, times: int, lanes: Callable[[str], List[Lane]]
) -> None:
    made = lanes(phase)
    kill_many(made, times, phase)
    finished = sum(lane.finished for lane in made)
    assert finished <= times * 0.75, "killed too late to show much"
    if phase in ("import", "migrate"):
        assert sum(lane.untouched for lane in made) and sum(lane.replaced for lane in made)


# Kills at each step that changes what is on the disk: random moments miss the short ones.


def stop_at_each_call(lanes: List[Lane], number: int, code: int, said: str, step: int = 1) -> None:
    whole = lanes[0].run(at_call=0)
    assert whole.code in (0, 1), whole.output
    calls = json.loads(whole.output.rpartition("calls: ")[2])
    assert len(calls) > 5

    def one_lane(lane: Lane, share: Sequence[int]) -> None:
        for nth, call in enumerate(share):
            lane.reset()
            ended = lane.run(at_call=call, number=number)
            assert ended.code == code, (call, ended.output)
            assert "Traceback" not in ended.output, (call, ended.output)
            assert said in ended.output
            lane.check()
            if nth % 3 == 0:
                lane.check_next_run()

    in_all(lanes, one_lane, calls[::step])


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["export", "import", "validate", "restore"])
def test_run_killed_at_each_file_system_call_leaves_the_old_or_the_new(
    phase: str, lanes: Callable[[str], List[Lane]]
) -> None:
    stop_at_each_call(lanes(phase), signal.SIGKILL, -signal.SIGKILL, "")


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["import", "validate"])
def test_run_interrupted_at_each_file_system_call_says_so(
    phase: str, lanes: Callable[[str], List[Lane]]
) -> None:
    stop_at_each_call(lanes(phase), signal.SIGTERM, 130, INTERRUPTED, step=2)


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
    interrupt_many(lanes(phase), 8 if phase == "migrate" else 4, number, phase)


def interrupt_many(lanes: List[Lane], times: int, number: signal.Signals, seed: str) -> None:
    random_ = random.Random(seed + number.name)
    moments = [random_.random() for _ in range(times)]

    def one_lane(lane: Lane, share: List[float]) -> None:
        for moment in share:
            sent: List[float] = []

            def ask(process: Process, moment: float = moment, sent: List[float] = sent) -> None:
                # Python itself ends by a signal in its own way until main() has begun
                while process.wait(0.002) is None and not catches(process.id, signal.SIGTERM):
                    pass
                if process.wait(moment * lane.seconds) is None and catches(process.id, signal.SIGTERM):
                    process.send(number)
                    sent.append(moment)

            ended = lane.run(ask)
            if sent and ended.code not in (0, 1):
                if ended.code == -number:  # main() ended in the moment between
                    assert "interrupted" not in ended.output
                else:
                    assert ended.code == 130, ended.output
                    assert INTERRUPTED in ended.output
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

    in_all(lanes, one_lane, moments)
    assert sum(lane.left for lane in lanes) <= max(1, times // 10)


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal. https://man7.org/linux/man-pages/man5/proc_pid_status.5.html"""
    try:
        status = Path("/proc/%d/status" % pid).read_text(encoding="utf-8")
    except OSError:
        return False
    for line in status.splitlines():
        if line.startswith("SigCgt"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


# PostgreSQL stopped


@pytest.mark.parametrize(
    "how",
    [signal.SIGQUIT, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGKILL,))],
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
        cursor.execute(
            "UPDATE clients SET notes = repeat('day \" and night \\ ', 400000)"
            " WHERE user_id = (SELECT id FROM users WHERE email = %s)",
            (ANNA,),
        )
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
