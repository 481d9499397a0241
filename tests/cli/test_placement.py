"""Where the suite finds its schema and puts its database when nothing says so."""

from __future__ import annotations

from pathlib import Path

from support.places import ANNA, SCHEMA, Place, copy_suite
from support.runs import Run
from support.servers import Database
from support.sqlite_files import rows_of

APPLICATIONS_OWN = "\nCREATE TABLE applications_own (id INTEGER PRIMARY KEY);\n"


def test_inside_the_applications_tree_it_uses_the_applications_schema_and_database(
    sample_database: Database, place: Place, run: Run
) -> None:
    app = place.folder / "my app – ü"
    suite = copy_suite(app / "migration_scripts")
    (app / "schema_design").mkdir()
    schema = Path(SCHEMA).read_text(encoding="utf-8") + APPLICATIONS_OWN
    (app / "schema_design" / "sqlite_schema.sql").write_text(schema, encoding="utf-8")

    done = run(
        "migrate.py", "--postgres-url", sample_database.url, "--user-email", ANNA, suite=suite, own=False
    )

    assert done.code == 0, done.err
    assert {path.name for path in app.iterdir()} == {"migration_scripts", "schema_design", "app.db"}
    assert rows_of(app / "app.db", "SELECT count(*) FROM applications_own") == [(0,)]
    assert rows_of(app / "app.db", "SELECT count(*) FROM clients") == [(12,)]
    assert (suite / "migration_data" / "manifest.json").is_file()
    assert (suite / "migration_data" / "validation_report.json").is_file()
    assert not (suite / "backups").exists(), "there was nothing to back up"
    assert {path.name for path in place.folder.iterdir()} == {app.name}, "the working directory stays empty"


def test_alone_it_uses_its_own_schema_and_keeps_backups_beside_itself(
    sample_database: Database, place: Place, run: Run
) -> None:
    suite = copy_suite(place.folder / "alone" / "suite")
    command = ("migrate.py", "--postgres-url", sample_database.url, "--user-email", ANNA)

    first = run(*command, suite=suite, own=False)
    again = run(*command, suite=suite, own=False)

    assert (first.code, again.code) == (0, 0), first.err + again.err
    app = place.folder / "alone" / "app.db"
    assert rows_of(app, "SELECT count(*) FROM clients") == [(12,)]
    assert len(list((suite / "backups").glob("theprogram_backup_*.db"))) == 1
    assert {path.name for path in place.folder.iterdir()} == {"alone"}
