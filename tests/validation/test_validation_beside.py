"""Phase 3 with a second process: the same report, of one state of the database, and nothing stays behind."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pickle
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from conftest import Database, Place, migrate_to, settings_of
from test_import_beside import killed

import validate_migration
from migration.errors import ExitCode, MigrationError
from migration.settings import Settings
from migration.sqlite import target
from migration.validation import file_checks
from migration.workers import in_a_process
from validate_migration import validate

DAMAGES = [  # each is for the checks of the file, not for the comparison alone
    "DROP TRIGGER birth_data_updated_at",
    "DROP TRIGGER charts_updated_at",
    "UPDATE birth_data SET birth_time = '25:00:00'",
    "UPDATE charts SET chart_data = '{'",
    "UPDATE charts SET chart_name = x'ff' WHERE id = (SELECT min(id) FROM charts)",
    "DELETE FROM clients WHERE id = (SELECT client_id FROM birth_data LIMIT 1)",
]


@pytest.fixture(scope="module")
def finished(sample_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return migrate_to(tmp_path_factory.mktemp("finished"), sample_database.url)


@pytest.fixture()
def settings(
    finished: Place, sample_database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """A migrated database and its bundle, this test's own copy, for two processes."""
    monkeypatch.setattr(target, "FOR_THREADS", -1)
    shutil.copytree(str(finished.data), str(place.data))
    shutil.copyfile(str(finished.app), str(place.app))
    return settings_of(sample_database.url, place)


def change(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(str(path), isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)


@pytest.mark.parametrize("sound", [True, False], ids=["looked through before", "not looked through"])
@pytest.mark.parametrize("damages", [[], DAMAGES], ids=["sound", "damaged"])
def test_two_processes_find_what_one_finds(
    settings: Settings, damages: List[str], sound: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(settings.sqlite_path, *damages)
    stamp = target.stamp(settings.sqlite_path) if sound else None
    settings = dataclasses.replace(settings, show_values=True)  # fingerprints are others in each run
    with_two = validate(settings, sound=stamp)
    monkeypatch.setattr(target, "FOR_THREADS", 1 << 60)
    with_one = validate(settings, sound=stamp)
    assert with_two.findings == with_one.findings
    assert with_two.passed == (not damages)
    found = {finding.check for finding in with_two.findings}
    assert found >= ({"schema", "types", "json", "contents"} if damages else set())
    assert ("references" in found) == bool(damages and not sound)


@pytest.mark.parametrize("processes", [1, 2])
def test_log_says_how_long_each_check_took(
    settings: Settings, processes: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if processes == 1:
        monkeypatch.setattr(target, "FOR_THREADS", 1 << 60)
    with caplog.at_level(logging.DEBUG):
        validate(settings)
    timed = [line for line in caplog.messages if re.match(r"check .*, \d+\.\d\d s: ok$", line)]
    names = {line.split()[1].rstrip(":") for line in timed}
    assert names >= {"contents", "schema", "integrity", "references", "forms"}


def answered_and_killed(*arguments: Any) -> Iterator[None]:
    yield None
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_second_process_ends_the_validation(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_checks, "side_by_side", answered_and_killed)
    with pytest.raises(MigrationError, match="the second process ended early") as caught:
        validate(settings)
    assert caught.value.exit_code == ExitCode.INTERNAL
    assert not (settings.data_dir / "validation_report.json").exists()


@pytest.mark.parametrize("reason", ["cannot be run", "ends at once"])
@pytest.mark.parametrize("damages", [[], DAMAGES], ids=["sound", "damaged"])
def test_one_process_does_it_all_where_there_is_no_second(
    settings: Settings, damages: List[str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "cannot be run":
        monkeypatch.setattr(sys, "executable", str(settings.data_dir))
    else:
        monkeypatch.setattr(file_checks, "side_by_side", killed)
    change(settings.sqlite_path, *damages)
    found = {finding.check for finding in validate(settings).findings}
    assert found >= ({"schema", "types", "json", "references"} if damages else set())
    assert bool(found) == bool(damages)


def before(act: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something when the first process has the database open and the second has not."""

    @contextlib.contextmanager
    def late(*arguments: Any) -> Iterator[Callable[[], Any]]:
        act()
        with in_a_process(*arguments) as answer:
            yield answer

    monkeypatch.setattr(validate_migration, "in_a_process", late)


def test_all_checks_are_of_one_state_of_a_database_that_is_written_meanwhile(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(settings.sqlite_path, "PRAGMA journal_mode = WAL")  # so that one can write while others read
    before(lambda: change(settings.sqlite_path, *DAMAGES), monkeypatch)
    assert validate(settings).passed
    monkeypatch.setattr(validate_migration, "in_a_process", in_a_process)
    assert not validate(settings).passed


def test_all_checks_are_of_one_file_though_another_takes_its_place(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = settings.sqlite_path, settings.sqlite_path.with_name("other.db")
    shutil.copyfile(str(path), str(other))
    change(other, "DROP TRIGGER charts_updated_at")
    change(path, "DROP INDEX idx_charts_client_id")
    before(lambda: os.replace(str(other), str(path)), monkeypatch)
    errors = validate(settings).errors
    assert any("idx_charts_client_id is missing" in error for error in errors)
    assert not any("charts_updated_at" in error for error in errors)


def test_script_that_validates_without_a_guard_runs_once(settings: Settings, place: Place) -> None:
    script = place.folder / "script.py"
    script.write_text(
        "import pickle, sys\n"
        "print('begun', flush=True)\n"
        "from migration.sqlite import target\n"
        "import validate_migration\n"
        "target.FOR_THREADS = -1\n"
        "print(validate_migration.validate(pickle.load(sys.stdin.buffer)).passed)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        input=pickle.dumps(settings),
        env={**os.environ, "PYTHONPATH": str(Path(validate_migration.__file__).parent)},
        stdout=subprocess.PIPE,
    )
    assert done.stdout.split() == [b"begun", b"True"]


def refusing_to_end(path: Path) -> Iterator[None]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    path.write_text(str(os.getpid()), encoding="ascii")
    yield None
    time.sleep(600)


def test_second_process_that_does_not_end_is_ended(place: Place) -> None:
    pid = place.folder / "pid"
    with pytest.raises(ZeroDivisionError), in_a_process(refusing_to_end, pid) as answer:
        answer()
        os.kill(int(pid.read_text(encoding="ascii")), signal.SIGSTOP)
        raise ZeroDivisionError
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text(encoding="ascii")), 0)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_second_process_answers_where_a_stream_is_closed(place: Place, closed: str) -> None:
    script, answers = place.folder / "script.py", place.folder / "answers"
    script.write_text(
        "import pathlib\n"
        "from migration.workers import in_a_process\n"
        "with in_a_process(map, print, ['noise', 'more']) as answer:\n"
        "    pathlib.Path(%r).write_text(repr([answer(), answer()]))\n" % str(answers),
        encoding="utf-8",
    )
    command = 'exec "$0" "$1" ' + closed
    environment = {**os.environ, "PYTHONPATH": str(Path(validate_migration.__file__).parent)}
    subprocess.run(["sh", "-c", command, sys.executable, str(script)], env=environment, timeout=60)
    assert answers.read_text(encoding="ascii") == "[None, None]"
