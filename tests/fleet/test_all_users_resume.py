"""What --resume takes for done: files that are as they were made, of the same database, schema and configuration."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any, Callable, NamedTuple

import pytest

from migration.fleet import origin, results
from migration.fleet.results import Made
from migration.postgres import connecting
from support.fleet import Everybody, Output, ids, migrate_all
from support.migrations import settings_of
from support.places import ANNA, BRUNO, CARLA, DORA, Place, contents, extended_schema
from support.runs import IMPATIENT, Result
from support.servers import Database, Server


class Done(NamedTuple):
    """A folder of which everybody is done; each test gets a copy."""

    output: Output
    database: Database
    ids: dict[str, str]

    def folder(self, email: str) -> Path:
        return self.output.folder / self.ids[email]

    def change_ledger(self, *statements: str) -> None:
        with contextlib.closing(sqlite3.connect(str(self.output.folder / "ledger.db"))) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    def made(self, email: str) -> Made:
        sql = "SELECT database_sha256, bundle_sha256 FROM users WHERE user_id = ?"
        return Made(*self.output.query(sql, self.ids[email])[0])


@pytest.fixture()
def done(everybody: Everybody, sample_database: Database, tmp_path: Path) -> Done:
    output = Output(tmp_path / "output")
    shutil.copytree(str(everybody.output.folder), str(output.folder))
    return Done(output, sample_database, everybody.ids)


def resume(done: Done, *options: object, url: str | None = None, **how: Any) -> Result:
    return migrate_all(done.output, url or done.database.url, "--workers", 1, "--resume", *options, **how)


# Files


def test_nothing_is_left_to_resume(done: Done) -> None:
    before = done.output.states()
    again = resume(done)
    assert again.code == 0, again.err
    assert "all 4 users were done before; their files were verified" in again.err
    assert "0 users, 0 failed; 4 done before, their files verified" in again.out
    assert "worker" not in again.err  # none is started
    assert done.output.states() == before


def test_files_that_are_not_as_they_were_made_are_made_again(done: Done) -> None:
    (done.folder(ANNA) / "app.db").write_bytes(b"")
    shutil.copyfile(str(done.folder(DORA) / "app.db"), str(done.folder(BRUNO) / "app.db"))
    shutil.rmtree(str(done.folder(CARLA) / "bundle"))
    dora = contents(done.folder(DORA))
    again = resume(done)
    assert again.code == 0, again.err
    changed = (
        "the database was changed or replaced, and what is there now is kept in backups of their folders"
    )
    assert "2 users are done again, as %s: " % changed in again.err
    assert "1 users are done again, as the bundle is missing: %s\n" % done.ids[CARLA] in again.err
    assert "3 users to migrate" in again.err
    assert "3 users, 0 failed; 1 done before, their files verified" in again.out
    states = done.output.states()
    assert {email: states[user][:2] for email, user in done.ids.items()} == {
        ANNA: ("done", 2), BRUNO: ("done", 2), CARLA: ("done", 2), DORA: ("done", 1),
    }  # fmt: skip
    assert contents(done.folder(DORA)) == dora
    for email in done.ids:
        assert results.difference(done.folder(email), done.made(email)) is None
    # what lay in the place of Bruno's may be the only copy of it
    (kept,) = (done.folder(BRUNO) / "backups").glob("*.db")
    assert rows(kept) == rows(done.folder(DORA) / "app.db")
    assert not (done.folder(ANNA) / "backups").exists()
    assert not (done.folder(CARLA) / "backups").exists()


def rows(path: Path) -> list:
    with contextlib.closing(sqlite3.connect("file:%s?immutable=1" % path, uri=True)) as connection:
        return [
            connection.execute("SELECT * FROM %s ORDER BY 1" % table).fetchall()
            for table in ("app_config", "clients", "charts", "session_notes")
        ]


def test_database_that_is_no_database_any_more_is_made_again_and_kept(done: Done) -> None:
    whole = (done.folder(ANNA) / "app.db").read_bytes()
    (done.folder(ANNA) / "app.db").write_bytes(whole[: len(whole) // 2])
    (done.folder(BRUNO) / "app.db").write_bytes(b"no database" * 1000)
    again = resume(done)
    assert again.code == 0, again.err
    assert rows(done.folder(ANNA) / "app.db")
    kept = [
        path.read_bytes() for email in (ANNA, BRUNO) for path in (done.folder(email) / "backups").iterdir()
    ]
    assert kept == [whole[: len(whole) // 2], b"no database" * 1000]


def test_database_that_the_application_has_written_to_is_backed_up_before_it_is_replaced(done: Done) -> None:
    path = done.folder(ANNA) / "app.db"
    with contextlib.closing(sqlite3.connect(str(path))) as connection:
        connection.execute("UPDATE clients SET first_name = 'changed'")
        connection.commit()
    again = migrate_all(done.output, done.database.url, "--workers", 1)  # without --resume, too
    assert again.code == 0, again.err
    (kept,) = (done.folder(ANNA) / "backups").glob("*.db")
    assert "changed" in str(rows(kept)[1])
    assert "changed" not in str(rows(path)[1])
    assert [(done.folder(email) / "backups").exists() for email in (BRUNO, CARLA, DORA)] == [False] * 3


def test_changed_database_that_is_open_or_cannot_be_replaced_stays(done: Done, tmp_path: Path) -> None:
    folder = done.folder(ANNA)
    path = folder / "app.db"
    with contextlib.closing(sqlite3.connect(str(path), isolation_level=None)) as application:
        application.execute("UPDATE clients SET first_name = 'changed'")
        refused = resume(done, values=IMPATIENT)
        assert refused.code == 1
        assert "app.db is open in another program (database is locked)" in refused.err
    written = path.read_bytes()
    with pytest.raises(ZeroDivisionError), results.aside(folder):
        assert not path.exists()
        raise ZeroDivisionError
    assert path.read_bytes() == written
    assert not (folder / "backups").exists()


DIFFERENCES: list[tuple[str, Callable[[Path, Path], object], str]] = [
    ("removed", lambda folder, _: os.unlink(str(folder / "app.db")), "the database is missing"),
    ("emptied", lambda folder, _: (folder / "app.db").write_bytes(b""), "the database was changed"),
    ("one byte", lambda folder, _: change_byte(folder / "app.db"), "the database was changed"),
    ("log beside", lambda folder, _: (folder / "app.db-wal").write_bytes(b"x"), "the database was changed"),
    ("a folder", lambda folder, _: make_folder(folder / "app.db"), "the database is missing"),
    ("a link", lambda folder, other: make_link(folder / "app.db", other / "app.db"), "a symbolic link"),
    ("all gone", lambda folder, _: shutil.rmtree(str(folder)), "the database is missing"),
    ("a link to another's", lambda folder, other: make_link(folder, other), "a symbolic link"),
    ("no bundle", lambda folder, _: shutil.rmtree(str(folder / "bundle")), "the bundle is missing"),
    ("another's bundle", lambda folder, other: take(other / "bundle", folder / "bundle"), "the bundle was changed"),
    ("one file less", lambda folder, _: os.unlink(str(folder / "bundle" / "charts.json")), "the bundle was changed"),
    ("one file more", lambda folder, _: (folder / "bundle" / "x.json").write_text("[]"), "the bundle was changed"),
    ("file changed", lambda folder, _: change_byte(folder / "bundle" / "clients.json"), "the bundle was changed"),
    ("manifest", lambda folder, _: change_byte(folder / "bundle" / "manifest.json"), "the bundle was changed"),
    ("report", lambda folder, _: os.unlink(str(folder / "bundle" / "validation_report.json")), "the validation report"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"), [row[1:] for row in DIFFERENCES], ids=[row[0] for row in DIFFERENCES]
)
def test_difference_is_found_and_named(
    change: Callable[[Path, Path], object], reason: str, done: Done
) -> None:
    made = done.made(ANNA)
    assert results.difference(done.folder(ANNA), made) is None
    change(done.folder(ANNA), done.folder(BRUNO))
    assert str(results.difference(done.folder(ANNA), made)).startswith(reason)


def change_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_link(path: Path, to: Path) -> None:
    shutil.rmtree(str(path)) if path.is_dir() else path.unlink()
    path.symlink_to(to)


def take(bundle: Path, place: Path) -> None:
    shutil.rmtree(str(place))
    shutil.copytree(str(bundle), str(place))


def test_validation_by_hand_changes_nothing_of_what_is_done(done: Done) -> None:
    report = done.folder(ANNA) / "bundle" / "validation_report.json"
    report.write_text(report.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert results.difference(done.folder(ANNA), done.made(ANNA)) is None


# What results are results of


@pytest.mark.parametrize("options", [("--resume",), ()])
def test_folder_of_another_database_is_refused(done: Done, server: Server, options: tuple) -> None:
    before = contents(done.output.folder)
    with server.new_database() as other:
        refused = migrate_all(done.output, other.url, "--workers", 1, *options)
        assert refused.code == 2
        assert "error: %s holds users of another database: run 1 read " % done.output.folder in refused.err
        assert "try: choose another --output-dir, or name the database of that run" in refused.err
    assert contents(done.output.folder) == before


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("database", "json_set(database, '$[1]', '1')", ", which is not the same database any more\n"),
        ("config_sha256", "'another'", "were done with another configuration (config.py), by run 1"),
    ],
)
def test_another_database_of_the_same_name_and_another_configuration_are_refused(
    column: str, value: str, said: str, done: Done
) -> None:
    done.change_ledger("UPDATE runs SET %s = %s" % (column, value))
    refused = resume(done)
    assert refused.code == 2
    assert said in refused.err


def test_another_url_of_the_same_database_is_resumed(done: Done) -> None:
    url = done.database.url
    other = url + "&application_name=another&connect_timeout=9" if "?" in url else url
    assert other != url
    done.change_ledger("UPDATE runs SET source = 'somebody@elsewhere:1/x'")
    again = resume(done, url=other)
    assert again.code == 0, again.err
    assert "all 4 users were done before; their files were verified" in again.err


def test_another_schema_is_refused_and_nothing_touched(done: Done, tmp_path: Path) -> None:
    schema = extended_schema(tmp_path, "CREATE TABLE more (id INTEGER PRIMARY KEY);")
    before = contents(done.output.folder)
    refused = resume(done, "--schema-path", schema)
    assert refused.code == 2
    assert (
        "error: users in %s were done with another SQLite schema, by run 1\n" % done.output.folder
        in refused.err
    )
    assert "try: leave --resume away to migrate everybody again, or " in refused.err
    assert contents(done.output.folder) == before


def test_without_resume_another_schema_replaces_everything(done: Done, tmp_path: Path) -> None:
    schema = extended_schema(tmp_path, "CREATE TABLE more (id INTEGER PRIMARY KEY);")
    again = migrate_all(done.output, done.database.url, "--workers", 2, "--schema-path", schema)
    assert again.code == 0, again.err
    assert {state[:2] for state in done.output.states().values()} == {("done", 2)}
    assert not list(done.output.folder.glob("*/backups"))
    resumed = resume(done, "--schema-path", schema)
    assert resumed.code == 0, resumed.err


def test_configuration_counts_by_what_it_decides(sample_database: Database, place: Place) -> None:
    settings = settings_of(sample_database.url, place)
    digest = origin.config_digest(settings)
    assert origin.config_digest(settings_of(sample_database.url, place, excluded_tables=("x",))) == digest
    fewer = settings_of(sample_database.url, place, tables=settings.tables[:-1])
    assert origin.config_digest(fewer) != digest


def test_database_is_known_by_a_role_that_may_ask_little(server: Server, place: Place) -> None:
    """Who may not ask for the server's identifier tells databases apart by number, name and address."""
    with server.new_database() as one, server.new_database() as two:
        one.execute("CREATE ROLE curious LOGIN")
        try:
            found = {}
            for name, database in (("one", one), ("two", two)):
                database.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
                for role in ("", "curious"):
                    url = database.url + ("&user=curious" if role else "")
                    with connecting.snapshot(settings_of(url, place)) as db:
                        found[name, role] = origin.from_text(origin.as_text(origin.database_of(db)))
        finally:
            one.execute("DROP OWNED BY curious")
            server.execute("DROP ROLE curious")
    assert found["one", ""].system is not None
    assert found["one", "curious"].system is None
    for first, second in (("", ""), ("", "curious"), ("curious", "curious")):
        assert found["one", first].is_same(found["one", second])
        assert not found["one", first].is_same(found["two", second])


def test_ledger_of_an_earlier_version_is_brought_up_to_date_and_its_users_done_again(done: Done) -> None:
    columns = {"runs": ("database", "schema_sha256", "config_sha256"),
               "users": ("database_sha256", "bundle_sha256", "left_out", "warnings", "cut", "brought")}  # fmt: skip
    path = done.output.folder / "ledger.db"
    with contextlib.closing(sqlite3.connect(str(path))) as new:
        kept = {
            table: [row[1] for row in new.execute("PRAGMA table_info(%s)" % table) if row[1] not in without]
            for table, without in columns.items()
        }
        new.execute("DROP INDEX users_by_state")
        for table, names in kept.items():
            new.execute("ALTER TABLE {0} RENAME TO new_{0}".format(table))
            key = {"runs": "run INTEGER PRIMARY KEY", "users": "user_id TEXT PRIMARY KEY"}[table]
            new.execute("CREATE TABLE {} ({}, {})".format(table, key, ", ".join(names[1:])))
            new.execute("INSERT INTO {0} SELECT {1} FROM new_{0}".format(table, ", ".join(names)))
            new.execute("DROP TABLE new_" + table)
        new.commit()
    again = resume(done)
    assert again.code == 0, again.err
    assert (
        "4 users are done again, as an earlier version of the suite did not note what was made: " in again.err
    )
    assert {state[:2] for state in done.output.states().values()} == {("done", 2)}
    assert "all 4 users were done before" in resume(done).err


def test_database_of_another_program_is_no_ledger(sample_database: Database, tmp_path: Path) -> None:
    output = Output(tmp_path / "output")
    output.folder.mkdir()
    with contextlib.closing(sqlite3.connect(str(output.folder / "ledger.db"))) as other:
        other.execute("CREATE TABLE users (id INTEGER PRIMARY KEY)")
    before = contents(output.folder)
    refused = migrate_all(output, sample_database.url)
    assert refused.code == 5
    assert "ledger.db is a database of another program" in refused.err
    assert contents(output.folder) == before


# Of whom more is asked


def test_stricter_options_repeat_whom_they_concern(done: Done) -> None:
    done.change_ledger(
        "UPDATE users SET left_out = 3 WHERE user_id = '%s'" % done.ids[ANNA],
        "UPDATE users SET warnings = 1 WHERE user_id = '%s'" % done.ids[BRUNO],
    )
    again = resume(done, "--orphans", "skip")
    assert "all 4 users were done before" in again.err
    again = resume(done)
    assert (
        "1 users are done again, as rows were left out by --orphans skip: %s\n" % done.ids[ANNA] in again.err
    )
    assert "1 users to migrate" in again.err
    again = resume(done, "--strict")
    assert "as the validation had warnings, which --strict makes errors: %s\n" % done.ids[BRUNO] in again.err


def test_rows_left_out_are_counted_in_the_ledger(database: Database, tmp_path: Path) -> None:
    database.execute(
        "UPDATE charts SET client_id = (SELECT id FROM clients WHERE user_id = (SELECT id FROM users WHERE email = %s)"
        " LIMIT 1) WHERE id = (SELECT id FROM charts WHERE user_id = (SELECT id FROM users WHERE email = %s) LIMIT 1)",
        BRUNO,
        ANNA,
    )
    output = Output(tmp_path / "output")
    known, chosen = ids(database), tmp_path / "users"
    chosen.write_text("%s\n%s\n" % (ANNA, DORA), encoding="utf-8")
    done = migrate_all(output, database.url, "--workers", 1, "--orphans", "skip", "--users-from", chosen)
    assert done.code == 0, done.err
    assert dict(output.query("SELECT user_id, left_out > 0 FROM users")) == {known[ANNA]: 1, known[DORA]: 0}


# Nobody


def test_no_user_at_all_is_an_error(server: Server, tmp_path: Path) -> None:
    output = Output(tmp_path / "output")
    with server.new_database() as database:
        database.execute("TRUNCATE users CASCADE")
        nobody = migrate_all(output, database.url)
    assert nobody.code == 3
    assert "error: no users in table users of " in nobody.err
    assert "arrived" not in (output.folder / "summary.html").read_text(encoding="utf-8")
    assert output.summary["overall_status"] == "INCOMPLETE"


def test_no_active_user_is_an_error(database: Database, tmp_path: Path) -> None:
    database.execute("UPDATE users SET is_active = false")
    nobody = migrate_all(Output(tmp_path / "output"), database.url, "--where-active")
    assert nobody.code == 3
    assert "error: no active users in table users of " in nobody.err
    database.execute("ALTER TABLE users ALTER is_active DROP DEFAULT, ALTER is_active TYPE text USING 'yes'")
    unknown = migrate_all(Output(tmp_path / "output"), database.url, "--where-active")
    assert unknown.code == 2
    assert "reads the column is_active, and table users has no such column of type boolean" in unknown.err
