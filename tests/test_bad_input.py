"""What goes wrong outside: each its exit code, a message that names the thing, and an old database untouched."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from import_to_sqlite import import_
from migration.errors import MigrationError
from support.bundles import FIVE_KEYS, edit_manifest, rewrite
from support.migrations import settings_of
from support.places import ANNA, BRUNO, Place
from support.runs import IMPATIENT, Result, Run
from support.servers import NOWHERE, PASSWORD, Database, Guarded, Server
from support.sqlite_files import OLD_ROWS, make_old_database, rows_of


@pytest.fixture()
def old(place: Place) -> Iterator[bytes]:
    """A database that the failing run must leave byte for byte, with nothing new beside it and no backup."""
    content = make_old_database(place.app)
    yield content
    assert place.app.read_bytes() == content
    assert [path.name for path in place.folder.iterdir() if "app.db" in path.name] == ["app.db"]
    assert not place.backups.exists()


def assert_refused(done: Result, code: int, error: str, hint: str | None = "") -> None:
    """``hint``: a part of it; None where there is nothing to try."""
    printed = done.out + done.err
    assert "Traceback" not in printed, printed
    assert done.code == code, printed
    assert "error: " + error in done.err, printed
    if hint is None:
        assert "\ntry: " not in done.err, printed
    else:
        (tried,) = (line for line in done.err.splitlines() if line.startswith("try: "))
        assert hint in tried, printed


# PostgreSQL


def test_postgresql_down(old: bytes, place: Place, run: Run) -> None:
    done = run("migrate.py", "--user-email", ANNA, "--postgres-url", NOWHERE)
    assert_refused(
        done,
        3,
        "cannot connect to PostgreSQL at nobody@127.0.0.1:1/nowhere: nothing listens there\n",
        "start PostgreSQL",
    )
    assert not (place.data / "manifest.json").exists()


def test_socket_folder_without_postgresql(old: bytes, place: Place, run: Run) -> None:
    url = "host=%s user=u dbname=d" % place.folder
    done = run("migrate.py", "--user-email", ANNA, "--postgres-url", url)
    assert_refused(
        done, 3, "cannot connect to PostgreSQL at u@%s/d: nothing listens there\n" % place.folder, "start"
    )


@pytest.mark.parametrize(
    "user, password, error",
    [
        ("reader", "geheim-und-falsch", "wrong user or password"),
        ("nobody_of_that_name", "geheim-und-falsch", "wrong user or password"),
        ("reader", None, "a password is needed"),
    ],
)
def test_wrong_password(
    user: str, password: str | None, error: str, guarded: Guarded, old: bytes, run: Run
) -> None:
    done = run("migrate.py", "--user-email", ANNA, "--postgres-url", guarded.url(password, user), "--verbose")
    where = "%s@127.0.0.1:%s/theprogram_db" % (user, guarded.port)
    assert_refused(done, 3, "cannot connect to PostgreSQL at %s: %s\n" % (where, error), "POSTGRES_PASSWORD")
    assert "geheim" not in done.out + done.err


def test_unknown_database(server: Server, old: bytes, run: Run) -> None:
    done = run("migrate.py", "--user-email", ANNA, "--postgres-url", server.database_url("not_there"))
    assert_refused(done, 3, "cannot connect to PostgreSQL at ", "POSTGRES_DB")
    assert ': database "not_there" does not exist\n' in done.err


def test_unknown_role(sample_database: Database, old: bytes, run: Run) -> None:
    url = sample_database.url.replace("postgres@", "not_there@")
    done = run("migrate.py", "--user-email", ANNA, "--postgres-url", url)
    assert_refused(done, 3, "cannot connect to PostgreSQL at not_there@", "POSTGRES_USER")
    assert ': role "not_there" does not exist\n' in done.err


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://anna:geheim@[::1/db",
        "postgresql://anna:geheim%zz@127.0.0.1/db",
        "postgresql://anna:1/geheim@127.0.0.1:5432/db",
        "postgresql://anna:geheim/x@127.0.0.1/db",
        "postgresql://anna:x@geheim@127.0.0.1/db",
        "host=127.0.0.1 password='geheim",
        "password=x geheim host=127.0.0.1",
        "geheim",
    ],
)
def test_unreadable_url_is_not_echoed(url: str, place: Place, run: Run) -> None:
    log = place.folder / "log"
    done = run("migrate.py", "--user-email", ANNA, "--postgres-url", url, "--log-file", log)
    assert_refused(done, 2, "the PostgreSQL URL cannot be read\n", "postgresql://user:password@host:5432/")
    assert "geheim" not in done.out + done.err + log.read_text(encoding="utf-8")


def test_missing_table(database: Database, old: bytes, run: Run) -> None:
    database.execute("DROP TABLE transit_events, session_notes")
    done = run("migrate.py", "--user-email", ANNA, "--postgres-url", database.url)
    assert_refused(
        done, 3, "PostgreSQL has no table transit_events, session_notes in schema public\n", "POSTGRES_SCHEMA"
    )


@pytest.fixture()
def reader(database: Database) -> Iterator[str]:
    """A role that may read the whole sample; its URL's user."""
    role = "reader_%d" % os.getpid()
    database.execute("CREATE ROLE %s LOGIN" % role)
    database.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO " + role)
    yield role
    database.execute("DROP OWNED BY " + role)
    database.execute("DROP ROLE " + role)


def test_no_select_on_one_table(database: Database, reader: str, old: bytes, run: Run) -> None:
    url = database.url.replace("postgres@", reader + "@")
    database.execute("REVOKE SELECT ON session_notes FROM " + reader)
    done = run("migrate.py", "--user-email", ANNA, "--postgres-url", url)
    assert_refused(
        done, 3, "no permission to read session_notes\n", "GRANT SELECT ON public.session_notes TO " + reader
    )

    # what the message says to do is enough
    database.execute("GRANT SELECT ON public.session_notes TO " + reader)
    assert run("export_from_postgres.py", "--user-email", ANNA, "--postgres-url", url).code == 0


def test_no_usage_on_the_schema(database: Database, reader: str, old: bytes, run: Run) -> None:
    database.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    url = database.url.replace("postgres@", reader + "@")
    done = run("migrate.py", "--user-email", ANNA, "--postgres-url", url)
    assert_refused(
        done, 3, "PostgreSQL refuses: permission denied for schema public\n", 'GRANT USAGE ON SCHEMA "public"'
    )


@pytest.mark.parametrize("email", ["who@example.com", "ANNA@example.com", "%", "%s' OR '1'='1\\", "' %(x)s"])
def test_unknown_user_is_named_and_the_others_listed(
    email: str, sample_database: Database, old: bytes, place: Place, run: Run
) -> None:
    log = place.folder / "log"
    options = ("--postgres-url", sample_database.url, "--log-file", log)
    done = run("migrate.py", "--user-email", email, *options)
    assert_refused(done, 3, "user not found: %s\n" % email, "check the spelling (case counts)")
    assert "the 4 users there:\n" in done.err
    for known in (ANNA, BRUNO, "carla@example.com", "dora@example.com"):
        assert "\n  %s\n" % known in done.err
        assert known not in log.read_text(encoding="utf-8")


def test_at_most_twenty_users_are_listed(database: Database, run: Run) -> None:
    database.execute(
        "INSERT INTO users SELECT md5(i::text)::uuid, 'more' || i || '@example.com', 'hash', NULL, NULL,"
        " true, true, false, 'free' FROM generate_series(1, 30) i"
    )
    done = run("export_from_postgres.py", "--user-email", "MORE7@example.com", "--postgres-url", database.url)
    assert_refused(done, 3, "user not found: MORE7@example.com\n")
    listed = done.err.partition("the first 20 of 34 users:\n")[2].splitlines()
    assert len(listed) == 20
    assert listed[0] == "  more7@example.com", "the one that differs in case comes first"


def test_strange_email_address_is_found(database: Database, old: bytes, place: Place, run: Run) -> None:
    email = "o'brien\"%s%(x)s%%\\'; DROP TABLE users; --\\@example.com"
    database.execute("UPDATE users SET email = %s WHERE email = %s", email, ANNA)
    done = run(
        "export_from_postgres.py", "--user-email", email, "--postgres-url", database.url, "--log-file", "log"
    )
    assert done.code == 0, done.err
    manifest = json.loads((place.data / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["user_email"] == email
    assert manifest["row_counts"]["clients"] == 12
    assert database.rows("SELECT count(*) FROM users") == [(4,)]


def test_no_email_given(sample_database: Database, old: bytes, run: Run) -> None:
    done = run("migrate.py", "--postgres-url", sample_database.url)
    assert_refused(done, 2, "no e-mail address is given: whose data?\n", "MIGRATION_USER_EMAIL")


# The bundle


def no_manifest(data: Path) -> None:
    (data / "manifest.json").unlink()


def no_folder(data: Path) -> None:
    data.rename(data.with_name("moved"))


def missing_file(data: Path) -> None:
    (data / "charts.json").unlink()


def flipped_bit(data: Path) -> None:
    content = bytearray((data / "charts.json").read_bytes())
    content[len(content) // 2] ^= 1
    (data / "charts.json").write_bytes(bytes(content))


def cut_short(data: Path) -> None:
    content = (data / "charts.json").read_bytes()
    (data / "charts.json").write_bytes(content[:-100])


def fewer_rows(data: Path) -> None:
    lines = (data / "charts.json").read_bytes().splitlines(True)
    rewrite(data, "charts.json", b"".join(lines[:1] + lines[2:]))


def more_rows_promised(data: Path) -> None:
    edit_manifest(data, lambda manifest: manifest["row_counts"].update(charts=19))


def no_row_count(data: Path) -> None:
    edit_manifest(data, lambda manifest: manifest["row_counts"].pop("charts"))


def outside_the_folder(data: Path) -> None:
    (data.parent / "x.json").write_bytes(b"[]")
    checksum = hashlib.sha256(b"[]").hexdigest()
    edit_manifest(data, lambda manifest: manifest["checksums"].update({"../x.json": checksum}))


def linked_file(data: Path) -> None:
    (data / "charts.json").rename(data.parent / "charts-elsewhere")
    (data / "charts.json").symlink_to(data.parent / "charts-elsewhere")


def extra_file(data: Path) -> None:
    (data / "more_charts.json").write_bytes(b"[]")


def not_in_the_manifest(data: Path) -> None:
    edit_manifest(data, lambda manifest: manifest["checksums"].pop("charts.json"))


def manifest_not_json(data: Path) -> None:
    (data / "manifest.json").write_bytes(b'{"user_email": ')


def manifest_a_list(data: Path) -> None:
    (data / "manifest.json").write_bytes(b"[]")


def manifest_without_user(data: Path) -> None:
    edit_manifest(data, lambda manifest: manifest.pop("user_id"))


def manifest_of_the_future(data: Path) -> None:
    edit_manifest(data, lambda manifest: manifest.update(format_version=99))


def broken_record(data: Path) -> None:
    lines = (data / "charts.json").read_bytes().splitlines(True)
    lines[2] = lines[2].replace(b'"id":', b'"id"', 1)
    rewrite(data, "charts.json", b"".join(lines))


def records_not_in_a_list(data: Path) -> None:
    rewrite(data, "charts.json", b'{"charts": []}\n')


def nobody_in_it(data: Path) -> None:
    rewrite(data, "user_data.json", b'{"user": null, "preferences": null}\n')


@pytest.mark.parametrize(
    "damage, error",
    [
        (no_manifest, "no export bundle: {data}/manifest.json does not exist\n"),
        (no_folder, "no export bundle: folder {data} does not exist\n"),
        (missing_file, "the bundle is incomplete: charts.json is missing\n"),
        (flipped_bit, "charts.json does not match its SHA256 checksum in the manifest\n"),
        (cut_short, "charts.json has "),
        (fewer_rows, "charts.json holds 17 records; the manifest says 18\n"),
        (more_rows_promised, "charts.json holds 18 records; the manifest says 19\n"),
        (no_row_count, "the manifest has no row count for charts\n"),
        (outside_the_folder, "the manifest names a file that no table in config.TABLES has: '../x.json'\n"),
        (linked_file, "charts.json is a symbolic link; a bundle holds plain files\n"),
        (extra_file, "more_charts.json is in {data} but not in the manifest\n"),
        (not_in_the_manifest, "the manifest does not name charts.json\n"),
        (manifest_not_json, "{data}/manifest.json is damaged: "),
        (manifest_a_list, "{data}/manifest.json is damaged: Expected `object`, got `array`\n"),
        (manifest_without_user, "{data}/manifest.json is damaged: Object missing required field `user_id`\n"),
        (manifest_of_the_future, "{data}/manifest.json is damaged: format version 99; "),
        (broken_record, "charts.json is damaged in record 2: "),
        (records_not_in_a_list, "charts.json is damaged in record 1: "),
        (nobody_in_it, "user_data.json holds no user\n"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_damaged_bundle_is_refused(
    damage: Callable[[Path], None], error: str, bundle: Path, old: bytes, run: Run
) -> None:
    damage(bundle)
    done = run("import_to_sqlite.py")
    assert_refused(done, 4, error.format(data=bundle), "export")


def test_bundle_of_another_user_is_refused(bundle: Path, old: bytes, run: Run) -> None:
    done = run("migrate.py", "--skip-export", "--offline", "--user-email", BRUNO)
    assert_refused(
        done, 4, "the bundle in %s belongs to %s, not to %s\n" % (bundle, ANNA, BRUNO), "export again"
    )


def test_rejected_row_leaves_old_database_untouched(bundle: Path, old: bytes, run: Run) -> None:
    lines = (bundle / "clients.json").read_bytes().splitlines(True)
    lines[2] = lines[1]
    rewrite(bundle, "clients.json", b"".join(lines))
    done = run("import_to_sqlite.py")
    name = json.loads(lines[1].strip().rstrip(b","))["id"]
    assert_refused(done, 5, "clients %s is rejected by SQLite: UNIQUE constraint failed: clients.id\n" % name)


def test_dangling_reference_leaves_old_database_untouched(bundle: Path, old: bytes, run: Run) -> None:
    lines = (bundle / "session_notes.json").read_bytes().splitlines(True)
    note = json.loads(lines[1].strip().rstrip(b","))
    stranger = "00000000-0000-4000-8000-000000000000"
    lines[1] = lines[1].replace(note["client_id"].encode(), stranger.encode())
    rewrite(bundle, "session_notes.json", b"".join(lines))
    done = run("import_to_sqlite.py")
    assert_refused(
        done,
        5,
        "foreign keys that lead nowhere: 1\n  session_notes %s: client_id leads to no row of clients"
        % note["id"],
    )


def test_pretty_printed_bundle_with_the_five_keys_alone_is_accepted(
    bundle: Path, annas_run: Place, place: Place, run: Run
) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    for name in manifest["checksums"]:
        content = json.loads((bundle / name).read_text(encoding="utf-8"))
        text = json.dumps(content, indent=4, sort_keys=True).replace("\n", "\r\n")
        (bundle / name).write_bytes(text.encode("utf-8"))
        manifest["checksums"][name] = hashlib.sha256(text.encode("utf-8")).hexdigest().upper()
    (bundle / "manifest.json").write_text(
        json.dumps({key: manifest[key] for key in FIVE_KEYS}, indent=4), encoding="utf-8"
    )
    run("migrate.py", "--skip-export", "--offline", code=0)
    for table in ("app_config", "user_preferences", *manifest["row_counts"]):
        if table != "users":
            assert plain_rows(place.app, table) == plain_rows(annas_run.app, table), table


def test_empty_tables_of_a_foreign_bundle_are_accepted(bundle: Path, place: Place, run: Run) -> None:
    """Nothing tells their columns."""
    for name in ("session_notes", "aspect_patterns"):
        rewrite(bundle, name + ".json", b" [ ] ")

    def only_five(manifest: Any) -> None:
        manifest["row_counts"].update(session_notes=0, aspect_patterns=0)
        for key in set(manifest) - set(FIVE_KEYS):
            del manifest[key]

    edit_manifest(bundle, only_five)
    run("migrate.py", "--skip-export", "--offline", code=0)
    assert rows_of(place.app, "SELECT count(*) FROM session_notes") == [(0,)]
    assert rows_of(place.app, "SELECT count(*) FROM clients") == [(12,)]


def plain_rows(path: Path, table: str) -> list:
    """Rows with JSON as values and fractions without their zeros: without types each bundle's own form stays."""

    def plain(value: object) -> object:
        if isinstance(value, str) and value[:1] in ("{", "["):
            return json.loads(value)
        return re.sub(r"(:\d\d\.\d*?)0+\Z", r"\1", value) if isinstance(value, str) else value

    columns = [name for _, name, *_ in rows_of(path, "PRAGMA table_info(%s)" % table)]
    if table == "user_preferences":
        columns.remove("created_at")  # the source has none: the time of the import
    sql = "SELECT %s FROM %s ORDER BY id" % (", ".join(columns), table)
    return [tuple(map(plain, row)) for row in rows_of(path, sql)]


# The schema


@pytest.mark.parametrize(
    "content, error, hint",
    [
        (None, "schema file not found: {path}\n", "SCHEMA_PATH"),
        (b"CREATE TABLE clients (id TEXT;", "the schema file {path} is not valid SQL for SQLite ", "sqlite3"),
        (b"Dear diary, this is no SQL.", "the schema file {path} is not valid SQL for SQLite ", "sqlite3"),
        (b"", "the schema file {path} makes no table\n", None),
        (b"\xff\xfe\x00", "cannot read the schema file {path}: ", None),
        (b"CREATE TABLE clients (id TEXT);", "table users is in config but not", "CREATE TABLE"),
    ],
    ids=["missing", "broken", "not SQL", "empty", "not text", "without tables"],
)
def test_unusable_schema(
    content: bytes | None, error: str, hint: str | None, bundle: Path, old: bytes, place: Place, run: Run
) -> None:
    path = place.folder / "schema.sql"
    if content is not None:
        path.write_bytes(content)
    done = run("import_to_sqlite.py", "--schema-path", path)
    error = error.replace("table users", "table app_config")
    assert_refused(done, 2, error.format(path=path), hint)


def test_unusable_schema_stops_migrate_before_the_export(place: Place, run: Run) -> None:
    done = run("migrate.py", "--user-email", ANNA, "--postgres-url", NOWHERE, "--schema-path", place.folder)
    assert_refused(done, 2, "cannot read the schema file %s: " % place.folder, None)
    assert not place.data.exists()


# The target


def test_target_folder_missing(sample_database: Database, place: Place, run: Run) -> None:
    app = place.folder / "gone" / "app.db"
    done = run(
        "migrate.py", *("--user-email", ANNA, "--postgres-url", sample_database.url, "--sqlite-path", app)
    )
    assert_refused(done, 5, "the folder of %s does not exist\n" % app, "--sqlite-path")
    assert list(place.folder.iterdir()) == [], "found before the export"


@pytest.fixture()
def read_only(permissions_count: None, place: Place) -> Iterator[Path]:
    """An empty folder in which nothing can be made."""
    folder = place.folder / "read-only"
    folder.mkdir()
    folder.chmod(0o555)
    yield folder
    assert list(folder.iterdir()) == []
    folder.chmod(0o755)


def test_target_folder_not_writable(bundle: Path, read_only: Path, run: Run) -> None:
    done = run("import_to_sqlite.py", "--sqlite-path", read_only / "app.db", ordinary=True)
    assert_refused(done, 5, "%s/app.db cannot be written: Permission denied\n" % read_only, "permissions")


def test_old_database_in_a_folder_that_is_not_writable(
    permissions_count: None, bundle: Path, old: bytes, place: Place, run: Run
) -> None:
    place.folder.chmod(0o555)
    try:
        done = run("import_to_sqlite.py", ordinary=True)
    finally:
        place.folder.chmod(0o755)
    assert_refused(done, 5, str(place.folder), "permissions")


def test_old_database_not_writable(
    permissions_count: None, bundle: Path, old: bytes, place: Place, run: Run
) -> None:
    place.app.chmod(0o444)
    done = run("import_to_sqlite.py", ordinary=True)
    assert_refused(done, 5, "%s cannot be written: permission denied\n" % place.app, "permissions")


def test_backup_folder_not_writable(bundle: Path, old: bytes, read_only: Path, run: Run) -> None:
    done = run("import_to_sqlite.py", "--backup-dir", read_only, ordinary=True)
    assert_refused(done, 5, str(read_only), "--backup-dir")


def test_data_folder_not_writable(guarded: Guarded, old: bytes, read_only: Path, run: Run) -> None:
    done = run(
        "migrate.py",
        *("--user-email", ANNA, "--postgres-url", guarded.url(PASSWORD), "--data-dir", read_only),
        ordinary=True,
    )
    assert_refused(done, 4, "cannot write the bundle in %s: Permission denied\n" % read_only, "--data-dir")


def test_unreadable_bundle(permissions_count: None, bundle: Path, old: bytes, place: Place, run: Run) -> None:
    (bundle / "charts.json").chmod(0)
    done = run("import_to_sqlite.py", ordinary=True)
    assert_refused(done, 4, "cannot read %s/charts.json: Permission denied\n" % bundle, "permissions")


def test_target_is_a_folder(bundle: Path, place: Place, run: Run) -> None:
    place.app.mkdir()
    (place.app / "kept").write_bytes(b"")
    done = run("import_to_sqlite.py")
    assert_refused(done, 5, "%s is a folder\n" % place.app, "--sqlite-path")
    assert [path.name for path in place.app.iterdir()] == ["kept"]
    assert sorted(path.name for path in place.folder.iterdir()) == ["app.db", "data"]


@pytest.mark.parametrize("content", [b"A novel, chapter one. " * 300, b"short"])
def test_target_is_no_database(content: bytes, bundle: Path, place: Place, run: Run) -> None:
    place.app.write_bytes(content)
    done = run("import_to_sqlite.py")
    assert_refused(done, 5, "%s is not a sound SQLite database: " % place.app, "move it away")
    assert place.app.read_bytes() == content
    assert sorted(path.name for path in place.folder.iterdir()) == ["app.db", "data"]


def test_target_locked_by_a_writer(sample_database: Database, place: Place, run: Run) -> None:
    make_old_database(place.app)
    application = sqlite3.connect(str(place.app), isolation_level=None)
    try:
        application.execute("BEGIN IMMEDIATE")
        application.execute("INSERT INTO old VALUES ('being written')")
        options = ("--user-email", ANNA, "--postgres-url", sample_database.url)
        done = run("migrate.py", *options, values=IMPATIENT)
        assert_refused(
            done,
            5,
            "%s is open in another program (database is locked)\n" % place.app,
            "close the application",
        )
        application.execute("COMMIT")
    finally:
        application.close()
    assert rows_of(place.app, "SELECT note FROM old") == [*OLD_ROWS, ("being written",)]
    assert [path.name for path in place.folder.iterdir()] == ["app.db"], "found before the export"


def assert_in_use(place: Place) -> None:
    with pytest.raises(MigrationError) as caught:
        import_(settings_of(NOWHERE, place))
    assert caught.value.exit_code == 5
    assert caught.value.message == "%s is open in another program (database is locked)" % place.app
    assert "close the application" in str(caught.value.hint)


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_target_being_read_by_another_program(mode: str, bundle: Path, place: Place, impatient: None) -> None:
    make_old_database(place.app)
    application = sqlite3.connect(str(place.app), isolation_level=None)
    try:
        application.execute("PRAGMA journal_mode = " + mode)
        application.execute("BEGIN")
        assert application.execute("SELECT note FROM old").fetchall() == OLD_ROWS
        assert_in_use(place)
        assert application.execute("SELECT note FROM old").fetchall() == OLD_ROWS
    finally:
        application.close()
    assert sorted(path.name for path in place.folder.iterdir()) == ["app.db", "data"]


def test_target_open_and_idle_in_another_program(bundle: Path, place: Place, impatient: None) -> None:
    make_old_database(place.app)
    application = sqlite3.connect(str(place.app), isolation_level=None)
    try:
        application.execute("INSERT INTO old VALUES ('only in the write-ahead log')")
        assert_in_use(place)
        application.execute("INSERT INTO old VALUES ('later')")
    finally:
        application.close()
    written = [("only in the write-ahead log",), ("later",)]
    assert rows_of(place.app, "SELECT note FROM old") == OLD_ROWS + written


def test_write_ahead_log_of_a_lost_database_is_not_mixed_in(bundle: Path, place: Place, run: Run) -> None:
    left = place.folder / "app.db-wal"
    left.write_bytes(b"the last changes of a database that was moved")
    done = run("import_to_sqlite.py")
    assert_refused(done, 5, "app.db-wal lies in %s without its database\n" % place.folder, "beside it")
    assert left.read_bytes() == b"the last changes of a database that was moved"
    assert sorted(path.name for path in place.folder.iterdir()) == ["app.db-wal", "data"]


def test_nothing_to_validate(bundle: Path, place: Place, run: Run) -> None:
    done = run("migrate.py", "--skip-export", "--skip-import", "--offline")
    assert_refused(done, 5, "no database at %s\n" % place.app, "import_to_sqlite.py")
    assert not place.app.exists()
    assert not (bundle / "validation_report.json").exists()


# The log, the options


def test_log_file_in_a_missing_folder(bundle: Path, old: bytes, place: Place, run: Run) -> None:
    log = place.folder / "gone" / "migration.log"
    done = run("migrate.py", "--skip-export", "--offline", "--log-file", log)
    assert_refused(
        done, 2, "cannot write the log file %s: No such file or directory\n" % log, "a folder that exists"
    )


def test_bad_log_level(bundle: Path, old: bytes, run: Run) -> None:
    done = run("migrate.py", "--skip-export", "--offline", env={"LOG_LEVEL": "chatty"})
    assert_refused(done, 2, "LOG_LEVEL is 'CHATTY'\n", "one of DEBUG, INFO, WARNING, ERROR")


def test_empty_option_is_no_default(bundle: Path, old: bytes, run: Run) -> None:
    done = run("import_to_sqlite.py", "--sqlite-path", "")
    assert_refused(done, 2, "--sqlite-path is empty\n", None)


@pytest.mark.parametrize("options", [("--quiet", "--verbose"), ("--no-such",), ("--use", ANNA), ("extra",)])
def test_unknown_options_are_usage_errors(options: tuple[str, ...], run: Run) -> None:
    done = run("migrate.py", *options, code=2)
    assert done.err.startswith("usage: migrate.py") and options[-1] in done.err
