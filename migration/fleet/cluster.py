"""The tasks that Dask's workers run, on this machine or on a cluster.

Dask is imported inside functions: only runs of all users need it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import importlib
import importlib.util
import itertools
import logging
import queue
import time
import uuid
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from migration.cli import packages
from migration.errors import MigrationError, UsageError

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5
ANSWER_SECONDS = 60
WORKER_SECONDS = 30  # until a scheduler has its first worker
SAME = "scheduler and workers need the same Python, the suite's requirements and the suite's folder as PYTHONPATH"
AHEAD = 1  # queued tasks per running one, so that workers never wait for the coordinator
TOGETHER_SECONDS = 0.1  # results of this time are taken together
UNREACHABLE = (OSError, TimeoutError, asyncio.TimeoutError)  # before Python 3.11 the last two differ
CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)


class Lost(NamedTuple):
    """Stands in for a task's result. ``hint`` is None if the task ended every worker that ran it."""

    message: str
    hint: Optional[str]


FAILED = ("error", "cancelled")
GONE = Lost("the scheduler has ended", "start scheduler and workers again, then --resume")


def require() -> None:
    """Raises ResourceError if Dask is not installed."""
    packages.require(packages.FOR_MANY)


class Workers:
    """A client of a scheduler, with the tasks under way. ``none_left``: the error to raise once it has no worker."""

    def __init__(
        self, client: Any, none_left: MigrationError, look: Callable[[], None] = lambda: None
    ) -> None:
        self.none_left = none_left
        self._look = look  # called at each look at the scheduler
        self._client = client
        self._token = uuid.uuid4().hex[:8]  # a scheduler may know the tasks of other runs
        self._ended: "queue.Queue[Any]" = queue.Queue()
        self._number = itertools.count(1)
        self._tasks: Dict[Any, Sequence[Any]] = {}  # future → names

    def threads(self) -> int:
        """How many tasks can run at once. Raises UsageError if the scheduler has gone."""
        self._look()
        try:
            return sum(_asked(self._client, self._client.scheduler.ncores).values())
        except UNREACHABLE as error:
            raise UsageError("the connection to the scheduler is lost: %s" % error) from None

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
        """Run ``task(common, names)`` for each sequence of names on any worker."""
        keys = ["migrate-%s-%d" % (self._token, next(self._number)) for _ in tasks]
        futures = self._client.map(task, [common] * len(tasks), tasks, key=keys, pure=False)
        for names, future in zip(tasks, futures):
            self._tasks[future] = names
            future.add_done_callback(self._ended.put)

    def results(self, seconds: float) -> List[Tuple[Sequence[Any], Any]]:
        """Names and result of each task that has ended; empty if none ends within ``seconds``.

        ``Lost`` is the result of a task that has none of its own.
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
            if future not in results:  # its result died with its worker, so Dask runs it again
                future.add_done_callback(self._ended.put)
        return [(self._tasks.pop(future), result) for future, result in results.items()]

    def _gathered(self, done: Sequence[Any]) -> Dict[Any, Any]:
        """The results of ended tasks, except those whose worker has died."""
        if not done:
            return {}
        try:
            # Dask computes a result that died with its worker again, and this call waits for it.
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
    """What scheduler or workers answer. Raises UsageError if they do not answer; they may be frozen."""
    try:
        return client.sync(function, *arguments, callback_timeout=ANSWER_SECONDS, **named)
    except (TimeoutError, asyncio.TimeoutError):
        raise UsageError(
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


def client_of(scheduler: Any, **options: Any) -> Any:
    """A client of a scheduler or cluster, to be closed by the caller.

    Dask's own would close itself when Python takes it away: where an interrupt has ended its making, that waits for ever.
    """
    from distributed import Client

    class Closed(Client):  # type: ignore[misc]
        def __del__(self) -> None:
            pass

    return Closed(scheduler, set_as_default=False, **options)


@contextlib.contextmanager
def remote(scheduler: str, module: str) -> Iterator[Workers]:
    """The workers of a scheduler. TLS and its files are Dask's configuration, such as DASK_DISTRIBUTED__COMM__TLS__*.

    Raises UsageError if it cannot be reached, has no worker, or a worker cannot import ``module``.
    """
    with quiet():
        try:
            client = client_of(scheduler, timeout=CONNECT_SECONDS)
        except (*UNREACHABLE, ValueError, TypeError) as error:
            raise UsageError(
                "cannot reach the scheduler at %s: %s" % (scheduler, error),
                "check the address; tls://… needs Dask's TLS settings, see CLUSTER.md",
            ) from None
        with client:
            try:
                client.wait_for_workers(1, timeout=WORKER_SECONDS)
            except UNREACHABLE:
                raise UsageError(
                    "the scheduler at %s has no workers" % scheduler,
                    "dask worker %s --nthreads 1" % scheduler,
                ) from None
            # Dask sends a lambda by its code, which works where the suite is not installed.
            parts = module.split(".")
            parents = [
                ".".join(parts[: end + 1]) for end in range(len(parts))
            ]  # find_spec needs the parents first
            able = _asked(
                client,
                client._run,
                lambda: all(importlib.util.find_spec(name) is not None for name in parents),
            )
            unable = [address for address, is_there in able.items() if not is_there]
            if unable:
                raise UsageError(
                    "the worker at %s does not find the suite (%s)" % (unable[0], module),
                    SAME,
                )
            found = _asked(client, client.scheduler.ncores)
            log.info("%d workers with %d threads at %s", len(found), sum(found.values()), scheduler)
            if any("dashboard" in service for service in client.scheduler_info().get("services", {})):
                log.info("dashboard: %s", client.dashboard_link)
            yield Workers(
                client, UsageError("the scheduler has no worker any more", "start workers, then --resume")
            )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the loggers of Dask during the block: our own messages say the same in fewer lines."""
    importlib.import_module("distributed")  # this creates its loggers
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
    """The number of processor cores that this process may use, by affinity and control group."""
    from dask.system import CPU_COUNT

    return int(CPU_COUNT)
