"""Scripts run as a user runs them, and what they return and print."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Callable, Mapping, NamedTuple, Sequence

import pytest

from support.fork_server import Process, server
from support.mounts import obey_permissions
from support.places import ANNA, SCHEMA, SUITE, Place
from support.servers import Database


def gone(process: int) -> bool:
    """Whether a process has ended, be it that nobody has asked for its exit code yet."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    with contextlib.suppress(OSError):  # no Linux, or ended just now: the next look tells
        return Path("/proc/%d/stat" % process).read_text().rpartition(")")[2].split()[0] == "Z"
    return False


class Result(NamedTuple):
    """What a script returned and printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


# Options that a script has and that keep a test's run inside its own folder.
_OWN = {
    "migrate.py": ("--data-dir", "--sqlite-path", "--backup-dir", "--schema-path"),
    "export_from_postgres.py": ("--data-dir", "--schema-path"),
    "import_to_sqlite.py": ("--data-dir", "--sqlite-path", "--backup-dir", "--schema-path"),
    "validate_migration.py": ("--data-dir", "--sqlite-path", "--schema-path"),
    "discover.py": (),
}


# Runs that find another program in the database give up soon.
IMPATIENT = {"migration.sqlite.connecting.BUSY_SECONDS": 0.05, "migration.fleet.results.BUSY_SECONDS": 0.05}


def run_in_fork(
    script: str,
    options: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    values: Mapping[str, object] = {},
) -> Result:
    with tempfile.TemporaryDirectory() as printed:
        files = Path(printed, "out"), Path(printed, "err")
        process = Process(server(0), script, options, folder, environment, *files, values=values)
        code = process.wait(120)
        if code is None:
            process.send(signal.SIGKILL)
            process.wait()
            raise AssertionError("no end of " + script)
        return Result(code, *(file.read_bytes().decode("utf-8") for file in files))


@pytest.fixture()
def run(place: Place) -> Run:
    """Run a script; what the test does not set itself points into its own folder.

    ``own=False`` leaves the places to the suite. Another ``suite``, or an ``ordinary`` run, without root's right to
    write everywhere, has its own Python; the others begin in one that has started already, with ``values`` in its modules.
    ``code``: the exit code that the run must have.
    """

    def run_(
        script: str,
        *options: object,
        env: dict = {},  # noqa: B006
        suite: Path = SUITE,
        own: bool = True,
        ordinary: bool = False,
        values: Mapping[str, object] = {},
        code: int | None = None,
    ) -> Result:
        given = [str(option) for option in options]
        places = {
            "--data-dir": str(place.data),
            "--sqlite-path": str(place.app),
            "--backup-dir": str(place.backups),
            "--schema-path": SCHEMA,
        }
        if own:
            for name in _OWN[script]:
                if name not in given:
                    given += [name, places[name]]
        if suite == SUITE and not ordinary:
            result = run_in_fork(script, given, place.folder, {**os.environ, **env}, values)
        else:
            done = subprocess.run(
                [sys.executable, str(suite / script), *given],
                capture_output=True,
                env={**os.environ, **env},
                timeout=120,
                cwd=str(place.folder),
                preexec_fn=obey_permissions if ordinary else None,
            )
            result = Result(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))
        assert code is None or result.code == code, result.err
        return result

    return run_


@pytest.fixture(scope="session")
def annas_run(sample_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One migration of Anna by the command line: data/ and app.db to look at, never to change."""
    made = Place(tmp_path_factory.mktemp("anna"))
    subprocess.run(
        [sys.executable, str(SUITE / "migrate.py"), "--user-email", ANNA]
        + ["--postgres-url", sample_database.url, "--schema-path", SCHEMA, "--quiet"]
        + ["--data-dir", str(made.data), "--sqlite-path", str(made.app), "--backup-dir", str(made.backups)],
        check=True,
        timeout=120,
    )
    return made
