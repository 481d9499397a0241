"""Coordinate a run of all users: share one snapshot, hand users to workers, record outcomes in the ledger."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shutil
import sqlite3
import time
import uuid
from pathlib import Path
from typing import Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from migration.cli import terminal
from migration.cli.log import log
from migration.errors import ExitCode, MigrationError, ResourceError, SourceError, error_of
from migration.fleet import (
    cluster,
    coverage,
    local_workers,
    origin,
    results,
    resuming,
    room,
    selection,
    summary,
)
from migration.fleet.cluster import Lost, Workers
from migration.fleet.ledger import Ledger, Outcome, Pending
from migration.fleet.progress import Progress
from migration.fleet.worker import Task, close_connections, fingerprint, migrate_users
from migration.postgres import connecting, parameters, polymorphic, shared_rows
from migration.postgres.coverage import Counting
from migration.postgres.representable import account_for
from migration.postgres.snapshot import Snapshot
from migration.printing import plural
from migration.settings import Settings
from migration.sqlite.schema import read_schema

log = log.getChild("all_users")

COMMON = ".shared"  # folder in the output folder, during a run: what all users share
TICK = 1.0  # seconds between two looks at PostgreSQL and the cluster
WITHOUT_WORKERS = 60.0  # seconds without any worker, until the run stops
IN_VAIN = 300.0  # seconds beyond the time limit of a task, until its worker counts as hung
TASK_SECONDS = 1.0  # what a task of several users should take at most
MOST_IN_TASK = 32  # users


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What concerns the run as a whole; ``Settings`` hold what concerns each user.

    ``users_from``: a file that names the users; None: all users, or the active ones if ``where_active``.
    ``shared_snapshot``: all users are read at one instant. ``scheduler``: URL of a cluster's; None: start ``workers`` processes
    of ``worker_memory`` bytes on this machine. ``user_timeout``: seconds. ``max_connections``: at least 2.
    ``config``: a config.py that is not the suite's own. ``schema_path`` (for all workers) and ``postgres_url`` (for local ones): as given on the command line.
    """

    output: Path
    users_from: Optional[str]
    where_active: bool
    resume: bool
    shared_snapshot: bool
    scheduler: Optional[str]
    workers: int
    worker_memory: int
    user_timeout: int
    max_connections: int
    config: Optional[str]
    schema_path: Optional[str]
    postgres_url: Optional[str]


def migrate_all(options: RunOptions, settings: Settings, book: Ledger) -> int:
    """Migrate the chosen users, write the summary and return the exit code.

    Raises MigrationError if the run cannot begin or go on; ledger and summary then say so too.
    """
    output, called = options.output, settings.root.called
    several = plural(called)
    with connecting.snapshot(settings) as db, _common_folder(output) as common:
        schema = read_schema(settings.schema_path)
        account_for(db, settings, schema)
        users = selection.users(db, settings, options.users_from, options.where_active)
        of = origin.origin_of(db, settings, schema)
        where = parameters.masked(settings.postgres)
        resuming.require_same_origin(book, of, where, output, options.resume, several)
        snapshot = db.share() if options.shared_snapshot else None
        run = book.begin(
            db.visible if snapshot else None,
            db.value("SELECT to_json(now() AT TIME ZONE 'UTC')::text").strip('"') + "Z",
            where,
            db.server_version,
            of,
        )
        try:
            _warn(book, run, list(polymorphic.unmeant(db, settings)))
            _enter(book, run, users, options, settings)
            if options.resume:
                resuming.verify_done(book, run, settings, output)
            total = book.count(run, "pending")
            if total:
                log.info("run %d: %d %s to migrate", run, total, several)
                with results.errors(common):
                    exported = shared_rows.export_shared(
                        db, settings if snapshot else dataclasses.replace(settings, tables=()), schema, common
                    )
                room.require_space(db, settings, schema, exported, total, book.bytes_of(run), output)
                task = Task(
                    str(output),
                    str(common),
                    snapshot,
                    db.visible,
                    origin.as_text(of.database),
                    fingerprint(settings),
                    options.schema_path,
                    settings.skip_orphans,
                    settings.strict,
                    options.user_timeout,
                    config=options.config,
                    called=called,
                )
                with _workers(options) as workers:
                    _migrate(_Run(book, run, total, db, settings, workers, task, options.max_connections))
                _require_all_ended(book, run, several)
            else:
                log.info(
                    "all %d %s were done before; their files were verified",
                    book.done_before(run).users,
                    several,
                )
            covered = None
            if snapshot:
                covered = coverage.count(Counting(db, settings, schema), book, run, output, common)
            if covered is not None:
                book.note_coverage(run, covered)
        except BaseException as error:
            # On a full disk, for example, neither can be written; the first error counts.
            with contextlib.suppress(MigrationError, sqlite3.Error):
                book.end(run, *_reason(error))
                summary.write(book, output, called)
            log.warning("run %d stopped: --resume migrates who is not yet done", run)
            raise
    failed = book.count(run, "failed")
    adds_up = covered is None or covered["complete"]
    code = ExitCode.DIFFERENCES if failed or not adds_up else ExitCode.DONE
    book.end(run, code)
    for path in summary.write(book, output, called):
        log.info("summary written to %s", path)
    summary.show(book, run, output, called)
    if covered is not None:
        coverage.show(covered)
    return code


def _reason(error: BaseException) -> Tuple[Optional[int], str]:
    """Exit code (None for a bug) and message for the ledger."""
    if isinstance(error, MigrationError):
        return int(error.exit_code), error.logged
    if isinstance(error, KeyboardInterrupt):
        return int(ExitCode.INTERRUPTED), "interrupted"
    return None, "internal error: " + type(error).__name__


def _enter(book: Ledger, run: int, users: Iterable[str], options: RunOptions, settings: Settings) -> None:
    """Enter the users in the ledger. Raises SourceError for none."""
    if not book.want(users, run, options.resume):
        raise SourceError(
            "no %s%s in table %s of %s"
            % (
                "active " if options.where_active else "",
                plural(settings.root.called),
                settings.root.name,
                parameters.masked(settings.postgres),
            ),
            "check the database and its schema: --postgres-url, and POSTGRES_SCHEMA in config.py",
        )


def _warn(book: Ledger, run: int, lines: Sequence[str]) -> None:
    """Say once what the run of one user says of whole tables."""
    for line in lines:
        log.warning("%s", line)
    book.note_warnings(run, lines)


def _require_all_ended(book: Ledger, run: int, several: str) -> None:
    left = sum(book.count(run, state) for state in ("pending", "running"))
    if left:
        raise ResourceError(
            "%d %s have no outcome: this is a fault of the suite" % (left, several), "run again with --resume"
        )


@contextlib.contextmanager
def _common_folder(output: Path) -> Iterator[Path]:
    """Make a folder for what all users of this run share. Remove what a killed run left."""
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
def _workers(options: RunOptions) -> Iterator[Workers]:
    if options.scheduler is not None:
        with cluster.remote(options.scheduler, migrate_users.__module__) as workers:
            try:
                yield workers
            finally:
                workers.everywhere(close_connections)  # a cluster's workers outlive this run
        return
    with _inherited(options.postgres_url), local_workers.started(
        options.workers, options.worker_memory
    ) as workers:
        yield workers


@contextlib.contextmanager
def _inherited(url: Optional[str]) -> Iterator[None]:
    """Put the URL from our command line into the environment during the block, for the processes started in it."""
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
    """What the functions below need of one run."""

    book: Ledger
    number: int
    total: int
    db: Snapshot
    settings: Settings
    workers: Workers
    task: Task
    max_connections: int


def _migrate(run: _Run) -> None:
    """Hand out users, a window at a time, until all have an outcome. Raises MigrationError if the run must stop."""
    waiting = _Waiting(run.book.pending(run.number), run.total)
    progress = Progress(run.total, run.settings.root.called)
    looked, with_workers, capacity = 0.0, time.monotonic(), 0
    heard = time.monotonic()
    several = plural(run.settings.root.called)
    with terminal.progress("migrate", run.total, several, remaining=True) as advance:
        while True:
            if time.monotonic() - looked >= TICK:
                _require_snapshot(run)
                run.db.require_nobody_waits()
                before, capacity = capacity, run.workers.threads()
                # With more workers than connections, none may keep an idle one.
                if before < run.max_connections <= capacity:
                    run.workers.everywhere(close_connections)
                looked = time.monotonic()
                with_workers = looked if capacity else with_workers
                if capacity < before:
                    log.warning(
                        "%d of %d workers are left: their %s are done by others", capacity, before, several
                    )
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
                _require_snapshot(run)  # a lost snapshot is the better explanation
                raise error_of(ExitCode(fatal.exit_code or ExitCode.USAGE))(fatal.error or "", fatal.hint)
            progress.say()


def _require_progress(run: _Run, silent: float) -> None:
    """Raises ResourceError if no worker has given a result for longer than the time limit of its task."""
    limit = run.task.seconds * max(1, run.workers.largest) + IN_VAIN
    if silent > limit:
        run.workers.cancel()
        raise ResourceError(
            "no worker has given a result for %d s" % silent,
            "see what the workers wait for; end those that hang, then run again with --resume",
        )


def _hand_out(run: _Run, waiting: _Waiting, capacity: int, seconds: float) -> None:
    """Fill the window. Workers queue a next task, unless there are more workers than connections allowed.

    ``seconds``: the average time of a user so far; 0 before the first has ended.
    """
    budget = run.max_connections - 1
    keep = capacity <= budget
    window = capacity * (1 + cluster.AHEAD) if keep else budget
    size = users_in_task(seconds, waiting.left, window)
    tasks = list(itertools.islice(waiting.tasks(size), max(0, window - run.workers.under_way)))
    if tasks:
        run.book.start(user.user_id for user in itertools.chain.from_iterable(tasks))
        run.workers.submit(tasks, migrate_users, run.task._replace(keep_connection=keep))


def users_in_task(seconds: float, left: int, window: int) -> int:
    """How many users the next task has, where ``left`` are not handed out and ``window`` tasks are under way at once.

    Several quick users share a task: each task costs the coordinator about 5 ms of CPU. The last tasks are smaller and
    smaller, so that no worker has a long one while the others have none. ``seconds``: as in ``_hand_out``.
    """
    if not seconds:
        return 1
    return max(1, min(MOST_IN_TASK, int(TASK_SECONDS / seconds), left // max(1, window)))


class _Waiting:
    """Users to hand out, several in a task; those whose task killed its workers come one by one.

    ``left``: how many are not handed out.
    """

    def __init__(self, users: Iterator[Pending], left: int) -> None:
        self._users = users
        self.left = left
        self._alone: List[Pending] = []

    def tasks(self, size: int) -> Iterator[List[Pending]]:
        while True:
            users = [self._alone.pop()] if self._alone else list(itertools.islice(self._users, size))
            if not users:
                return
            self.left -= len(users)
            yield users

    def each_alone(self, users: Sequence[Pending]) -> None:
        self._alone += users
        self.left += len(users)


def _outcomes(users: Sequence[Pending], result: object, waiting: _Waiting) -> List[Outcome]:
    """The outcomes of a task. If it killed every worker that ran it, its users are tried one by one."""
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
    """Raises SourceError if the connection that holds the snapshot of all users has ended."""
    try:
        with connecting.opened(run.settings, run.db):
            run.db.value("SELECT 1")
    except MigrationError as error:
        raise SourceError(
            "the run is stopped, as the connection that held the snapshot of all users has ended: "
            + error.message,
            "check the server, then run again with --resume: who is done stays done",
        ) from error
