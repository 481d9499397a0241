"""What SQLite and the system refuse of a database's files, told apart by code, and what to do about it."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

from migration.errors import ExitCode, MigrationError

# Result codes: https://www.sqlite.org/rescode.html
ERROR, BUSY, LOCKED, NOMEM, READONLY, INTERRUPT = 1, 5, 6, 7, 8, 9
IOERR, CORRUPT, FULL, CANTOPEN, CONSTRAINT, NOTADB = 10, 11, 13, 14, 19, 26

# Python before 3.11 gives no code. These are SQLite's own words for one, which hold no name of a constraint or table;
# all others are told apart by the exception's class.
_WORDS = {
    "database is locked": BUSY,
    "database table is locked": LOCKED,
    "out of memory": NOMEM,
    "attempt to write a readonly database": READONLY,
    "interrupted": INTERRUPT,
    "disk I/O error": IOERR,
    "database disk image is malformed": CORRUPT,
    "database or disk is full": FULL,
    "unable to open database file": CANTOPEN,
    "file is not a database": NOTADB,
}


def code_of(error: sqlite3.Error) -> int:
    """The primary result code of an error."""
    code: Optional[int] = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF
    if isinstance(error, sqlite3.IntegrityError):
        return CONSTRAINT
    return _WORDS.get(str(error), ERROR)


def failed(message: str, hint: Optional[str] = None) -> MigrationError:
    return MigrationError(message, hint=hint, exit_code=ExitCode.TARGET)


def in_use(path: Path) -> MigrationError:
    return failed(
        "%s is open in another program (database is locked)" % path,
        "close the application and every other program that has it open, then run again",
    )


@contextlib.contextmanager
def errors(path: Path) -> Iterator[None]:
    """SQLite's and the system's refusals, as ones that name the file and say what to do.

    To be left before the database is closed: closing frees the room whose lack is to be found out.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _of_sqlite(error, path) from error
    except OSError as error:
        raise of_system(error, path) from error


def _of_sqlite(error: sqlite3.Error, path: Path) -> MigrationError:
    code = code_of(error)
    text = str(error).partition(" with text ")[0]  # which would be quoted
    if code in (BUSY, LOCKED):
        return in_use(path)
    if code in (FULL, IOERR):
        return _of_disk(path, full=code == FULL)
    if code in (READONLY, CANTOPEN):
        return failed(
            "%s cannot be written: %s" % (path, text),
            "check the permissions of the file and its folder, or set --sqlite-path",
        )
    if code in (NOTADB, CORRUPT):
        return failed(
            "%s is not a sound SQLite database: %s" % (path, text),
            "move it away, or choose another file with --sqlite-path",
        )
    if code == NOMEM:
        return MigrationError(
            "SQLite gets no memory for %s" % path,
            hint="free some memory, or raise the limit on it (ulimit -v), then run again",
            exit_code=ExitCode.INTERNAL,
        )
    return failed("SQLite refuses %s: %s" % (path, text))


def _of_disk(path: Path, full: bool) -> MigrationError:
    """SQLite does not say which file could not be written, nor why: the system is asked by writing a little to each place."""
    places = [path.parent, _temporary_folder()]
    found: List[Tuple[Path, OSError]] = []
    for place in places:
        refusal = _refusal(place, path)
        if refusal is not None:
            found.append((place, refusal))
    for place, refusal in found:
        if place == places[0]:
            return of_system(refusal, path)
        return of_system(refusal, place, "choose another folder for temporary files with SQLITE_TMPDIR")
    if full:
        return failed(
            "no space left for %s" % path, "free some space, or choose another place with --sqlite-path"
        )
    return failed(
        "%s cannot be written or read: the disk reports an error" % path,
        "look at the system's log (dmesg) and check the disk, or choose another place with --sqlite-path",
    )


def _temporary_folder() -> Path:
    """Where SQLite sorts what does not fit in memory. Source: https://www.sqlite.org/tempfiles.html (section 5)"""
    places = [os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp"]
    return next((Path(place) for place in places if place and os.access(place, os.W_OK)), Path("."))


_TRIED = 1 << 18  # bytes


def _refusal(folder: Path, path: Path) -> Optional[OSError]:
    """Why a little more cannot be written to a folder, None where it can."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        sizes = [file.stat().st_size for file in folder.glob("." + path.name + ".staging*")]
        if limit != resource.RLIM_INFINITY and max(sizes, default=0) + 65536 > limit:
            return OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    except (ImportError, OSError):  # Windows
        pass
    try:
        with tempfile.TemporaryFile(dir=str(folder)) as file:
            file.write(b"\0" * _TRIED)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None


def of_system(error: OSError, path: Path, elsewhere: Optional[str] = None) -> MigrationError:
    """The system's refusal to write, or read, at a path. ``elsewhere``: how to choose another place."""
    where = path if error.filename is None or elsewhere is not None else error.filename
    elsewhere = elsewhere or "choose another place with --sqlite-path or --backup-dir"
    if error.errno == errno.ENOSPC:
        return failed("no space left for %s" % where, "free some space, or " + elsewhere)
    if error.errno == getattr(errno, "EDQUOT", None):
        return failed(
            "the disk quota is used up for %s" % where, "free some space (quota -s), or " + elsewhere
        )
    if error.errno == errno.EFBIG:
        return failed(
            "the file %s would be larger than is allowed" % where,
            "raise the limit (ulimit -f), or " + elsewhere + " on a file system that holds such files",
        )
    if error.errno == errno.EROFS:
        return failed("%s cannot be written: %s" % (where, error.strerror), elsewhere)
    if error.errno in (errno.EBUSY, errno.EXDEV):
        return failed(
            "%s cannot be replaced: it is a mount point, or in use by the system" % where,
            "mount the folder that holds the file, not the file itself, or " + elsewhere,
        )
    if error.errno == errno.EIO:
        return failed(
            "%s: the disk reports an error" % where,
            "look at the system's log (dmesg) and check the disk, or " + elsewhere,
        )
    if error.errno == errno.ENAMETOOLONG:
        return failed("the name of %s is too long" % where, "choose a shorter one")
    return failed(
        "%s cannot be written: %s" % (where, error.strerror or error),
        "check the permissions of the file and its folder, or set --sqlite-path and --backup-dir",
    )
