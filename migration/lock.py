"""Lock files: only one run at a time uses a data folder or a SQLite file. A dead process holds no lock."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from pathlib import Path
from typing import Iterator, Set, Tuple, Type

from migration.errors import MigrationError

_holders: Set[Tuple[str, int]] = set()  # the locks that may be held again, and by which thread
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextlib.contextmanager
def held(path: Path, what: str, error: Type[MigrationError], again: bool = False) -> Iterator[None]:
    """Hold the lock file ``path`` for the block, or refuse and say who holds it.

    The kernel drops a process's flock when it dies, so a file that a killed run has left does not block.
    ``what``: the thing that is locked, for the message. ``again``: within the block, this thread may hold it once more.
    Raises ``error``.
    """
    holder = str(path), threading.get_ident()
    if holder in _holders:
        yield
        return
    while True:
        descriptor = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            _take(descriptor, what, error)
            # The last holder may have removed the file between our open and our lock.
            if _same_file(descriptor, path):
                break
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    try:
        if again:
            _holders.add(holder)
        with contextlib.suppress(OSError):  # on a full disk nobody learns who holds it, but the lock holds
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"%d" % os.getpid())
        yield
    finally:
        _holders.discard(holder)
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _take(descriptor: int, what: str, error: Type[MigrationError]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as refusal:
        if refusal.errno not in _HELD:
            raise error(
                "%s cannot be locked: %s" % (what, refusal.strerror or refusal),
                "its file system has no locks that keep two runs apart: choose a place on a local disk",
            ) from refusal
        os.lseek(descriptor, 0, os.SEEK_SET)
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
        raise error(
            "%s is in use by another migration%s" % (what, " (process %s)" % holder if holder else ""),
            "wait until it has ended, then run again",
        ) from None


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(str(path)))
    except FileNotFoundError:
        return False
