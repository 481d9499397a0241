"""One user's folder in a run of all users, and whether its files are still as the run made them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Iterator, Mapping, NamedTuple, Optional

from migration.bundle.manifest import MANIFEST, REPORTS
from migration.errors import MigrationError, TargetError
from migration.files import hash_into, make_folder, open_regular, sync_folder
from migration.sqlite import old_files
from migration.sqlite.errors import errors as sqlite_errors
from migration.sqlite.errors import in_use

DATABASE = "app.db"
BUNDLE = "bundle"
BACKUPS = "backups"  # exists only if a run replaced a database that somebody had written to
COMPANIONS = ("-wal", "-shm", "-journal")
LONGEST_NAME = 200  # of 255 bytes that file systems allow
BUSY_SECONDS = 2.0
CHANGED = "the database was changed or replaced"

_ASIDE = "app_%Y%m%d_%H%M%S.db"  # local time


class Made(NamedTuple):
    """SHA256 of the database, and of the lists of SHA256s of the bundle's files and of the validation's reports."""

    database: str
    bundle: str
    reports: Optional[str] = None  # an earlier version did not note it


def folder_of(output: Path, user_id: str) -> Path:
    """The user's folder: a name that any file system takes, of which no other id has one that differs only in case.

    Lower-case letters, digits, "_" and "-" stand for themselves, other bytes as in a URL, so that ``urllib.parse.unquote``
    reads the id from it. The digest in the name of a long id comes after a "~", which stands in no other name.
    """
    name = "".join(map(_AS_NAME.__getitem__, user_id.encode("utf-8"))) or "%"
    if _MEANS_MORE.fullmatch(name):
        name = "%%%02X%s" % (ord(name[0]), name[1:])
    if len(name) > LONGEST_NAME:
        name = name[: LONGEST_NAME - 65] + "~" + hashlib.sha256(user_id.encode("utf-8")).hexdigest()
    return output / name


_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_AS_NAME = tuple(chr(byte) if byte in _PLAIN else "%%%02X" % byte for byte in range(256))
# A device on Windows, with any suffix; what a command takes for an option, where it is no number.
# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file
_MEANS_MORE = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]|-(?![0-9]+$).*")


@contextlib.contextmanager
def errors(path: Path) -> Iterator[None]:
    """As ``migration.sqlite.errors.errors``, for a file in the output folder."""
    try:
        with sqlite_errors(path):
            yield
    except MigrationError as error:
        if error.hint is None:
            raise
        raise type(error)(error.message, of_output(error.hint), logged=error.logged) from error


def of_output(hint: str) -> str:
    """Replace the options in a phase's hint by those of a run of all users."""
    return re.sub(r"--(sqlite-path|backup-dir|data-dir)( (and|or) --backup-dir)?", "--output-dir", hint)


def require_no_links(output: Path, user_id: str) -> None:
    """Raises TargetError if a link would lead the user's files out of ``output``."""
    folder = folder_of(output, user_id)
    database = folder / DATABASE
    for path in (
        folder,
        folder / BUNDLE,
        folder / BACKUPS,
        database,
        *(database.with_name(DATABASE + end) for end in COMPANIONS),
    ):
        require_no_link(path)


def require_no_link(path: Path) -> None:
    if path.is_symlink():
        raise TargetError(
            "%s is a symbolic link: files would land outside the output folder" % path,
            "remove the link, or choose another --output-dir",
        )


def made(folder: Path, checksums: Mapping[str, str], database: Optional[str]) -> Made:
    """Digests of files just made. ``checksums``: the manifest's; ``database``: the SHA256 of the database, if known."""
    bundle = folder / BUNDLE
    files = {**checksums, MANIFEST: sha256_of(bundle / MANIFEST)}
    reports = {name: sha256_of(bundle / name) for name in REPORTS}
    return Made(database or sha256_of(folder / DATABASE), of_all(files), of_all(reports))


def difference(folder: Path, was: Made) -> Optional[str]:
    """What differs from the files that the run made, in words; None if nothing does."""
    database, bundle = folder / DATABASE, folder / BUNDLE
    if any(path.is_symlink() for path in (folder, database, bundle)):
        return "a symbolic link is in the place of the files"
    if not database.is_file():
        return "the database is missing"
    if not is_as_made(database, was.database):
        return CHANGED
    if not (bundle / MANIFEST).is_file():
        return "the bundle is missing"
    if not all((bundle / name).is_file() for name in REPORTS):
        return "the validation report is missing"
    names = {path.name for path in bundle.glob("*.json")} - set(REPORTS)
    try:
        files = {name: sha256_of(bundle / name) for name in names if not (bundle / name).is_symlink()}
    except OSError:
        return "the bundle cannot be read"
    return None if of_all(files) == was.bundle else "the bundle was changed or is incomplete"


def is_as_made(database: Path, sha256: str) -> bool:
    """Whether the file has this digest, and no journal or log beside it holds changes."""
    for end in ("-wal", "-journal"):
        beside = database.with_name(database.name + end)
        if beside.is_symlink() or (beside.is_file() and beside.stat().st_size):
            return False
    try:
        return sha256_of(database) == sha256
    except OSError:
        return False


@contextlib.contextmanager
def aside(folder: Path) -> Iterator[None]:
    """Move the user's database and its journals to BACKUPS; move them back if the block fails.

    The database may be damaged. Raises TargetError if a program has it open.
    """
    database, backups = folder / DATABASE, folder / BACKUPS
    moved = []
    with errors(database):
        if old_files.is_locked(database, BUSY_SECONDS):
            raise in_use(database)
        make_folder(backups)
        name = _free_name(backups)
        for end in (*COMPANIONS, ""):
            here, there = str(database) + end, str(name) + end
            if os.path.lexists(here):
                os.replace(here, there)
                moved.append((here, there))
        sync_folder(backups)
    try:
        yield
    except BaseException:
        if not database.exists():
            for here, there in moved:
                os.replace(there, here)
            with contextlib.suppress(OSError):  # others are in it
                backups.rmdir()
        raise


def _free_name(folder: Path) -> Path:
    when = datetime.now()
    while any(os.path.lexists(str(folder / when.strftime(_ASIDE)) + end) for end in ("", *COMPANIONS)):
        when += timedelta(seconds=1)
    return folder / when.strftime(_ASIDE)


def of_all(files: Mapping[str, str]) -> str:
    """The digest of a list of files: SHA256 by name."""
    listed = "".join("%s %s\n" % (files[name].lower(), name) for name in sorted(files))
    return hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()


def sha256_of(path: Path) -> str:
    """The digest of a plain file. Raises OSError, for a symbolic link too."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        hash_into(digest, file)
    return digest.hexdigest()
