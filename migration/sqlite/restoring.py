"""Put a backup in the place of the database, as safely as an import does."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from pathlib import Path
from typing import Iterator, Optional

from migration.files import create_private, sync_folder
from migration.settings import Backups
from migration.sqlite import old_files
from migration.sqlite.backups import copy
from migration.sqlite.connecting import reading, resolved
from migration.sqlite.errors import errors, failed, of_newer
from migration.sqlite.integrity import problems_in, problems_of_old
from migration.sqlite.publishing import keep_owner, looked_at, make_way, publish, replacing

log = logging.getLogger(__name__)


def restore(backup: Path, path: Path, backups: Optional[Backups]) -> Optional[Path]:
    """Put a backup in the target's place as safely as an import; return the backup of what was there.

    If the target is no sound database any more, its files are first set aside whole, before SQLite opens them. Raises MigrationError (exit 5) for a backup that is missing or damaged.
    """
    with errors(backup):
        there = backup.is_file()
    if not there:
        raise failed(
            "%s is no file" % backup if backup.exists() else "backup not found: %s" % backup,
            "ls %s" % (backup.parent if backups is None else backups.folder),
        )
    if backup.resolve() == path.resolve():
        raise failed(
            "%s is the database itself, not a backup of it" % backup, "name a file from the backup folder"
        )
    target = resolved(path)
    with _open_backup(backup) as source, replacing(path, backups, probe=False) as staged:
        problems = problems_in(target, looked_at(staged))
        if not problems:
            make_way(target, backups)
        create_private(staged, exclusive=True).close()
        with errors(path, source=backup):
            copy(source, staged, "the backup %s" % backup)
        if not problems:
            return publish(staged, path, backups)
        if backups is not None:
            aside = old_files.set_aside(target, backups)
            log.warning("%s is no sound database: its files are set aside as %s", target, aside)
        for companion in list(old_files.all_of(target))[1:]:  # they belong to the unsound database
            with contextlib.suppress(FileNotFoundError):
                os.unlink(str(companion))
        if target.exists():
            keep_owner(target, staged)
        os.replace(str(staged), str(target))
        sync_folder(target.parent)
        return None


@contextlib.contextmanager
def _open_backup(backup: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a backup. Its files stay unchanged."""
    with errors(backup), reading(backup, untouched=True) as connect, contextlib.closing(connect()) as source:
        try:
            empty = source.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
            problems = problems_of_old(source)
        except (sqlite3.Error, OSError) as error:
            problems, empty = [str(error)], False
        if problems or empty:
            raise failed(
                "the backup %s is damaged: %s" % (backup, problems[0] if problems else "it holds no table"),
                "restore another one: --restore FILE" + of_newer("".join(problems[:1])),
            )
        yield source
