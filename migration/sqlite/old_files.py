"""The files of an existing database, examined and copied before SQLite opens them.

When SQLite opens a database it rolls a journal back, or writes a write-ahead log into the database, and then removes it,
together with any part of it that it could not read. Next to an empty database it removes them unread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import struct
import time
import zlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Callable, Iterator, List, Optional, Tuple

from migration.files import FileStamp, create_private, make_folder, sync_folder, sync_path
from migration.settings import Backups
from migration.sqlite.errors import errors, in_use

COMPANIONS = ("-wal", "-shm", "-journal")
_LOGS = ("-wal", "-journal")
_ASIDE = "damaged"
_HEADER = b"SQLite format 3\0"


def all_of(path: Path) -> Iterator[Path]:
    """The names of a database's files, the database first."""
    for end in ("", *COMPANIONS):
        yield Path(str(path) + end)


def remove(path: Path) -> None:
    for each in all_of(path):
        if os.path.lexists(
            str(each)
        ):  # a read-only file system refuses to unlink even a file that does not exist
            with contextlib.suppress(FileNotFoundError):
                os.unlink(str(each))


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def token(path: Path) -> str:
    """A short name for a path."""
    return "%08x" % zlib.crc32(os.fsencode(str(path)))


def logs_of(path: Path) -> List[Path]:
    """The write-ahead log and the journal of a database, those that are not empty."""
    return [each for each in (Path(str(path) + end) for end in _LOGS) if size(each)]


def trouble(path: Path) -> Optional[str]:
    """Why SQLite cannot read all of a database's logs; None if it can."""
    logs = logs_of(path)
    if not logs:
        return None
    if not size(path):
        return "%s is empty, and %s beside it is not" % (path, logs[0].name)
    with open(str(path), "rb") as file:
        if file.read(len(_HEADER)) != _HEADER:
            return "%s begins as no SQLite database does" % path
    for each in logs:
        if not is_whole(each):
            return "%s is damaged" % each
    return None


# Logs: https://www.sqlite.org/fileformat2.html#walformat and #the_rollback_journal


def is_whole(path: Path) -> bool:
    """Whether SQLite can read every commit in a write-ahead log, or every page that it needs from a journal.

    An end that a crash has cut off was not committed yet and is not needed.
    """
    with open(str(path), "rb") as file:
        return _is_whole_journal(file) if path.name.endswith("-journal") else _is_whole_wal(file)


def _is_whole_wal(file: BinaryIO) -> bool:
    header = file.read(32)
    if len(header) < 32:
        return True
    magic, _, page, _, *numbers = struct.unpack(">8I", header)
    salts, sums = tuple(numbers[:2]), (numbers[2], numbers[3])
    order = {0x377F0682: "<", 0x377F0683: ">"}.get(magic)
    if order is None or not _is_page_size(page) or _summed(header[:24], order, (0, 0)) != sums:
        return False
    valid = True
    while True:
        frame = file.read(24 + page)
        if len(frame) < 24 + page:
            return True
        _, committed, *numbers = struct.unpack(">6I", frame[:24])
        if tuple(numbers[:2]) != salts:  # from an earlier use of the log, unless frames of this use follow
            valid = False
            continue
        if valid:
            sums = _summed(frame[:8] + frame[24:], order, sums)
            valid = sums == (numbers[2], numbers[3])
        if committed and not valid:
            return False


def _summed(data: bytes, order: str, sums: Tuple[int, int]) -> Tuple[int, int]:
    one, two = sums
    for first, second in struct.iter_unpack(order + "II", data):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two


_JOURNAL = bytes.fromhex("d9d505f920a163d7")
_UNSYNCED = 0xFFFFFFFF


def _is_whole_journal(file: BinaryIO) -> bool:
    length = os.fstat(file.fileno()).st_size
    begin = sector = page = 0
    while True:
        file.seek(begin)
        header = file.read(28)
        if len(header) < 28:
            return True
        if (
            header[:8] != _JOURNAL
        ):  # behind the first part, something older; a zero ends what is in use no more
            return begin > 0 or header[0] == 0
        count, nonce, _, *sizes = struct.unpack(">5I", header[8:])
        if begin == 0:
            sector, page = sizes
            if not _is_page_size(page) or not 32 <= sector <= 65536 or sector & (sector - 1):
                return False
        begin += sector
        records = max(0, length - begin) // (page + 8) if count == _UNSYNCED else count
        file.seek(begin)
        for number in range(records):
            record = file.read(page + 8)
            if len(record) < page + 8 or not _is_sound(record, page, nonce):
                return count == _UNSYNCED and number == records - 1  # cut off by the crash
        begin = -(-(begin + records * (page + 8)) // sector) * sector


def _is_sound(record: bytes, page: int, nonce: int) -> bool:
    content = record[4 : 4 + page]
    total = nonce + sum(content[i] for i in range(page - 200, 0, -200))
    return record[:4] != b"\0\0\0\0" and record[-4:] == struct.pack(">I", total & 0xFFFFFFFF)


def _is_page_size(number: int) -> bool:
    return 512 <= number <= 65536 and not number & (number - 1)


# Copies of files as they are

_LOCK_BYTES = 512
_LOCK_START = 0x40000000  # https://www.sqlite.org/fileformat2.html#the_lock_byte_page
_TRIES = 5
_BLOCK = 1 << 20  # bytes


def is_locked(path: Path, seconds: float) -> bool:
    """Whether another process keeps one of SQLite's locks for so many seconds; does not open the file as a database."""
    if not os.access(str(path), os.R_OK | os.W_OK):
        return False
    end = time.monotonic() + seconds
    while True:
        with open(str(path), "r+b") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCK_BYTES, _LOCK_START)
                return False
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    return False  # a file system without locks: SQLite reports it
        if time.monotonic() >= end:
            return True
        time.sleep(0.02)


def copy(path: Path, to: Path) -> None:
    """Copy the files of a database byte for byte, as they were at one moment. Raises MigrationError if somebody writes them."""
    for _ in range(_TRIES):
        remove(to)
        before = _state(path)
        for each in _existing(path):
            _copy_file(each, Path(str(to) + _end(each, path)))
        if _state(path) == before:
            return
    remove(to)
    raise in_use(path)


def _copy_file(path: Path, to: Path) -> None:
    """Copy a file. An OSError names the file that failed."""
    with open(str(path), "rb") as file, create_private(to, exclusive=True) as copied:
        while True:
            with _named(path):
                block = file.read(_BLOCK)
            if not block:
                return
            with _named(to):
                copied.write(block)
                copied.flush()


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _state(path: Path) -> List[FileStamp]:
    return [FileStamp.of(each.stat()) for each in _existing(path)]


def set_aside(path: Path, to: Backups) -> Path:
    """Copy a database's files that would lose something when SQLite opens them. Returns the copy's path."""
    folder = to.folder
    with errors(folder, "--backup-dir"):
        make_folder(folder)
        clear(path, to)
        partial = _partial(path, folder)
        try:
            copy(path, partial)
            first, *others = _existing(partial)
            for each in (first, *others):
                sync_path(each)
            name = take_name(
                folder, to.pattern(_ASIDE), datetime.now(), lambda name: _give(partial, first, name)
            )
        except BaseException:
            remove(partial)
            raise
        for each in others:
            os.replace(str(each), str(name) + _end(each, partial))
        with contextlib.suppress(FileNotFoundError):  # linked or moved
            os.unlink(str(first))
        sync_folder(folder)
        return name


def clear(path: Path, of: Backups) -> None:
    """Remove the unfinished copies of a killed ``set_aside``; the files that it copied are still in their place."""
    partial = _partial(path, of.folder)
    for first in _existing(partial)[:1]:
        end = _end(first, partial)
        for each in of.folder.glob("%s_%s_*.db%s" % (glob.escape(of.application), _ASIDE, end)):
            if each.samefile(first):
                remove(Path(str(each)[: len(str(each)) - len(end)]))
    remove(partial)


def _existing(path: Path) -> List[Path]:
    return [each for each in all_of(path) if each.exists()]


def _end(each: Path, path: Path) -> str:
    return each.name[len(path.name) :]


def _partial(path: Path, folder: Path) -> Path:
    return folder / (".damaged_%s.partial" % token(path))


def _give(partial: Path, first: Path, name: Path) -> None:
    if _existing(name):
        raise FileExistsError
    link(first, Path(str(name) + _end(first, partial)))


def link(partial: Path, name: Path) -> None:
    """Give a finished file its name. Raises FileExistsError where that is taken."""
    try:
        os.link(str(partial), str(name))
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: reserve the name, then take it
        create_private(name, exclusive=True).close()
        os.replace(str(partial), str(name))


def take_name(folder: Path, form: str, when: datetime, take: Callable[[Path], object]) -> Path:
    """Take the name of a second, or of the next that is free: ``take`` raises FileExistsError where it is not."""
    while True:
        name = folder / when.strftime(form)
        try:
            take(name)
        except FileExistsError:
            when += timedelta(seconds=1)
        else:
            return name
