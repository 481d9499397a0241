"""Who is migrated in this run: the users who are chosen, but for those who are done and need not be done again."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional

from migration.cli import terminal
from migration.cli.log import log
from migration.errors import SourceError, UsageError
from migration.fleet import cluster, ledger, results
from migration.fleet.ledger import Ledger
from migration.fleet.origin import Origin
from migration.fleet.results import folder_of
from migration.postgres import parameters
from migration.settings import Settings

log = log.getChild("all_users")

LISTED = 50  # users in a message
FEW = 5  # users in a line of the log


def require_same_origin(book: Ledger, now: Origin, where: str, output: Path, resume: bool) -> None:
    """Raises MigrationError (exit 2) where the folder's users are not of this database, or not to be resumed.

    Without ``--resume`` another schema or configuration replaces what is there; another database never does.
    """
    for before in book.before():
        if before.origin is not None and not before.origin.database.is_same(now.database):
            raise UsageError(
                "%s holds users of another database: run %d read %s, this one would read %s"
                % (output, before.run, before.source, where)
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
                "users in %s were done with another %s, by run %d"
                % (output, " and ".join(changed), before.run),
                "leave --resume away to migrate everybody again, or choose another --output-dir, or take the old one back",
            )


def choose(
    book: Ledger,
    run: int,
    users: Iterable[str],
    what: str,
    resume: bool,
    settings: Settings,
    output: Path,
) -> int:
    """Enter the users in the ledger; returns how many are to be migrated. ``what``: they are called so, if there are none.

    Raises MigrationError: exit 3 for none, 2 where their folders would be the same.
    """
    if not book.want(users, run, resume):
        raise SourceError(
            "no %s in table %s of %s" % (what, settings.root.name, parameters.masked(settings.postgres)),
            "check the database and its schema: --postgres-url, and POSTGRES_SCHEMA in config.py",
        )
    alike = book.alike(run) if results.ignores_case(output) else []
    if alike:
        raise UsageError(
            "users whose ids differ in capitals alone would share a folder in %s: %s"
            % (output, ", ".join(alike[:LISTED])),
            "choose an --output-dir on a file system that tells capitals apart",
        )
    if resume:
        _look_through(book, run, settings, output)
    total = book.count(run, "pending")
    if not total:
        log.info("all %d users were done before; their files were verified", book.done_before(run).users)
    return total


def _look_through(book: Ledger, run: int, settings: Settings, output: Path) -> None:
    """Have those done again whose files are not as they were made, or of whom more is asked now."""
    again: Dict[str, List[str]] = {}  # reason → users
    done = book.users(run, "done")
    with terminal.progress("verify", book.count(run, "done"), "users") as advance, ThreadPoolExecutor(
        cluster.cores()
    ) as pool:
        while True:
            page = list(itertools.islice(done, ledger.PAGE))
            if not page:
                break
            reasons = pool.map(lambda user: _reason_to_repeat(user, settings, output), page)
            for user, reason in zip(page, reasons):
                if reason is not None:
                    again.setdefault(reason, []).append(user["user_id"])
            advance(len(page))
    for reason, users in sorted(again.items()):
        book.again(users)
        more = ", …" if len(users) > FEW else ""
        if reason == results.CHANGED:
            reason += ", and what is there now is kept in %s of their folders" % results.BACKUPS
        log.warning("%d users are done again, as %s: %s%s", len(users), reason, ", ".join(users[:FEW]), more)


def _reason_to_repeat(user: Mapping[str, Any], settings: Settings, output: Path) -> Optional[str]:
    made = ledger.made_of(user)
    if made is None:
        return "an earlier version of the suite did not note what was made"
    if user["left_out"] and not (settings.skip_orphans or settings.skips):
        return "rows were left out by --orphans skip"
    if user["warnings"] and settings.strict:
        return "the validation had warnings, which --strict makes errors"
    return results.difference(folder_of(output, user["user_id"]), made)
