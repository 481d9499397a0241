"""The coordinator of a run of all users: who is to be migrated, one snapshot for all, tasks for workers, the ledger."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import itertools
import os
import shutil
import sqlite3
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from migration.cli import configuration, terminal
from migration.cli.log import log
from migration.errors import ExitCode, MigrationError, ResourceError, SourceError, UsageError, error_of
from migration.fleet import cluster, ledger, origin, results, room, selection, summary
from migration.fleet.cluster import Lost, Workers
from migration.fleet.ledger import Ledger, Outcome, Pending
from migration.fleet.origin import Origin
from migration.fleet.results import folder_of
from migration.fleet.worker import Task, close_connections, fingerprint, migrate_users
from migration.postgres import connecting, parameters, shared_rows
from migration.postgres.representable import account_for
from migration.postgres.snapshot import Snapshot
from migration.settings import Settings
from migration.sqlite.schema import read_schema

log = log.getChild("all_users")

COMMON = ".shared"  # in the output folder, while a run lasts: what all users share
TICK = 1.0  # seconds between two looks at PostgreSQL and the cluster
LINE_SECONDS = 10.0  # between two lines of progress
LISTED = 50  # failed users on the terminal; all are in the summary
FEW = 5  # users in a line of the log
WITHOUT_WORKERS = 60.0  # seconds
IN_VAIN = 300.0  # seconds beyond the time limit of a task, until nothing is expected of its worker
TASK_SECONDS = 0.5  # a task of several users takes about so long
MOST_IN_TASK = 8  # users


def migrate_all(arguments: argparse.Namespace, settings: Settings, output: Path, book: Ledger) -> int:
    """Migrate everybody who is chosen, write the summary and return the exit code.

    Raises MigrationError where the run cannot begin or go on; the ledger and the summary say so, too.
    """
    with connecting.snapshot(settings) as db, _common_folder(output) as common:
        schema = read_schema(settings.schema_path)
        account_for(db, settings, schema)
        users = selection.users(db, settings, arguments.users_from, arguments.where_active)
        of = origin.origin_of(db, settings, schema)
        where = parameters.masked(settings.postgres)
        _require_same_origin(book, of, where, output, arguments.resume)
        snapshot = None if arguments.no_shared_snapshot else db.share()
        run = book.begin(
            db.visible() if snapshot else None,
            db.value("SELECT to_json(now() AT TIME ZONE 'UTC')::text").strip('"') + "Z",
            where,
            db.server_version,
            of,
        )
        try:
            total = _choose(book, run, users, arguments, settings, output)
            if total:
                log.info("run %d: %d users to migrate", run, total)
                with results.errors(common):
                    exported = shared_rows.export_shared(
                        db, settings if snapshot else dataclasses.replace(settings, tables=()), schema, common
                    )
                room.require_space(db, settings, schema, exported, total, book.bytes_of(run), output)
                task = Task(
                    str(output),
                    str(common),
                    snapshot,
                    db.visible(),
                    origin.as_text(of.database),
                    fingerprint(settings),
                    configuration.foreign(arguments.config),
                    arguments.schema_path,
                    settings.skip_orphans,
                    settings.strict,
                    arguments.user_timeout,
                )
                with _workers(arguments) as workers:
                    _migrate(_Run(book, run, total, db, settings, workers, task, arguments.max_connections))
                _require_all_ended(book, run)
        except BaseException as error:
            # On a full disk, say, neither can be written; the first error counts.
            with contextlib.suppress(MigrationError, sqlite3.Error):
                book.end(run, *_reason(error))
                summary.write(book, output, _relative)
            log.warning("run %d stopped: --resume migrates who is not yet done", run)
            raise
    failed = book.count(run, "failed")
    code = ExitCode.DIFFERENCES if failed else ExitCode.DONE
    book.end(run, code)
    for path in summary.write(book, output, _relative):
        log.info("summary written to %s", path)
    _show(book, run, output)
    return code


def _require_same_origin(book: Ledger, now: Origin, where: str, output: Path, resume: bool) -> None:
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


def _relative(user: str) -> str:
    return folder_of(Path(), user).name


def _reason(error: BaseException) -> Tuple[Optional[int], str]:
    """Exit code and words for the ledger; a bug has no code."""
    if isinstance(error, MigrationError):
        return int(error.exit_code), error.logged
    if isinstance(error, KeyboardInterrupt):
        return int(ExitCode.INTERRUPTED), "interrupted"
    return None, "internal error: " + type(error).__name__


def _choose(
    book: Ledger,
    run: int,
    users: Iterable[str],
    arguments: argparse.Namespace,
    settings: Settings,
    output: Path,
) -> int:
    """Enter the users in the ledger; returns how many are to be migrated. Raises MigrationError (exit 3) for none."""
    if not book.want(users, run, arguments.resume):
        raise SourceError(
            "no %susers in table %s of %s"
            % (
                "active " if arguments.where_active else "",
                settings.root.name,
                parameters.masked(settings.postgres),
            ),
            "check the database and its schema: --postgres-url, and POSTGRES_SCHEMA in config.py",
        )
    alike = book.alike(run) if results.ignores_case(output) else []
    if alike:
        raise UsageError(
            "users whose ids differ in capitals alone would share a folder in %s: %s"
            % (output, ", ".join(alike[:LISTED])),
            "choose an --output-dir on a file system that tells capitals apart",
        )
    if arguments.resume:
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


def _require_all_ended(book: Ledger, run: int) -> None:
    left = sum(book.count(run, state) for state in ("pending", "running"))
    if left:
        raise ResourceError(
            "%d users have no outcome: this is a fault of the suite" % left, "run again with --resume"
        )


@contextlib.contextmanager
def _common_folder(output: Path) -> Iterator[Path]:
    """A folder for what all users of this run share; what a killed run left is removed."""
    common = output / COMMON
    results.require_no_link(common)
    shutil.rmtree(str(common), ignore_errors=True)
    with results.errors(common):
        folder = common / uuid.uuid4().hex
        folder.mkdir(parents=True, mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(str(common), ignore_errors=True)


@contextlib.contextmanager
def _workers(arguments: argparse.Namespace) -> Iterator[Workers]:
    if arguments.scheduler is not None:
        with cluster.remote(arguments.scheduler, migrate_users.__module__) as workers:
            try:
                yield workers
            finally:
                workers.everywhere(close_connections)  # they go on living, without our connections
        return
    count = worker_count(arguments)
    with _inherited(arguments.postgres_url), cluster.local(count, arguments.worker_memory) as workers:
        yield workers


def worker_count(arguments: argparse.Namespace) -> int:
    return int(min(arguments.workers or cluster.cores(), arguments.max_connections - 1))


@contextlib.contextmanager
def _inherited(url: Optional[str]) -> Iterator[None]:
    """An URL of our command line in the environment of the processes that we start, and nowhere else."""
    if url is None:
        yield
        return
    before = os.environ.get("POSTGRES_URL")
    os.environ["POSTGRES_URL"] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ["POSTGRES_URL"]
        else:
            os.environ["POSTGRES_URL"] = before


class _Run(NamedTuple):
    """One run over the users that its ledger lists."""

    book: Ledger
    number: int
    total: int
    db: Snapshot
    settings: Settings
    workers: Workers
    task: Task
    max_connections: int


def _migrate(run: _Run) -> None:
    """Hand out users, a window of them at a time, until all have an outcome. Raises MigrationError where that cannot be."""
    waiting = _Waiting(run.book.pending(run.number))
    progress = _Progress(run.total)
    looked, with_workers, capacity = 0.0, time.monotonic(), 0
    heard = time.monotonic()
    with terminal.progress("migrate", run.total, "users", remaining=True) as advance:
        while True:
            if time.monotonic() - looked >= TICK:
                _require_snapshot(run)
                run.db.require_nobody_waits()
                before, capacity = capacity, run.workers.threads()
                if (
                    before < run.max_connections <= capacity
                ):  # more than may be: none keeps its connection now
                    run.workers.everywhere(close_connections)
                looked = time.monotonic()
                with_workers = looked if capacity else with_workers
                if capacity < before:
                    log.warning("%d of %d workers are left: their users are done by others", capacity, before)
                if looked - with_workers > WITHOUT_WORKERS:
                    raise run.workers.none_left
                _require_progress(run, looked - heard)
            _hand_out(run, waiting, capacity, progress.seconds)
            if not run.workers.under_way and capacity:
                return
            ended = run.workers.results(TICK)
            if ended or not run.workers.under_way:
                heard = time.monotonic()
            outcomes = [outcome for names, result in ended for outcome in _outcomes(names, result, waiting)]
            fatal = next((outcome for outcome in outcomes if outcome.fatal), None)
            run.book.finish(run.number, [outcome for outcome in outcomes if not outcome.fatal])
            for outcome in outcomes:
                if outcome.fatal:
                    continue
                progress.add(outcome)
                advance(1)
            if fatal is not None:
                run.workers.cancel()
                _require_snapshot(run)  # which says why, if it is gone
                raise error_of(ExitCode(fatal.exit_code or ExitCode.USAGE))(fatal.error or "", fatal.hint)
            progress.say()


def _require_progress(run: _Run, silent: float) -> None:
    """Raises MigrationError (exit 70) where workers are there and none gives a result, though each has a time limit."""
    limit = run.task.seconds * max(1, run.workers.largest) + IN_VAIN
    if silent > limit:
        run.workers.cancel()
        raise ResourceError(
            "no worker has given a result for %d s" % silent,
            "see what the workers wait for; end those that hang, then run again with --resume",
        )


def _hand_out(run: _Run, waiting: _Waiting, capacity: int, seconds: float) -> None:
    """Fill the window. The next tasks wait at the workers, unless that would be more connections than may be.

    ``seconds``: what a user has taken so far on average; quick ones go several in a task, which costs Dask less.
    """
    budget = run.max_connections - 1
    keep = capacity <= budget
    window = capacity * (1 + cluster.AHEAD) if keep else budget
    size = max(1, min(MOST_IN_TASK, int(TASK_SECONDS / seconds))) if seconds else 1
    tasks = list(itertools.islice(waiting.tasks(size), max(0, window - run.workers.under_way)))
    if tasks:
        run.book.start(user.user_id for user in itertools.chain.from_iterable(tasks))
        run.workers.submit(tasks, migrate_users, run.task._replace(keep_connection=keep))


class _Waiting:
    """Users to hand out: in tasks of several, but each alone whose task has ended its workers."""

    def __init__(self, users: Iterator[Pending]) -> None:
        self._users = users
        self._alone: List[Pending] = []

    def tasks(self, size: int) -> Iterator[List[Pending]]:
        while True:
            users = [self._alone.pop()] if self._alone else list(itertools.islice(self._users, size))
            if not users:
                return
            yield users

    def each_alone(self, users: Iterable[Pending]) -> None:
        self._alone += users


def _outcomes(users: Sequence[Pending], result: object, waiting: _Waiting) -> List[Outcome]:
    """What a task came to. Where it ended each worker that took it, the users are tried one by one."""
    if isinstance(result, list):
        return result
    assert isinstance(result, Lost)
    if result.hint is not None:
        return [Outcome(users[0].user_id, int(ExitCode.USAGE), result.message, fatal=True, hint=result.hint)]
    if len(users) == 1:
        return [Outcome(users[0].user_id, int(ExitCode.INTERNAL), result.message)]
    waiting.each_alone(users)
    return []


def _require_snapshot(run: _Run) -> None:
    """Raises MigrationError (exit 3) where the connection has ended that holds the snapshot of all users."""
    try:
        with connecting.opened(run.settings, run.db):
            run.db.value("SELECT 1")
    except MigrationError as error:
        raise SourceError(
            "the run is stopped, as the connection that held the snapshot of all users has ended: "
            + error.message,
            "check the server, then run again with --resume: who is done stays done",
        ) from error


class _Progress:
    """A line of progress now and then, where there is no terminal to draw a bar on."""

    def __init__(self, total: int) -> None:
        self._total = total
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
            log.debug("user %s: done, %d rows", outcome.user_id, outcome.rows or 0)
        else:
            self._failed += 1
            log.error("user %s: %s", outcome.user_id, (outcome.error or "").split("\n")[0])

    def say(self) -> None:
        now = time.monotonic()
        if terminal.wants_progress() or not self._done or now - self._said < LINE_SECONDS:
            return
        self._said = now
        speed = self._done / (now - self._began)
        left = datetime.timedelta(seconds=round((self._total - self._done) / speed))
        log.info(
            "%d of %d users, %d failed, %.1f a second, about %s left",
            self._done, self._total, self._failed, speed, left,
        )  # fmt: skip


def _show(book: Ledger, run: int, output: Path) -> None:
    """The numbers of this run, and who failed."""
    done, before, failed = book.migrated(run), book.done_before(run), book.count(run, "failed")
    rows = [("done", *done), ("done before", *before), ("failed", failed, None, None)]
    title = "Migrated to %s: %d users, %d failed" % (output, done.users, failed)
    if before.users:
        title += "; %d done before, their files verified" % before.users
    else:
        del rows[1]
    terminal.summary(title, ("state", "users", "rows", "bytes"), rows)
    if failed:
        listed = list(itertools.islice(book.users(run, "failed"), LISTED))
        terminal.summary(
            "Failed" if failed <= LISTED else "Failed, the first %d of %d" % (LISTED, failed),
            ("user", "exit code", "error"),
            [(row["user_id"], str(row["exit_code"] or ""), row["error"]) for row in listed],
            even_if_quiet=True,
        )
