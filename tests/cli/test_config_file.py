"""--config and MIGRATION_CONFIG: another application's config.py; --user and --user-id."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.places import ANNA, SUITE, Place
from support.runs import Run
from support.servers import Database
from support.sqlite_files import rows_of


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The shipped config.py in a folder of its own, with paths that count from there."""
    text = Path(SUITE, "config.py").read_text(encoding="utf-8")
    text = text.replace('DATA_DIR = BASE_DIR / "migration_data"', 'DATA_DIR = "bundle"')
    text = text.replace('SQLITE_PATH = BASE_DIR.parent / "app.db"', 'SQLITE_PATH = "own.db"')
    schema = Path(SUITE, "schema_design", "sqlite_schema.sql")
    path = tmp_path / "other" / "settings of ours.py"
    path.parent.mkdir()
    path.write_text(text + "\nSCHEMA_PATH = %r\n" % str(schema), encoding="utf-8")
    return path


def migrate(*options: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    given = {
        name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES", "MIGRATION"))
    }
    return subprocess.run(
        [sys.executable, str(SUITE / "migrate.py"), *options],
        cwd=str(cwd),
        env={**given, **env},
        capture_output=True,
        text=True,
    )


def test_paths_and_env_file_count_from_the_config_files_folder(
    sample_database: Database, other: Path, tmp_path: Path
) -> None:
    (other.parent / ".env").write_text("POSTGRES_URL=%s\nMIGRATION_USER=%s\n" % (sample_database.url, ANNA))
    by_option = migrate("--config", str(other), "--quiet", cwd=tmp_path)
    assert (by_option.returncode, by_option.stderr) == (0, "")
    assert (other.parent / "own.db").is_file()
    assert (other.parent / "bundle" / "manifest.json").is_file()
    by_variable = migrate("--skip-export", "--quiet", cwd=tmp_path, MIGRATION_CONFIG="other/" + other.name)
    assert (by_variable.returncode, by_variable.stderr) == (0, "")


SHORT = """
from migration.model import *

ROOT = root("people", named_by="name", called="person")
TABLES = (Table("people", the_root()), Table("notes", owned_by("person")))
EXCLUDED_TABLES = ()
"""


def test_config_that_says_only_what_belongs_to_whom_is_enough(empty: Database, tmp_path: Path) -> None:
    empty.execute(
        "CREATE TABLE people (id int PRIMARY KEY, name text); INSERT INTO people VALUES (1, 'ann'), (2, 'bob');"
        "CREATE TABLE notes (id int PRIMARY KEY, person int); INSERT INTO notes VALUES (1, 1), (2, 2)"
    )
    folder = tmp_path / "short"
    folder.mkdir()
    (folder / "config.py").write_text(SHORT)
    (folder / "sqlite_schema.sql").write_text(
        "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE notes (id INTEGER PRIMARY KEY, person INTEGER);"
    )
    options = ("--config", "short/config.py", "--user", "ann", "--quiet", "--postgres-url", empty.url)
    done = migrate(*options, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert rows_of(folder / "app.db", "SELECT * FROM notes") == [(1, 1)]
    unknown = migrate(
        "--config", "short/config.py", "--user", "cyd", "--postgres-url", empty.url, cwd=tmp_path
    )
    assert (
        unknown.stderr.startswith("error: person not found: cyd\n")
        and "the 2 people there:" in unknown.stderr
    )
    made = ["app.db", "config.py", "migration_data", "sqlite_schema.sql"]
    assert sorted(path.name for path in folder.iterdir()) == made


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("ROOT = (\n", 1, "SyntaxError"),
        ("import sys\n\nTABLES = 1 / 0\n", 3, "ZeroDivisionError"),
        ("\nimport no_such_module\n", 2, "no_such_module"),
        ("raise SystemExit(7)\n", 1, "SystemExit"),
        ("\0", None, "null bytes"),
        ("", None, "has no EXCLUDED_TABLES, ROOT, TABLES\ntry: write ROOT = root("),
        (
            "TABLES = EXCLUDED_TABLES = USER = ()\n",
            None,
            "has no ROOT\ntry: this config.py is of an earlier form",
        ),
    ],
)
def test_config_that_does_not_load_is_named_with_its_own_line(
    tmp_path: Path, text: str, line: int | None, words: str
) -> None:
    path = tmp_path / "ours.py"
    path.write_text(text)
    done = migrate("--config", "ours.py", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: %s%s" % (path, "" if line is None else ", line %d: " % line))
    assert words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["", "missing.py", "."])
def test_config_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    done = migrate("--config", name, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --config is empty" if not name else "error: cannot read ")


def test_user_is_named_by_key(sample_database: Database, place: Place, run: Run) -> None:
    ((user_id,),) = sample_database.rows("SELECT id::text FROM users WHERE email = %s", ANNA)
    url = ("--postgres-url", sample_database.url)
    assert run("migrate.py", "--user-id", user_id, *url).code == 0
    assert run("import_to_sqlite.py", "--user-id", user_id).code == 0
    refused = run("import_to_sqlite.py", "--user-id", "another")
    assert (refused.code, "not to another" in refused.err) == (4, True)
    unknown = run("export_from_postgres.py", "--user-id", "00000000-0000-0000-0000-000000000000", *url)
    assert (unknown.code, unknown.err.startswith("error: user not found")) == (3, True)
    no_key = run("export_from_postgres.py", "--user-id", "anna", *url)
    assert (no_key.code, "Traceback" in no_key.err) == (2, False)
    assert "anna" in no_key.err.splitlines()[0]


def test_one_user_is_named_once(run: Run) -> None:
    assert run("migrate.py", "--user-id", "1", "--user", ANNA).code == 2
    twice = run("migrate.py", env={"MIGRATION_USER": ANNA, "MIGRATION_USER_ID": "1"})
    assert (twice.code, "error: MIGRATION_USER and MIGRATION_USER_ID are set" in twice.err) == (2, True)
