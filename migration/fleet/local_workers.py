"""Worker processes on this machine: check that there is room for them, start them, replace hung ones, end them."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import multiprocessing
import re
import signal
import tempfile
import time
import warnings
from typing import Any, Dict, Iterator, Tuple

from migration.errors import ResourceError
from migration.fleet.cluster import Workers, client_of, log, quiet

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment,unused-ignore]

CLOSE_SECONDS = 10
DASHBOARD_PORT = 8787
START_SECONDS = 60  # for a worker process on this machine
SETTLED_SECONDS = 3  # to wait on when no process is still starting
SILENT_SECONDS = 60  # without a heartbeat, until a worker is killed and replaced
LEAST_MEMORY = 200 * 10**6  # bytes; a worker takes about 100 MB
LOGGED = 100  # steps of tasks that Dask keeps for those who look for a fault in it
FILES, FILES_OF_WORKER = 60, 20  # open files of the coordinator, and for each worker


_UNITS = {"": 1, "k": 1, "M": 2, "G": 3, "T": 4}


def bytes_of(text: str) -> int:
    """A size as ``1GB``, ``1.5 GiB`` or ``500 MB``. Raises ValueError if it is malformed or too little."""
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
    """Raises ResourceError if this machine lacks the open files or the temporary folder for so many workers."""
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


# Dask's profiler and its 20 ms tick take a tenth of a worker's time. It asks for each worker's memory ten times a second and for
# what the machine does twice a second in each process, which takes half of the coordinator's CPU while it waits for workers.
# We replace hung workers ourselves: Dask before 2024 only forgets them, and they keep their locks. Dask logs its last tasks
# with all that they were given, and holds that in the coordinator's memory; before 2024 it holds the last 100,000 steps
# under another name. Nothing is to be spread: each result is fetched once.
_CALM = {
    "distributed.admin.low-level-log-length": LOGGED,
    "distributed.scheduler.transition-log-length": LOGGED,
    "distributed.scheduler.events-log-length": LOGGED,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.worker.memory.monitor-interval": "500ms",
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.worker-ttl": None,
}


@contextlib.contextmanager
def started(workers: int, memory: int) -> Iterator[Workers]:
    """Worker processes of one thread each on this machine, with ``memory`` bytes for each.

    They listen on the loopback interface, with TLS and a key made for this run if ``cryptography`` is installed: whoever
    can connect to a scheduler can run code as its user. A worker that is silent for SILENT_SECONDS is killed and
    replaced. Raises ResourceError if none can be started.
    """
    with quiet(), contextlib.ExitStack() as stack:
        import dask
        from distributed import LocalCluster

        has_dashboard = importlib.util.find_spec("bokeh") is not None
        encrypted = importlib.util.find_spec("cryptography") is not None
        if not encrypted:
            log.warning("the workers are reached without TLS: pip install cryptography")
        stack.callback(_kill_children)
        # If the dashboard's port is taken, Dask warns and picks another. We log which one.
        with _no_warnings(), dask.config.set(_CALM):
            cluster = LocalCluster(
                n_workers=0,  # Dask would wait forever for a worker that is stopped while it starts
                threads_per_worker=1,
                processes=True,
                memory_limit=memory,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:%d" % (DASHBOARD_PORT if has_dashboard else 0),
                security=True if encrypted else None,
                silence_logs=logging.CRITICAL,
            )
            stack.callback(_close, cluster, timeout=CLOSE_SECONDS)
            client = stack.enter_context(contextlib.closing(client_of(cluster)))
            # A terminal sends Ctrl-C to workers too; the coordinator alone handles it and ends them.
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


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _started(scheduler: Any, workers: int) -> int:
    """Wait for the worker processes, kill those that take too long, and return the number that started."""
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
    """Kill stopped or hung workers: this frees their locks, and other workers get their tasks.

    ``seen``: process → its last heartbeat, and when we first saw that heartbeat, by a clock that stops while the machine sleeps.
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
    """Kill worker processes that are still alive: Python would wait for them when it exits."""
    for process in multiprocessing.active_children():
        process.kill()


def _close(what: Any, **how: Any) -> None:
    with contextlib.suppress(Exception):  # Dask raises many kinds; what is left ends with this process
        what.close(**how)
