"""The data folder: its lock, and how a complete bundle gets to its place."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Iterator, Set

from migration import files, lock
from migration.bundle.manifest import MANIFEST, REPORTS, read_manifest
from migration.errors import BundleError, MigrationError
from migration.files import COMPLETE, STAGING

OURS = (".gitignore", ".lock", STAGING, COMPLETE)


@contextlib.contextmanager
def held(folder: Path, again: bool = False) -> Iterator[None]:
    """Hold the lock of a data folder for the block; make the folder if it does not exist.

    ``again``: within the block, this thread may hold it once more. Raises MigrationError (exit 4) if another run holds
    the lock, or the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with os_errors(folder):
            stack.enter_context(locked(folder, again))
        yield


@contextlib.contextmanager
def locked(folder: Path, again: bool = False) -> Iterator[None]:
    """As ``held``, but raises OSError if the folder cannot be written."""
    files.make_folder(folder)
    with lock.held(folder / ".lock", "the data folder %s" % folder, BundleError, again):
        move_in(folder)
        yield


def move_in(folder: Path) -> None:
    """Move a complete bundle or report to its place; remove the files of tables that config no longer has."""
    new = named_by_manifest(folder / COMPLETE) if files.is_complete(folder) else set()
    # If the manifest has moved already, or these are a report's files, nothing is left to remove.
    obsolete = named_by_manifest(folder) - new if new else set()
    files.move_in(folder, last=(MANIFEST, REPORTS[0]), obsolete=obsolete)


def named_by_manifest(folder: Path) -> Set[str]:
    """The files that the manifest in a folder names; none if it cannot be read."""
    try:
        names = read_manifest(folder).checksums
    except MigrationError:
        return set()
    return {name for name in names if os.path.basename(name) == name and name.endswith(".json")} - {*REPORTS}


@contextlib.contextmanager
def os_errors(folder: Path) -> Iterator[None]:
    """Report an OSError of the block as a bundle that cannot be written (exit 4)."""
    try:
        yield
    except OSError as error:
        raise BundleError(
            "cannot write the bundle in %s: %s" % (folder, error.strerror or error),
            "free some space, or choose another folder with --data-dir"
            if error.errno == errno.ENOSPC
            else "choose a folder that you may write with --data-dir",
        ) from error
