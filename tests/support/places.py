"""The suite's own files, the sample's people, and the folder of one test's runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Dict, List, NamedTuple

import pytest

SUITE = Path(__file__).resolve().parent.parent.parent
ANNA = "anna@example.com"
BRUNO = "bruno@example.com"
CARLA = "carla@example.com"
DORA = "dora@example.com"


class Place(NamedTuple):
    """Folders of one test's runs."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def app(self) -> Path:
        return self.folder / "app.db"

    @property
    def backups(self) -> Path:
        return self.folder / "backups"

    def in_backups(self) -> List[Path]:
        """What is in the backup folder, but for the list of whose each is."""
        return sorted(path for path in self.backups.iterdir() if path.name != ".databases")


@pytest.fixture()
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


SCHEMA = str(SUITE / "schema_design" / "sqlite_schema.sql")


def extended_schema(folder: Path, sql: str) -> Path:
    """The suite's schema file with more in it."""
    path = folder / "schema.sql"
    path.write_text(Path(SCHEMA).read_text(encoding="utf-8") + "\n;" + sql, encoding="utf-8")
    return path


def edited_schema(folder: Path, old: str, new: str) -> Path:
    """The suite's schema file with other words."""
    text = Path(SCHEMA).read_text(encoding="utf-8")
    assert old in text
    path = folder / "schema.sql"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


def contents(folder: Path) -> Dict[str, bytes]:
    """Name and bytes of every file in a folder, those in folders below it too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def tree(folder: Path) -> dict[str, object]:
    """Everything under a folder: path → content and mode, or the mode alone of a folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
    }


def copy_suite(to: Path) -> Path:
    """The suite as a user installs it, without configuration; returns its folder."""
    to.mkdir(parents=True)
    for script in SUITE.glob("*.py"):
        shutil.copy2(str(script), str(to))
    for folder in ("migration", "schema_design"):
        shutil.copytree(str(SUITE / folder), str(to / folder))
    return to
