"""A real PostgreSQL for the whole run, and a fresh copy of the sample database for each test that wants one."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple
from urllib.parse import quote

import psycopg2
import pytest
from fork_server import Process, serving

import config
from demo import sample
from demo.postgres import temp_postgres
from export_from_postgres import export
from import_to_sqlite import import_
from migration.postgres import source
from migration.settings import Settings
from migration.sqlite import target

SUITE = Path(__file__).resolve().parent.parent
ANNA = "anna@example.com"
BRUNO = "bruno@example.com"
CARLA = "carla@example.com"
DORA = "dora@example.com"

# What could reach a run from outside: each test says all that it depends on.
AMBIENT = [
    "POSTGRES_URL",
    "POSTGRES_HOST",
    "POSTGRES_PORT",
    "POSTGRES_DB",
    "POSTGRES_USER",
    "POSTGRES_PASSWORD",
    "MIGRATION_USER_EMAIL",
    "SQLITE_PATH",
    "SCHEMA_PATH",
    "MIGRATION_DATA_DIR",
    "BACKUP_DIR",
    "LOG_FILE",
    "LOG_LEVEL",
    "PGHOST",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGPASSWORD",
    "PGSERVICE",
    "PGPASSFILE",
    "PGOPTIONS",
]


@pytest.fixture(autouse=True)
def _no_ambient_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AMBIENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Processes that the tests start keep what they compile, outside the tree: the next one starts quicker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("compiled")))
        yield


@pytest.fixture()
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls in this process give up soon where another program has the database."""
    monkeypatch.setattr(target, "_BUSY_SECONDS", 0.05)


_numbers = itertools.count(1)


class Server(NamedTuple):
    """A running PostgreSQL with a template database that holds the sample."""

    url: str

    def execute(self, sql: str) -> None:
        connection = psycopg2.connect(self.url)
        try:
            connection.autocommit = True
            connection.cursor().execute(sql)
        finally:
            connection.close()

    def database_url(self, name: str) -> str:
        return self.url.replace("/postgres?", "/%s?" % quote(name))

    @contextlib.contextmanager
    def new_database(self, of: str = "TEMPLATE sample_template") -> Iterator[Database]:
        """A database for the block, under a name that no other one has: a fixture can be asked for again."""
        name = "test_%d_%d" % (os.getpid(), next(_numbers))
        self.execute("CREATE DATABASE %s %s" % (name, of))
        try:
            yield Database(self.database_url(name))
        finally:
            self.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = '%s' AND pid <> pg_backend_pid()" % name
            )
            self.execute("DROP DATABASE %s" % name)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with temp_postgres() as url:
        started = Server(url)
        started.execute("CREATE DATABASE sample_template")
        connection = psycopg2.connect(started.database_url("sample_template"))
        sample.create_schema(connection)
        sample.fill(connection)
        connection.commit()
        connection.close()
        yield started


# What needs care in URLs, .env files, .pgpass and shells.
PASSWORD = "gR$HOME${PATH}3 %q\"'\\:@/#ü"


class Guarded(NamedTuple):
    """A PostgreSQL that lets nobody in over TCP without a password; holds the sample."""

    port: str
    database: str = "theprogram_db"  # as in config.py
    user: str = "reader"

    def url(self, password: str | None = None, user: str = "reader") -> str:
        secret = "" if password is None else ":" + quote(password, safe="")
        return "postgresql://%s%s@127.0.0.1:%s/%s" % (user, secret, self.port, self.database)


@pytest.fixture(scope="session")
def guarded() -> Iterator[Guarded]:
    hba = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
    with temp_postgres("password_encryption=scram-sha-256", listen=True, hba=hba) as url:
        started = Server(url)
        made = Guarded(url.rpartition("port=")[2])
        started.execute("CREATE DATABASE " + made.database)
        connection = psycopg2.connect(started.database_url(made.database))
        sample.create_schema(connection)
        sample.fill(connection)
        cursor = connection.cursor()
        # theprogram has the password that config.py falls back to, dollar one that .env takes without quotes
        roles = {"reader": PASSWORD, "theprogram": "theprogram", "dollar": "gR$HOME${PATH}3"}
        for role, password in roles.items():
            cursor.execute("CREATE ROLE %s LOGIN PASSWORD %%s" % role, (password,))
            cursor.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO " + role)
        connection.commit()
        connection.close()
        started.execute("CREATE DATABASE other_db TEMPLATE " + made.database)
        yield made


class Database(NamedTuple):
    """A database of its own for one test; ``url`` is what --postgres-url takes."""

    url: str

    def execute(self, sql: str, *parameters: object) -> None:
        connection = psycopg2.connect(self.url)
        try:
            connection.cursor().execute(sql, parameters or None)
            connection.commit()
        finally:
            connection.close()

    def rows(self, sql: str, *parameters: object) -> list:
        connection = psycopg2.connect(self.url)
        try:
            cursor = connection.cursor()
            cursor.execute(sql, parameters or None)
            return cursor.fetchall()
        finally:
            connection.close()


@pytest.fixture(scope="session")
def sample_database(server: Server) -> Iterator[Database]:
    """The sample, shared by all tests that only read it."""
    with server.new_database() as made:
        yield made


@pytest.fixture()
def database(server: Server) -> Iterator[Database]:
    """The sample in a database that the test may change."""
    with server.new_database() as made:
        yield made


def gone(process: int) -> bool:
    """Whether a process has ended, be it that nobody has asked for its exit code yet."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    with contextlib.suppress(OSError):  # no Linux, or ended just now: the next look tells
        return Path("/proc/%d/stat" % process).read_text().rpartition(")")[2].split()[0] == "Z"
    return False


def connections(database: Database) -> int:
    return int(
        database.rows(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )[0][0]
    )


def connections_become(number: int, database: Database) -> bool:
    """PostgreSQL notices a closed connection a moment later."""
    for _ in range(300):
        if connections(database) == number:
            return True
        time.sleep(0.01)
    return False


class Place(NamedTuple):
    """Folders of one test's runs."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def app(self) -> Path:
        return self.folder / "app.db"

    @property
    def backups(self) -> Path:
        return self.folder / "backups"

    def in_backups(self) -> List[Path]:
        """What is in the backup folder, but for the list of whose each is."""
        return sorted(path for path in self.backups.iterdir() if path.name != ".databases")


@pytest.fixture()
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class Result(NamedTuple):
    """What a script returned and printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]

SCHEMA = str(SUITE / "schema_design" / "sqlite_schema.sql")

# Options that a script has and that keep a test's run inside its own folder.
_OWN = {
    "migrate.py": ("--data-dir", "--sqlite-path", "--backup-dir", "--schema-path"),
    "export_from_postgres.py": ("--data-dir", "--schema-path"),
    "import_to_sqlite.py": ("--data-dir", "--sqlite-path", "--backup-dir", "--schema-path"),
    "validate_migration.py": ("--data-dir", "--sqlite-path", "--schema-path"),
}


@pytest.fixture(scope="session")
def fork_server() -> Iterator[subprocess.Popen]:
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs print to."""
    return tmp_path_factory.mktemp("printed")


@pytest.fixture()
def run(place: Place, fork_server: subprocess.Popen, printed: Path) -> Run:
    """Run a script; what the test does not set itself points into its own folder.

    ``own=False`` leaves the places to the suite. Another ``suite``, or an ``ordinary`` run, without root's right to
    write everywhere, has its own Python; the others begin in one that has started already.
    """

    def run_(
        script: str,
        *options: object,
        env: dict = {},  # noqa: B006
        suite: Path = SUITE,
        own: bool = True,
        ordinary: bool = False,
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
            files = printed / "out", printed / "err"
            process = Process(fork_server, script, given, place.folder, {**os.environ, **env}, *files)
            code = process.wait(120)
            if code is None:
                process.send(signal.SIGKILL)
                process.wait()
                raise AssertionError("no end of " + script)
            return Result(code, *(file.read_bytes().decode("utf-8") for file in files))
        done = subprocess.run(
            [sys.executable, str(suite / script), *given],
            capture_output=True,
            env={**os.environ, **env},
            timeout=120,
            cwd=str(place.folder),
            preexec_fn=_obey_permissions if ordinary else None,
        )
        return Result(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))

    return run_


def extended_schema(folder: Path, sql: str) -> Path:
    """The suite's schema file with more in it."""
    path = folder / "schema.sql"
    path.write_text(Path(SCHEMA).read_text(encoding="utf-8") + "\n;" + sql, encoding="utf-8")
    return path


def settings_of(url: str, place: Place, user_email: str = ANNA, **changes: Any) -> Settings:
    """Settings for calls in this process, with config.py's tables unless ``changes`` says others."""
    given: Dict[str, Any] = {
        "postgres": source.parameters(url),
        "postgres_schema": "public",
        "user_email": user_email,
        "sqlite_path": place.app,
        "schema_path": Path(SCHEMA),
        "data_dir": place.data,
        "backup_dir": place.backups,
        "user": config.USER,
        "preferences": config.PREFERENCES,
        "tables": config.TABLES,
        "excluded_tables": (),
    }
    return Settings(**{**given, **changes})


def contents(folder: Path) -> Dict[str, bytes]:
    """Name and bytes of every file in a folder, those in folders below it too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _obey_permissions() -> None:
    """Give up CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH at the next exec: root then needs a mode bit like anybody.

    https://man7.org/linux/man-pages/man7/capabilities.7.html
    """
    if os.geteuid() == 0:
        import ctypes

        PR_CAPBSET_DROP = 24
        for capability in (1, 2):
            if ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                raise OSError("cannot drop a capability")


@pytest.fixture(scope="session")
def permissions_count(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where the system lets `ordinary` runs write to a read-only folder."""
    folder = tmp_path_factory.mktemp("read-only")
    folder.chmod(0o555)
    code = "import os, sys; sys.exit(os.access(sys.argv[1], os.W_OK))"
    try:
        writable = subprocess.run(
            [sys.executable, "-c", code, str(folder)], preexec_fn=_obey_permissions
        ).returncode
    except subprocess.SubprocessError:
        pytest.skip("root cannot give up its right to write everywhere here")
    if writable:
        pytest.skip("this file system does not keep anybody from writing")


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


@pytest.fixture()
def bundle(annas_run: Place, place: Place) -> Path:
    """A copy of Anna's bundle in the test's data folder."""
    shutil.copytree(str(annas_run.data), str(place.data))
    (place.data / "validation_report.json").unlink()
    (place.data / "validation_report.html").unlink()
    return place.data


@pytest.fixture()
def migrated(annas_run: Place, bundle: Path, place: Place) -> Place:
    """Copies of Anna's bundle and database in the test's folder."""
    shutil.copyfile(str(annas_run.app), str(place.app))
    return place


KIB = 1024
Mount = Callable[..., None]


@pytest.fixture()
def mount() -> Iterator[Mount]:
    """Mount a small tmpfs on a folder, or a file on another, or change a mode; unmounted at the end, whatever happens."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting takes root on Linux")
    mounted = []

    def mount_(
        place: Path, size: int | None = None, read_only: bool = False, bind: Path | None = None
    ) -> None:
        if bind is not None:
            command = ["mount", "--bind", str(bind), str(place)]
        elif place in mounted:
            command = ["mount", "-o", "remount,ro" if read_only else "remount,rw,size=%d" % size, str(place)]
        else:
            place.mkdir(parents=True, exist_ok=True)
            command = ["mount", "-t", "tmpfs", "-o", "size=%d,mode=0755" % size, "tmpfs", str(place)]
        done = subprocess.run(command, stderr=subprocess.PIPE)
        if done.returncode != 0 and place not in mounted:
            pytest.skip("cannot mount here: " + done.stderr.decode("utf-8", "replace"))
        assert done.returncode == 0, done.stderr
        if place not in mounted:
            mounted.append(place)

    try:
        yield mount_
    finally:
        for place in reversed(mounted):
            subprocess.run(["umount", "-l", str(place)], check=True)


FIVE_KEYS = ("export_timestamp", "user_email", "user_id", "row_counts", "checksums")


def edit_manifest(data: Path, change: Callable[[Any], object]) -> None:
    path = data / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def rewrite(data: Path, name: str, content: "str | bytes", rows: "int | None" = None) -> None:
    """Change a file of a bundle as somebody does who knows of checksums, sizes and counts."""
    written = content.encode("utf-8") if isinstance(content, str) else content
    (data / name).write_bytes(written)

    def account(manifest: Any) -> None:
        manifest["checksums"][name] = hashlib.sha256(written).hexdigest()
        manifest.setdefault("sizes", {})[name] = len(written)
        if rows is not None:
            manifest["row_counts"][name[: -len(".json")]] = rows

    edit_manifest(data, account)


def array(rows: "list[dict[str, Any]]") -> bytes:
    """A table's file as the export lays it out."""
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=float) for row in rows]
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode("utf-8")


def forget_types(data: Path) -> None:
    """Leave the manifest the five keys that every bundle has."""

    def forget(manifest: Any) -> None:
        for key in set(manifest) - set(FIVE_KEYS):
            del manifest[key]

    edit_manifest(data, forget)


def migrate_to(folder: Path, url: str, user_email: str = ANNA) -> Place:
    """A migration to make copies of: the database is one file, without a write-ahead log."""
    place = Place(folder)
    settings = settings_of(url, place, user_email=user_email)
    export(settings)
    import_(settings)
    connection = sqlite3.connect(str(place.app))
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    return place


@pytest.fixture()
def own_migration(database: Database, place: Place) -> Settings:
    """Anna, migrated from a database of this test's own."""
    made = settings_of(database.url, place)
    export(made)
    import_(made)
    return made


NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"  # nothing listens on port 1
OLD_ROWS = [("what was there before",), ("and more of it",)]


def make_old_database(path: Path) -> bytes:
    """A database that a run would replace, as an application leaves it; returns its bytes."""
    database = sqlite3.connect(str(path))
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE old (note)")
    database.executemany("INSERT INTO old VALUES (?)", OLD_ROWS)
    database.commit()
    database.close()
    return path.read_bytes()


def rows_of(path: Path, sql: str) -> list:
    assert path.is_file(), path  # connecting would make it
    database = sqlite3.connect(str(path))
    try:
        return database.execute(sql).fetchall()
    finally:
        database.close()


def tree(folder: Path) -> dict[str, object]:
    """Everything under a folder: path → content and mode, or the mode alone of a folder."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode,
            path.read_bytes() if path.is_file() else None,
        )
        for path in folder.rglob("*")
    }


def copy_suite(to: Path) -> Path:
    """The suite as a user installs it, without configuration; returns its folder."""
    to.mkdir(parents=True)
    for script in SUITE.glob("*.py"):
        shutil.copy2(str(script), str(to))
    for folder in ("migration", "schema_design"):
        shutil.copytree(str(SUITE / folder), str(to / folder))
    return to
