"""What PostgreSQL says in any language and encoding: told apart by code and type, with the place of what it refuses."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from typing import Iterator

import psycopg2
import pytest

from demo import sample
from export_from_postgres import export
from migration.errors import ExitCode, MigrationError
from migration.postgres import connecting, explanations, parameters
from support.migrations import settings_of
from support.places import ANNA, Place, contents
from support.runs import Run
from support.servers import Database, Server


@contextlib.contextmanager
def refusing(code: str, text: str) -> Iterator[int]:
    """A server that lets nobody in, and says why in its own language."""
    fields = {"S": "FATAL", "V": "FATAL", "C": code, "M": text}
    body = b"".join(name.encode() + value.encode("utf-8") + b"\0" for name, value in fields.items()) + b"\0"
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                with client:
                    length = struct.unpack("!i", client.recv(4))[0]
                    request = client.recv(length - 4)
                    if struct.unpack("!i", request[:4])[0] in (80877103, 80877104):  # encryption
                        client.sendall(b"N")
                        client.recv(10_000)
                    client.sendall(b"E" + struct.pack("!i", len(body) + 4) + body)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("28P01", "Passwort-Authentifizierung für Benutzer »anna« fehlgeschlagen"),
        ("3D000", 'база данных "there" не существует'),
        ("53300", "現在クライアント数が多すぎます"),
    ],
)
def test_refusal_in_another_language_is_shown_as_it_is(code: str, text: str, place: Place) -> None:
    with refusing(code, text) as port:
        settings = settings_of("postgresql://anna:geheim@127.0.0.1:%d/there" % port, place)
        with pytest.raises(MigrationError) as refused, connecting.snapshot(settings):
            pass
    where = "cannot connect to PostgreSQL at anna@127.0.0.1:%d/there: " % port
    assert refused.value.message == where + "FATAL:  " + text
    assert "POSTGRES_HOST" in str(refused.value.hint)
    assert refused.value.exit_code == ExitCode.SOURCE
    assert "geheim" not in refused.value.message + str(refused.value.hint)


def raised(place: Place, database: Database, code: str) -> MigrationError:
    """What becomes of an error with this code and a text that nobody knows."""
    sql = "DO $$ BEGIN RAISE 'unbekannt' USING ERRCODE = '%s'; END $$" % code
    with pytest.raises(MigrationError) as refused, connecting.snapshot(
        settings_of(database.url, place)
    ) as db:
        db.rows(sql)
    assert refused.value.exit_code == ExitCode.SOURCE
    return refused.value


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("57P01", "lost the connection to PostgreSQL at "),
        ("57P05", "lost the connection to PostgreSQL at "),
        ("25P03", "lost the connection to PostgreSQL at "),
        ("08006", "lost the connection to PostgreSQL at "),
        ("57014", "a query was cancelled in PostgreSQL: unbekannt"),
        ("42501", "PostgreSQL refuses: unbekannt"),
        ("55P03", "a table is locked by another session, and was not free within "),
        ("53100", "PostgreSQL refuses: unbekannt (SQLSTATE 53100)"),
        ("53200", "PostgreSQL refuses: unbekannt (SQLSTATE 53200)"),
    ],
)
def test_code_and_not_text_tells_errors_apart(
    code: str, message: str, sample_database: Database, place: Place
) -> None:
    error = raised(place, sample_database, code)
    assert error.message.startswith(message)
    assert isinstance(error, explanations.ConnectionLost) == message.startswith("lost")


def test_text_that_reads_like_another_error_is_none(sample_database: Database, place: Place) -> None:
    sql = "DO $$ BEGIN RAISE 'password authentication failed, too many, row-level security, SSL, no space left'; END $$"
    refused = pytest.raises(MigrationError, match=r"PostgreSQL refuses: .*\(SQLSTATE P0001\)")
    with refused, connecting.snapshot(settings_of(sample_database.url, place)) as db:
        db.rows(sql)


def test_policy_that_hides_rows_is_found_in_the_catalog(database: Database, place: Place) -> None:
    role = "reader_" + database.url.split("/test_")[1].split("?")[0]
    database.execute("CREATE ROLE %s LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO %s" % (role, role))
    database.execute(
        "ALTER TABLE charts ENABLE ROW LEVEL SECURITY; ALTER TABLE clients ENABLE ROW LEVEL SECURITY"
    )
    try:
        with pytest.raises(MigrationError) as refused:
            export(settings_of(database.url.replace("postgres@", role + "@"), place))
    finally:
        database.execute("DROP OWNED BY %s; DROP ROLE %s" % (role, role))
    assert refused.value.message == "a row-level security policy would hide rows of clients, charts"
    assert "BYPASSRLS" in str(refused.value.hint)


# URLs of other clients


@pytest.mark.parametrize(
    ("parameter", "name", "hint"),
    [
        ("schema=public", "schema", "config.POSTGRES_SCHEMA"),
        ("sslmode=disable&schema=public", "schema", "config.POSTGRES_SCHEMA"),
        ("ssl=require", "ssl", "sslmode=require"),
        ("pgbouncer=true&connection_limit=1", "pgbouncer", "another client"),
        ("charset=utf8", "charset", "UTF-8"),
        ("no_such_thing=1", "no_such_thing", "https://www.postgresql.org/docs/current/libpq-connect.html"),
    ],
)
def test_unknown_parameter_is_named_with_what_to_write(
    parameter: str, name: str, hint: str, run: Run
) -> None:
    done = run(
        "export_from_postgres.py",
        "--user-email",
        ANNA,
        "--postgres-url",
        "postgresql://a:geheim@h/d?" + parameter,
    )
    assert done.code == 2
    message = "error: the PostgreSQL URL has a parameter that PostgreSQL's library does not know: %s\n"
    assert done.err.startswith(message % name)
    assert hint in done.err
    assert "geheim" not in done.err


def test_unknown_parameter_of_a_conninfo_string() -> None:
    with pytest.raises(MigrationError, match="does not know: schema"):
        parameters.parameters("host=h password=geheim schema=public")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://a:x?geheim=1@h/d?schema=public",
        "postgresql://a:b@h/d?schema=x?geheim=1@h",
        "postgresql://a:b@h/d?password=geheim&schema=public",
        "host=h password=x geheim=1",
    ],
)
def test_part_of_a_password_is_no_parameter_to_be_named(url: str) -> None:
    with pytest.raises(MigrationError) as refused:
        parameters.parameters(url)
    assert "geheim" not in refused.value.message + str(refused.value.hint)


# Encodings


@contextlib.contextmanager
def encoded(server: Server, encoding: str) -> Iterator[Database]:
    with server.new_database(
        "TEMPLATE template0 ENCODING '%s' LC_COLLATE 'C' LC_CTYPE 'C'" % encoding
    ) as database:
        with contextlib.closing(psycopg2.connect(database.url)) as connection:
            connection.set_client_encoding("UTF8")
            cursor = connection.cursor()
            sample.create_schema(connection)
            with contextlib.closing(psycopg2.connect(server.database_url("sample_template"))) as whole:
                sample_rows = whole.cursor()
                for table in ("users", "clients", "location_cache"):
                    sample_rows.execute("SELECT row_to_json(t) FROM %s t" % table)
                    for (row,) in sample_rows.fetchall():
                        plain = json.loads(json.dumps(row, ensure_ascii=True).encode("ascii", "replace"))
                        plain = {
                            k: v.encode("ascii", "replace").decode() if isinstance(v, str) else v
                            for k, v in plain.items()
                        }
                        cursor.execute(
                            "INSERT INTO {0} SELECT * FROM json_populate_record(NULL::{0}, %s)".format(table),
                            (json.dumps(plain),),
                        )
            connection.commit()
        yield database


@pytest.mark.parametrize(("encoding", "broken"), [("WIN1252", r"E'\x81'"), ("SQL_ASCII", r"E'\xff'")])
def test_value_that_has_no_form_in_utf8_is_named(
    encoding: str, broken: str, server: Server, place: Place
) -> None:
    with encoded(server, encoding) as database:
        settings = settings_of(database.url, place)
        export(settings)
        before = contents(place.data)
        ((row,),) = database.rows(
            "SELECT max(c.id::text) FROM clients c JOIN users u ON u.id = c.user_id WHERE u.email = %s", ANNA
        )
        with contextlib.closing(psycopg2.connect(database.url)) as connection:
            connection.set_client_encoding(encoding)
            connection.cursor().execute(
                "UPDATE clients SET last_name = 'x' || %s WHERE id = '%s'" % (broken, row)
            )
            connection.commit()
        with pytest.raises(MigrationError) as refused:
            export(settings)
        assert refused.value.message.startswith("table clients, row %s, column last_name: " % row)
        assert refused.value.exit_code == ExitCode.SOURCE
        assert contents(place.data) == before


def test_account_that_is_not_utf8_is_refused_too(server: Server, place: Place) -> None:
    with encoded(server, "SQL_ASCII") as database:
        database.execute(r"UPDATE users SET full_name = E'\xff'")
        with pytest.raises(MigrationError, match="table users, row .*, column full_name: "):
            export(settings_of(database.url, place))


def test_name_that_the_databases_encoding_cannot_hold_is_nobodys(
    server: Server, place: Place, run: Run
) -> None:
    with encoded(server, "LATIN1") as database:
        done = run(
            "export_from_postgres.py", "--user-email", "日本@example.com", "--postgres-url", database.url
        )
        assert done.code == 3
        assert "error: user not found: 日本@example.com\n" in done.err
        assert "  " + ANNA in done.err
        people = place.folder / "people"
        people.write_text("日本@example.com\n", encoding="utf-8")
        everybody = run(
            "migrate_all_users.py",
            *("--output-dir", place.folder / "all", "--users-from", people, "--postgres-url", database.url),
            own=False,
        )
        assert everybody.code == 3
        assert "users not found" in everybody.err
