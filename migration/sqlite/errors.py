"""Errors of SQLite and the system about a database's files, as messages that say what to do."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Iterator, Optional

from migration.errors import MigrationError, ResourceError, TargetError

# Result codes: https://www.sqlite.org/rescode.html
ERROR, BUSY, LOCKED, NOMEM, READONLY, INTERRUPT = 1, 5, 6, 7, 8, 9
IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL, CONSTRAINT, NOTADB = 10, 11, 13, 14, 15, 19, 26

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
    "locking protocol": PROTOCOL,
    "file is not a database": NOTADB,
}


def code_of(error: sqlite3.Error) -> int:
    """The primary result code of an error."""
    code: Optional[int] = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF
    if isinstance(error, sqlite3.IntegrityError):
        return CONSTRAINT
    # What has no class of its own is a damaged file, or a schema that SQLite cannot read.
    return _WORDS.get(str(error), CORRUPT if type(error) is sqlite3.DatabaseError else ERROR)


def failed(message: str, hint: Optional[str] = None) -> MigrationError:
    return TargetError(message, hint)


def unsound(path: Path, problem: str) -> MigrationError:
    return failed(
        "%s is not a sound SQLite database: %s" % (path, problem),
        "move it away, and what lies beside it (-wal, -journal), or choose another file with --sqlite-path"
        + of_newer(problem),
    )


def of_newer(problem: str) -> str:
    """Advice for a schema that this version of SQLite cannot read; else an empty text."""
    if not problem.startswith("malformed database schema"):
        return ""
    return "; it may be a newer SQLite's: this one is %s" % sqlite3.sqlite_version


def in_use(path: Path) -> MigrationError:
    return failed(
        "%s is open in another program (database is locked)" % path,
        "close the application and every other program that has it open, then run again",
    )


@contextlib.contextmanager
def errors(path: Path, option: str = "--sqlite-path", source: Optional[Path] = None) -> Iterator[None]:
    """Turn errors of SQLite and the system into a MigrationError that names the file and says what to do.

    ``option`` chooses another place for the file. ``source``: the database that is read, if it is another file.
    Leave the block before the database is closed: closing frees the room whose lack is to be found out.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _of_sqlite(error, path, option, path if source is None else source) from error
    except OSError as error:
        raise of_system(error, path, option) from error


def _of_sqlite(error: sqlite3.Error, path: Path, option: str, source: Path) -> MigrationError:
    code = code_of(error)
    text = str(error).partition(" with text ")[0]  # which would be quoted
    if code in (BUSY, LOCKED, PROTOCOL):
        refusal = _refusal(path)  # without locks at all, SQLite says so too
        return of_system(refusal, path, option) if refusal and refusal.errno in _NO_LOCKS else in_use(path)
    if code in (IOERR, CORRUPT, NOTADB):  # CORRUPT is what SQLite makes of a sector that cannot be read
        refusal = _unreadable(source)
        if refusal is not None:
            return of_system(refusal, source, option)
    if code in (FULL, IOERR):
        return _of_disk(path, option, full=code == FULL)
    if code == CANTOPEN and len(os.fsencode(str(path.absolute()))) > _LONGEST:
        return failed("the path of %s is too long for SQLite" % path, "choose a shorter one with " + option)
    if code in (READONLY, CANTOPEN):
        refusal = _refusal(path)
        if refusal is not None:
            return of_system(refusal, path, option)
        return failed(
            "%s cannot be written: %s" % (path, text),
            "check the permissions of the file and its folder, or set " + option,
        )
    if code in (NOTADB, CORRUPT):
        return unsound(source, text)
    if code == NOMEM:
        return ResourceError(
            "SQLite gets no memory for %s" % path,
            "free some memory, or raise the limit on it (ulimit -v), then run again",
        )
    return failed("SQLite refuses %s: %s" % (path, text))


def _of_disk(path: Path, option: str, full: bool) -> MigrationError:
    """SQLite does not report which file it failed to write or why. Find out with a small test write in each folder."""
    place, temporary = _folder(path), _temporary_folder()
    refusal = _refusal(path)
    if refusal is not None:
        return of_system(refusal, path, option)
    refusal = _refusal(temporary)
    if refusal is not None:
        return of_system(refusal, temporary, TEMPORARY)
    if full and _has_less_room(temporary, place):  # what was sorted there has gone by now
        return of_system(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), temporary, TEMPORARY)
    if full:
        return of_system(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), path, option)
    if _is_limited():
        return of_system(OSError(errno.EFBIG, os.strerror(errno.EFBIG)), path, option)
    return failed(
        "%s cannot be written or read: the disk reports an error, or has a quota" % path,
        "look at the system's log (dmesg) and the quota (quota -s), there and of %s; or choose another place with %s"
        % (temporary, option),
    )


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


TEMPORARY = "SQLITE_TMPDIR (a folder for temporary files)"


def _temporary_folder() -> Path:
    """Where SQLite sorts what does not fit in memory. Source: https://www.sqlite.org/tempfiles.html (section 5)"""
    places = [os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp"]
    return next((Path(place) for place in places if place and os.access(place, os.W_OK)), Path("."))


def _has_less_room(temporary: Path, place: Path) -> bool:
    try:
        if os.stat(str(temporary)).st_dev == os.stat(str(place)).st_dev:
            return False
        return shutil.disk_usage(str(temporary)).free < shutil.disk_usage(str(place)).free
    except OSError:
        return False


def _is_limited() -> bool:
    """Whether files may not be larger than a limit of this process (``ulimit -f``)."""
    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY


_TRIED = 1 << 18  # bytes


def _refusal(path: Path) -> Optional[OSError]:
    """Try to write and lock a small file in a file's folder; return the error, None if it works."""
    prefix = ".tried-" if path.is_dir() else ".%s.tried-" % path.name[:100]
    try:
        with tempfile.NamedTemporaryFile(dir=str(_folder(path)), prefix=prefix) as file:
            file.write(b"\0" * _TRIED)
            file.flush()
            os.fsync(file.fileno())
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise  # says nothing about the place
        return OSError(error.errno, error.strerror)
    return None


def _unreadable(path: Path) -> Optional[OSError]:
    """The error of reading a file to its end, None if that works."""
    try:
        if path.is_file():
            with open(str(path), "rb") as file:
                while file.read(1 << 20):
                    pass
    except OSError as error:
        return OSError(error.errno, error.strerror)
    return None


def of_system(error: OSError, path: Path, option: str = "--sqlite-path") -> MigrationError:
    """A MigrationError for the system's error at a path. ``option`` chooses another place for it."""
    where = path
    # Of two files the second is the one written. Hidden files are our own, whose names mean nothing to a user.
    for name in (error.filename2, error.filename):
        if isinstance(name, str):
            where = path if os.path.basename(name).startswith(".") else Path(name)
            break
    elsewhere = "choose another place with " + option
    if error.errno == errno.ENOSPC:
        return failed("no space left for %s" % where, "free some space, or " + elsewhere)
    if error.errno == errno.EDQUOT:
        return failed(
            "the disk quota is used up for %s" % where, "free some space (quota -s), or " + elsewhere
        )
    if error.errno == errno.EFBIG:
        return failed(
            "the file %s would be larger than is allowed" % where,
            "raise the limit (ulimit -f), or " + elsewhere + ", on a file system that holds such files",
        )
    if error.errno == errno.EROFS:
        return failed("%s cannot be written: %s" % (where, error.strerror), elsewhere)
    if error.errno in (errno.EBUSY, errno.EXDEV):
        return mounted(path, option)
    if error.errno in _NO_LOCKS:
        return failed(
            "the file system of %s has no locks: %s" % (where, error.strerror),
            elsewhere + ", on a local disk",
        )
    if error.errno == errno.EIO:
        return failed(
            "%s: the disk reports an error" % where,
            "look at the system's log (dmesg) and check the disk, or " + elsewhere,
        )
    if error.errno == errno.ELOOP:
        return failed("%s is a symbolic link" % (error.filename or path), "remove the link, or " + elsewhere)
    if error.errno == errno.ENAMETOOLONG:
        return failed("the name of %s is too long" % path, "choose a shorter one")
    return failed(
        "%s cannot be written: %s" % (where, error.strerror or error),
        "check the permissions of the file and its folder, or set " + option,
    )


def mounted(path: Path, option: str = "--sqlite-path") -> MigrationError:
    return failed(
        "%s cannot be replaced: it is a mount point, or in use by the system" % path,
        "mount the folder that holds the file, not the file itself, or choose another place with " + option,
    )


_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_LONGEST = 400  # bytes of a path that every SQLite takes, with the names of ours that go with it
