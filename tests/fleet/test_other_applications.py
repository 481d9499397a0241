"""Every root of another application: in its own words, and what its data hold later that config.py does not know."""

from __future__ import annotations

import json
import re
from typing import Iterator

import pytest

from support.fleet import Output, migrate_all
from support.places import Place
from support.runs import Run
from support.servers import Database, Server

FILES = """
CREATE TABLE workspaces (id int PRIMARY KEY, slug text NOT NULL UNIQUE);
INSERT INTO workspaces SELECT g, 'w' || g FROM generate_series(1, 3) g;
CREATE TABLE plans (id int PRIMARY KEY, workspace_id int NOT NULL REFERENCES workspaces);
CREATE TABLE tasks (id int PRIMARY KEY, workspace_id int NOT NULL REFERENCES workspaces);
INSERT INTO plans SELECT g, 1 + g % 3 FROM generate_series(1, 6) g; INSERT INTO tasks SELECT * FROM plans;
CREATE TABLE files (id int PRIMARY KEY, owner_type text, owner_id int, size int);
INSERT INTO files SELECT g, (ARRAY['Plan', 'Task', 'gone'])[1 + g % 3], 1 + g % 6, g FROM generate_series(1, 18) g;
"""


@pytest.fixture()
def workspaces(server: Server) -> Iterator[Database]:
    with server.new_database(of="") as database:
        database.execute(FILES)
        yield database


def test_rows_of_a_type_that_config_does_not_know_are_said_once_in_words_of_config(
    workspaces: Database, output: Output, place: Place, run: Run
) -> None:
    app = place.folder / "app"
    source = ("--postgres-url", workspaces.url, "--output", app)
    run("discover.py", *source, "--root", "workspaces", "--named-by", "slug", code=0)
    written = (app / "config.py").read_text(encoding="utf-8")
    assert (
        "# files: types of rows that no Reference means, by owner_id, as they name no table: gone" in written
    )
    assert run("discover.py", *source, "--check").code == 0  # gone is no new one
    workspaces.execute("UPDATE files SET owner_type = 'Invoice' WHERE id < 3")
    checked = run("discover.py", *source, "--check", code=1)
    assert "types of rows that no Reference means, by owner_id: a new one, Invoice" in checked.out
    assert "gone" not in checked.out

    (unmeant,) = workspaces.rows("SELECT count(*) FROM files WHERE owner_type NOT IN ('Plan', 'Task')")[0]
    options = ("--config", app / "config.py", "--schema-path", app / "sqlite_schema.sql")
    done = migrate_all(output, workspaces.url, *options)
    assert done.code == 0, done.err
    said = "%d rows of files, of whomever, stay behind: what they name by owner_id is of a type" % unmeant
    assert done.err.count(said) == 1
    (line,) = output.summary["runs"][-1]["warnings"]
    assert line.startswith(said)
    page = (output.folder / "summary.html").read_text(encoding="utf-8")
    assert said in page

    # what config.py calls a root
    assert 'called="workspace"' in (app / "config.py").read_text(encoding="utf-8")
    assert "3 workspaces to migrate" in done.err and "The data of 3 workspaces arrived" in page
    bundle = output.folder / "1" / "bundle"
    report = json.loads((bundle / "validation_report.json").read_text(encoding="utf-8"))
    assert "the workspace's own row and the preferences" in [check["looked_at"] for check in report["checks"]]
    report_page = (bundle / "validation_report.html").read_text(encoding="utf-8")
    name_of_check = '<th scope="row" role="rowheader">user</th>'
    for text in (done.out, done.err, page, report_page.replace(name_of_check, "")):
        assert re.findall(r"(?i)\b[^<>]*\busers?\b", re.sub("(?s)<style>.*</style>", "", text)) == []

    (place.folder / "chosen").write_text("w9", encoding="utf-8")
    refused = migrate_all(output, workspaces.url, *options, "--users-from", place.folder / "chosen")
    assert refused.code == 3 and "workspaces not found" in refused.err
    assert "check the spelling (case counts): a workspace's slug or id a line" in refused.err

    config = (app / "config.py").read_text(encoding="utf-8")
    (app / "config.py").write_text(
        config.replace("owner_type\\\" = 'Task'", "gone\\\" = 'Task'"), encoding="utf-8"
    )
    checked = run("discover.py", *source, "--check", code=1)
    assert "refuses the when of a Reference, by owner_id: column t.gone does not exist" in checked.out
    refused = migrate_all(output, workspaces.url, *options)
    assert refused.code == 2
    assert "files (owner_id): when is refused by PostgreSQL: column t.gone does not exist" in refused.err
