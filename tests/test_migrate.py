"""The main job, end to end, through the commands that a user types."""

from __future__ import annotations

import json
import sqlite3

from support.places import ANNA, Place
from support.runs import Run
from support.servers import Database


def test_one_command_migrates_and_validates_a_user(sample_database: Database, place: Place, run: Run) -> None:
    run("migrate.py", "--user-email", ANNA, "--postgres-url", sample_database.url, code=0)
    report = json.loads((place.data / "validation_report.json").read_text(encoding="utf-8"))
    assert report["overall_status"] == "PASS"
    assert report["user_email"] == ANNA
    for table, result in report["validation_results"].items():
        assert result["match"] is True, table
        assert result["pg_count"] == result["sqlite_count"] > 0, table
    database = sqlite3.connect(str(place.app))
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()
