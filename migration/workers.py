"""Work that is done side by side: by threads where SQLite is busy, which lets others run, else by a process."""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Callable, Deque, Dict, Iterator, List, Optional, Sequence, TypeVar

from migration.errors import MigrationError, ResourceError, lacking

FOR_THREADS = 16 << 20  # bytes: less is looked through before threads or another process have begun
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
    """Whether a second process would have a processor of its own; a pool's worker leaves it to its fellows."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    processors = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return processors > 1 and not multiprocessing.current_process().daemon


class Failed(ResourceError):
    """The second process cannot be started, or has ended before it had answered."""


@contextlib.contextmanager
def in_a_process(function: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Callable[[], Any]]:
    """Have another process call ``function`` meanwhile; yields what waits for each thing that it yields, or for its MigrationError.

    It ends with the block, and with this process, whatever that dies of. Raises Failed, and so does what waits.
    A plain process and none of multiprocessing's: those run a script that calls us once more, from its first line.
    """
    code = "import sys; sys.path[:] = %r; from migration.workers import serve; serve()" % (sys.path,)
    try:
        # In a session of its own it is not reached by a terminal's Ctrl-C: this process decides.
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # closed, its number is perhaps that of another file by now
            stderr=None if sys.stderr is not None else subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise Failed(
            "a second process cannot be started: %s" % error,
            hint="free some memory, or end other programs; then run again",
        ) from error
    assert process.stdin is not None and process.stdout is not None
    questions, answers = process.stdin, process.stdout

    def answer() -> Any:
        try:
            error, made = pickle.load(answers)
        except (EOFError, pickle.UnpicklingError):
            raise Failed(
                "the second process ended early (exit code %s)" % process.wait(),
                hint="see what is said above, or free some memory; then run again",
            ) from None
        if error is not None:
            raise error
        return made

    try:
        with contextlib.suppress(BrokenPipeError):  # who asks for the answer hears of it
            pickle.dump((function, arguments), questions)
            questions.flush()
        yield answer
    finally:
        process.kill()
        try:
            process.wait()
        finally:  # an interrupt that falls into it leaves no process that still reads the database
            process.wait()
            answers.close()
            with contextlib.suppress(BrokenPipeError):
                questions.close()


def serve() -> None:
    """What the second process does: it calls the function that it is sent, and answers with what that yields."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed is no answer
    with contextlib.suppress(BrokenPipeError):  # the first process has gone
        function, arguments = pickle.load(sys.stdin.buffer)
        threading.Thread(target=_end_with_the_first, daemon=True).start()
        try:
            for made in function(*arguments):
                _answer(answers, None, made)
        except Exception as error:
            known = lacking(error) or error
            if not isinstance(known, MigrationError):
                raise
            _answer(answers, known, None)


def _answer(answers: BinaryIO, error: Optional[MigrationError], made: Any) -> None:
    pickle.dump((error, made), answers)
    answers.flush()


def _end_with_the_first() -> None:
    """Nothing more is ever sent: what comes is the end of the process at the other end."""
    os.read(0, 1)
    os._exit(1)
