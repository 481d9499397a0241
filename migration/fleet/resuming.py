"""What ``--resume`` skips: users of the same database and configuration whose files are as the run made them."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from migration.cli import terminal
from migration.cli.log import log
from migration.errors import UsageError
from migration.fleet import cluster, ledger, results
from migration.fleet.ledger import Ledger
from migration.fleet.origin import Origin
from migration.printing import plural
from migration.settings import Settings

log = log.getChild("all_users")

FEW = 5  # users in a line of the log


def require_same_origin(
    book: Ledger, now: Origin, where: str, output: Path, resume: bool, several: str
) -> None:
    """Raises UsageError if the folder holds users of another database, or, with ``resume``, of another schema or config.

    Without ``resume`` another schema or configuration replaces what is there; another database never does.
    ``several``: what users are called, in the plural.
    """
    for before in book.before():
        if before.origin is not None and not before.origin.database.is_same(now.database):
            raise UsageError(
                "%s holds %s of another database: run %d read %s, this one would read %s"
                % (output, several, before.run, before.source, where)
                + (", which is not the same database any more" if before.source == where else ""),
                "choose another --output-dir, or name the database of that run with --postgres-url",
            )
    for before in book.origins_of_done() if resume else ():
        changed = [
            what
            for what, is_changed in (
                ("SQLite schema", before.origin is not None and before.origin.schema != now.schema),
                (
                    "configuration (config.py)",
                    before.origin is not None and before.origin.config != now.config,
                ),
            )
            if is_changed
        ]
        if changed:
            raise UsageError(
                "%s in %s were done with another %s, by run %d"
                % (several, output, " and ".join(changed), before.run),
                "leave --resume away to migrate everybody again, or choose another --output-dir, or take the old one back",
            )


def verify_done(book: Ledger, run: int, settings: Settings, output: Path) -> None:
    """Mark done users as pending if their files have changed, or if this run is stricter than the one that did them."""
    count: Dict[str, int] = {}  # reason → users
    first: Dict[str, List[str]] = {}  # reason → the first of them
    done, several = book.users(run, "done"), plural(settings.root.called)
    with terminal.progress("verify", book.count(run, "done"), several) as advance, ThreadPoolExecutor(
        cluster.cores()
    ) as pool:
        while True:
            page = list(itertools.islice(done, ledger.PAGE))
            if not page:
                break
            reasons = pool.map(lambda user: _reason_to_repeat(user, settings, output), page)
            again = [(user["user_id"], reason) for user, reason in zip(page, reasons) if reason is not None]
            book.again(user for user, _ in again)
            for user, reason in again:
                count[reason] = count.get(reason, 0) + 1
                if count[reason] <= FEW:
                    first.setdefault(reason, []).append(user)
            advance(len(page))
    for reason, users in sorted(first.items()):
        more = ", …" if count[reason] > FEW else ""
        words = reason
        if reason == results.CHANGED:
            words += ", and what is there now is kept in %s of their folders" % results.BACKUPS
        log.warning(
            "%d %s are done again, as %s: %s%s", count[reason], several, words, ", ".join(users), more
        )


def _reason_to_repeat(user: Mapping[str, Any], settings: Settings, output: Path) -> Optional[str]:
    made = ledger.made_of(user)
    if made is None:
        return "an earlier version of the suite did not note what was made"
    if user["left_out"] and not (settings.skip_orphans or settings.skips):
        return "rows were left out by --orphans skip"
    if user["warnings"] and settings.strict:
        return "the validation had warnings, which --strict makes errors"
    return results.difference(results.folder_of(output, user["user_id"]), made)
