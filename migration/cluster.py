"""Dask: workers that are handed one user after another, on this machine or behind a scheduler.

Dask is imported when it is needed, and nothing else of the suite needs it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import queue
import uuid
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from migration.errors import ExitCode, MigrationError

log = logging.getLogger("migration.cluster")

CONNECT_SECONDS = 5
WORKER_SECONDS = 30  # until a scheduler has its first worker
AHEAD = 2  # users that wait for each that is being migrated, so that no worker waits for us
DASHBOARD = "127.0.0.1:8787"


class Lost(NamedTuple):
    """In the place of a result: what became of the task. ``killed_workers``: each worker that took it ended with it."""

    message: str
    killed_workers: bool


def unusable(message: str, hint: Optional[str] = None) -> MigrationError:
    return MigrationError(message, hint=hint, exit_code=ExitCode.USAGE)


def require() -> None:
    """Raises MigrationError (exit 2) where Dask is not installed."""
    try:
        importlib.import_module("distributed")
    except ImportError:
        raise unusable("Dask is not installed", "pip install -r requirements-cluster.txt") from None


class Workers:
    """A client of a scheduler, with the tasks under way."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._token = uuid.uuid4().hex[:8]  # a scheduler may know the tasks of other runs
        self._ended: "queue.Queue[Any]" = queue.Queue()
        self._tasks: Dict[Any, str] = {}  # future → name

    def threads(self) -> int:
        """How many tasks can run at once. Raises MigrationError (exit 2) where the scheduler has gone."""
        try:
            return sum(self._client.nthreads().values())
        except (OSError, TimeoutError) as error:
            raise unusable("the connection to the scheduler is lost: %s" % error) from None

    @property
    def under_way(self) -> int:
        return len(self._tasks)

    def submit(self, name: str, task: Callable[..., object], *arguments: object) -> None:
        """Run ``task(*arguments)`` on any worker."""
        key = "migrate-%s-%s" % (self._token, name)
        future = self._client.submit(task, *arguments, key=key, pure=False)
        self._tasks[future] = name
        future.add_done_callback(self._ended.put)

    def results(self, seconds: float) -> List[Tuple[str, Any]]:
        """Name and result of what has ended, at least of one if any does within this time; or ``Lost`` for the result."""
        ended: List[Any] = []
        with contextlib.suppress(queue.Empty):
            ended.append(self._ended.get(timeout=seconds))
            while True:
                ended.append(self._ended.get_nowait())
        good = [future for future in ended if future.status == "finished"]
        results = dict(zip(good, self._client.gather(good))) if good else {}
        return [
            (self._tasks.pop(future), results[future] if future in results else _lost(future))
            for future in ended
        ]

    def everywhere(self, function: Callable[[], None]) -> None:
        """Call a function in every worker's process."""
        self._client.run(function)

    def cancel(self) -> None:
        self._client.cancel(list(self._tasks))


def _lost(future: Any) -> Lost:
    from distributed import KilledWorker

    error = future.exception() if future.status == "error" else None
    message = future.status if error is None else "%s: %s" % (type(error).__name__, str(error).split("\n")[0])
    return Lost(message, isinstance(error, KilledWorker))


@contextlib.contextmanager
def local(workers: int, memory: str) -> Iterator[Workers]:
    """Worker processes of one thread each on this machine, with ``memory`` for each (as ``1GB``).

    They are reached over the loopback interface, by TLS with a key of this run's own where ``cryptography`` is there:
    whoever may connect to a scheduler may run code as its user.
    """
    with _quiet():
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
        with LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=limit,
            host="127.0.0.1",
            dashboard_address=DASHBOARD if has_dashboard else None,
            security=True if encrypted else None,
            silence_logs=logging.ERROR,
        ) as cluster, Client(cluster, set_as_default=False) as client:
            log.info("%d worker processes on this machine, %s each", workers, memory)
            if has_dashboard:
                log.info("dashboard: %s", cluster.dashboard_link)
            else:
                log.info("no dashboard: bokeh is not installed")
            yield Workers(client)


@contextlib.contextmanager
def remote(scheduler: str, module: str) -> Iterator[Workers]:
    """The workers of a scheduler. TLS and its files are Dask's configuration, such as DASK_DISTRIBUTED__COMM__TLS__*.

    Raises MigrationError (exit 2) where it cannot be reached, has no worker, or one that cannot import ``module``.
    """
    with _quiet():
        from distributed import Client

        try:
            client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError, TypeError) as error:
            raise unusable(
                "cannot reach the scheduler at %s: %s" % (scheduler, error),
                "check the address; tls://… needs Dask's TLS settings, see CLUSTER.md",
            ) from None
        with client:
            try:
                client.wait_for_workers(1, timeout=WORKER_SECONDS)
            except (OSError, TimeoutError):
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
                    "start the workers with the suite's folder as PYTHONPATH, and with its requirements",
                )
            found = client.nthreads()
            log.info("%d workers with %d threads at %s", len(found), sum(found.values()), scheduler)
            if any("dashboard" in service for service in client.scheduler_info().get("services", {})):
                log.info("dashboard: %s", client.dashboard_link)
            yield Workers(client)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Dask's own log says in many lines what we say in one; its errors are kept."""
    loggers = [logging.getLogger(name) for name in ("distributed", "tornado")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def cores() -> int:
    return os.cpu_count() or 1
