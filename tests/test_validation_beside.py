"""Phase 3 with a second process: the same report, of one state of the database, and nothing stays behind."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from conftest import Database, Place, migrate_to, settings_of

import validate_migration
from migration import checks, target
from migration.errors import ExitCode, MigrationError
from migration.settings import Settings
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
    monkeypatch.setattr(validate_migration, "FOR_TWO", 0)
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
    monkeypatch.setattr(validate_migration, "FOR_TWO", 1 << 60)
    with_one = validate(settings, sound=stamp)
    assert with_two.findings == with_one.findings
    assert with_two.passed == (not damages)
    found = {finding.check for finding in with_two.findings}
    assert found >= ({"schema", "types", "json", "contents"} if damages else set())
    assert ("references" in found) == bool(damages and not sound)


def killed(*arguments: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_second_process_ends_the_validation(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "side_by_side", killed)
    with pytest.raises(MigrationError, match="the second process ended early") as caught:
        validate(settings)
    assert caught.value.exit_code == ExitCode.TARGET
    assert not (settings.data_dir / "validation_report.json").exists()


def test_database_that_is_written_before_both_read_it_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(settings.sqlite_path, "PRAGMA journal_mode = WAL")  # so that one can write while others read

    @contextlib.contextmanager
    def late(*arguments: Any) -> Iterator[Callable[[], Any]]:
        change(settings.sqlite_path, "UPDATE clients SET phone = NULL")
        with in_a_process(*arguments) as answer:
            yield answer

    monkeypatch.setattr(validate_migration, "in_a_process", late)
    with pytest.raises(MigrationError, match="is open in another program") as caught:
        validate(settings)
    assert caught.value.exit_code == ExitCode.TARGET


def test_database_that_the_second_process_cannot_read_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def removed(*arguments: Any) -> Iterator[Callable[[], Any]]:
        settings.sqlite_path.rename(settings.sqlite_path.with_suffix(".moved"))
        with in_a_process(*arguments) as answer:
            yield answer

    monkeypatch.setattr(validate_migration, "in_a_process", removed)
    with pytest.raises(MigrationError, match="no database at"):
        validate(settings)
