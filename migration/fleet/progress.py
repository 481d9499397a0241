"""How far a run of many users is."""

from __future__ import annotations

import datetime
import time

from migration.cli import terminal
from migration.cli.log import log
from migration.errors import ExitCode
from migration.fleet.ledger import Outcome
from migration.printing import plural

log = log.getChild("all_users")

LINE_SECONDS = 10.0  # between two lines of progress


class Progress:
    """Log a line of progress now and then if there is no terminal for a progress bar."""

    def __init__(self, total: int, called: str) -> None:
        """``called``: ``Root.called``."""
        self._total, self._called = total, called
        self._done = self._failed = 0
        self._worked = 0.0
        self._began = self._said = time.monotonic()

    @property
    def seconds(self) -> float:
        """A worker's time for one user, on average."""
        return self._worked / self._done if self._done else 0.0

    def add(self, outcome: Outcome) -> None:
        self._done += 1
        self._worked += sum(
            part or 0.0
            for part in (outcome.export_seconds, outcome.import_seconds, outcome.validation_seconds)
        )
        if outcome.exit_code == ExitCode.DONE:
            log.debug("%s %s: done, %d rows", self._called, outcome.user_id, outcome.rows or 0)
        else:
            self._failed += 1
            log.error("%s %s: %s", self._called, outcome.user_id, (outcome.error or "").split("\n")[0])

    def say(self) -> None:
        now = time.monotonic()
        if terminal.wants_progress() or not self._done or now - self._said < LINE_SECONDS:
            return
        self._said = now
        speed = self._done / (now - self._began)
        left = datetime.timedelta(seconds=round((self._total - self._done) / speed))
        log.info(
            "%d of %d %s, %d failed, %.1f a second, about %s left",
            self._done, self._total, plural(self._called), self._failed, speed, left,
        )  # fmt: skip
