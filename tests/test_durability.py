"""What is published is on the disk before it is, so that a power cut finds the old or the new one, whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from export_from_postgres import export
from import_to_sqlite import import_
from migration.errors import ExitCode, MigrationError
from migration.validation.report import REPORT
from support.migrations import settings_of
from support.places import Place, contents
from support.servers import NOWHERE, Database
from support.sqlite_files import make_old_database
from validate_migration import validate

Synced = Dict[int, int]  # inode → size when it was synced last


@pytest.fixture()
def synced(monkeypatch: pytest.MonkeyPatch) -> Synced:
    """What has been synced so far."""
    found: Synced = {}
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        found[status.st_ino] = status.st_size

    monkeypatch.setattr(os, "fsync", noted)
    return found


@pytest.fixture()
def renamed(monkeypatch: pytest.MonkeyPatch, synced: Synced) -> List[str]:
    """The names of what is renamed; fails where that, or a file in it, is not on the disk as it is."""
    names: List[str] = []
    replace = os.replace

    def checked(old: str, new: str) -> None:
        path = Path(old)
        for file in (path, *path.iterdir()) if path.is_dir() else (path,):
            status = file.stat()
            assert status.st_ino in synced, "%s is published before it is synced" % file.name
            assert file.is_dir() or synced[status.st_ino] == status.st_size, "%s has grown since" % file.name
        names.append(path.name)
        replace(old, new)

    monkeypatch.setattr(os, "replace", checked)
    return names


def test_bundle_database_and_report_are_on_the_disk_before_they_are_published(
    sample_database: Database, place: Place, renamed: List[str], synced: Synced
) -> None:
    settings = settings_of(sample_database.url, place)
    make_old_database(place.app)

    export(settings)
    assert ".staging" in renamed
    assert place.data.stat().st_ino in synced

    import_(settings)
    assert ".app.db.staging" in renamed
    assert place.app.parent.stat().st_ino in synced
    assert place.backups.stat().st_ino in synced

    renamed.clear()
    validate(settings)
    assert ".staging" in renamed and REPORT in renamed


@pytest.mark.parametrize("number", range(1, 12))
def test_a_file_of_the_bundle_that_cannot_be_synced_ends_the_export_and_the_old_bundle_stays(
    sample_database: Database, place: Place, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    settings = settings_of(sample_database.url, place)
    export(settings)
    before = contents(place.data)
    monkeypatch.setattr(os, "fsync", _failing(number))

    with pytest.raises(MigrationError) as raised:
        export(settings)

    assert raised.value.exit_code == ExitCode.BUNDLE
    assert str(place.data) in raised.value.message and "Input/output error" in raised.value.message
    assert contents(place.data) == before


def test_a_database_that_cannot_be_synced_ends_the_import_and_the_old_one_stays(
    sample_database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(sample_database.url, place)
    export(settings)
    make_old_database(place.app)
    before = place.app.read_bytes()
    monkeypatch.setattr(os, "fsync", _failing(1))

    with pytest.raises(MigrationError) as raised:
        import_(settings)

    assert raised.value.exit_code == ExitCode.TARGET
    assert place.app.read_bytes() == before


def _failing(number: int) -> Callable[[int], Any]:
    """``os.fsync``, whose call of this number meets a broken disk."""
    fsync, calls = os.fsync, iter(range(1, 1000))

    def call(descriptor: int) -> None:
        if next(calls) == number:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    return call


def test_backup_is_on_the_disk_before_it_has_its_name(
    bundle: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = set()
    fsync, link = os.fsync, os.link

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def checked(partial: str, name: str) -> None:
        assert os.stat(partial).st_ino in synced
        link(partial, name)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "link", checked)
    settings = settings_of(NOWHERE, place)
    import_(settings)
    assert place.folder.stat().st_ino in synced  # the first one's name, too
    import_(settings)
    assert len(list(place.in_backups())) == 1
