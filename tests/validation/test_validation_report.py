"""The report belongs to one check of one file: an earlier verdict never stands for a check that did not end."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import pytest

from migration.bundle.folder import held
from migration.errors import ExitCode, MigrationError
from migration.settings import Settings
from support.migrations import migrate_to, settings_of
from support.places import ANNA, Place
from support.runs import Run
from support.servers import NOWHERE, Database
from support.sqlite_files import change
from validate_migration import validate


@pytest.fixture(scope="module")
def finished(sample_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A migration with a report that says PASS."""
    made = migrate_to(tmp_path_factory.mktemp("finished"), sample_database.url)
    assert validate(settings_of(sample_database.url, made, offline=True)).passed
    return made


def written(settings: Settings) -> Optional[Dict[str, Any]]:
    path = settings.data_dir / "validation_report.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def page(settings: Settings) -> Optional[str]:
    path = settings.data_dir / "validation_report.html"
    return path.read_text(encoding="utf-8") if path.exists() else None


def sha256(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


# What belongs together


def test_report_and_page_name_the_check_and_the_file(settings: Settings) -> None:
    validate(settings)
    report, shown = written(settings), page(settings)
    assert report is not None and shown is not None
    assert report["database"] == {
        "path": str(settings.sqlite_path.resolve()),
        "bytes": settings.sqlite_path.stat().st_size,
        "log_bytes": 0,
        "sha256": sha256(settings.sqlite_path),
    }
    for text in (report["report_id"], report["database"]["path"], report["database"]["sha256"]):
        assert text in shown
    validate(settings)
    again = written(settings)
    assert again is not None and again["report_id"] != report["report_id"]
    assert again["database"] == report["database"]


def test_write_ahead_log_that_nobody_needs_is_folded_in_before(settings: Settings) -> None:
    database = sqlite3.connect(str(settings.sqlite_path))
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("UPDATE clients SET phone = 'x'")
    database.commit()
    beside = settings.sqlite_path.with_name("copy.db")
    for end in ("", "-wal"):
        shutil.copyfile(str(settings.sqlite_path) + end, str(beside) + end)
    database.close()
    report = validate(dataclasses.replace(settings, sqlite_path=beside))
    assert not report.passed
    assert report.database[1:] == (beside.stat().st_size, 0, sha256(beside))


def test_write_ahead_log_of_a_running_application_counts(settings: Settings) -> None:
    with contextlib.closing(sqlite3.connect(str(settings.sqlite_path))) as application:
        application.execute("PRAGMA journal_mode = WAL")
        application.execute("UPDATE clients SET phone = 'x'")
        application.commit()
        report = validate(settings)
        log = settings.sqlite_path.with_name("app.db-wal")
        assert report.database.log_bytes == log.stat().st_size > 0
        assert report.database.sha256 == sha256(settings.sqlite_path, log)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems want names that are text")
def test_file_whose_name_is_no_text_is_named(settings: Settings) -> None:
    path = Path(os.fsdecode(os.fsencode(settings.sqlite_path) + b"\xff"))
    settings.sqlite_path.rename(path)
    assert validate(dataclasses.replace(settings, sqlite_path=path)).passed
    report = written(settings)
    assert report is not None and report["database"]["path"].endswith("app.db\\xff")


# Checks that do not end


def damage_bundle(settings: Settings) -> Settings:
    (settings.data_dir / "clients.json").write_bytes(b"[]")
    return settings


def break_schema(settings: Settings) -> Settings:
    path = settings.data_dir.parent / "schema.sql"
    path.write_text("CREATE", encoding="utf-8")
    return dataclasses.replace(settings, schema_path=path)


def break_database(settings: Settings) -> Settings:
    settings.sqlite_path.write_bytes(b"no database" * 1000)
    return settings


STOPPED: Dict[str, Callable[[Settings], Settings]] = {
    "server away": lambda settings: settings_of(
        NOWHERE, Place(settings.data_dir.parent), schema_path=settings.schema_path
    ),
    "no database": lambda settings: dataclasses.replace(settings, sqlite_path=settings.data_dir / "none.db"),
    "damaged database": break_database,
    "damaged bundle": damage_bundle,
    "broken schema file": break_schema,
}


@pytest.mark.parametrize("reason", STOPPED)
def test_check_that_cannot_end_leaves_no_earlier_verdict(settings: Settings, reason: str) -> None:
    assert written(settings) is not None
    changed = STOPPED[reason](settings)
    with pytest.raises(MigrationError):
        validate(changed)
    assert written(settings) is None and page(settings) is None


@pytest.mark.parametrize("table", ["app_config", "user_preferences", "clients"])
def test_text_that_is_not_utf8_is_a_difference(settings: Settings, table: str) -> None:
    column = {"app_config": "password_hash", "user_preferences": "color_scheme", "clients": "phone"}[table]
    change(settings.sqlite_path, "UPDATE %s SET %s = CAST(x'ff41' AS TEXT)" % (table, column))
    assert not validate(settings).passed
    report = written(settings)
    assert report is not None and report["overall_status"] == "FAIL"
    assert {finding["column"] for finding in report["findings"]} >= {column}


def test_no_verdict_but_its_own_stands_wherever_the_check_is_killed(settings: Settings, place: Place) -> None:
    old = written(settings)
    assert old is not None
    change(settings.sqlite_path, "UPDATE clients SET phone = 'changed'")
    kept = shutil.copytree(str(settings.data_dir), str(place.folder / "kept"))
    ends = []
    for moment in range(30):
        shutil.rmtree(str(settings.data_dir))
        shutil.copytree(kept, str(settings.data_dir))
        ends.append(_killed_at(moment, settings))
        report, shown = written(settings), page(settings)
        if moment >= 2:  # until then the old pair is still being taken away
            assert report is None or (report["overall_status"] == "FAIL" and shown is not None)
            assert shown is None or old["report_id"] not in shown
            assert report is None or report["report_id"] in str(shown)
            with held(settings.data_dir):  # whoever has the folder next brings what was complete to its place
                assert (written(settings) is None) == (page(settings) is None)
        assert validate(settings).passed is False  # the next one is not kept from anything
        if ends[-1] == 0:
            break
    assert ends[-1] == 0 and len(ends) > 6


def _killed_at(moment: int, settings: Settings) -> int:
    """Validate in a process that kills itself before it removes or renames for the time ``moment``."""
    child = os.fork()
    if child == 0:
        left: List[int] = list(range(moment))

        def hook(event: str, arguments: Any) -> None:
            if event in ("os.remove", "os.rename"):
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
                left.pop()

        sys.addaudithook(hook)
        try:
            validate(settings)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def test_second_validation_at_once_is_refused_and_takes_nothing_away(settings: Settings) -> None:
    before = written(settings), page(settings)
    with held(settings.data_dir), pytest.raises(MigrationError, match="in use") as caught:
        validate(settings)
    assert caught.value.exit_code == ExitCode.BUNDLE
    assert (written(settings), page(settings)) == before


def test_report_is_written_under_the_lock_where_there_is_no_bundle(
    sample_database: Database, settings: Settings
) -> None:
    shutil.rmtree(str(settings.data_dir))
    online = dataclasses.replace(settings, offline=False)
    with held(settings.data_dir), pytest.raises(MigrationError, match="in use"):
        validate(online)
    assert validate(online).passed
    assert written(settings) is not None


def test_import_takes_the_earlier_report_away(settings: Settings, run: Run) -> None:
    run("migrate.py", "--skip-export", "--skip-validation", "--user-email", ANNA, code=0)
    assert written(settings) is None and page(settings) is None


def test_import_that_is_refused_leaves_report_and_database(settings: Settings, run: Run) -> None:
    (settings.data_dir / "clients.json").write_bytes(b"[]")
    assert run("import_to_sqlite.py").code == 4
    assert written(settings) is not None and page(settings) is not None
