"""What a worker of migrate_all_users.py does: run the phases of migrate.py for one user after another.

A worker takes its connection settings from its own environment, ``.env`` or config.py: no password is sent to it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
import socket
import threading
import time
import traceback
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence

from migrate import phases_in_a_row
from migration.bundle.folder import held
from migration.cli import configuration
from migration.cli.log import log
from migration.errors import ExitCode, MigrationError, ResourceError, UsageError, lacking
from migration.files import make_folder
from migration.fleet import ledger, origin, results
from migration.fleet.ledger import INTERRUPTED, Outcome, Pending
from migration.fleet.results import BUNDLE, DATABASE, folder_of
from migration.postgres import connecting, explanations, shared_rows, snapshot
from migration.postgres.snapshot import Snapshot
from migration.settings import Settings
from migration.sqlite.schema import read_schema

ATTEMPTS = 3  # if the connection is lost
GRACE = 20.0  # seconds to stop after a user's time is over, until the process is ended
IDLE = "1h"  # after which PostgreSQL ends the transaction of a worker that lost its coordinator


class Task(NamedTuple):
    """What the coordinator sends to a worker; everything else the worker finds in its own environment.

    ``config``: the coordinator's config.py, for a worker that names none itself; None: the suite's.
    ``common``: the folder of what all users share, on storage that all machines have. ``snapshot``: the id of the
    run's snapshot; None: each user has one of their own. ``visible``: ``Snapshot.visible`` of that snapshot.
    ``database``: identifies it, as ``origin.as_text`` writes it.
    ``fingerprint``: the result of ``fingerprint()`` at the coordinator. ``seconds``: the time limit of a user.
    ``keep_connection``: whether the connection may stay open between two users.
    """

    output: str
    common: str
    snapshot: Optional[str]
    visible: str
    database: str
    fingerprint: str
    schema_path: Optional[str]
    skip_orphans: bool
    strict: bool
    seconds: int
    keep_connection: bool = True
    config: Optional[str] = None
    called: str = "user"  # Root.called


class RunStopped(Exception):
    """The whole run must stop, for a reason that concerns all users."""

    def __init__(self, error: MigrationError) -> None:
        super().__init__(error.logged)
        self.error = error


def migrate_users(task: Task, users: Sequence[Pending]) -> List[Outcome]:
    """Migrate one user after another, until one stops the run."""
    outcomes: List[Outcome] = []
    for user in users:
        outcomes.append(migrate_user(task, user))
        if outcomes[-1].fatal:
            break
    return outcomes


def migrate_user(task: Task, user: Pending) -> Outcome:
    """Migrate and validate one user. Raises nothing: the outcome holds every error, without personal data."""
    user_id = user.user_id
    started = ledger.now()
    if _mark_of(task, user_id).exists():
        return _failed(user_id, _too_long(task))._replace(attempts=0)
    for attempt in range(1, ATTEMPTS + 1):
        failure: Optional[MigrationError] = None
        try:
            outcome = _attempt(task, user)
        except RunStopped as stopped:
            failure = stopped.error
            outcome = _failed(user_id, failure)._replace(fatal=True)
        except MigrationError as error:
            failure = error
            outcome = _failed(user_id, failure)
        except Exception as error:  # noqa: BLE001  a bug is one user's end, and its text may hold personal data
            outcome = _unexpected(user_id, error)
        # after a lost connection a new one may still adopt the snapshot
        if not isinstance(failure, explanations.ConnectionLost) or attempt == ATTEMPTS:
            break
        time.sleep(0.1 * attempt)
    return outcome._replace(attempts=attempt, started=started, ended=ledger.now())


def _failed(user_id: str, error: MigrationError) -> Outcome:
    hint = None if error.hint is None else results.of_output(error.hint)
    return Outcome(user_id, int(error.exit_code), error.logged, hint=hint)


def _unexpected(user_id: str, error: Exception) -> Outcome:
    expected = lacking(error)
    if expected is not None:
        return _failed(user_id, expected)
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = "%s, line %d" % (Path(place.filename).name, place.lineno or 0)
    words = "internal error: %s in %s" % (type(error).__name__, where)
    return Outcome(user_id, int(ExitCode.INTERNAL), words)


def _attempt(task: Task, user: Pending) -> Outcome:
    settings = _settings(task)
    with _snapshot(task, settings) as db, _limited(task, user.user_id, db):
        return phases(settings, user.user_id, db, _to_replace(task, user))


def _to_replace(task: Task, user: Pending) -> Optional[str]:
    """``user.database``; INTERRUPTED where an attempt of this run has found none and begun.

    Dask gives a lost worker's users to another, also those that were done. Each worker notes in a file whom it has begun.
    """
    if user.database is not None:
        return user.database
    folder = folder_of(Path(task.output), user.user_id)
    begun = Path(task.common) / ("begun-%s-%d" % (socket.gethostname(), os.getpid()))
    name = folder.name.encode("utf-8")
    with results.errors(begun):
        if not os.path.lexists(str(folder / DATABASE)):
            with open(str(begun), "ab") as file:
                file.write(name + b"\n")
        elif any(name in notes.read_bytes().split(b"\n") for notes in begun.parent.glob("begun-*")):
            return INTERRUPTED
    return None


@contextlib.contextmanager
def _limited(task: Task, user_id: str, db: Snapshot) -> Iterator[None]:
    """Limit a user's time: close the connection when it is over, and end this process if that does not help.

    A mark keeps other workers from starting the same user. Raises ResourceError.
    """
    changing, done, over = threading.Lock(), threading.Event(), []

    def end() -> None:
        with changing:
            if done.is_set():
                return
            over.append(True)
        with contextlib.suppress(OSError):
            _mark_of(task, user_id).touch()
        db.guard.fail(_too_long(task))
        if not done.wait(GRACE):
            os._exit(1)

    timer = threading.Timer(task.seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception:
        if over:
            raise _too_long(task) from None
        raise
    finally:
        with changing:
            done.set()
        timer.cancel()
    if over:  # the connection is closed and of no use to the next user
        raise _too_long(task)


def _mark_of(task: Task, user_id: str) -> Path:
    return folder_of(Path(task.common), user_id).with_suffix(".long")


def _too_long(task: Task) -> MigrationError:
    return ResourceError(
        "the %s took longer than %d s" % (task.called, task.seconds),
        "see what it waits for: PostgreSQL's locks, the disk; or give it longer with --user-timeout",
    )


def phases(settings: Settings, user_id: str, db: Snapshot, database: Optional[str] = INTERRUPTED) -> Outcome:
    """Run the three phases for a user. ``database``: as in ``Pending``."""
    folder = folder_of(settings.data_dir, user_id)
    results.require_no_links(settings.data_dir, user_id)
    with results.errors(folder):
        make_folder(folder)
    settings = dataclasses.replace(
        settings, user_id=user_id, sqlite_path=folder / DATABASE, data_dir=folder / BUNDLE
    )
    aside = results.aside(folder) if _is_used(folder / DATABASE, database) else contextlib.nullcontext()
    ended = [time.perf_counter()]
    manifest = report = None
    left_out: Dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_if_empty, settings.data_dir)
        stack.enter_context(held(settings.data_dir, again=True))
        for done in phases_in_a_row(settings, db=db, importing=aside):
            ended.append(time.perf_counter())
            report = done.report
            if done.exported is not None:
                manifest = done.exported.manifest
                left_out = dict(manifest.orphans_skipped)
                for name, rows in done.exported.gone_along.items():
                    left_out[name] = left_out.get(name, 0) + rows
    assert manifest is not None and report is not None
    with os.scandir(str(settings.data_dir)) as entries:
        sizes = [entry.stat().st_size for entry in entries if entry.is_file()]
    database = None if report.database.log_bytes else report.database.sha256
    made = results.made(folder, manifest.checksums, database)
    return Outcome(
        user_id,
        int(ExitCode.DONE if report.passed else ExitCode.DIFFERENCES),
        None if report.passed else "the validation found differences: %d" % report.error_count,
        export_seconds=ended[1] - ended[0],
        import_seconds=ended[2] - ended[1],
        validation_seconds=ended[3] - ended[2],
        rows=sum(manifest.row_counts.values()),
        bytes=settings.sqlite_path.stat().st_size + sum(sizes),
        snapshot=manifest.snapshot,
        database_sha256=made.database,
        bundle_sha256=made.bundle,
        reports_sha256=made.reports,
        left_out=sum(manifest.orphans_skipped.values()),
        warnings=len(report.warnings),
        cut=sum(manifest.cut.values()) or None,
        brought=sum(manifest.brought.values()) or None,
        table_rows=json.dumps([manifest.row_counts, left_out], ensure_ascii=False),
    )


def _remove_if_empty(folder: Path) -> None:
    """No bundle has been written for a user who fails early."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _is_used(path: Path, database: Optional[str]) -> bool:
    """Whether the database must be kept: somebody has written to it since we made it, or we did not make it."""
    if database == INTERRUPTED or not path.is_file():
        return False
    wal = path.with_name(path.name + "-wal")
    if not path.stat().st_size and not (wal.is_file() and wal.stat().st_size):
        return False  # empty
    return database is None or not results.is_as_made(path, database)


# What a worker keeps from one user to the next

_SILENT = logging.NullHandler()  # phases log nothing here: the outcome and the user's report say it


@functools.lru_cache(maxsize=4)
def _settings(task: Task) -> Settings:
    """This worker's own settings. Raises RunStopped if they differ from the coordinator's."""
    log.addHandler(_SILENT)
    try:
        arguments = argparse.Namespace(
            config=os.environ.get("MIGRATION_CONFIG") or task.config,
            schema_path=task.schema_path,
            orphans="skip" if task.skip_orphans else "stop",
            strict=task.strict,
        )
        configuration.find(arguments)
        settings = dataclasses.replace(
            configuration.settings(arguments), backup=False, data_dir=Path(task.output)
        )
        if fingerprint(settings) != task.fingerprint:
            raise UsageError(
                "the suite, its config.py or the SQLite schema is another on worker %s"
                % socket.gethostname(),
                "install the same version and the same files on every machine",
            )
        if not (Path(task.common) / shared_rows.INDEX).is_file():
            raise UsageError(
                "worker %s does not see %s" % (socket.gethostname(), task.common),
                "put --output-dir on storage that every machine has at the same path",
            )
        return settings
    except MigrationError as error:
        raise RunStopped(error) from error


def fingerprint(settings: Settings) -> str:
    """A digest of what workers and coordinator must have in common: code, config, SQLite schema."""
    digest = hashlib.sha256()
    for path in sorted((*configuration.SUITE.glob("*.py"), *configuration.SUITE.glob("migration/**/*"))):
        # The folders in config.py may differ. What must be equal in it is added below.
        if path.suffix in (".py", ".j2") and path.name != "config.py":
            digest.update(path.read_bytes())
    digest.update(repr((settings.excluded_tables, settings.unrelated_tables)).encode("utf-8"))
    digest.update(origin.config_digest(settings).encode("utf-8"))
    digest.update(origin.schema_digest(read_schema(settings.schema_path)).encode("utf-8"))
    return digest.hexdigest()


def _require_same_database(task: Task, db: Snapshot) -> None:
    """Raises RunStopped if this worker's settings name another database. A shared snapshot would already fail there."""
    if not origin.database_of(db).is_same(origin.from_text(task.database)):
        raise RunStopped(
            UsageError(
                "worker %s reads another database than the coordinator" % socket.gethostname(),
                "set the same POSTGRES_URL, or its parts, on every machine",
            )
        )


class _Kept(NamedTuple):
    """An open snapshot, and the stack that closes it."""

    common: str
    db: Snapshot
    closing: contextlib.ExitStack


_idle: List[_Kept] = []
_lock = threading.Lock()


@contextlib.contextmanager
def _snapshot(task: Task, settings: Settings) -> Iterator[Snapshot]:
    """The run's snapshot, or one for this user, on a connection that no other thread uses."""
    if task.snapshot is None:
        with contextlib.ExitStack() as closing:
            try:
                own = closing.enter_context(connecting.snapshot(settings))
            except MigrationError as error:
                raise RunStopped(error) from error
            _require_same_database(task, own)
            yield own
        return
    kept = _take(task) or _open(task, settings)
    try:
        yield kept.db
    except BaseException:  # an aborted transaction cannot be read from again
        kept.closing.close()
        raise
    if task.keep_connection:
        with _lock:
            _idle.append(kept)
    else:
        kept.closing.close()


def _take(task: Task) -> Optional[_Kept]:
    close_connections(task.common)
    with _lock:
        return _idle.pop() if _idle else None


def close_connections(but: Optional[str] = None) -> None:
    """Close idle connections: of all runs, or of all but the run ``but``."""
    with _lock:
        closed = [kept for kept in _idle if kept.common != but]
        _idle[:] = [kept for kept in _idle if kept.common == but]
    for kept in closed:
        kept.closing.close()


def _open(task: Task, settings: Settings) -> _Kept:
    """Connect and adopt the run's snapshot. Raises RunStopped: what fails here fails for every user."""
    closing = contextlib.ExitStack()
    try:
        exported = shared_rows.exported_shared(Path(task.common))
        db = closing.enter_context(connecting.snapshot(settings, task.snapshot, exported))
        with connecting.opened(settings, db):
            if db.visible != task.visible:  # a server that has crashed reuses the ids of snapshots
                raise snapshot.snapshot_gone()
            db.rows("SELECT pg_catalog.set_config('idle_in_transaction_session_timeout', %s, true)", (IDLE,))
    except MigrationError as error:
        closing.close()
        raise RunStopped(error) from error
    return _Kept(task.common, db, closing)
