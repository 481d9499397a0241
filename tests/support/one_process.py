"""migrate_all_users.py with a worker in the coordinator's own process instead of Dask's: for what no worker process is needed for."""

from __future__ import annotations

import contextlib
import logging
import pickle
import sys
from typing import Any, Callable, Iterator, Sequence

import migrate_all_users
from migration.errors import ResourceError
from migration.fleet import local_workers


class Worker:
    """What a run asks of ``cluster.Workers``. Tasks and results are pickled, as Dask does."""

    none_left = ResourceError("this worker does not end")

    def __init__(self) -> None:
        self._tasks: list = []

    def threads(self) -> int:
        return 1

    @property
    def under_way(self) -> int:
        return len(self._tasks)

    @property
    def largest(self) -> int:
        return max(map(len, self._tasks), default=0)

    def submit(
        self, tasks: Sequence[Sequence[Any]], task: Callable[[Any, Sequence[Any]], object], common: object
    ) -> None:
        self._task = pickle.dumps((task, common))
        self._tasks += tasks

    def results(self, seconds: float) -> list:
        names = self._tasks.pop(0)
        task, common = pickle.loads(self._task)
        logging.disable()  # as in a process that logs nowhere
        result = task(common, pickle.loads(pickle.dumps(names)))
        logging.disable(logging.NOTSET)
        return [(names, pickle.loads(pickle.dumps(result)))]

    def everywhere(self, function: Callable[[], None]) -> None:
        function()

    def cancel(self) -> None:
        self._tasks.clear()


@contextlib.contextmanager
def started(workers: int, memory: int) -> Iterator[Worker]:
    yield Worker()


def main() -> int:
    sys.argv[0] = "migrate_all_users.py"
    local_workers.started = started  # type: ignore[assignment]
    return migrate_all_users.main()
