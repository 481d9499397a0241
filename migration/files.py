"""Private files, syncing, and sets of files that hold whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import shutil
import stat
from pathlib import Path
from typing import Any, BinaryIO, Collection, Iterator, NamedTuple, Sequence, Tuple

BLOCK = 1 << 20  # bytes read or written at once
STAGING = ".staging"
COMPLETE = ".complete"


class FileStamp(NamedTuple):
    """Identifies a file and its content: an equal stamp means that nobody has written it since."""

    device: int
    inode: int
    size: int  # bytes
    modified_ns: int  # of its content; whoever may write the file can set this time back
    changed_ns: int  # of anything about it, its name too; nobody can set this time back

    @classmethod
    def of(cls, found: os.stat_result) -> FileStamp:
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    @property
    def content(self) -> Tuple[int, ...]:
        """What stays the same if the file is only renamed."""
        return self[:4]


def create_private(path: Path, exclusive: bool = False) -> BinaryIO:
    """Open an empty file that only its owner may read or write, whatever the umask.

    An existing file is emptied; with ``exclusive`` it raises FileExistsError.
    """
    there = os.O_EXCL if exclusive else os.O_TRUNC | os.O_NOFOLLOW
    descriptor = os.open(str(path), os.O_WRONLY | os.O_CREAT | there, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb")


def write_private(path: Path, content: bytes) -> None:
    with create_private(path) as file:
        file.write(content)


def make_folder(folder: Path) -> None:
    """Make a folder that only its owner may use, with its parents, so that it survives a power cut."""
    missing = list(itertools.takewhile(lambda path: not path.exists(), (folder, *folder.parents)))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in missing:
        sync_folder(path.parent)


def open_regular(path: Path) -> BinaryIO:
    """Open a plain file for reading. Raises OSError, for a symbolic link too: it could lead anywhere."""
    # without O_NONBLOCK, opening a named pipe waits for a writer
    descriptor = os.open(str(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotPlainError(errno.EINVAL, "not a plain file")
    return os.fdopen(descriptor, "rb", buffering=block_size(descriptor))


class NotPlainError(OSError):
    """A folder, a named pipe or a device stands where a plain file should."""


def block_size(descriptor: int) -> int:
    """Bytes to read at once: at most BLOCK, and for a small file no more memory than it fills."""
    return max(io.DEFAULT_BUFFER_SIZE, min(BLOCK, os.fstat(descriptor).st_size + 1))


def hash_into(digest: Any, file: BinaryIO) -> None:
    """Add the rest of a file to a digest of hashlib's, block by block."""
    size = block_size(file.fileno())
    for block in iter(lambda: file.read(size), b""):
        digest.update(block)


# Syncing


def sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_path(path: Path, flags: int = os.O_RDWR) -> None:
    descriptor = os.open(str(path), flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(paths: Sequence[Path]) -> None:
    """Sync several files. The disk is told of all of them before it is waited for."""
    for path in paths:
        with open_regular(path) as file:
            _begin_to_sync(file.fileno())
    for path in paths:
        sync_path(path, os.O_RDONLY)


def _begin_to_sync(descriptor: int) -> None:
    """Have the writing of a small file begun, where the system can.

    Linux does that when it is told that the file is not needed in memory; a larger one is, to be read again.
    Source: https://man7.org/linux/man-pages/man2/posix_fadvise.2.html
    """
    if hasattr(os, "posix_fadvise") and os.fstat(descriptor).st_size < BLOCK:
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


# Some file systems cannot sync a folder.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, where the system can."""
    try:
        sync_path(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


# Several files, whole or not at all. The caller holds a lock on the folder, and calls ``move_in`` whenever it
# has taken that lock, in case an earlier run was killed while its files moved.


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield an empty folder for files that are to replace those of ``folder``, all of them or none.

    The block writes the files. When it ends well, they are synced, and one rename marks the set as complete: from then on
    the new files hold, and ``move_in`` brings them to their places. When it fails, nothing has changed.
    """
    staging = folder / STAGING
    shutil.rmtree(str(staging), ignore_errors=True)
    staging.mkdir(mode=0o700)
    try:
        yield staging
        sync_all(list(staging.iterdir()))
        sync_folder(staging)
        os.replace(str(staging), str(folder / COMPLETE))
        sync_folder(folder)
    finally:
        shutil.rmtree(str(staging), ignore_errors=True)


def move_in(folder: Path, last: Collection[str], obsolete: Collection[str] = ()) -> None:
    """Bring the files of a complete set to their places; does nothing where there is no such set.

    A run that was killed in it is continued by the next call. ``last``: names that move after the others;
    ``obsolete``: names of files in ``folder`` to remove, as the new set has none of them.
    """
    complete = folder / COMPLETE
    if not is_complete(folder):
        return
    for name in obsolete:
        if (folder / name).is_file() or (folder / name).is_symlink():
            (folder / name).unlink()
    for path in sorted(complete.iterdir(), key=lambda path: path.name in last):
        os.replace(str(path), str(folder / path.name))
    complete.rmdir()
    sync_folder(folder)


def is_complete(folder: Path) -> bool:
    """Whether a complete set of files waits to be moved to its places."""
    complete = folder / COMPLETE
    return complete.is_dir() and not complete.is_symlink()
