"""Dask: workers that are handed one user after another, on this machine or behind a scheduler.

Dask is imported when it is needed, and nothing else of the suite needs it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import importlib
import importlib.util
import itertools
import logging
import multiprocessing
import queue
import re
import signal
import tempfile
import time
import uuid
import warnings
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from migration.cli import packages
from migration.errors import MigrationError, ResourceError, UsageError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment,unused-ignore]

log = logging.getLogger("migration.cluster")

CONNECT_SECONDS = 5
CLOSE_SECONDS = 10
ANSWER_SECONDS = 60
WORKER_SECONDS = 30  # until a scheduler has its first worker
SAME = "scheduler and workers need the same Python, the suite's requirements and the suite's folder as PYTHONPATH"
AHEAD = 1  # queued tasks per running one, so that workers never wait for the coordinator
TOGETHER_SECONDS = 0.1  # results of this time are taken together
UNREACHABLE = (OSError, TimeoutError, asyncio.TimeoutError)  # before Python 3.11 the last two differ
CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)
DASHBOARD_PORT = 8787
START_SECONDS = 60  # for a worker process on this machine
SETTLED_SECONDS = 3  # without one that is still starting
SILENT_SECONDS = 60  # without a sign of life from one, until another takes its place
LEAST_MEMORY = 200 * 10**6  # bytes: a worker takes some 100 MB
FILES, FILES_OF_WORKER = 60, 20  # that the coordinator has open, and more for each worker


class Lost(NamedTuple):
    """Stands in for a task's result. ``hint`` is None if the task ended every worker that ran it."""

    message: str
    hint: Optional[str]


FAILED = ("error", "cancelled")
GONE = Lost("the scheduler has ended", "start scheduler and workers again, then --resume")


def unusable(message: str, hint: Optional[str] = None) -> MigrationError:
    return UsageError(message, hint)


def require() -> None:
    """Raises MigrationError (exit 70) where Dask is not installed."""
    packages.require(packages.FOR_MANY)


_UNITS = {"": 1, "k": 1, "M": 2, "G": 3, "T": 4}


def bytes_of(text: str) -> int:
    """A size as ``1GB``, ``1.5 GiB`` or ``500 MB``. Raises ValueError, with words, where it is none or too little."""
    found = re.fullmatch(
        r"(\d{1,15}(?:\.\d{1,15})?) ?([kMGT]?)(i?)B?", text.strip(), re.IGNORECASE | re.ASCII
    )
    if found is None:
        raise ValueError("%r is no size: a number with its unit, as 1GB" % text)
    unit = found[2].upper().replace("K", "k")
    size = float(found[1]) * (1024 if found[3] else 1000) ** (_UNITS[unit] if unit else 0)
    if size < LEAST_MEMORY:
        raise ValueError("%r is too little: a worker takes %d MB at least" % (text, LEAST_MEMORY // 10**6))
    return int(size)


def require_resources(workers: int) -> None:
    """Raises MigrationError (exit 70) where this machine gives no room for so many worker processes."""
    import dask

    if resource is not None:
        needed = FILES + FILES_OF_WORKER * workers
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < needed:
            if hard != resource.RLIM_INFINITY and hard < needed:
                raise ResourceError(
                    "%d workers need %d open files, and no more than %d are allowed"
                    % (workers, needed, hard),
                    "raise the limit (ulimit -n), or start fewer with --workers",
                )
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    try:
        place = dask.config.get("temporary-directory", None) or tempfile.gettempdir()
        with tempfile.TemporaryDirectory(dir=place) as folder, tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        raise ResourceError(
            "there is no folder for temporary files: %s" % error,
            "set TMPDIR to a folder that you may write, with some space in it",
        ) from None


class Workers:
    """A client of a scheduler, with the tasks under way. ``none_left``: what it means that there is no worker any more."""

    def __init__(
        self, client: Any, none_left: MigrationError, look: Callable[[], None] = lambda: None
    ) -> None:
        self.none_left = none_left
        self._look = look  # what is done now and then
        self._client = client
        self._token = uuid.uuid4().hex[:8]  # a scheduler may know the tasks of other runs
        self._ended: "queue.Queue[Any]" = queue.Queue()
        self._number = itertools.count(1)
        self._tasks: Dict[Any, Sequence[Any]] = {}  # future → names

    def threads(self) -> int:
        """How many tasks can run at once. Raises MigrationError (exit 2) where the scheduler has gone."""
        self._look()
        try:
            return sum(_asked(self._client, self._client.scheduler.ncores).values())
        except UNREACHABLE as error:
            raise unusable("the connection to the scheduler is lost: %s" % error) from None

    @property
    def under_way(self) -> int:
        return len(self._tasks)

    @property
    def largest(self) -> int:
        """How many names the largest task under way has."""
        return max(map(len, self._tasks.values()), default=0)

    def submit(
        self, tasks: Sequence[Sequence[Any]], task: Callable[[Any, Sequence[Any]], object], common: object
    ) -> None:
        """Run ``task(common, names)`` for each sequence of names on any worker. One message for many costs little more."""
        keys = ["migrate-%s-%d" % (self._token, next(self._number)) for _ in tasks]
        futures = self._client.map(task, [common] * len(tasks), tasks, key=keys, pure=False)
        for names, future in zip(tasks, futures):
            self._tasks[future] = names
            future.add_done_callback(self._ended.put)

    def results(self, seconds: float) -> List[Tuple[Sequence[Any], Any]]:
        """Names and result of each task that has ended, at least of one if any does within this time.

        ``Lost`` stands for the result of a task that has none.
        """
        ended: List[Any] = []
        with contextlib.suppress(queue.Empty):
            ended.append(self._ended.get(timeout=seconds))
            time.sleep(TOGETHER_SECONDS)
            while True:
                ended.append(self._ended.get_nowait())
        results: Dict[Any, Any] = {future: _lost(future) for future in ended if future.status in FAILED}
        done = [future for future in ended if future.status == "finished"]
        results.update(self._gathered(done))
        for future in ended:
            if future not in results:  # it ended with a worker that has died since, and is begun again
                future.add_done_callback(self._ended.put)
        return [(self._tasks.pop(future), result) for future, result in results.items()]

    def _gathered(self, done: Sequence[Any]) -> Dict[Any, Any]:
        """The results of tasks that have ended, of those that the workers still have."""
        if not done:
            return {}
        try:
            # A result that was lost with its worker is waited for.
            found = self._client.sync(self._client._gather, done, callback_timeout=ANSWER_SECONDS)
            return dict(zip(done, found))
        except (TimeoutError, asyncio.TimeoutError):
            return {}
        except (OSError, *CANCELLED):
            return dict.fromkeys(done, GONE)
        except Exception as error:
            if not any(future.status in FAILED for future in done):
                raise
            log.debug("results were lost: %s", type(error).__name__)
            return {future: _lost(future) for future in done if future.status in FAILED}

    def everywhere(self, function: Callable[[], None]) -> None:
        """Call a function in the process of each worker that can be reached."""
        with contextlib.suppress(MigrationError, *UNREACHABLE):
            _asked(self._client, self._client._run, function, on_error="ignore")

    def cancel(self) -> None:
        with contextlib.suppress(MigrationError, *UNREACHABLE):
            _asked(self._client, self._client._cancel, list(self._tasks))


def _asked(client: Any, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What scheduler or workers answer. Raises MigrationError (exit 2) where they do not: they may be frozen."""
    try:
        return client.sync(function, *arguments, callback_timeout=ANSWER_SECONDS, **named)
    except (TimeoutError, asyncio.TimeoutError):
        raise unusable(
            "the scheduler, or one of its workers, has not answered for %d s" % ANSWER_SECONDS,
            "start them again, then --resume",
        ) from None


def _lost(future: Any) -> Lost:
    from distributed import KilledWorker

    if future.status == "cancelled":
        return GONE
    error = future.exception()
    if isinstance(error, KilledWorker):
        return Lost("each worker process that migrated this user ended, or was stopped: out of memory?", None)
    message = "%s: %s" % (type(error).__name__, str(error).split("\n")[0])
    return Lost("the cluster cannot do its work: " + message, SAME)


# Looking at what a worker does a hundred times a second, and whether it is there fifty times, costs a tenth of its time.
# Whether a worker on this machine is there we see to ourselves: Dask before 2024 leaves a stopped one, with its locks.
_CALM = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.scheduler.worker-ttl": None,
}


@contextlib.contextmanager
def local(workers: int, memory: int) -> Iterator[Workers]:
    """Worker processes of one thread each on this machine, with ``memory`` bytes for each.

    They are reached over the loopback interface, by TLS with a key of this run's own where ``cryptography`` is there:
    whoever may connect to a scheduler may run code as its user. One that is silent for SILENT_SECONDS is ended, and
    another takes its place. Raises MigrationError (exit 70) where none can be started.
    """
    with _quiet(), contextlib.ExitStack() as stack:
        import dask
        from distributed import Client, LocalCluster

        has_dashboard = importlib.util.find_spec("bokeh") is not None
        encrypted = importlib.util.find_spec("cryptography") is not None
        if not encrypted:
            log.warning("the workers are reached without TLS: pip install cryptography")
        stack.callback(_kill_children)
        with dask.config.set(_CALM), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a port that is taken: Dask takes another, and we say which
            cluster = LocalCluster(
                n_workers=0,  # its own way to start them has no end where one is stopped meanwhile
                threads_per_worker=1,
                processes=True,
                memory_limit=memory,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:%d" % (DASHBOARD_PORT if has_dashboard else 0),
                security=True if encrypted else None,
                silence_logs=logging.CRITICAL,
            )
            stack.callback(_close, cluster, timeout=CLOSE_SECONDS)
            client = stack.enter_context(contextlib.closing(Client(cluster, set_as_default=False)))
            # A terminal's Ctrl-C is for the coordinator, who then ends them in order.
            ignore = functools.partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
            client.register_worker_callbacks(setup=ignore)
            cluster.scale(workers)
            started = _started(cluster.scheduler, workers)
        log.info("%d worker processes on this machine, %d MB each", started, memory // 10**6)
        if has_dashboard:
            log.info("dashboard: %s", cluster.dashboard_link)
        else:
            log.info("no dashboard: bokeh is not installed")
        none_left = ResourceError(
            "the worker processes end, one after another",
            "give them more memory with --worker-memory, or start fewer with --workers; then run again with --resume",
        )
        yield Workers(client, none_left, functools.partial(_kill_silent, cluster.scheduler, {}))


def _started(scheduler: Any, workers: int) -> int:
    """Wait until the worker processes are there; returns how many are. Those that take too long are ended."""
    end, without = time.monotonic() + START_SECONDS, 0.0
    while len(scheduler.workers) < workers and time.monotonic() < end and without < SETTLED_SECONDS:
        is_one_starting = len(multiprocessing.active_children()) > len(scheduler.workers)
        without = 0.0 if is_one_starting else without + 0.05
        time.sleep(0.05)
    there = {worker.pid for worker in list(scheduler.workers.values())}
    if not there:
        raise ResourceError(
            "no worker process could be started: each ended, or gave no sign of life for %d s"
            % START_SECONDS,
            "see what ends or stops them: too little memory, or somebody; then run again with --resume",
        )
    if len(there) < workers:
        log.warning("%d of %d worker processes could not be started", workers - len(there), workers)
        for process in multiprocessing.active_children():
            if process.pid not in there:
                process.kill()
    return len(there)


def _kill_silent(scheduler: Any, seen: Dict[int, Tuple[float, float]]) -> None:
    """Kill stopped or hanging workers: that frees their locks, and others take their tasks.

    ``seen``: process → its last sign of life, and when we first saw that one, by a clock that a sleeping machine stops.
    """
    now = time.monotonic()
    children = {process.pid: process for process in multiprocessing.active_children()}
    for worker in list(scheduler.workers.values()):
        if seen.get(worker.pid, (None,))[0] != worker.last_seen:
            seen[worker.pid] = (worker.last_seen, now)
        silent = now - seen[worker.pid][1]
        if silent > SILENT_SECONDS and worker.pid in children:
            log.warning(
                "a worker has given no sign of life for %d s and is ended: others do its users", silent
            )
            children[worker.pid].kill()


def _kill_children() -> None:
    """End worker processes that did not hear that they should: Python would wait for them at its own end."""
    for process in multiprocessing.active_children():
        process.kill()


def _close(what: Any, **how: Any) -> None:
    with contextlib.suppress(Exception):  # Dask has many; what is left ends with this process
        what.close(**how)


@contextlib.contextmanager
def remote(scheduler: str, module: str) -> Iterator[Workers]:
    """The workers of a scheduler. TLS and its files are Dask's configuration, such as DASK_DISTRIBUTED__COMM__TLS__*.

    Raises MigrationError (exit 2) where it cannot be reached, has no worker, or one that cannot import ``module``.
    """
    with _quiet():
        from distributed import Client

        try:
            client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        except (*UNREACHABLE, ValueError, TypeError) as error:
            raise unusable(
                "cannot reach the scheduler at %s: %s" % (scheduler, error),
                "check the address; tls://… needs Dask's TLS settings, see CLUSTER.md",
            ) from None
        with client:
            try:
                client.wait_for_workers(1, timeout=WORKER_SECONDS)
            except UNREACHABLE:
                raise unusable(
                    "the scheduler at %s has no workers" % scheduler,
                    "dask worker %s --nthreads 1" % scheduler,
                ) from None
            # A lambda is sent as it is, for workers that have nothing of ours.
            parts = module.split(".")
            parents = [
                ".".join(parts[: end + 1]) for end in range(len(parts))
            ]  # each is looked for in the one before
            able = _asked(
                client,
                client._run,
                lambda: all(importlib.util.find_spec(name) is not None for name in parents),
            )
            unable = [address for address, is_there in able.items() if not is_there]
            if unable:
                raise unusable(
                    "the worker at %s does not find the suite (%s)" % (unable[0], module),
                    SAME,
                )
            found = _asked(client, client.scheduler.ncores)
            log.info("%d workers with %d threads at %s", len(found), sum(found.values()), scheduler)
            if any("dashboard" in service for service in client.scheduler_info().get("services", {})):
                log.info("dashboard: %s", client.dashboard_link)
            yield Workers(
                client, unusable("the scheduler has no worker any more", "start workers, then --resume")
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Dask's own log says in many lines what we say in one."""
    importlib.import_module("distributed")  # which sets its loggers up
    names = [
        name
        for name in logging.root.manager.loggerDict
        if name.split(".")[0] in ("distributed", "tornado", "asyncio")
    ]
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def cores() -> int:
    """How many this process may use, by affinity and control group."""
    from dask.system import CPU_COUNT

    return int(CPU_COUNT)
