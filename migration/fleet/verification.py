"""``migrate_all_users.py --verify DIR``: a finished output against its ledger, without PostgreSQL. It changes nothing."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, NamedTuple, Tuple

from migration import lock
from migration.bundle.manifest import read_manifest
from migration.cli import terminal
from migration.cli.log import log
from migration.errors import ExitCode, MigrationError, TargetError
from migration.files import COMPLETE, STAGING
from migration.fleet import ledger, results, sealed, summary, user_files
from migration.fleet.coordinator import COMMON
from migration.fleet.ledger import Ledger
from migration.fleet.results import BUNDLE
from migration.fleet.user_files import Checked, Difference, Look
from migration.printing import size
from migration.templates import several

log = log.getChild("all_users")

LINE_SECONDS = 10.0  # between two lines of progress
LISTED = 50  # differences in the table at the end; the log has all
INDEX_NOT_NOTED = (
    "the ledger itself and summary.html: an earlier version of the suite noted no SHA256 of them"
)
LEDGER_NOT_PROVED = "the ledger's SHA256, which is in summary.json"


def verify(output: Path) -> int:
    """Compare every file with what the ledger says of it, and return the exit code.

    Raises BundleError if the ledger is missing or damaged, TargetError if a run is using the folder.
    """
    started = time.monotonic()
    path = output / ledger.NAME
    sealed.require(path)
    with contextlib.ExitStack() as stack:
        if os.access(str(output), os.W_OK):  # no run can be in a folder that nobody may write
            with results.errors(output):
                held = lock.held(output / user_files.LOCK, "the output folder %s" % output, TargetError)
                stack.enter_context(held)
        book = stack.enter_context(sealed.opened(path))
        folders = stack.enter_context(contextlib.closing(sqlite3.connect("")))  # a file, where it is large
        folders.execute("CREATE TABLE folders (name TEXT PRIMARY KEY) WITHOUT ROWID")
        everything = itertools.chain(
            _index(output, book), _users(output, book, folders), _others(output, folders)
        )
        totals = _totals(everything, book)
    _show(output, totals, time.monotonic() - started)
    return ExitCode.DIFFERENCES if totals.differences else ExitCode.DONE


class _Totals(NamedTuple):
    """``different``: users with differences; ``listed``: the first differences; ``unproved``: what was not checked → of how many users."""

    users: int
    files: int
    bytes: int
    differences: int
    different: int
    listed: List[Tuple[str, str, str]]
    unproved: Dict[str, int]


def _totals(everything: Iterable[Checked], book: Ledger) -> _Totals:
    """Log each difference, and add up."""
    users = files = size_ = count = different = 0
    listed: List[Tuple[str, str, str]] = []
    unproved: Dict[str, int] = {}
    for found in everything:
        users += found.user_id is not None
        different += found.user_id is not None and bool(found.differences)
        files += found.files
        size_ += found.bytes
        for what in found.unproved:
            unproved[what] = unproved.get(what, 0) + (found.user_id is not None)
        for difference in found.differences:
            words = difference.what
            if difference.sha256 is not None and count < LISTED:
                owner = book.owner_of(difference.sha256)
                words += "; it is the one of user %s" % owner if owner is not None else ""
            of = "" if found.user_id is None else "user %s: " % found.user_id
            log.error("%s%s %s", of, difference.file or "the folder", words)
            if count < LISTED:
                listed.append((found.user_id or "", difference.file or "the folder", words))
            count += 1
    return _Totals(users, files, size_, count, different, listed, unproved)


def _index(output: Path, book: Ledger) -> Iterator[Checked]:
    """The files of the output folder itself. Raises BundleError if the ledger is not the one that the index names."""
    index = sealed.read_index(output / summary.SUMMARY)
    look, differences = Look(output), []
    ended = book.last_run_ended()
    if not ended:
        differences.append(Difference(ledger.NAME, "says that the last run did not end: --resume goes on"))
    if not book.totals()["users"]:
        differences.append(Difference(ledger.NAME, "names no user: nothing was migrated"))
    if index.damage is not None:
        differences.append(Difference(summary.SUMMARY, index.damage))
        look.unproved.append(LEDGER_NOT_PROVED)
    elif not index.digests:
        look.unproved.append(INDEX_NOT_NOTED)
    for name, digest in index.digests.items():
        found = look.digest(name)
        if isinstance(found, Difference):
            differences.append(found)
        elif name == ledger.NAME and not ended:
            look.unproved.append(LEDGER_NOT_PROVED)  # which the run that did not end has changed
        elif name == ledger.NAME and found != digest:
            raise sealed.changed(output / name, output / summary.SUMMARY)
        elif found != digest:
            differences.append(Difference(name, user_files.CHANGED))
    yield Checked(None, differences, look.unproved, look.files, look.bytes)


def _users(output: Path, book: Ledger, folders: sqlite3.Connection) -> Iterator[Checked]:
    """Each user's files. Enters their folders in ``folders``."""
    rows, total, done = book.users(), book.totals()["users"], 0
    said = began = time.monotonic()
    with terminal.progress("verify", total, "users", remaining=True) as advance, ThreadPoolExecutor(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ) as pool:
        while True:
            page = list(itertools.islice(rows, ledger.PAGE))
            if not page:
                return
            names = [(results.folder_of(output, user["user_id"]).name,) for user in page]
            folders.executemany("INSERT INTO folders VALUES (?)", names)
            for found in pool.map(partial(user_files.checked, output), page):
                yield found
                advance(1)
                done += 1
                now = time.monotonic()
                if not terminal.wants_progress() and now - said > LINE_SECONDS:
                    said = now
                    log.info("%d of %d users, %.1f a second", done, total, done / (now - began))


_UNENDED = {COMMON, STAGING, COMPLETE}
_OURS = {ledger.NAME, summary.SUMMARY, summary.PAGE, user_files.LOCK}


def _others(output: Path, folders: sqlite3.Connection) -> Iterator[Checked]:
    """What is in the output folder and of no user."""
    with os.scandir(str(output)) as entries:
        for entry in entries:
            known = folders.execute(
                "SELECT 1 FROM folders WHERE name = ?", (os.fsencode(entry.name).decode("utf-8", "replace"),)
            )
            if entry.name in _OURS or known.fetchone() is not None:
                continue
            what = "was left by a run that was killed" if entry.name in _UNENDED else user_files.EXTRA
            with contextlib.suppress(MigrationError):
                manifest = read_manifest(output / entry.name / BUNDLE)
                what = "is no user's folder; its bundle is of user %s" % manifest.user_id
            yield Checked(None, [Difference(entry.name, what)], [], 0, 0)


def _show(output: Path, totals: _Totals, seconds: float) -> None:
    """Print the differences and what could not be checked; the last line says how it ended."""
    if totals.differences:
        title = (
            "Differences"
            if totals.differences <= LISTED
            else "Differences, the first %d of %d" % (LISTED, totals.differences)
        )
        terminal.summary(title, ("user", "file", "what"), totals.listed, even_if_quiet=True, is_result=True)
    lines = [
        "not checked%s: %s" % (", of " + several(users, "user") if users else "", what)
        for what, users in totals.unproved.items()
    ]
    read = "%s, %s files, %s, in %.1f s" % (
        several(totals.users, "user"),
        totals.files,
        size(totals.bytes),
        seconds,
    )
    if totals.differences:
        end = "DIFFERENT: " + several(totals.differences, "difference")
        if totals.different:
            end += ", of " + several(totals.different, "user")
    else:
        end = "INTACT" if not totals.unproved else "INTACT, so far as it could be checked"
    lines.append("%s: %s (%s)" % (output, end, read))
    terminal.output("\n".join(lines) + "\n", ExitCode.DIFFERENCES if totals.differences else ExitCode.DONE)
