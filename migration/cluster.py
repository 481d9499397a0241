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
import queue
import signal
import time
import uuid
import warnings
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from migration import packages
from migration.errors import ExitCode, MigrationError

log = logging.getLogger("migration.cluster")

CONNECT_SECONDS = 5
CLOSE_SECONDS = 10
WORKER_SECONDS = 30  # until a scheduler has its first worker
SAME = "scheduler and workers need the same Python, the suite's requirements and the suite's folder as PYTHONPATH"
AHEAD = 1  # task that waits for each that runs, so that no worker waits for us
TOGETHER_SECONDS = 0.1  # what ends in this time is heard of together
UNREACHABLE = (OSError, TimeoutError, asyncio.TimeoutError)  # before Python 3.11 the last two differ
CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)
DASHBOARD_PORT = 8787


class Lost(NamedTuple):
    """In the place of a result: what became of the task. ``hint`` is None where it ended each worker that took it."""

    message: str
    hint: Optional[str]


FAILED = ("error", "cancelled")
GONE = Lost("the scheduler has ended", "start scheduler and workers again, then --resume")


def unusable(message: str, hint: Optional[str] = None) -> MigrationError:
    return MigrationError(message, hint=hint, exit_code=ExitCode.USAGE)


def require() -> None:
    """Raises MigrationError (exit 70) where Dask is not installed."""
    packages.require(packages.FOR_MANY)


class Workers:
    """A client of a scheduler, with the tasks under way."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._token = uuid.uuid4().hex[:8]  # a scheduler may know the tasks of other runs
        self._ended: "queue.Queue[Any]" = queue.Queue()
        self._number = itertools.count(1)
        self._tasks: Dict[Any, Sequence[Any]] = {}  # future → names

    def threads(self) -> int:
        """How many tasks can run at once. Raises MigrationError (exit 2) where the scheduler has gone."""
        try:
            return sum(self._client.nthreads().values())
        except UNREACHABLE as error:
            raise unusable("the connection to the scheduler is lost: %s" % error) from None

    @property
    def under_way(self) -> int:
        return len(self._tasks)

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
        done = [future for future in ended if future.status == "finished"]
        results: Dict[Any, Any] = {future: _lost(future) for future in ended if future.status in FAILED}
        for future in ended:
            if (
                future.status != "finished" and future not in results
            ):  # it ended with a worker that has died since
                future.add_done_callback(self._ended.put)
        try:
            results.update(zip(done, self._client.gather(done) if done else []))
        except (*UNREACHABLE, *CANCELLED):
            results.update((future, GONE) for future in done)
        return [(self._tasks.pop(future), result) for future, result in results.items()]

    def everywhere(self, function: Callable[[], None]) -> None:
        """Call a function in the process of each worker that can be reached."""
        with contextlib.suppress(*UNREACHABLE):
            self._client.run(function, on_error="ignore")

    def cancel(self) -> None:
        self._client.cancel(list(self._tasks))


def _lost(future: Any) -> Lost:
    from distributed import KilledWorker

    if future.status == "cancelled":
        return GONE
    error = future.exception()
    if isinstance(error, KilledWorker):
        return Lost("each worker process that migrated this user ended: out of memory?", None)
    message = "%s: %s" % (type(error).__name__, str(error).split("\n")[0])
    return Lost("the cluster cannot do its work: " + message, SAME)


# Looking at what a worker does a hundred times a second, and whether it is there fifty times, costs a tenth of its time.
_CALM = {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "1s"}


@contextlib.contextmanager
def local(workers: int, memory: str) -> Iterator[Workers]:
    """Worker processes of one thread each on this machine, with ``memory`` for each (as ``1GB``).

    They are reached over the loopback interface, by TLS with a key of this run's own where ``cryptography`` is there:
    whoever may connect to a scheduler may run code as its user.
    """
    with _quiet():
        import dask
        from dask.utils import parse_bytes
        from distributed import Client, LocalCluster

        try:
            limit = parse_bytes(memory)
        except ValueError:
            raise unusable("--worker-memory is %r" % memory, "a number with its unit, as 1GB") from None
        has_dashboard = importlib.util.find_spec("bokeh") is not None
        encrypted = importlib.util.find_spec("cryptography") is not None
        if not encrypted:
            log.warning("the workers are reached without TLS: pip install cryptography")
        with dask.config.set(_CALM), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a port that is taken: Dask takes another, and we say which
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=limit,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:%d" % (DASHBOARD_PORT if has_dashboard else 0),
                security=True if encrypted else None,
                silence_logs=logging.CRITICAL,
            )
        try:
            with Client(cluster, set_as_default=False) as client:
                # A terminal's Ctrl-C is for the coordinator, who then ends them in order.
                ignore = functools.partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
                client.register_worker_callbacks(setup=ignore)
                log.info("%d worker processes on this machine, %s each", workers, memory)
                if has_dashboard:
                    log.info("dashboard: %s", cluster.dashboard_link)
                else:
                    log.info("no dashboard: bokeh is not installed")
                yield Workers(client)
        finally:
            with contextlib.suppress(*UNREACHABLE):  # what is left after that ends with this process
                cluster.close(timeout=CLOSE_SECONDS)


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
            able = client.run(lambda: importlib.util.find_spec(module) is not None)
            unable = [address for address, is_there in able.items() if not is_there]
            if unable:
                raise unusable(
                    "the worker at %s does not find the suite (%s)" % (unable[0], module),
                    SAME,
                )
            found = client.nthreads()
            log.info("%d workers with %d threads at %s", len(found), sum(found.values()), scheduler)
            if any("dashboard" in service for service in client.scheduler_info().get("services", {})):
                log.info("dashboard: %s", client.dashboard_link)
            yield Workers(client)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Dask's own log says in many lines what we say in one."""
    importlib.import_module("distributed")  # which sets its loggers up
    names = [
        name for name in logging.root.manager.loggerDict if name.split(".")[0] in ("distributed", "tornado")
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
