"""The one error type of the suite, and the exit codes that it carries."""

from __future__ import annotations

import enum
import functools
from typing import Any, Dict, Optional, Tuple


class ExitCode(enum.IntEnum):
    """What a script returns to the shell; the README's table says the same."""

    DONE = 0
    DIFFERENCES = 1
    USAGE = 2
    SOURCE = 3
    BUNDLE = 4
    TARGET = 5
    INTERRUPTED = 130


class MigrationError(Exception):
    """An expected failure: what went wrong, what to try, and the exit code.

    ``private_hint`` holds advice with personal data in it (e-mail addresses): it is shown to the
    person at the terminal and never written to a log file. ``logged`` stands there for a message that names
    a person.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: ExitCode,
        hint: Optional[str] = None,
        private_hint: Optional[str] = None,
        logged: Optional[str] = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.hint = hint
        self.private_hint = private_hint
        self.logged = message if logged is None else logged

    def __reduce__(self) -> Tuple[Any, ...]:
        """So that it can come from another process."""
        made: Dict[str, Any] = {"exit_code": self.exit_code, "hint": self.hint}
        made.update(private_hint=self.private_hint, logged=self.logged)
        return functools.partial(type(self), self.message, **made), ()
