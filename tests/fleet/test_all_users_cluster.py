"""Many users on the workers of a scheduler: their own environment, no secret anywhere, other hosts, TLS."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterator, NamedTuple
from urllib.parse import quote

import dask
import psycopg2
import pytest

from demo import sample
from demo.postgres import tcp_url, temp_postgres
from migration.cli import configuration
from migration.errors import ExitCode, MigrationError
from migration.fleet import cluster, local_workers, worker
from migration.fleet.cluster import Lost
from support.fleet import LEDGER, PERSONAL, Output, command, migrate_all
from support.migrations import settings_of
from support.places import SUITE, Place, copy_suite
from support.servers import PASSWORD, Database, Guarded

# The part of the password that no repr and no encoding changes, as it is and in a URL.
SECRETS = (PASSWORD[:15], quote(PASSWORD[:15], safe=""))


class Cluster(NamedTuple):
    """A scheduler and its workers, each a process with a log of its own."""

    address: str
    processes: list[subprocess.Popen]
    logs: list[Path]

    @property
    def said(self) -> str:
        return "".join(log.read_text(encoding="utf-8") for log in self.logs)


@contextlib.contextmanager
def started(
    folder: Path,
    hosts: list[list[str]],
    worker_env: dict[str, str],
    host: str = "127.0.0.1",
    options: tuple = (),
    protocol: str = "tcp",
) -> Iterator[Cluster]:
    """``hosts``: what each worker's command begins with, to run it on another host than this one."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port = str(probe.getsockname()[1])
    address = "%s://%s:%s" % (protocol, host, port)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SUITE), str(SUITE / "tests"), str(SUITE / "tests" / "fleet")]),
    }
    python = [sys.executable, "-m"]
    scheduler = [*python, "distributed.cli.dask_scheduler", "--host", address, "--no-dashboard", *options]
    worker = [*python, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
    worker += ["--local-directory", str(folder / "dask"), *options]
    processes: list[subprocess.Popen] = []
    logs: list[Path] = []

    def start(words: list[str], env: dict[str, str]) -> None:
        logs.append(folder / ("log%d" % len(logs)))
        with open(str(logs[-1]), "wb") as log:
            processes.append(
                subprocess.Popen(words, stdout=log, stderr=log, env=env, cwd="/", start_new_session=True)
            )

    try:
        start(scheduler, environment)
        for prefix in hosts:
            start([*prefix, *worker], {**environment, **worker_env})
        yield Cluster(address, processes, logs)
    finally:
        for process in reversed(processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the nanny and its worker
            process.wait()


def scheduler_state(dask_scheduler: Any) -> str:
    """Everything that the scheduler knows of its tasks, as it would show or send it."""
    import pickle

    texts = [repr(dask_scheduler.identity()), repr(dask_scheduler._to_dict(exclude=[]))]
    for key, task in dask_scheduler.tasks.items():
        texts += [repr(key), repr(task), repr(task.run_spec), pickle.dumps(task.run_spec).decode("latin-1")]
    return "\n".join(texts)


def command_lines(*sessions: int) -> str:
    """What the process list shows of the processes of these sessions."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) in sessions:
                found.append((folder / "cmdline").read_bytes().decode("utf-8", "surrogateescape"))
    return "\n".join(found)


def test_change_in_any_room_makes_another_suite(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, settings = copy_suite(tmp_path / "suite"), settings_of("postgresql://", place)
    monkeypatch.setattr(configuration, "SUITE", suite)
    known = {worker.fingerprint(settings)}
    changed = [
        suite / "migrate.py",
        *sorted(suite.glob("migration/**/*.py")),
        *suite.glob("migration/*/*.j2"),
    ]
    for path in changed:
        path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        known.add(worker.fingerprint(settings))
    assert len(known) == len(changed) + 1


def test_workers_read_their_own_environment_and_no_secret_travels(
    guarded: Guarded, output: Output, tmp_path: Path
) -> None:
    from distributed import Client

    with started(tmp_path, [[], []], {"POSTGRES_URL": guarded.url(PASSWORD)}) as running:
        with Client(running.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=30)
            log = tmp_path / "coordinator"
            words = command(output, None, "--scheduler", running.address, "--verbose")
            environment = {**os.environ, "POSTGRES_URL": guarded.url(PASSWORD)}
            with open(str(log), "wb") as file:
                run = subprocess.Popen(
                    words, stdout=file, stderr=file, cwd="/", env=environment, start_new_session=True
                )
            state = shown = ""
            while run.poll() is None:
                state += client.run_on_scheduler(scheduler_state)
                shown += command_lines(run.pid, *(process.pid for process in running.processes))
                time.sleep(0.02)
            assert run.wait(60) == 0, log.read_text(encoding="utf-8")
            connections = client.run(open_connections)
        for user in output.states():
            assert user in state  # it has been looked at while there were tasks
        assert shown.count("migrate_all_users.py") > 5
        said = running.said + log.read_text(encoding="utf-8")
        kept = "".join((output.folder / name).read_text("latin-1") for name in (LEDGER, "summary.json"))
    for secret in SECRETS:
        assert secret not in state
        assert secret not in shown
        assert secret not in said
        assert secret not in kept
    assert [word for word in PERSONAL if word in state] == []
    assert set(connections.values()) == {0}  # the workers go on living, without ours
    assert set(output.states().values()) == {("done", 1, 1, 0)}


def open_connections() -> int:
    from migration.fleet import worker

    return len(worker._idle)


def test_url_of_the_command_line_is_shown_nowhere(guarded: Guarded, output: Output, tmp_path: Path) -> None:
    """A local cluster's processes get it in their environment."""
    log = tmp_path / "log"
    with open(str(log), "wb") as file:
        words = command(output, guarded.url(PASSWORD), "--workers", 2, "--verbose")
        run = subprocess.Popen(words, stdout=file, stderr=file, cwd="/", start_new_session=True)
    shown = []
    while run.poll() is None:
        shown.append(command_lines(run.pid))
        time.sleep(0.03)
    assert run.returncode == 0, log.read_text(encoding="utf-8")
    with_workers = [lines for lines in shown if lines.count("spawn_main") >= 2]
    assert len(with_workers) > 5
    for secret in SECRETS:
        assert not any(secret in lines for lines in with_workers)
        assert secret not in log.read_text(encoding="utf-8")


def test_worker_with_another_configuration_stops_the_run(
    sample_database: Database, output: Output, tmp_path: Path
) -> None:
    other = tmp_path / "schema.sql"
    own = SUITE / "schema_design" / "sqlite_schema.sql"
    other.write_text(own.read_text(encoding="utf-8") + "\n-- another\n", encoding="utf-8")
    environment = {"POSTGRES_URL": sample_database.url, "SCHEMA_PATH": str(other)}
    with started(tmp_path, [[]], environment) as running:
        words = command(output, sample_database.url, "--scheduler", running.address)
        words = [word for i, word in enumerate(words) if "--schema-path" not in (word, words[i - 1])]
        done = subprocess.run(words, capture_output=True, timeout=60, cwd="/")
    assert done.returncode == 2
    assert b"error: the suite, its config.py or the SQLite schema is another on worker " in done.stderr
    assert b"try: install the same version and the same files on every machine" in done.stderr
    assert {state[0] for state in output.states().values()} == {"pending"}


def test_worker_without_the_suite_stops_the_run(
    sample_database: Database, output: Output, tmp_path: Path
) -> None:
    with started(tmp_path, [[]], {"PYTHONPATH": ""}) as running:
        done = migrate_all(output, sample_database.url, "--scheduler", running.address)
    assert done.code == 2
    assert re.search(
        r"^error: the worker at tcp://.* does not find the suite \(migration\.fleet\.worker\)$",
        done.err,
        re.M,
    )
    assert "PYTHONPATH" in done.err
    assert "Traceback" not in done.err


def end_worker_afterwards(marker: str, names: object) -> str:
    with contextlib.suppress(FileExistsError):
        Path(marker).touch(exist_ok=False)
        threading.Timer(0.03, os._exit, (1,)).start()
    return "done"


def test_result_that_is_lost_with_its_worker_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "TOGETHER_SECONDS", 0.5)  # before we ask for it
    with local_workers.started(1, 10**9) as workers:
        workers.submit([["one"]], end_worker_afterwards, str(tmp_path / "marker"))
        results: list = []
        for _ in range(60):
            results += workers.results(1.0)
            if results:
                break
    assert results == [(["one"], "done")]
    assert (tmp_path / "marker").exists()


def test_frozen_scheduler_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(tmp_path, [[]], {}) as running, cluster.remote(
        running.address, "migration.fleet.worker"
    ) as workers:
        assert workers.threads() == 1
        monkeypatch.setattr(cluster, "ANSWER_SECONDS", 0.5)
        scheduler = running.processes[0].pid
        os.kill(scheduler, signal.SIGSTOP)
        workers.everywhere(time.time)
        with pytest.raises(MigrationError) as refused:
            workers.threads()
        workers.cancel()
        os.kill(scheduler, signal.SIGCONT)
    assert refused.value.exit_code == ExitCode.USAGE
    assert refused.value.message == "the scheduler, or one of its workers, has not answered for 0 s"


FEW_FAILURES = {"distributed.scheduler.allowed-failures": 1}  # a task ends two workers, not four


def end_worker(common: object, names: object) -> None:
    os._exit(1)


@pytest.mark.slow
def test_user_that_ends_each_worker_is_given_up() -> None:
    with dask.config.set(FEW_FAILURES), local_workers.started(1, 10**9) as workers:
        workers.submit([["one"]], end_worker, None)
        results: list = []
        for _ in range(60):
            results += workers.results(1.0)
            if results:
                break
    assert [(names, type(result), result.hint) for names, result in results] == [(["one"], Lost, None)]


# Other hosts

NETWORK = "10.213.57"
HOSTS = ("1", "2")


@pytest.fixture()
def hosts() -> Iterator[list[list[str]]]:
    """Two hosts of their own: network namespaces behind a bridge on this one."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    bridge = "migr%d" % (os.getpid() % 100000)
    names = ["%s-%s" % (bridge, host) for host in HOSTS]
    try:
        ip("link", "add", bridge, "type", "bridge")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no network namespaces here")
    try:
        ip("addr", "add", NETWORK + ".254/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for host, name in zip(HOSTS, names):
            ip("netns", "add", name)
            inner, outer = "i%s%s" % (bridge, host), "o%s%s" % (bridge, host)
            ip("link", "add", outer, "type", "veth", "peer", "name", inner)
            ip("link", "set", outer, "master", bridge, "up")
            ip("link", "set", inner, "netns", name)
            ip("-n", name, "addr", "add", "%s.%s/24" % (NETWORK, host), "dev", inner)
            ip("-n", name, "link", "set", inner, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield [["ip", "netns", "exec", name] for name in names]
    finally:
        for name in names:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "delete", name)
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("link", "delete", bridge)


def tls_files(folder: Path) -> dict[str, str]:
    """A certificate for all three roles, signed by itself; what CLUSTER.md says how to make."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subject = "/CN=dask"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", subject]
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    return {"ca": str(certificate), "cert": str(certificate), "key": str(key)}


@pytest.mark.slow
def test_workers_on_other_hosts_over_tls(hosts: list[list[str]], output: Output, tmp_path: Path) -> None:
    address = NETWORK + ".254"
    hba = "local all all trust\nhost all all %s.0/24 scram-sha-256\n" % NETWORK
    files = tls_files(tmp_path)
    with temp_postgres(
        "listen_addresses=*", "password_encryption=scram-sha-256", listen=True, hba=hba
    ) as url:
        database = Database(url)
        with contextlib.closing(psycopg2.connect(url)) as connection:
            sample.create_schema(connection)
            sample.fill(connection)
        database.execute("CREATE ROLE reader LOGIN PASSWORD %s", PASSWORD)
        database.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
        theirs = tcp_url(url, "reader", PASSWORD).replace("127.0.0.1", address)
        options = tuple(
            word
            for name in files
            for word in ("--tls-%s%s" % (name, "-file" if name == "ca" else ""), files[name])
        )
        with started(tmp_path, hosts, {"POSTGRES_URL": theirs}, address, options, "tls") as running:
            for _ in range(3000):
                if running.said.count("Registered to:") == len(hosts):
                    break
                time.sleep(0.01)
            tls = {}
            for name in ("CLIENT", "SCHEDULER", "WORKER"):
                for part in ("cert", "key"):
                    tls["DASK_DISTRIBUTED__COMM__TLS__%s__%s" % (name, part.upper())] = files[part]
            tls["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"] = files["ca"]
            peers: list = []
            run = subprocess.Popen(
                command(output, url, "--scheduler", running.address),
                env={**os.environ, **tls},
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
            while run.poll() is None:
                peers += database.rows(
                    "SELECT host(client_addr) FROM pg_stat_activity WHERE usename = 'reader'"
                )
                time.sleep(0.02)
            said = run.stderr.read().decode("utf-8") if run.stderr is not None else ""
            assert run.returncode == 0, said + running.said
            assert set(output.states().values()) == {("done", 1, 1, 0)}
            plain = migrate_all(output, url, "--scheduler", running.address.replace("tls:", "tcp:"))
            assert plain.code == 2  # whoever has no certificate is not let in
    assert {peer for (peer,) in peers} == {"%s.%s" % (NETWORK, host) for host in HOSTS}
