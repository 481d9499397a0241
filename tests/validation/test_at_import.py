"""An import compares its new database already; the validation that follows repeats that if anything was written since."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any, Callable, Dict

import pytest

from import_to_sqlite import Imported, import_
from migration.errors import BundleError, ExitCode, MigrationError
from migration.settings import Settings
from migration.sqlite import building
from migration.validation import at_import, comparison
from support.migrations import settings_of
from support.places import Place
from support.sqlite_files import change
from validate_migration import validate


@pytest.fixture()
def settings(bundle: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(at_import, "LEAST_BYTES", 0)
    return settings_of("host=/nowhere", place, offline=True)


def validated(settings: Settings, imported: Imported, monkeypatch: pytest.MonkeyPatch) -> "tuple[Any, bool]":
    """The report, and whether the validation compared the cells itself."""
    compared = []
    compare = comparison.compare_tables

    def noted(*arguments: Any) -> Any:
        compared.append(1)
        return compare(*arguments)

    monkeypatch.setattr(comparison, "compare_tables", noted)
    return validate(settings, None, imported.stamp, imported.equal), bool(compared)


def touch_up(path: Path) -> None:
    """Change one letter of a file, its size as it was."""
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))


SINCE: Dict[str, Callable[[Settings], None]] = {
    "a cell of the database": lambda s: change(s.sqlite_path, "UPDATE clients SET phone = 'x'"),
    "a record of the bundle": lambda s: touch_up(s.data_dir / "clients.json"),
    "the manifest": lambda s: touch_up(s.data_dir / "manifest.json"),
}


def test_comparison_of_the_import_stands_in_the_report(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, _ = validated(settings, import_(settings), monkeypatch)
    report, compared = validated(settings, import_(settings, validated=True), monkeypatch)
    assert report.passed and not compared
    cells = {name: result.cells for name, result in report.validation_results.items()}
    assert cells == {name: result.cells for name, result in alone.validation_results.items()}


@pytest.mark.parametrize("what", SINCE)
def test_what_was_written_since_is_compared_again(
    what: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = import_(settings, validated=True)
    SINCE[what](settings)
    try:
        report, _ = validated(settings, imported, monkeypatch)
    except MigrationError as error:
        assert error.exit_code == ExitCode.BUNDLE
    else:
        assert {finding.check for finding in report.findings} == {"contents"}


def test_cell_that_the_import_gets_wrong_is_found_and_nothing_hides_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = building.create_deferred

    def late(database: Any, sql: str) -> None:
        database.execute("UPDATE clients SET phone = 'x'")
        create(database, sql)

    monkeypatch.setattr(building, "create_deferred", late)
    imported = import_(settings, validated=True)
    assert imported.equal is None
    report, compared = validated(settings, imported, monkeypatch)
    assert compared and {finding.check for finding in report.findings} == {"contents"}


@pytest.mark.parametrize(
    "error", [sqlite3.DatabaseError("x"), BundleError("x")], ids=lambda error: type(error).__name__
)
def test_comparison_that_fails_is_left_to_the_validation(
    error: Exception, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(comparison, "compare_tables", failing)
        imported = import_(settings, validated=True)
    assert imported.equal is None
    report, compared = validated(settings, imported, monkeypatch)
    assert report.passed and compared


def test_database_that_is_written_while_it_is_checked_is_not_published(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = at_import.compare

    def meddling(staged: Path, *others: Any) -> Any:
        equal = compare(staged, *others)
        with open(str(staged), "r+b") as file:  # as no lock of SQLite's prevents
            place = file.read().index(b"@example.com")
            file.seek(place)
            file.write(b"#")
        return equal

    monkeypatch.setattr(at_import, "compare", meddling)
    with pytest.raises(
        MigrationError, match="somebody wrote the new database while it was checked"
    ) as caught:
        import_(settings, validated=True)
    assert caught.value.exit_code == ExitCode.TARGET
    assert not settings.sqlite_path.exists()


def test_change_that_sets_the_time_of_the_last_write_back_is_found(settings: Settings) -> None:
    imported = import_(settings, validated=True)
    path = settings.sqlite_path
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"@example.com", b"#example.com"))
    os.utime(str(path), ns=(before.st_atime_ns, before.st_mtime_ns))
    report = validate(settings, None, imported.stamp, imported.equal)
    assert "contents" in {finding.check for finding in report.findings}
