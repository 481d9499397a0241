"""A table leaves config.TABLES: the next export takes its file away with the bundle that it was part of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import config
from export_from_postgres import export
from import_to_sqlite import import_
from migration.bundle.manifest import files_of
from migration.bundle.reading import open_bundle
from migration.bundle.writing import Writer
from migration.errors import ExitCode, MigrationError
from migration.settings import Settings
from support.bundles import edit_manifest
from support.migrations import settings_of
from support.places import Place
from support.servers import Database

LEFT = "location_cache.json"


@pytest.fixture()
def fewer(sample_database: Database, bundle: Path, place: Place) -> Settings:
    return settings_of(
        sample_database.url,
        place,
        tables=tuple(table for table in config.TABLES if table.file != LEFT),
        unrelated_tables=("location_cache",),
    )


def names(folder: Path) -> set:
    return {path.name for path in folder.glob("*.json")}


def test_its_file_goes_with_the_old_bundle(fewer: Settings) -> None:
    before = names(fewer.data_dir)
    assert LEFT in before
    export(fewer)
    assert names(fewer.data_dir) == before - {LEFT}
    assert "location_cache" not in import_(fewer).seconds


def test_a_file_that_no_manifest_names_is_refused(fewer: Settings) -> None:
    (fewer.data_dir / "package.json").write_bytes(b"{}")
    with pytest.raises(MigrationError, match="package.json, which is no file of a bundle") as caught:
        export(fewer)
    assert caught.value.exit_code == ExitCode.BUNDLE
    assert LEFT in names(fewer.data_dir)


def test_an_export_that_fails_leaves_it(fewer: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("no")

    before = names(fewer.data_dir)
    monkeypatch.setattr(Writer, "finish", fail)
    with pytest.raises(MigrationError):
        export(fewer)
    assert names(fewer.data_dir) == before


@pytest.mark.parametrize("name", ["../outside.json", "/outside.json", "folder/inside.json", "notes.txt"])
def test_nothing_elsewhere_is_removed(name: str, fewer: Settings) -> None:
    path = fewer.data_dir / name
    if name[0] != "/":
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"somebody's")
    edit_manifest(fewer.data_dir, lambda manifest: manifest["checksums"].update({name: "0" * 64}))
    export(fewer)
    assert name[0] == "/" or path.read_bytes() == b"somebody's"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("call", range(1, 14))
def test_a_run_that_is_killed_leaves_the_old_bundle_or_the_new(
    call: int, fewer: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        calls = 0

        def counted(function: Any) -> Any:
            def act(path: Any, *others: Any) -> Any:
                nonlocal calls
                calls += Path(path).name != ".lock"  # a dead process holds none
                if calls >= call and Path(path).name != ".lock":
                    raise Killed
                return function(path, *others)

            return act

        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        try:
            export(fewer)
        except Killed:
            pass
        else:
            assert call == 13
    tables = fewer.tables if call > 1 else config.TABLES  # the first renames the staged bundle
    with open_bundle(fewer.data_dir, files_of(tables)) as export_:
        export_.verify()
    assert (LEFT in names(fewer.data_dir)) == (call == 1)
