"""Users by ids of any kind and form, and users without a name."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from pathlib import Path

import jsonschema

from migration.fleet import results
from support.fleet import Output, ids, migrate_all
from support.places import ANNA, BRUNO, SUITE, Place
from support.runs import Run
from support.servers import Database

UPPER = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
FORMS = (
    UPPER, UPPER.lower(), "", " ", "..", "a/b", "../x", ".shared", "ledger.db", "%2E", "new\nline\rand\ttab",
    "it's \"quoted\" \\ and \x01\x02", "é", "日本", "l" * 250, "l" * 251, "ü" * 300,
)  # fmt: skip


def fill(database: Database, kind: str, users: dict[str, str | None]) -> None:
    """TheProgram's schema with user ids of another type; each user (id → e-mail address) has a client of that name."""
    schema = (SUITE / "schema_design" / "postgres_schema.sql").read_text(encoding="utf-8")
    schema = re.sub(r"(EXISTS users \(\s+id) uuid", r"\1 " + kind, schema)
    database.execute(re.sub(r"\buser_id uuid", "user_id " + kind, schema))
    database.execute("ALTER TABLE users ALTER email DROP NOT NULL, DROP CONSTRAINT users_email_key")
    for number, (user, email) in enumerate(users.items()):
        database.execute(
            "INSERT INTO users SELECT %s::{}, %s, 'x', NULL, NULL, true, false, false, 'free', NULL, now(), now()".format(
                kind
            ),
            user,
            email,
        )
        database.execute(
            "INSERT INTO clients (id, user_id, notes) SELECT md5(%s)::uuid, %s::{}, %s".format(kind),
            "client%d" % number,
            user,
            "client of " + user,
        )


def clients(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path.as_uri() + "?immutable=1", uri=True)) as connection:
        return [name for (name,) in connection.execute("SELECT notes FROM clients")]


def test_text_ids_of_any_form_have_folders_of_their_own_within_the_output(
    empty: Database, output: Output
) -> None:
    fill(empty, "text", {user: "user%d@example.com" % number for number, user in enumerate(FORMS)})
    done = migrate_all(output, empty.url, "--workers", 1)
    assert done.code == 0, done.err
    assert "%d users to migrate" % len(FORMS) in done.err
    assert set(output.states()) == set(FORMS)
    for user in FORMS:
        folder = results.folder_of(output.folder, user)
        assert folder.parent == output.folder
        assert clients(folder / "app.db") == ["client of " + user]
    ours = {"ledger.db", "summary.json", "summary.html"}
    assert len(list(output.folder.iterdir())) == len(FORMS) + len(ours)
    again = migrate_all(output, empty.url, "--workers", 1, "--resume")
    assert "all %d users were done before" % len(FORMS) in again.err
    chosen = output.folder.with_name("chosen")
    chosen.write_text("%s\nuser2@example.com\na/b" % UPPER, encoding="utf-8")
    some = Output(output.folder.with_name("some"))
    done = migrate_all(some, empty.url, "--workers", 1, "--users-from", chosen)
    assert done.code == 0, done.err
    assert set(some.states()) == {UPPER, "", "a/b"}
    chosen.write_text(UPPER.title(), encoding="utf-8")
    refused = migrate_all(some, empty.url, "--users-from", chosen)
    assert refused.code == 3
    assert "users not found" in refused.err
    assert "try: check the spelling (case counts): a user's email or id a line" in refused.err


def test_whole_numbers_as_ids(empty: Database, output: Output) -> None:
    users = ("-1", "0", "9", "10", "3000000000", "9223372036854775807")
    fill(empty, "bigint", dict.fromkeys(users))
    done = migrate_all(output, empty.url, "--workers", 1)
    assert done.code == 0, done.err
    assert [clients(output.folder / user / "app.db") for user in users] == [["client of " + u] for u in users]


def test_uuid_is_taken_in_any_writing(sample_database: Database, output: Output) -> None:
    known = ids(sample_database)
    chosen = output.folder.with_name("chosen")
    writings = [known[ANNA].upper(), "{%s}" % known[BRUNO], known[ANNA].replace("-", "")]
    chosen.write_text("\r\n".join(writings), encoding="utf-8")
    done = migrate_all(output, sample_database.url, "--workers", 1, "--users-from", chosen)
    assert done.code == 0, done.err
    assert set(output.states()) == {known[ANNA], known[BRUNO]}


def test_name_that_is_anothers_id_is_refused(empty: Database, output: Output) -> None:
    fill(empty, "text", {"one": "two", "two": "three"})
    chosen = output.folder.with_name("chosen")
    chosen.write_text("two", encoding="utf-8")
    refused = migrate_all(output, empty.url, "--users-from", chosen)
    assert refused.code == 3
    assert "names of more than one user" in refused.err


def test_file_with_a_nul_is_refused(sample_database: Database, output: Output) -> None:
    chosen = output.folder.with_name("chosen")
    chosen.write_text("\n" + ANNA + "\0", encoding="utf-8")
    refused = migrate_all(output, sample_database.url, "--users-from", chosen)
    assert refused.code == 2
    assert "holds a NUL in line 2" in refused.err


def test_user_without_a_name_is_migrated_and_found_again_by_id(
    empty: Database, output: Output, place: Place, run: Run
) -> None:
    fill(empty, "text", {"no": None, "empty": "", "same": "same@example.com", "other": "same@example.com"})
    done = migrate_all(output, empty.url, "--workers", 1)
    assert done.code == 0, done.err
    schema = json.loads((SUITE / "schema_design" / "validation_report.schema.json").read_text("utf-8"))
    for user, email in (("no", None), ("empty", "")):
        folder = output.folder / user
        manifest = json.loads((folder / "bundle" / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["user_email"] == email
        places = ("--data-dir", folder / "bundle", "--sqlite-path", place.app)
        run("import_to_sqlite.py", *places, code=0)
        assert clients(place.app) == ["client of " + user]
        run("validate_migration.py", *places, "--postgres-url", empty.url, code=0)
        report = json.loads((folder / "bundle" / "validation_report.json").read_text(encoding="utf-8"))
        jsonschema.validate(report, schema)
        assert (report["user_email"], report["user_id"], report["compared_with"]) == (
            email,
            user,
            ["bundle", "source"],
        )
        refused = run("import_to_sqlite.py", *places, "--user-email", ANNA, code=4)
        assert "belongs to user %s, not to %s" % (user, ANNA) in refused.err
