"""The folder of each root in a run of all: whatever the key, its name is safe, its own on any disk, and the same again."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath
from typing import Iterator
from urllib.parse import unquote

import pytest

from migration.fleet.results import folder_of
from support.fleet import Output, migrate_all
from support.places import Place
from support.runs import Run
from support.servers import Database, Server

PLAIN = ("0", "-1", "9223372036854775807", "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "acme_gmbh")
KEYS = (
    "", " ", ".", "..", "a/b", "../../etc", "a\\b", "C:\\x", "x", "x.", "x ", "x. ", "CON", "Con", "con", "con.txt", "nul", "com1", "lpt9",
    "Anna", "anna", "ANNA", "é", "e\u0301", "É", "ß", "ss", "İ", "ſ", "日本", "\x01\x1b[31m\x7f\n", "\u202eabc", "-", "-rf", "--help",
    "~", "%2E", "%", "$(x)", "ledger.db", ".shared", ".lock", "l" * 200, "l" * 201, "L" * 300, "l" * 300, "ü" * 300, "\\x00ff",
)  # fmt: skip


def test_folder_names_are_safe_and_differ_on_any_disk() -> None:
    names = {key: folder_of(PurePosixPath("out"), key).name for key in (*PLAIN, *KEYS)}  # type: ignore[arg-type]
    # a key of whoever wants the folder of a long one
    names.update({name: folder_of(PurePosixPath("out"), name).name for name in list(names.values())})  # type: ignore[arg-type]
    folded = {unicodedata.normalize("NFKC", name).casefold().rstrip(". ") for name in names.values()}
    assert len(folded) == len(names)
    for key, name in names.items():
        assert re.fullmatch("[a-zA-Z0-9_%~-]{1,200}", name)
        assert not PureWindowsPath(name).is_reserved()
        assert not re.match("-[^0-9]|-$", name)
        if "~" not in name and key:
            assert unquote(name) == key
    assert [names[key] for key in PLAIN] == list(PLAIN)


@pytest.fixture()
def tenants(server: Server) -> Iterator[Database]:
    with server.new_database(of="") as database:
        database.execute(
            "CREATE TABLE tenants (key text PRIMARY KEY, name text);"
            "CREATE TABLE things (id serial PRIMARY KEY, tenant text NOT NULL REFERENCES tenants, what text)"
        )
        for key in KEYS:
            database.execute("INSERT INTO tenants VALUES (%s, md5(%s))", key, key)
            database.execute("INSERT INTO things (tenant, what) VALUES (%s, %s)", key, "of " + key)
        yield database


def test_each_root_of_another_application_has_its_folder_again_with_resume(
    tenants: Database, output: Output, place: Place, run: Run
) -> None:
    app = place.folder / "app"
    options = ("--root", "tenants", "--named-by", "name", "--output", app)
    run("discover.py", "--postgres-url", tenants.url, *options, code=0)
    config = ("--config", app / "config.py", "--schema-path", app / "sqlite_schema.sql", "--workers", 1)
    done = migrate_all(output, tenants.url, *config)
    assert done.code == 0, done.err
    assert set(output.states()) == set(KEYS)
    folders = {path.name for path in output.folder.iterdir() if path.is_dir()}
    assert folders == {folder_of(output.folder, key).name for key in KEYS}
    for key in KEYS:
        with contextlib.closing(sqlite3.connect(str(folder_of(output.folder, key) / "app.db"))) as database:
            assert database.execute("SELECT what FROM things").fetchall() == [("of " + key,)]
    again = migrate_all(output, tenants.url, *config, "--resume")
    assert "all %d tenants were done before; their files were verified" % len(KEYS) in again.err
