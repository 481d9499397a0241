"""Every option and environment variable has its effect, in the order option, environment, .env, config.py."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Callable, Iterator

import pytest

from migration.bundle.manifest import REPORTS
from migration.cli import options, running
from support.places import ANNA, BRUNO, CARLA, SCHEMA, Place, copy_suite, tree
from support.runs import Run
from support.servers import NOWHERE, PASSWORD, Database, Guarded
from support.sqlite_files import OLD_ROWS, change, make_old_database, rows_of

EXTRA_TABLE = "\nCREATE TABLE %s (id INTEGER PRIMARY KEY, note TEXT DEFAULT 'mine');\n"
BACKUP_NAME = r"theprogram_backup_\d{8}_\d{6}\.db"


def manifest_of(data: Path) -> dict:
    return json.loads((data / "manifest.json").read_text(encoding="utf-8"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def schema_with(path: Path, table: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(Path(SCHEMA).read_text(encoding="utf-8") + EXTRA_TABLE % table, encoding="utf-8")
    return path


def dump(path: Path) -> list[str]:
    """The database's content as SQL, less the preferences, which hold the time of import."""
    database = sqlite3.connect(str(path))
    try:
        lines = list(database.iterdump())
    finally:
        database.close()
    return [line for line in lines if not line.startswith('INSERT INTO "user_preferences"')]


# Which phases run


def test_skip_export_imports_the_bundle_that_is_there(bundle: Path, place: Place, run: Run) -> None:
    before = tree(bundle)
    run("migrate.py", "--skip-export", "--skip-validation", "--postgres-url", NOWHERE, code=0)
    assert rows_of(place.app, "SELECT count(*) FROM clients") == [(12,)]
    assert {name: was for name, was in tree(bundle).items() if name != ".lock"} == before


def test_skip_export_and_import_validates_the_database_that_is_there(
    migrated: Place, sample_database: Database, run: Run
) -> None:
    url = ("--postgres-url", sample_database.url)
    app, manifest = migrated.app.read_bytes(), (migrated.data / "manifest.json").read_bytes()
    run("migrate.py", "--skip-export", "--skip-import", *url, code=0)
    assert migrated.app.read_bytes() == app
    assert (migrated.data / "manifest.json").read_bytes() == manifest
    report = json.loads((migrated.data / "validation_report.json").read_text(encoding="utf-8"))
    assert (report["overall_status"], report["user_email"]) == ("PASS", ANNA)
    assert report["compared_with"] == ["bundle", "source"]
    assert not migrated.backups.exists()


def test_validation_that_finds_differences_exits_1(migrated: Place, run: Run) -> None:
    change(migrated.app, "DELETE FROM transit_events WHERE rowid = 1")
    done = run("migrate.py", "--skip-export", "--skip-import", "--offline", code=1)
    assert "Row count mismatch in transit_events: PG=72, SQLite=71" in done.err
    report = json.loads((migrated.data / "validation_report.json").read_text(encoding="utf-8"))
    assert report["overall_status"] == "FAIL"
    assert report["validation_results"]["transit_events"]["match"] is False


def test_skip_import_exports_and_leaves_the_database(
    migrated: Place, sample_database: Database, run: Run
) -> None:
    app = migrated.app.read_bytes()
    (migrated.data / "manifest.json").unlink()
    options = ("--user-email", ANNA, "--postgres-url", sample_database.url)
    run("migrate.py", "--skip-import", *options, code=0)
    assert manifest_of(migrated.data)["user_email"] == ANNA
    assert migrated.app.read_bytes() == app
    assert (migrated.data / "validation_report.json").is_file()


def test_skip_validation_makes_no_report(sample_database: Database, place: Place, run: Run) -> None:
    options = ("--user-email", CARLA, "--postgres-url", sample_database.url)
    done = run("migrate.py", "--skip-validation", *options, code=0)
    assert rows_of(place.app, "SELECT count(*) FROM clients") == [(1,)]
    assert (place.data / "manifest.json").is_file()
    assert not (place.data / "validation_report.json").exists()
    assert "Validation" not in done.out


def test_offline_validates_against_the_bundle_alone(migrated: Place, run: Run) -> None:
    command = ("migrate.py", "--skip-export", "--skip-import", "--postgres-url", NOWHERE)
    run(*command, "--offline", code=0)
    report = json.loads((migrated.data / "validation_report.json").read_text(encoding="utf-8"))
    assert report["compared_with"] == ["bundle"]
    assert run(*command).code == 3, "without it the source is asked"


def test_three_commands_do_what_migrate_does(
    annas_run: Place, sample_database: Database, place: Place, run: Run
) -> None:
    source = ("--postgres-url", sample_database.url)
    for command in (
        ("export_from_postgres.py", "--user-email", ANNA, *source),
        ("import_to_sqlite.py",),
        ("validate_migration.py", *source),
    ):
        run(*command, code=0)
    tables = sorted(manifest_of(annas_run.data)["checksums"])
    assert len(tables) == 10
    for name in tables:
        assert (place.data / name).read_bytes() == (annas_run.data / name).read_bytes(), name
    assert dump(place.app) == dump(annas_run.app)
    reports = []
    for data in (place.data, annas_run.data):
        report = json.loads((data / "validation_report.json").read_text(encoding="utf-8"))
        for result in report["validation_results"].values():
            del result["seconds"]
        own = ("timestamp", "export_timestamp", "seconds", "report_id", "database", "checks")
        reports.append({key: value for key, value in report.items() if key not in own})
    assert reports[0] == reports[1]
    assert reports[0]["overall_status"] == "PASS"


# Backups


def test_one_backup_of_the_old_rows_is_made(bundle: Path, place: Place, run: Run) -> None:
    make_old_database(place.app)
    done = run("migrate.py", "--skip-export", "--offline", code=0)
    (backup,) = place.in_backups()
    assert re.fullmatch(BACKUP_NAME, backup.name)
    assert rows_of(backup, "SELECT note FROM old") == OLD_ROWS
    assert mode(backup) == 0o600 and mode(place.backups) == 0o700
    assert rows_of(place.app, "SELECT count(*) FROM clients") == [(12,)]
    assert "--restore %s" % backup in done.err


def test_backup_holds_what_is_only_in_the_write_ahead_log(bundle: Path, place: Place, run: Run) -> None:
    make_old_database(place.app)
    crashed = sqlite3.connect(str(place.app))
    crashed.execute("PRAGMA wal_autocheckpoint = 0")
    crashed.execute("INSERT INTO old VALUES ('unsaved but committed')")
    crashed.commit()
    content = {end: Path(str(place.app) + end).read_bytes() for end in ("", "-wal")}
    crashed.close()
    for end in content:  # as a killed application leaves them
        Path(str(place.app) + end).write_bytes(content[end])
    assert run("migrate.py", "--skip-export", "--offline").code == 0
    (backup,) = place.in_backups()
    assert rows_of(backup, "SELECT note FROM old") == [*OLD_ROWS, ("unsaved but committed",)]
    assert [path.name for path in place.folder.iterdir() if "app.db" in path.name] == ["app.db"]


def test_no_backup_makes_none(bundle: Path, place: Place, run: Run) -> None:
    make_old_database(place.app)
    run("migrate.py", "--skip-export", "--offline", "--no-backup", code=0)
    assert not place.backups.exists()
    assert rows_of(place.app, "SELECT count(*) FROM clients") == [(12,)]


# What is printed and logged


def test_verbose_logs_details_and_the_default_does_not(migrated: Place, run: Run) -> None:
    command = ("migrate.py", "--skip-export", "--skip-import", "--offline")
    plain, verbose = run(*command), run(*command, "--verbose")
    assert (plain.code, verbose.code) == (0, 0)
    assert " DEBUG " not in plain.err and " INFO " in plain.err
    assert " DEBUG " in verbose.err and " INFO " in verbose.err
    assert "Validation: PASS" in plain.out
    assert not re.search(r"^\d\d:\d\d:\d\d ", plain.out, re.MULTILINE), "the log goes to stderr"


def test_quiet_prints_nothing_where_all_is_well(sample_database: Database, place: Place, run: Run) -> None:
    make_old_database(place.app)
    options = ("--user-email", ANNA, "--postgres-url", sample_database.url)
    done = run("migrate.py", "--quiet", *options)
    assert done == (0, "", "")
    assert rows_of(place.app, "SELECT count(*) FROM clients") == [(12,)]


def test_quiet_still_prints_errors(place: Place, run: Run) -> None:
    done = run("migrate.py", "--quiet", "--user-email", ANNA, "--postgres-url", NOWHERE, code=3)
    assert done.out == ""
    assert done.err.startswith("error: cannot connect to PostgreSQL at ")


def test_log_file_is_private_and_names_nobody(sample_database: Database, place: Place, run: Run) -> None:
    log = place.folder / "migration.log"
    options = ("--user-email", ANNA, "--postgres-url", sample_database.url, "--log-file", log)
    assert run("migrate.py", *options, "--quiet").code == 0
    quiet = log.read_text(encoding="utf-8")
    assert " INFO " in quiet and "exported clients: 12 rows" in quiet, "--quiet is for the terminal"
    assert run("migrate.py", *options, "--verbose").code == 0
    text = log.read_text(encoding="utf-8")
    assert text.startswith(quiet), "a log is added to"
    assert " DEBUG " in text
    assert mode(log) == 0o600
    for secret in secrets_of(sample_database):
        assert secret not in text


def secrets_of(database: Database) -> list[str]:
    """What must never be logged: addresses and names of people, the password's hash."""
    ((email, name, business, password_hash),) = database.rows(
        "SELECT email, full_name, business_name, password_hash FROM users WHERE email = %s", ANNA
    )
    clients = [text for (text,) in database.rows("SELECT email FROM clients WHERE email <> ''")]
    assert len(password_hash) > 20 and clients
    return [email, name, business, password_hash, *clients]


@pytest.mark.parametrize("way", ["URL", "environment"])
def test_no_password_and_no_hash_in_anything_printed_or_logged(
    way: str, guarded: Guarded, sample_database: Database, place: Place, run: Run
) -> None:
    log = place.folder / "migration.log"
    done = run(
        "migrate.py",
        *("--user-email", ANNA, "--verbose", "--log-file", log),
        *("--postgres-url", guarded.url(PASSWORD if way == "URL" else None)),
        env={} if way == "URL" else {"POSTGRES_PASSWORD": PASSWORD},
    )
    assert done.code == 0, done.err
    texts = {"stdout": done.out, "stderr": done.err}
    for path in (log, *(place.data / name for name in ("manifest.json", *REPORTS))):
        texts[path.name] = path.read_text(encoding="utf-8")
    escaped = guarded.url(PASSWORD).partition("reader:")[2].partition("@")[0]
    password_hash = secrets_of(sample_database)[3]
    for where, text in texts.items():
        for secret in (PASSWORD, json.dumps(PASSWORD)[1:-1], escaped, password_hash):
            assert secret not in text, where
    assert manifest_of(place.data)["source"] == "reader@127.0.0.1:%s/theprogram_db" % guarded.port


def test_results_go_to_stdout_with_rows_and_seconds_of_each_table(
    sample_database: Database, run: Run
) -> None:
    done = run("migrate.py", "--user-email", ANNA, "--postgres-url", sample_database.url, code=0)
    for table, rows in (("clients", 12), ("charts", 18), ("location_cache", 6)):
        row = r"│ %s +│ +%d │ +[\d.]+ k?B │ +\d+\.\d\d │ +\d+\.\d\d │" % (table, rows)
        assert re.search(row, done.out), table
    assert "\x1b" not in done.out + done.err, "no colours and no bars but on a terminal"


@pytest.mark.parametrize(
    "script", ["migrate.py", "export_from_postgres.py", "import_to_sqlite.py", "validate_migration.py"]
)
def test_help_names_options_and_exit_codes(script: str, run: Run) -> None:
    done = run(script, "--help", own=False, code=0)
    for text in ("--data-dir", "--log-file", "--verbose", "--quiet", "exit codes:", "130  interrupted"):
        assert text in done.out, text


# Where things are, and who says so


def test_database_behind_a_link_is_replaced_and_the_link_stays(bundle: Path, place: Place, run: Run) -> None:
    real = place.folder / "elsewhere" / "real.db"
    real.parent.mkdir()
    make_old_database(real)
    place.app.symlink_to(real)
    run("migrate.py", "--skip-export", "--offline", code=0)
    assert place.app.is_symlink()
    assert rows_of(real, "SELECT count(*) FROM clients") == [(12,)]
    (backup,) = place.in_backups()
    assert rows_of(backup, "SELECT note FROM old") == OLD_ROWS


@pytest.mark.parametrize("option", ["--data-dir", "--sqlite-path", "--log-file", "--restore"])
def test_home_of_nobody_is_a_usage_error(option: str, place: Place, run: Run) -> None:
    done = run("migrate.py", option, "~nobody-here/x", code=2)
    assert done.err.startswith("error: ~nobody-here/x: ")
    assert list(place.folder.iterdir()) == []


def test_schema_path_makes_the_database_to_that_schema(bundle: Path, place: Place, run: Run) -> None:
    schema = schema_with(place.folder / "schema.sql", "mine")
    run("migrate.py", "--skip-export", "--offline", "--schema-path", schema, code=0)
    assert rows_of(place.app, "SELECT * FROM mine") == []
    assert rows_of(place.app, "SELECT count(*) FROM clients") == [(12,)]


# From the weakest to the strongest; each says whom, and so leaves its mark in every place.
LAYERS = {"dotenv": ANNA, "environ": CARLA, "option": BRUNO}
OPTION_OF = {
    "POSTGRES_URL": "--postgres-url",
    "MIGRATION_USER_EMAIL": "--user-email",
    "SQLITE_PATH": "--sqlite-path",
    "SCHEMA_PATH": "--schema-path",
    "MIGRATION_DATA_DIR": "--data-dir",
    "BACKUP_DIR": "--backup-dir",
    "LOG_FILE": "--log-file",
}


@pytest.fixture()
def suite(place: Place) -> Iterator[Path]:
    """A copy of the suite for itself, whose default places are seen to stay as they were."""
    copied = copy_suite(place.folder / "app" / "suite")
    before = tree(place.folder / "app")
    yield copied
    (copied / ".env").unlink()
    assert tree(place.folder / "app") == before


@pytest.mark.parametrize("strongest", LAYERS)
def test_option_wins_over_environment_over_dotenv_over_config(
    strongest: str, sample_database: Database, place: Place, suite: Path, run: Run
) -> None:
    """Each layer sets everything, the weaker ones to what would fail or show."""
    said = {}
    layers = list(LAYERS)[: list(LAYERS).index(strongest) + 1]
    for layer in layers:
        folder = place.folder / layer
        schema_with(folder / "schema.sql", "schema_of_" + layer)
        said[layer] = {
            "POSTGRES_URL": sample_database.url if layer == strongest else NOWHERE,
            "MIGRATION_USER_EMAIL": LAYERS[layer],
            "SQLITE_PATH": str(folder / "target.db"),
            "SCHEMA_PATH": str(folder / "schema.sql"),
            "MIGRATION_DATA_DIR": str(folder / "data"),
            "BACKUP_DIR": str(folder / "old"),
            "LOG_FILE": str(folder / "log"),
            "LOG_LEVEL": "debug" if layer == strongest else "nonsense",
        }
    make_old_database(place.folder / strongest / "target.db")
    dotenv = "".join("%s='%s'\n" % pair for pair in said["dotenv"].items())
    (suite / ".env").write_text(dotenv, encoding="utf-8")
    options = ["--verbose"] if strongest == "option" else []
    for variable, option in OPTION_OF.items():
        if strongest == "option":
            options += [option, said["option"][variable]]

    done = run("migrate.py", *options, env=said.get("environ", {}), suite=suite, own=False, code=0)

    folder = place.folder / strongest
    assert manifest_of(folder / "data")["user_email"] == LAYERS[strongest]
    assert (folder / "data" / "validation_report.json").is_file()
    assert rows_of(folder / "target.db", "SELECT * FROM schema_of_" + strongest) == []
    assert [bool(re.fullmatch(BACKUP_NAME, path.name)) for path in (folder / "old").glob("*.db")] == [True]
    assert " DEBUG " in done.err
    assert "exported clients" in (folder / "log").read_text(encoding="utf-8")
    for layer in layers[:-1]:
        assert [path.name for path in (place.folder / layer).iterdir()] == ["schema.sql"], layer


@pytest.mark.parametrize("layer", ["environ", "dotenv"])
def test_postgres_in_parts(layer: str, guarded: Guarded, place: Place, suite: Path, run: Run) -> None:
    """Each of the five is needed: config.py's would lead elsewhere. The password stands in .env as it is."""
    password = PASSWORD if layer == "environ" else "gR$HOME${PATH}3"
    parts = {
        "POSTGRES_HOST": "127.0.0.1",
        "POSTGRES_PORT": guarded.port,
        "POSTGRES_DB": "other_db",
        "POSTGRES_USER": "reader" if layer == "environ" else "dollar",
        "POSTGRES_PASSWORD": password,
    }
    (suite / ".env").write_text(
        "".join("%s=%s\n" % pair for pair in parts.items()) if layer == "dotenv" else "", encoding="utf-8"
    )
    env = parts if layer == "environ" else {}
    done = run(
        "export_from_postgres.py", "--user-email", ANNA, "--data-dir", place.data, env=env, suite=suite
    )
    assert done.code == 0, done.err
    where = "%s@127.0.0.1:%s/other_db" % (parts["POSTGRES_USER"], guarded.port)
    assert manifest_of(place.data)["source"] == where


def test_parts_in_the_environment_win_over_a_url_in_dotenv(place: Place, suite: Path, run: Run) -> None:
    (suite / ".env").write_text("POSTGRES_URL=%s\n" % NOWHERE, encoding="utf-8-sig")  # as Notepad writes it
    command = ("export_from_postgres.py", "--user-email", ANNA)
    assert " at nobody@127.0.0.1:1/nowhere: " in run(*command, suite=suite).err
    env = {"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": "2", "POSTGRES_DB": "mine", "POSTGRES_USER": "me"}
    assert " at me@127.0.0.1:2/mine: " in run(*command, env=env, suite=suite).err


def test_libpqs_own_variables_work_for_what_is_not_set(guarded: Guarded, place: Place, run: Run) -> None:
    env = {"PGHOST": "127.0.0.1", "PGPORT": guarded.port, "PGDATABASE": "other_db"}
    env.update(PGUSER="reader", PGPASSWORD=PASSWORD)
    run("export_from_postgres.py", "--user-email", ANNA, env=env, code=0)
    assert manifest_of(place.data)["source"] == "reader@127.0.0.1:%s/other_db" % guarded.port
    # and only for that
    ours = {"POSTGRES_DB": "theprogram_db", "POSTGRES_PASSWORD": "geheim"}
    assert (
        "wrong user or password"
        in run("export_from_postgres.py", "--user-email", ANNA, env={**env, **ours}).err
    )
    del ours["POSTGRES_PASSWORD"]
    assert run("export_from_postgres.py", "--user-email", ANNA, env={**env, **ours}).code == 0
    assert manifest_of(place.data)["source"] == "reader@127.0.0.1:%s/theprogram_db" % guarded.port


def test_pgpassword_serves_a_url_without_password(guarded: Guarded, place: Place, run: Run) -> None:
    options = ("--user-email", ANNA, "--postgres-url", guarded.url())
    run("export_from_postgres.py", *options, env={"PGPASSWORD": PASSWORD}, code=0)


@pytest.mark.parametrize("by_url", [True, False])
def test_pgpass_serves_what_has_no_password(by_url: bool, guarded: Guarded, place: Place, run: Run) -> None:
    home = place.folder / "home"
    home.mkdir()
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    (home / ".pgpass").write_text("127.0.0.1:%s:*:reader:%s\n" % (guarded.port, escaped), encoding="utf-8")
    (home / ".pgpass").chmod(0o600)
    env = {"PGPASSFILE": str(home / ".pgpass")}
    if not by_url:
        env.update(POSTGRES_HOST="127.0.0.1", POSTGRES_PORT=guarded.port, POSTGRES_USER="reader")
    options = ("--postgres-url", guarded.url()) if by_url else ()
    run("export_from_postgres.py", "--user-email", ANNA, *options, env=env, code=0)


def test_service_file_works_for_what_is_not_set(guarded: Guarded, place: Place, run: Run) -> None:
    services = place.folder / "services"
    services.write_text(
        "[app]\nhost=127.0.0.1\nport=%s\ndbname=other_db\nuser=reader\n" % guarded.port, encoding="utf-8"
    )
    env = {"PGSERVICEFILE": str(services), "PGSERVICE": "app", "PGPASSWORD": PASSWORD}
    run("export_from_postgres.py", "--user-email", ANNA, env=env, code=0)


def test_configured_password_is_the_last_resort(guarded: Guarded, place: Place, run: Run) -> None:
    env = {"PGHOST": "127.0.0.1", "PGPORT": guarded.port}  # user, database and password are config.py's
    run("export_from_postgres.py", "--user-email", ANNA, env=env, code=0)
    assert manifest_of(place.data)["source"] == "theprogram@127.0.0.1:%s/theprogram_db" % guarded.port


def test_conninfo_and_sqlalchemy_urls_are_taken(guarded: Guarded, place: Place, run: Run) -> None:
    quoted = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
    conninfo = "host=127.0.0.1 port=%s dbname=other_db user=reader password='%s'" % (guarded.port, quoted)
    sqlalchemy = guarded.url(PASSWORD).replace("postgresql://", "postgresql+psycopg2://")
    for url in (conninfo, sqlalchemy):
        run("export_from_postgres.py", "--user-email", ANNA, "--postgres-url", url, code=0)


def test_config_says_what_nothing_else_does(
    sample_database: Database, place: Place, suite: Path, run: Run
) -> None:
    (suite / ".env").write_text("", encoding="utf-8")
    config = suite / "config.py"
    shipped = config.read_bytes()
    with config.open("a", encoding="utf-8") as file:
        file.write("\nDEFAULT_USER_EMAIL = %r\nLOG_FILE = %r\n" % (CARLA, str(place.folder / "log")))
        file.write("SQLITE_PATH = %r\nDATA_DIR = %r\n" % (str(place.app), str(place.data)))
    try:
        done = run("migrate.py", "--postgres-url", sample_database.url, suite=suite, own=False)
    finally:
        config.write_bytes(shipped)
    assert done.code == 0, done.err
    assert manifest_of(place.data)["user_email"] == CARLA
    assert rows_of(place.app, "SELECT count(*) FROM clients") == [(1,)]
    assert "exported clients" in (place.folder / "log").read_text(encoding="utf-8")


def test_log_file_names_nobody_when_a_user_is_not_found(
    sample_database: Database, place: Place, run: Run
) -> None:
    file = place.folder / "run.log"
    done = run(
        "migrate.py",
        "--user-email",
        "emil@example.com",
        "--postgres-url",
        sample_database.url,
        "--log-file",
        file,
    )
    assert done.code == 3
    assert "emil@example.com" in done.err
    logged = file.read_text(encoding="utf-8")
    assert "user not found" in logged
    assert "@example.com" not in logged


def _in_a_wait() -> None:
    condition = threading.Condition()
    with condition:
        condition.release()  # as while it waits
        raise KeyboardInterrupt


def _in_a_class() -> None:
    class Interrupted:
        def __set_name__(self, owner: type, name: str) -> None:
            raise KeyboardInterrupt

    class Owner:
        member = Interrupted()


@pytest.mark.parametrize("body", [_in_a_wait, _in_a_class])
def test_an_interrupt_that_python_makes_another_error_of_ends_the_run_as_any_other(
    body: Callable[[], None], capsys: pytest.CaptureFixture
) -> None:
    assert running.run(lambda arguments: body() or 0, options.parser("").parse_args([])) == 130
    assert capsys.readouterr().err == "error: interrupted; nothing is half done, run again when ready\n"


def test_a_signal_that_comes_when_all_is_done_ends_the_run_as_any_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    set_handler, before = signal.signal, signal.getsignal(signal.SIGTERM)

    def interrupted(number: int, handler: object) -> object:
        if handler is before:
            os.kill(os.getpid(), signal.SIGTERM)
        return set_handler(number, handler)  # type: ignore[arg-type]

    monkeypatch.setattr(signal, "signal", interrupted)
    try:
        code = running.run(lambda arguments: 0, options.parser("").parse_args([]))
    finally:
        set_handler(signal.SIGTERM, before)
    assert code == 130
    assert capsys.readouterr().err == "error: interrupted; nothing is half done, run again when ready\n"
