"""Expected failures, one class for each exit code."""

from __future__ import annotations

import enum
import errno
import functools
from typing import Any, Optional, Tuple, Type


class ExitCode(enum.IntEnum):
    """What a script returns to the shell; the README's table says the same."""

    DONE = 0
    DIFFERENCES = 1
    USAGE = 2
    SOURCE = 3
    BUNDLE = 4
    TARGET = 5
    INTERNAL = 70
    INTERRUPTED = 130


class MigrationError(Exception):
    """An expected failure: what went wrong, and what to try. Each exit code has its own subclass.

    ``private_hint`` holds advice with personal data in it (e-mail addresses): it is shown to the
    person at the terminal and never written to a log file. ``logged`` stands there for a message that names
    a person.
    """

    exit_code: ExitCode

    def __init__(
        self,
        message: str,
        hint: Optional[str] = None,
        *,
        private_hint: Optional[str] = None,
        logged: Optional[str] = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.private_hint = private_hint
        self.logged = message if logged is None else logged

    def __reduce__(self) -> Tuple[Any, ...]:
        """So that it can come from another process."""
        named = {"private_hint": self.private_hint, "logged": self.logged}
        return functools.partial(type(self), self.message, self.hint, **named), ()


class UsageError(MigrationError):
    """An option, an environment variable, config.py or the SQLite schema file is not as it must be."""

    exit_code = ExitCode.USAGE


class SourceError(MigrationError):
    """PostgreSQL cannot be reached, refuses, or holds what cannot be represented; or the user is not in it."""

    exit_code = ExitCode.SOURCE


class BundleError(MigrationError):
    """The export bundle is missing, damaged or of another user, or its folder cannot be used."""

    exit_code = ExitCode.BUNDLE


class TargetError(MigrationError):
    """The SQLite database cannot be read, written or replaced, or refuses the rows."""

    exit_code = ExitCode.TARGET


class ResourceError(MigrationError):
    """The machine lacks memory, threads, processes or open files."""

    exit_code = ExitCode.INTERNAL


def error_of(code: ExitCode) -> Type[MigrationError]:
    """The class of an exit code that came from elsewhere, another process for example."""
    return next(kind for kind in MigrationError.__subclasses__() if kind.exit_code is code)


_NO_MEMORY = "no memory", "free some memory, or raise the limit (ulimit -v, a container's limit)"
_NO_MAPPING = "failed to map segment"  # the dynamic linker's, of a library that finds no room
_NO_THREAD = "can't start new thread"  # CPython's RuntimeError has no code


def lacking(error: BaseException) -> Optional[MigrationError]:
    """The error to report where the machine had no memory, thread, process or file descriptor left; None for another.

    What was raised because of it counts too: a phase may have taken it for a file that cannot be written.
    """
    first: Optional[BaseException] = error
    while first is not None:
        what = _missing(first, first is error)
        if what is not None:
            return ResourceError("the machine has too few resources: " + what[0], what[1])
        first = first.__cause__ or first.__context__
    return None


def _missing(error: BaseException, outermost: bool) -> Optional[Tuple[str, str]]:
    """What is missing, and what to do. EAGAIN within another error is a lock that somebody holds."""
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and _NO_MAPPING in str(error)):
        return _NO_MEMORY
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return (
            "no further thread",
            "end other programs, or raise the limit of processes (ulimit -u) or memory (ulimit -v)",
        )
    if not isinstance(error, OSError):
        return None
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "no further open file", "end other programs, or raise the limit of open files (ulimit -n)"
    if error.errno == errno.ENOMEM:
        return _NO_MEMORY
    if error.errno == errno.EAGAIN and outermost:
        return "no further process", "end other programs, or raise the limit of processes (ulimit -u)"
    return None
