"""Phase 2 with a second process: the same database, and nothing of it stays behind whatever ends either."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

import pytest

import import_to_sqlite
from import_to_sqlite import import_
from migration.errors import ExitCode, MigrationError
from migration.sql import quote
from migration.sqlite import loading, target
from migration.sqlite.schema import describe_objects
from support.migrations import settings_of
from support.places import SCHEMA, Place, copy_suite
from support.runs import gone
from support.servers import Database
from support.sqlite_files import make_old_database

UNLIMITED = 1 << 60


def everything(path: Path) -> Dict[str, List[Any]]:
    """Schema, rows and rowids, as far as they are not the moment of the import."""
    with contextlib.closing(sqlite3.connect(str(path))) as database:
        tables = [name for kind, name in describe_objects(database) if kind == "table"]
        found: Dict[str, List[Any]] = {
            table: database.execute("SELECT rowid, * FROM %s ORDER BY rowid" % quote(table)).fetchall()
            for table in tables
            if table not in ("app_config", "user_preferences") and not table.startswith("words")
        }
        if "sqlite_sequence" in found:  # SQLite's own, in the order in which tables were filled
            found["sqlite_sequence"] = sorted(row[1:] for row in found["sqlite_sequence"])
        found["objects"] = sorted(describe_objects(database).items())
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return found


# What SQLite cannot take over as whole B-trees, or has to number, store or look for otherwise.
USUAL_ID = "id TEXT PRIMARY KEY NOT NULL,"
UNUSUAL_ID = """number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL,
    short TEXT AS (substr(id, 1, 8)) VIRTUAL, long TEXT AS (id || '!') STORED UNIQUE,"""
AFTERWARDS = """
CREATE INDEX by_expression ON {0} (lower(short), created_at) WHERE created_at > '2000';
CREATE VIRTUAL TABLE words USING fts5(id);
CREATE TRIGGER counted AFTER DELETE ON {0} BEGIN SELECT 1; END;
"""


def unusual_schema(path: Path, tables: List[str]) -> Path:
    text = Path(SCHEMA).read_text(encoding="utf-8")
    for table in tables:
        begun = "CREATE TABLE IF NOT EXISTS %s (\n    " % table
        assert begun + USUAL_ID in text
        text = text.replace(begun + USUAL_ID, begun + UNUSUAL_ID)
    path.write_text(text + "".join(map(AFTERWARDS.format, tables[:1])), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "schema",
    [
        "usual",
        pytest.param(
            "unusual",
            marks=pytest.mark.skipif(sqlite3.sqlite_version_info < (3, 31), reason="no generated columns"),
        ),
    ],
)
def test_two_processes_make_the_database_that_one_makes(
    schema: str, bundle: Path, sample_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(sample_database.url, Place(tmp_path))
    if schema == "unusual":
        path = unusual_schema(
            tmp_path.parent / "schema.sql", ["charts", "session_notes", "chart_interpretations"]
        )
        settings = dataclasses.replace(settings, schema_path=path)
    merged: List[List[str]] = []
    merge = target.merge

    def noted(database: sqlite3.Connection, side: Path, tables: List[str]) -> None:
        merged.append(tables)
        merge(database, side, tables)

    monkeypatch.setattr(target, "merge", noted)
    made = []
    for limit in (UNLIMITED, 0):
        monkeypatch.setattr(loading, "FOR_TWO", limit)
        done = import_(settings)
        assert done.rows == {table.name: done.manifest.row_counts[table.name] for table in settings.tables}
        made.append(everything(settings.sqlite_path))
    (apart,) = merged
    assert 0 < len(apart) < len(settings.tables)
    assert {"charts", "session_notes"} <= set(apart)
    assert made[0] == made[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app.db", "backups", "data"]


def killed(*arguments: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_second_process_leaves_the_old_database(
    bundle: Path, sample_database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_old_database(place.app)
    monkeypatch.setattr(loading, "FOR_TWO", 0)
    monkeypatch.setattr(import_to_sqlite, "fill_apart", killed)
    with pytest.raises(MigrationError, match="the second process ended early") as caught:
        import_(settings_of(sample_database.url, place))
    assert caught.value.exit_code == ExitCode.INTERNAL
    assert place.app.read_bytes() == old
    assert sorted(path.name for path in place.folder.iterdir()) == ["app.db", "data"]


def test_all_tables_are_loaded_here_where_no_second_process_starts(
    bundle: Path, sample_database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "FOR_TWO", 0)
    settings = settings_of(sample_database.url, place)
    import_(settings)
    expected = everything(place.app)
    monkeypatch.setattr(sys, "executable", str(place.folder))  # cannot be run
    import_(settings)
    assert everything(place.app) == expected


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name
)
def test_second_process_ends_with_the_first(bundle: Path, place: Place, number: signal.Signals) -> None:
    suite = copy_suite(place.folder / "suite")
    script = suite / "import_to_sqlite.py"
    module = suite / "migration" / "sqlite" / "loading.py"
    begun = "    schema = read_schema(settings.schema_path)\n    columns"
    text = module.read_text(encoding="utf-8")
    assert begun in text and "FOR_TWO = 64 << 20" in text
    wait = (
        "    import os\n    __import__('time').sleep(600 if side.write_bytes(b'%d' % os.getpid()) else 0)\n"
    )
    changed = text.replace(begun, wait + begun).replace("FOR_TWO = 64 << 20", "FOR_TWO = 0")
    module.write_text(changed, encoding="utf-8")
    options = ["--data-dir", str(place.data), "--sqlite-path", str(place.app), "--schema-path", SCHEMA]
    first = subprocess.Popen(
        [sys.executable, str(script), *options],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    side = place.folder / ".app.db.staging-2"
    until(lambda: side.exists() and side.read_bytes())
    second = int(side.read_bytes())
    os.kill(first.pid, number)
    _, said = first.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert first.returncode == -number
    else:
        assert first.returncode == ExitCode.INTERRUPTED
        assert b"interrupted" in said
        assert not side.exists()
    until(lambda: gone(second))

    shutil.copy2(
        str(Path(import_to_sqlite.__file__).with_name("migration") / "sqlite" / "loading.py"), str(module)
    )
    again = subprocess.run([sys.executable, str(script), *options, "--quiet"], stderr=subprocess.PIPE)
    assert (again.returncode, again.stderr) == (0, b"")
    assert sorted(path.name for path in place.folder.iterdir()) == ["app.db", "data", "suite"]


def until(condition: Any) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come")
