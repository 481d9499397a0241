"""A bundle that changes, or whose disk fails, between the first look at it and the last: nothing of it is published."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any, Callable

import pytest

from import_to_sqlite import import_
from migration import files
from migration.errors import ExitCode, MigrationError
from migration.sqlite import building
from migration.validation import comparison
from support.bundles import forget_types
from support.migrations import settings_of
from support.places import Place
from support.servers import Database
from support.sqlite_files import make_old_database
from validate_migration import validate

DOES_NOT_MATCH = "%s does not match its SHA256 checksum in the manifest"


def change(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content and len(old) == len(new)
    path.write_bytes(content.replace(old, new))


def once_opened(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Act when the bundle has been looked at, before anything of it is loaded."""
    create = building.create

    def created(*arguments: Any) -> Any:
        act()
        return create(*arguments)

    monkeypatch.setattr(building, "create", created)


@pytest.mark.parametrize("types", ["named", "forgotten"])
@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("clients.json", b"@example.", b"@exempel."),
        ("location_cache.json", b"Europe/", b"Europa/"),
        ("user_data.json", b"$2b$", b"$2a$"),
        ("session_notes.json", b"-", b"?"),  # no date any more: it cannot even be converted
        ("charts.json", b'{"', b"{,"),  # no JSON any more
        ("interpretations.json", b"\n]\n", b"\n] "),  # another layout
    ],
)
def test_what_is_loaded_is_what_the_manifest_names(
    name: str,
    old: bytes,
    new: bytes,
    types: str,
    bundle: Path,
    sample_database: Database,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = make_old_database(place.app)
    if types == "forgotten":
        forget_types(bundle)
    once_opened(monkeypatch, lambda: change(bundle / name, old, new))
    with pytest.raises(MigrationError) as caught:
        import_(settings_of(sample_database.url, place))
    assert caught.value.message == DOES_NOT_MATCH % name
    assert caught.value.exit_code == ExitCode.BUNDLE
    assert place.app.read_bytes() == before


@pytest.mark.parametrize("against", ["bundle", "source"])
@pytest.mark.parametrize("name", ["clients.json", "location_cache.json"])
def test_what_is_compared_is_what_the_manifest_names(
    name: str, against: str, migrated: Place, sample_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = comparison.compare_tables

    def compared(*arguments: Any) -> Any:
        change(migrated.data / name, b"20", b"19")
        return compare(*arguments)

    monkeypatch.setattr(comparison, "compare_tables", compared)
    with pytest.raises(MigrationError) as caught:
        validate(settings_of(sample_database.url, migrated, against=against))
    assert caught.value.message == DOES_NOT_MATCH % name


def test_a_failure_that_damage_may_have_caused_names_the_damage(
    bundle: Path, sample_database: Database, place: Place
) -> None:
    change(bundle / "clients.json", b"-", b"?")
    change(bundle / "session_notes.json", b"2", b"3")
    with pytest.raises(MigrationError) as caught:
        import_(settings_of(sample_database.url, place))
    assert caught.value.message == DOES_NOT_MATCH % "clients.json"


def test_a_failure_of_a_sound_bundle_stays_what_it_is(
    bundle: Path, sample_database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(building, "finish", full)
    with pytest.raises(MigrationError, match="no space left for"):
        import_(settings_of(sample_database.url, place))


class _Unreadable(io.RawIOBase):
    """A file whose sectors from the second on cannot be read."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def readinto(self, buffer: Any) -> int:
        if self._file.tell() >= 512:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        part = self._file.read(min(512, len(buffer))) or b""
        buffer[: len(part)] = part
        return len(part)


@pytest.mark.parametrize("types", ["named", "forgotten"])
@pytest.mark.parametrize("name", ["clients.json", "charts.json", "user_data.json", "manifest.json"])
def test_unreadable_sector_is_named_and_damages_the_bundle(
    name: str,
    types: str,
    bundle: Path,
    sample_database: Database,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = make_old_database(place.app)
    if types == "forgotten":
        forget_types(bundle)
    open_regular = files.open_regular

    def opened(path: Path) -> Any:
        file = open_regular(path)
        if path.name != name:
            return file
        file.close()
        return io.BufferedReader(_Unreadable(path))

    monkeypatch.setattr(files, "open_regular", opened)
    for phase in (import_, validate):
        with pytest.raises(MigrationError) as caught:
            phase(settings_of(sample_database.url, place, offline=True))
        assert caught.value.message == "cannot read %s: Input/output error" % name
        assert caught.value.exit_code == ExitCode.BUNDLE
        assert place.app.read_bytes() == before
