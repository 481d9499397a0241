"""The log: on standard error and, if wanted, in a file; how errors are printed."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import Any, Iterator, List, Optional

from migration.errors import MigrationError, UsageError
from migration.printing import LISTS, printable, say, silence

log = logging.getLogger("migration")


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), LISTS)


class _Terminal(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the current sys.stderr, which a progress bar replaces while it is shown."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, value: Any) -> None:
        pass

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], (OSError, ValueError)):
            silence("stderr")
        else:
            super().handleError(record)


class _LogFile(logging.FileHandler):
    """Reports once if the log file cannot be written any more; the migration goes on."""

    broken = False

    def _open(self) -> Any:
        """Create the file with mode 0600. A named pipe without a reader is an error instead of a wait."""
        patient = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
        descriptor = os.open(self.baseFilename, patient, 0o600)
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "a", encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.broken:
            self.broken = True
            say("warning: the log file %s cannot be written: %s" % (self.baseFilename, error.strerror))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closing tries to write the rest again
            super().close()


@contextlib.contextmanager
def logging_to(level: str, file: Optional[Path]) -> Iterator[None]:
    """Log to standard error from ``level`` up, and to ``file`` from INFO or ``level`` up. Raises UsageError."""
    terminal = _Terminal()
    terminal.setLevel(level)
    terminal.setFormatter(_Printable("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    handlers: List[logging.Handler] = [terminal]
    if file is not None:
        handlers.append(_log_file(file, min(logging.INFO, logging.getLevelName(level))))
    was = log.level, log.propagate, log.handlers
    log.setLevel(min(handler.level for handler in handlers))
    log.propagate = False
    log.handlers = handlers
    try:
        yield
    finally:
        log.setLevel(was[0])
        log.propagate, log.handlers = was[1:]
        for handler in handlers:
            handler.close()


def _log_file(path: Path, level: int) -> logging.Handler:
    try:
        handler = _LogFile(str(path))
    except OSError as error:
        raise UsageError(
            "cannot write the log file %s: %s" % (path, error.strerror),
            "set --log-file to a file in a folder that exists",
        ) from error
    handler.setLevel(level)
    handler.setFormatter(_Printable("%(asctime)s %(levelname)-7s %(message)s"))
    return handler


def quiet() -> bool:
    """Whether only warnings and errors are wanted."""
    return any(isinstance(handler, _Terminal) and handler.level > logging.INFO for handler in log.handlers)


def print_error(error: MigrationError) -> None:
    """Print error and hints to standard error, and to the log file without personal data."""
    log.debug("exit code %d", error.exit_code)
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(log.makeRecord(log.name, logging.ERROR, "", 0, "%s", (error.logged,), None))
    say("error: " + error.message)
    if error.hint:
        say("try: " + error.hint)
    if error.private_hint:
        say(error.private_hint)
