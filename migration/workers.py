"""Work that is done side by side: by threads where SQLite is busy, which lets others run, else by a process."""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Callable, Deque, Dict, Iterator, List, Sequence, TypeVar

from migration.errors import ExitCode, MigrationError

FOR_THREADS = 8 << 20  # bytes: less is looked through before threads have begun
THREADS = 2
Result = TypeVar("Result")
Job = Callable[[sqlite3.Connection], Result]


@contextlib.contextmanager
def at_work(
    own: sqlite3.Connection, connections: List[sqlite3.Connection], jobs: Sequence[Job[Result]]
) -> Iterator[Callable[[], List[Result]]]:
    """Have a thread for each connection do job after job; yields what waits for the results, in the jobs' order.

    Where there is none, the jobs are done with ``own`` by who asks for the results.

    The connections are taken out of the list: the threads close them and nobody else, as an interrupt can end the
    block before them. What ends the block early, a failed job among it, ends the jobs.
    """
    if not connections:
        yield lambda: [job(own) for job in jobs]
        return
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


def is_room_for_two() -> bool:
    """Whether a second process would have a processor of its own, and may be started: not by a pool's worker."""
    return (os.cpu_count() or 1) > 1 and not multiprocessing.current_process().daemon


@contextlib.contextmanager
def in_a_process(function: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Callable[[], Any]]:
    """Have another process call ``function`` meanwhile; yields what waits for each thing that it yields, or for its MigrationError.

    It ends with the block, and with this process, whatever that dies of.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_call, args=(theirs, function, arguments), daemon=True)
    process.start()
    theirs.close()

    def result() -> Any:
        try:
            error, made = ours.recv()
        except EOFError:
            process.join()
            raise MigrationError(
                "the second process ended early (exit code %s)" % process.exitcode,
                hint="see what is said above, or free some memory; then run again",
                exit_code=ExitCode.TARGET,
            ) from None
        if error is not None:
            raise error
        return made

    try:
        yield result
    finally:
        process.terminate()
        process.join()
        ours.close()


def _call(connection: Connection, function: Callable[..., Iterator[Any]], arguments: Sequence[Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; the other process decides
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    try:
        for made in function(*arguments):
            connection.send((None, made))
    except MigrationError as error:
        connection.send((error, None))


def _end_with(connection: Connection) -> None:
    """Nothing is ever sent: what comes is the end of the process at the other end."""
    with contextlib.suppress(EOFError, OSError):
        connection.recv()
    os._exit(1)
