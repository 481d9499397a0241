"""The room that the files of a run need on the disk, and what is free there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

# Database size ÷ JSON size: a little high for long texts, low for short rows with indexes.
ONE_DATABASE = 1.4
# The same averaged over many users, without temporary files. The empty database counts apart.
MANY_DATABASES = 1.3
# Bytes of a user's files beyond the rows: half-filled blocks, manifest, reports.
FILES_OF_USER = 12 * 4096 + 60_000


class Need(NamedTuple):
    """``needed`` and ``free``: bytes; what earlier needs take on the same disk is not free."""

    purpose: str
    folder: Path
    needed: int
    free: int


def needs_of_one(
    json: int, data_dir: Path, sqlite_path: Path, backup_dir: Optional[Path]
) -> Tuple[Need, ...]:
    """The needs of one user's migration with ``json`` bytes of rows. ``backup_dir`` is None where no backup is made."""
    database = sqlite_path.resolve()
    wanted = [("bundle", data_dir, json), ("database", database.parent, int(json * ONE_DATABASE))]
    if backup_dir is not None and database.is_file():
        wanted.append(("backup", backup_dir, database.stat().st_size))
    return _on_disks(wanted)


def bytes_of_many(json: int, users: int, empty_database: int) -> int:
    """Bytes that ``users`` take with ``json`` bytes of rows in all. ``empty_database``: bytes of one without rows."""
    return int(json * (1 + MANY_DATABASES)) + users * (FILES_OF_USER + empty_database)


def free(folder: Path) -> int:
    """Free bytes on the disk of an existing folder."""
    return shutil.disk_usage(str(folder)).free


def _on_disks(wanted: Sequence[Tuple[str, Path, int]]) -> Tuple[Need, ...]:
    taken: Dict[int, int] = {}  # disk → bytes that earlier needs take
    needs: List[Need] = []
    for purpose, folder, needed in wanted:
        there = _existing(folder)
        device = there.stat().st_dev
        needs.append(Need(purpose, folder, needed, free(there) - taken.get(device, 0)))
        taken[device] = taken.get(device, 0) + needed
    return tuple(needs)


def _existing(folder: Path) -> Path:
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    return folder
