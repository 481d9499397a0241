"""Servers that are frozen, networks that swallow everything, pools without a connection: each wait has an end and words."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable, ContextManager, Iterator, List

import psycopg2
import pytest

from demo import sample
from demo.postgres import temp_postgres
from migration.errors import ExitCode, MigrationError
from migration.postgres import connecting, parameters, snapshot, table_locks, waits
from support.migrations import settings_of
from support.places import ANNA, SCHEMA, SUITE, Place
from support.servers import Database, until

LARGE = 40_000  # rows


class Freezer:
    """A server of its own, whose processes can be stopped."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.folder = Path(parameters.parameters(url)["host"])
        self._stopped: List[int] = []

    def processes(self) -> List[int]:
        first = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        found = [first]
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(stat.read_text().rpartition(")")[2].split()[1]) == first:
                    found.append(int(stat.parent.name))
        return found

    def freeze(self) -> None:
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP)
                self._stopped.append(process)

    def thaw(self) -> None:
        for process in self._stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
        self._stopped.clear()


@pytest.fixture(scope="module")
def freezers() -> Iterator[Freezer]:
    if not sys.platform.startswith("linux"):
        pytest.skip("the server's processes are found in /proc")
    with temp_postgres(listen=True) as url:
        with contextlib.closing(psycopg2.connect(url)) as connection:
            sample.create_schema(connection)
            sample.fill(connection)
            connection.cursor().execute(
                "INSERT INTO location_cache SELECT (x).* FROM (SELECT jsonb_populate_record(l, jsonb_build_object("
                "'id', md5(g::text)::uuid, 'city_name', 'c' || g, 'geonames_id', NULL)) x FROM (SELECT l FROM location_cache l LIMIT 1) l (l),"
                " generate_series(1, %d) g) y" % LARGE
            )
            connection.commit()
        yield Freezer(url)


@pytest.fixture()
def freezer(freezers: Freezer) -> Iterator[Freezer]:
    try:
        yield freezers
    finally:
        freezers.thaw()


@pytest.fixture()
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls in this process do not wait long."""
    for name, value in {"TICK": 0.02, "QUIET": 0.3, "PROBE": 0.2, "GRACE": 0.3, "SECOND": 0.5}.items():
        monkeypatch.setattr(waits, name, value)
    monkeypatch.setattr(connecting, "GIVING_WAY_AFTER", 0.02)
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")


def tcp(freezer: Freezer) -> str:
    port = freezer.url.rpartition("port=")[2]
    return "postgresql://postgres@127.0.0.1:%s/postgres" % port


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("statement", "url"),
    [
        ("row", tcp),
        ("copy", lambda freezer: freezer.url),
        ("stream", lambda freezer: freezer.url),
        ("stream", tcp),
    ],
    ids=["row-tcp", "copy-socket", "stream-socket", "stream-tcp"],
)
def test_frozen_server_is_given_up(
    statement: str,
    url: Callable[[Freezer], str],
    freezer: Freezer,
    place: Place,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = settings_of(url(freezer), place)
    lines = "SELECT row_to_json(t) FROM public.location_cache t"
    given_up = pytest.raises(MigrationError, match=r"PostgreSQL at .* has not answered for \d+ s")
    with given_up as stopped, connecting.snapshot(settings) as db:
        if statement == "stream":
            for number, _ in enumerate(db.stream(lines)):
                if number == 10:
                    freezer.freeze()
        freezer.freeze()
        if statement == "row":
            db.value("SELECT 1")
        db.copy(lines, Nothing())
    assert stopped.value.exit_code == ExitCode.SOURCE
    assert "still waiting" in caplog.text


class Nothing:
    def write(self, line: bytes) -> None:
        pass


@pytest.mark.usefixtures("hasty")
def test_slow_query_of_a_server_that_lives_is_waited_for(
    freezer: Freezer, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with connecting.snapshot(settings_of(tcp(freezer), place)) as db:
        assert db.value("SELECT 7 FROM pg_sleep(1)") == 7
    assert "no answer from PostgreSQL" in caplog.text


@pytest.mark.usefixtures("hasty")
def test_slow_reader_is_no_silence(freezer: Freezer, place: Place, caplog: pytest.LogCaptureFixture) -> None:
    with connecting.snapshot(settings_of(tcp(freezer), place)) as db:
        lines = db.stream("SELECT row_to_json(t) FROM public.location_cache t")
        next(lines)
        time.sleep(0.8)
        assert len(list(lines)) >= LARGE
    assert caplog.text == ""


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_stream_that_nobody_reads_on_does_not_hold_up_the_end(
    error: type, sample_database: Database, place: Place
) -> None:
    met: List[str] = []

    def meet() -> None:
        try:
            with connecting.snapshot(settings_of(sample_database.url, place)) as db:
                lines = db.stream("SELECT to_json(repeat('x', 1000)) FROM generate_series(1, 10000)")
                raise error("after %s" % next(lines)[:2].decode("ascii"))
        except error as caught:
            met.append(str(caught))

    run = threading.Thread(target=meet, daemon=True)
    run.start()
    run.join(20)
    assert met == ['after "x']


def test_silence_has_a_limit_though_the_server_answers_others(
    freezer: Freezer, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "SILENCE", 0.6)
    given_up = pytest.raises(MigrationError, match=r"has not answered for \d s")
    with given_up, connecting.snapshot(settings_of(freezer.url, place)) as db:
        db.value("SELECT FROM pg_sleep(20)")


@pytest.mark.usefixtures("hasty")
def test_network_that_swallows_everything_is_given_up(
    freezer: Freezer, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "OPENING", 0.4)
    port = int(freezer.url.rpartition("port=")[2])
    with relay(port) as (own, cut):
        settings = settings_of("postgresql://postgres@127.0.0.1:%d/postgres" % own, place)
        with pytest.raises(MigrationError, match="has not answered for"), connecting.snapshot(settings) as db:
            cut.set()
            db.value("SELECT 1")
        # and one that is opened
        no_answer = pytest.raises(MigrationError, match="cannot connect to PostgreSQL at .*: no answer")
        with no_answer, connecting.snapshot(settings):
            pass


@contextlib.contextmanager
def relay(port: int) -> Iterator[tuple]:
    """A port that leads to another one, until it is cut: then it takes everything and hands nothing on."""
    cut = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))
    open_: List[socket.socket] = [listening]

    def pump(source_: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = source_.recv(1 << 16)
                if not data:
                    break
                if not cut.is_set():
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                open_.append(client)
                server = socket.create_connection(("127.0.0.1", port))
                open_.append(server)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listening.getsockname()[1], cut
    finally:
        for one in open_:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


# Interrupts


EXPORT = """
import sys
from migration.cli import running
running.begin()
import export_from_postgres
from migration.postgres import waits
waits.GRACE = %f
sys.exit(export_from_postgres.main())
"""


@pytest.fixture()
def exporting(freezer: Freezer, place: Place) -> Callable[[float], ContextManager[subprocess.Popen]]:
    """An export whose server freezes before it has come to its end, and that gives a cancelled statement so many seconds."""
    options = ["--user-email", ANNA, "--postgres-url", freezer.url, "--data-dir", str(place.data)]

    @contextlib.contextmanager
    def started(grace: float) -> Iterator[subprocess.Popen]:
        words = [sys.executable, "-c", EXPORT % grace, *options, "--schema-path", SCHEMA, "--quiet"]
        process = subprocess.Popen(
            words,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=hear_interrupts,
            cwd=str(SUITE),
        )
        try:
            Stopper(freezer).wait()
            yield process
        finally:
            freezer.thaw()
            process.kill()
            process.communicate()

    return started


def hear_interrupts() -> None:
    """A shell's background processes ignore SIGINT, and so do their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Stopper:
    """Stops the server when an export has begun to read."""

    def __init__(self, freezer: Freezer) -> None:
        self._freezer = freezer

    def wait(self) -> None:
        with contextlib.closing(psycopg2.connect(self._freezer.url)) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            for _ in range(2000):
                cursor.execute("SELECT FROM pg_stat_activity WHERE query LIKE 'COPY%location_cache%'")
                if cursor.fetchall():
                    break
                time.sleep(0.002)
            else:
                raise AssertionError("no export")
            self._freezer.freeze()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_interrupt_is_heard_though_the_server_is_frozen(
    number: int, exporting: Callable[[float], ContextManager[subprocess.Popen]], place: Place
) -> None:
    with exporting(0.5) as process:
        time.sleep(0.3)
        assert process.poll() is None
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(15) == 130
        assert time.monotonic() - began < 10
        assert b"error: interrupted; nothing is half done, run again when ready\n" in process.stderr.read()
    assert not (place.data / "manifest.json").exists()


def test_second_interrupt_does_not_wait(
    exporting: Callable[[float], ContextManager[subprocess.Popen]],
) -> None:
    with exporting(12) as process:
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 130
        assert time.monotonic() - began < 6


def test_interrupt_is_heard_while_a_connection_is_made(freezer: Freezer, place: Place) -> None:
    freezer.freeze()
    words = [sys.executable, str(SUITE / "export_from_postgres.py"), "--user-email", ANNA]
    words += ["--postgres-url", freezer.url, "--schema-path", SCHEMA, "--data-dir", str(place.data)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, preexec_fn=hear_interrupts)
    try:
        time.sleep(1)
        assert process.poll() is None
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert time.monotonic() - began < 3
    finally:
        process.kill()
        process.communicate()


DEAF = """
import sys, sqlite3
sys.path.insert(0, sys.argv[1])
import config
from migration.cli import options, running
from migration.postgres import waits
waits.LAST = 0.5
def body(arguments):
    print("began", flush=True)
    sqlite3.connect(":memory:").execute(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n").fetchall()
arguments = options.parser("x").parse_args([])
sys.exit(running.run(body, arguments))
"""


def test_second_interrupt_ends_what_hears_none() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", DEAF, str(SUITE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=hear_interrupts,
    )
    try:
        assert process.stdout.readline() == b"began\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130
        assert process.stderr.read().endswith(
            b"error: interrupted; nothing is half done, run again when ready\n"
        )
    finally:
        process.kill()
        process.communicate()


# Others who wait for us


@pytest.mark.usefixtures("hasty")
def test_read_ends_where_others_wait_too_long_for_its_locks(
    database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_locks, "SECONDS", 0.3)
    with contextlib.closing(psycopg2.connect(database.url, application_name="a deployment")) as altering:
        altered = threading.Thread(
            target=lambda: altering.cursor().execute("ALTER TABLE session_notes ADD later int")
        )
        with pytest.raises(MigrationError) as stopped, connecting.opened(
            settings_of(database.url, place)
        ) as db:
            altered.start()
            db.value("SELECT FROM pg_sleep(20)")
        altered.join(5)
        assert not altered.is_alive()
        message = (
            "stopped, as process %d ('a deployment', for 0 s) waits to change table public.session_notes"
        )
        assert message % altering.info.backend_pid in stopped.value.message
    assert stopped.value.exit_code == ExitCode.SOURCE


@pytest.mark.usefixtures("hasty")
def test_snapshot_of_many_ends_where_others_wait_too_long(
    database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_locks, "SECONDS", 0.3)
    with contextlib.closing(psycopg2.connect(database.url)) as altering:
        altered = threading.Thread(target=lambda: altering.cursor().execute("TRUNCATE session_notes"))
        with connecting.snapshot(settings_of(database.url, place)) as db:
            db.require_nobody_waits()
            altered.start()
            until(database, "SELECT FROM pg_locks WHERE NOT granted")
            time.sleep(0.4)
            with pytest.raises(MigrationError, match="waits to change table public.session_notes"):
                for _ in range(2):  # before version 14, a first look does not tell since when
                    db.require_nobody_waits()
                    time.sleep(0.4)
        altered.join(5)


# What the user sets wins


@pytest.mark.parametrize(
    ("url", "service", "environment", "expected"),
    [
        ("", "", {}, ("10", "theprogram_migration")),
        ("", "", {"PGCONNECT_TIMEOUT": "3", "PGAPPNAME": "mine"}, ("3", "mine")),
        ("", "connect_timeout=4\napplication_name=its\n", {}, ("4", "its")),
        (
            "connect_timeout=5&application_name=url",
            "connect_timeout=4",
            {"PGCONNECT_TIMEOUT": "3"},
            ("5", "url"),
        ),
    ],
)
def test_what_is_set_elsewhere_wins(
    url: str,
    service: str,
    environment: dict,
    expected: tuple,
    sample_database: Database,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PGCONNECT_TIMEOUT", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    given = sample_database.url + ("&" + url if url else "")
    if service:
        (place.folder / "services").write_text("[there]\n" + service)
        monkeypatch.setenv("PGSERVICEFILE", str(place.folder / "services"))
        given += "&service=there"
    with connecting.snapshot(settings_of(given, place)) as db:
        found = db.connection.get_dsn_parameters()
        assert found["connect_timeout"] == expected[0]
        assert db.value("SHOW application_name") == expected[1]


def keepalives(db: snapshot.Snapshot) -> tuple:
    with socket.socket(fileno=os.dup(db.connection.fileno())) as connected:
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        return tuple(connected.getsockopt(socket.IPPROTO_TCP, option) for option in options)


def test_dead_network_is_noticed_unless_the_url_says_when(freezer: Freezer, place: Place) -> None:
    with connecting.snapshot(settings_of(tcp(freezer), place)) as db:
        assert keepalives(db) == (30, 10, 3, 60000)
    url = tcp(freezer) + "?keepalives_idle=77&tcp_user_timeout=5000"
    with connecting.snapshot(settings_of(url, place)) as db:
        assert keepalives(db) == (77, 10, 3, 5000)
