"""Jobs on a SQLite file that are done side by side: SQLite lets Python's other threads run while it is busy."""

from __future__ import annotations

import collections
import contextlib
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Deque, Dict, Iterator, List, Sequence, TypeVar

Result = TypeVar("Result")
Job = Callable[[sqlite3.Connection], Result]


@contextlib.contextmanager
def at_work(
    connections: List[sqlite3.Connection], jobs: Sequence[Job[Result]]
) -> Iterator[Callable[[], List[Result]]]:
    """Have a thread for each connection do job after job; yields what waits for the results, in the jobs' order.

    The connections are taken out of the list: the threads close them and nobody else, as an interrupt can end the
    block before them. What ends the block early, a failed job among it, ends the jobs.
    """
    taken = [connections.pop() for _ in range(len(connections))]
    waiting: Deque[int] = collections.deque(range(len(jobs)))
    done: Dict[int, Result] = {}

    def work(connection: sqlite3.Connection) -> None:
        with contextlib.closing(connection):
            while waiting:
                with contextlib.suppress(IndexError):  # the other one was quicker
                    number = waiting.popleft()
                    done[number] = jobs[number](connection)

    with ThreadPoolExecutor(len(taken)) as pool:
        threads = [pool.submit(work, connection) for connection in taken]

        def results() -> List[Result]:
            for thread in threads:
                thread.result()
            return [done[number] for number in range(len(jobs))]

        try:
            yield results
        except BaseException:
            waiting.clear()
            while not all(thread.done() for thread in threads):
                for connection in taken:  # between two statements it does not hear it
                    with contextlib.suppress(sqlite3.ProgrammingError):  # closed by its thread
                        connection.interrupt()
                time.sleep(0.01)
            raise
