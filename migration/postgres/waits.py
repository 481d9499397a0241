"""No wait for PostgreSQL without an end: silence is said and has a limit, and Ctrl-C is heard within libpq.

libpq waits inside one call, where Python runs no signal handler and no server that is frozen can be asked to cancel.
What wakes it for certain is the end of its socket, which another thread can bring about.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import signal
import socket
import struct
import threading
import time
from typing import Any, Callable, Iterator, List, Optional, Set, TypeVar

from migration.errors import MigrationError, SourceError

log = logging.getLogger(__name__)

TICK = 1.0  # seconds between two looks
QUIET = 20.0  # without a sign of life, until that is said, and the server is asked whether it still answers
PROBE = 10.0  # that it has for an answer
PROBES = 3  # without one, in a row, until it is given up
OPENING = 30.0  # for the answer to a new connection's statements
CONNECTING = 600.0  # whatever libpq is told
SECOND = 5.0  # for the connection that says who waits, which can be done without
SILENCE = 3600.0  # for that of a server which answers others
GRACE = 3.0  # for a statement to end that is cancelled
LAST = 5.0  # for a run to end by itself after a second interrupt

# Of connections that are not told otherwise. They find out that the other end is gone, not that a server is frozen.
KEEPALIVES = (
    ("keepalives_idle", "TCP_KEEPIDLE", 30),
    ("keepalives_interval", "TCP_KEEPINTVL", 10),
    ("keepalives_count", "TCP_KEEPCNT", 3),
    ("tcp_user_timeout", "TCP_USER_TIMEOUT", 60000),
)

Result = TypeVar("Result")


def unmoved() -> object:
    """Of a call that gives no sign of life before its end."""
    return None


class Guard:
    """Watches one connection. ``limit``: seconds that a call may be silent; ``failure``: why it has ended the connection."""

    def __init__(self, connection: Any, where: str, limit: float) -> None:
        self.limit = limit
        self.failure: Optional[MigrationError] = None
        self._connection = connection
        self._where = where
        self._opening = True
        self._call: Optional[object] = None
        self._heard: Callable[[], object] = unmoved
        self._closed = threading.Event()
        # The connection's socket once more, which stays ours when libpq closes its own
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        _keep_alive(self._socket, connection)
        _guards.add(self)
        threading.Thread(target=self._watch, daemon=True).start()

    def opened(self) -> None:
        """The first answers are there; a heavy query may take its time."""
        self.limit, self._opening = SILENCE, False

    @contextlib.contextmanager
    def waiting(self, heard: Callable[[], object] = unmoved) -> Iterator[None]:
        """A call of libpq's. ``heard``: something that changes whenever the server sends more. Raises ``failure``."""
        if self.failure is not None:
            raise self.failure
        self._heard, self._call = heard, object()
        try:
            yield
        finally:
            self._call, self._heard = None, unmoved

    def interrupt(self) -> None:
        """Have the server cancel the statement that is going on; where it does not, end the connection. Does not wait."""
        if self._call is None:
            return
        for target in (self._cancel, self._abort_if_it_lasts):
            with contextlib.suppress(RuntimeError):  # no thread to be had, or Python is ending
                threading.Thread(target=target, args=(self._call,), daemon=True).start()

    def abort(self) -> None:
        """End the connection from this side: libpq returns from whatever it waits for."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def fail(self, failure: MigrationError) -> None:
        """End what the connection is busy with, and its use: ``failure`` is what whoever uses it is told."""
        self.failure = failure
        if self._call is None:
            self.abort()
        else:
            self.interrupt()

    def close(self) -> None:
        _guards.discard(self)
        self._closed.set()
        self._socket.close()

    def _cancel(self, call: object) -> None:
        # psycopg2 lets no other thread run while it waits for the server's answer to this
        if self._answers(GRACE) and self._call is call:
            with contextlib.suppress(Exception):  # psycopg2's, which this module does not need
                self._connection.cancel()

    def _abort_if_it_lasts(self, call: object) -> None:
        if not self._closed.wait(GRACE) and call is not None and self._call is call:
            self.abort()

    def _watch(self) -> None:
        call, position, since = None, None, time.monotonic()
        said, probed, unanswered = False, since, 0
        while not self._closed.wait(TICK):
            now, current, reached = time.monotonic(), self._call, self._heard()
            if current is None or current is not call or reached != position or self._has_unread():
                call, position, since = current, reached, now
                said, probed, unanswered = False, now, 0
                continue
            silent = now - since
            if silent >= self.limit:
                self._give_up(silent)
                return
            if silent < QUIET:
                continue
            if not said:
                log.warning(
                    "no answer from PostgreSQL at %s for %d s; still waiting (Ctrl-C ends the run)",
                    self._where,
                    silent,
                )
                said = True
            if unanswered or now - probed >= PROBE:
                unanswered = 0 if self._answers(PROBE) else unanswered + 1
                probed = time.monotonic()
                if unanswered >= PROBES and self._call is call and self._heard() == position:
                    self._give_up(time.monotonic() - since)
                    return

    def _give_up(self, silent: float) -> None:
        self.failure = self._unanswered(silent)
        self.abort()

    def _has_unread(self) -> bool:
        """Whether the server has sent more than this side has taken yet."""
        if self._closed.is_set():
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def _unanswered(self, silent: float) -> MigrationError:
        if self._opening:
            return SourceError(
                "PostgreSQL at %s gave no answer to a new connection's first statement within %d s"
                % (self._where, silent),
                "is there a connection pool between that has no connection left? Give it more, or connect to"
                " PostgreSQL itself; else check the server. Nothing was changed",
            )
        return SourceError(
            "PostgreSQL at %s has not answered for %s" % (self._where, "%d s" % silent),
            "check the server, and the network to it, and run again; nothing was changed",
        )

    def _answers(self, seconds: float) -> bool:
        """Whether the server answers another connection, which needs no password and none of its places for sessions.

        SSLRequest is answered with one letter. https://www.postgresql.org/docs/current/protocol-message-formats.html
        """
        try:
            with socket.socket(self._socket.family, socket.SOCK_STREAM) as probe:
                probe.settimeout(seconds)
                probe.connect(self._socket.getpeername())
                probe.sendall(struct.pack("!ii", 8, 80877103))
                return bool(probe.recv(1))
        except OSError:
            return False


_guards: Set[Guard] = set()


def _keep_alive(connected: socket.socket, connection: Any) -> None:
    """What URL, service file or libpq's defaults say of keepalives stays."""
    given = connection.get_dsn_parameters()
    if connected.family not in (socket.AF_INET, socket.AF_INET6) or given.get("keepalives") == "0":
        return
    for parameter, option, value in KEEPALIVES:
        if parameter not in given and hasattr(socket, option):
            with contextlib.suppress(OSError):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def in_a_thread(
    call: Callable[[], Result], undo: Callable[[Result], object], limit: Optional[float] = None
) -> Result:
    """Make a call of libpq's that cannot be interrupted, while this thread can.

    ``undo``: what is done with a result that nobody waits for any more. Raises what the call does, and
    queue.Empty after ``limit`` seconds.
    """
    results: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
    left = threading.Event()

    def work() -> None:
        try:
            result = call()
        except Exception as error:  # noqa: BLE001  for whoever waits
            results.put((None, error))
            return
        results.put((result, None))
        if left.is_set():
            undo(result)

    threading.Thread(target=work, daemon=True).start()
    try:
        result, error = results.get(timeout=limit)
    except BaseException:
        left.set()
        raise
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


_listening: List[bool] = []


@contextlib.contextmanager
def listening(end: Optional[Callable[[], None]] = None) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the statements that PostgreSQL is busy with, at a second one the connections.

    ``end`` is called some seconds after a second one, and ends the process. Of several in one another, the outermost
    counts.

    Python runs signal handlers between its own instructions only, so a thread reads of a signal from the file
    descriptor that Python writes to at once. Source: https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd
    """
    if _listening or threading.current_thread() is not threading.main_thread():
        yield
        return
    read, written = socket.socketpair()
    written.setblocking(False)
    previous = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    ended = threading.Event()

    def end_late() -> None:
        if end is not None and not ended.wait(LAST):
            end()

    def listen() -> None:
        heard = 0
        for number in iter(lambda: read.recv(1), b""):
            if number[0] in (signal.SIGINT, signal.SIGTERM):
                heard += 1
                for guard in list(_guards):
                    guard.interrupt() if heard == 1 else guard.abort()
                if heard == 2:
                    threading.Thread(target=end_late, daemon=True).start()
            if previous >= 0:  # another one's
                with contextlib.suppress(OSError):
                    os.write(previous, number)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    _listening.append(True)
    try:
        yield
    finally:
        _listening.pop()
        signal.set_wakeup_fd(previous)
        ended.set()
        written.close()
        thread.join()
        read.close()
