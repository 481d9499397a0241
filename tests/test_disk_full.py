"""No room and no right to write, in each place that a run writes to: a clear end, nothing lost, and a next run that works."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import import_to_sqlite
from migration.errors import MigrationError
from support.migrations import settings_of
from support.mounts import KIB, Mount
from support.places import ANNA, CARLA, Place, contents
from support.runs import Result, Run
from support.servers import Database
from support.sqlite_files import OLD_ROWS, change, make_old_database, rows_of


def fill_up(folder: Path, leave: int = 0) -> Path:
    """Use up the room of a file system but for ``leave`` bytes; unlink what is returned to make room."""
    ballast = folder / "ballast"
    free = os.statvfs(str(folder)).f_bavail * os.statvfs(str(folder)).f_frsize
    with contextlib.suppress(OSError), open(str(ballast), "wb", buffering=0) as file:
        left = free - leave
        while left > 0:
            left -= file.write(b"x" * min(left, 64 * KIB))
    return ballast


def assert_says(done: Result, code: int, *texts: str) -> None:
    assert done.code == code, done
    for text in ("error: ", *texts):
        assert text in done.err
    assert "\ntry: " in done.err
    assert "Traceback" not in done.err
    assert "SampleHash" not in done.out + done.err


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != "ballast")


# The data folder


@pytest.mark.parametrize("room", [0, 20 * KIB, 200 * KIB])
def test_full_data_folder_keeps_the_old_bundle(
    room: int, sample_database: Database, place: Place, mount: Mount, run: Run
) -> None:
    mount(place.data, size=2048 * KIB)
    options = ("--user-email", ANNA, "--postgres-url", sample_database.url)
    assert run("export_from_postgres.py", "--user-email", CARLA, *options[2:]).code == 0
    old = contents(place.data)
    ballast = fill_up(place.data, leave=room)
    done = run("migrate.py", *options)
    assert_says(
        done, 4, "cannot write the bundle in %s: No space left on device" % place.data, "free some space"
    )
    ballast.unlink()
    assert contents(place.data) == old
    assert listed(place.folder) == sorted(["data", *("data/" + name for name in old)])
    assert run("migrate.py", *options).code == 0
    assert len(rows_of(place.app, "SELECT id FROM clients")) == 12


@pytest.mark.parametrize("phase", ["import_to_sqlite.py", "migrate.py"])
def test_full_data_folder_does_not_keep_the_bundle_from_being_imported(
    phase: str, annas_run: Place, place: Place, mount: Mount, run: Run
) -> None:
    mount(place.data, size=2048 * KIB)
    copy_bundle(annas_run, place)
    make_old_database(place.app)
    fill_up(place.data)
    options = ("--skip-export", "--skip-validation") if phase == "migrate.py" else ()
    run(phase, *options, code=0)
    assert len(rows_of(place.app, "SELECT id FROM clients")) == 12


def copy_bundle(annas_run: Place, place: Place) -> None:
    for path in annas_run.data.glob("*.json"):
        if path.name != "validation_report.json":
            shutil.copyfile(str(path), str(place.data / path.name))


def test_full_data_folder_has_no_report_rather_than_half_of_one(
    migrated: Place, place: Place, mount: Mount, run: Run
) -> None:
    shutil.move(str(place.data), str(place.folder / "made"))
    mount(place.data, size=2048 * KIB)
    for path in (place.folder / "made").iterdir():
        shutil.copyfile(str(path), str(place.data / path.name))
    old = contents(place.data)
    ballast = fill_up(place.data, leave=8 * KIB)
    done = run("validate_migration.py", "--offline")
    assert_says(
        done, 4, "cannot write the report %s/validation_report" % place.data, "No space left", "free some"
    )
    ballast.unlink()
    assert contents(place.data) == old
    assert run("validate_migration.py", "--offline").code == 0
    fill_up(place.data)  # what the old report took is enough for the new one
    assert run("validate_migration.py", "--offline").code == 0


# The database's folder


@pytest.fixture()
def disk(tmp_path: Path, mount: Mount) -> Path:
    """A folder on a small disk of its own."""
    mount(tmp_path / "target", size=4096 * KIB)
    return tmp_path / "target"


@pytest.mark.parametrize(
    "phase, room", [("import", 0), ("import", 40 * KIB), ("import", 400 * KIB), ("restore", 40 * KIB)]
)
def test_full_target_folder_keeps_the_old_database(
    phase: str, room: int, annas_run: Place, bundle: Path, place: Place, disk: Path, run: Run
) -> None:
    app, folder = disk / "app.db", disk
    old = make_old_database(app)
    ballast = fill_up(folder, leave=room)
    words = ("import_to_sqlite.py",) if phase == "import" else ("migrate.py", "--restore", annas_run.app)
    done = run(*words, "--sqlite-path", app)
    assert_says(done, 5, "no space left for %s" % app, "free some space")
    assert app.read_bytes() == old
    ballast.unlink()
    assert listed(folder) == ["app.db"]
    assert not place.backups.exists() or listed(place.backups) == []
    assert run(*words, "--sqlite-path", app).code == 0
    assert len(rows_of(app, "SELECT id FROM clients")) == 12
    assert listed(folder) == ["app.db"]


def test_import_that_runs_out_of_room_anywhere_leaves_the_old_database(
    sample_database: Database, bundle: Path, place: Place, disk: Path
) -> None:
    app, folder = disk / "app.db", disk
    old = make_old_database(app)
    settings = settings_of(sample_database.url, place, sqlite_path=app)
    refused = 0
    for room in range(0, 4000, 50):
        ballast = fill_up(folder, leave=room * KIB)
        try:
            import_to_sqlite.import_(settings)
            break
        except MigrationError as error:
            assert error.exit_code == 5
            assert error.message == "no space left for %s" % app
            refused += 1
        finally:
            ballast.unlink()
        assert app.read_bytes() == old
        assert listed(folder) == ["app.db"]
    assert refused > 5
    assert len(rows_of(app, "SELECT id FROM clients")) == 12
    assert listed(folder) == ["app.db"]


def test_full_target_folder_keeps_rows_of_an_old_write_ahead_log(
    bundle: Path, place: Place, tmp_path: Path, disk: Path, run: Run
) -> None:
    """The log is folded into the old database before the new takes its place: that needs room for each new page."""
    app, folder = disk / "app.db", disk
    make_old_database(app)
    subprocess.run(
        [sys.executable, "-c", DIE_WITH_A_WAL, str(app)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert (folder / "app.db-wal").stat().st_size > 200 * KIB
    before = contents(folder)
    for room in (0, 40 * KIB, 420 * KIB, 500 * KIB, 600 * KIB):
        ballast = fill_up(folder, leave=room)
        done = run("import_to_sqlite.py", "--sqlite-path", app)
        ballast.unlink()
        if done.code == 0:
            assert room >= 420 * KIB
            (backup,) = place.in_backups()
            assert len(rows_of(backup, "SELECT * FROM old")) == 102
            break
        assert_says(done, 5, "no space left for ", "free some space")
        assert set(listed(folder)) <= {"app.db", "app.db-wal", "app.db-shm"}
        copied = tmp_path / "copied"
        shutil.copytree(str(folder), str(copied))
        assert len(rows_of(copied / "app.db", "SELECT * FROM old")) == 102
        assert rows_of(copied / "app.db", "PRAGMA integrity_check") == [("ok",)]
        shutil.rmtree(str(copied))
        for path in place.backups.glob("*"):
            assert len(rows_of(path, "SELECT * FROM old")) == 102
            path.unlink()
    assert before
    assert run("import_to_sqlite.py", "--sqlite-path", app).code == 0
    assert len(rows_of(app, "SELECT id FROM clients")) == 12
    assert listed(folder) == ["app.db"]


DIE_WITH_A_WAL = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("PRAGMA wal_autocheckpoint = 0")
database.executemany("INSERT INTO old VALUES (?)", [("x" * 3000,) for _ in range(100)])
database.commit()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("room", [0, 8 * KIB, 100 * KIB])
def test_full_backup_folder_keeps_the_old_database(
    room: int, bundle: Path, place: Place, mount: Mount, run: Run
) -> None:
    mount(place.backups, size=2048 * KIB)
    notes = ", ".join(["('%s')" % ("x" * 3000)] * 100)
    change(place.app, "CREATE TABLE old (note)", "INSERT INTO old VALUES " + notes)
    old = place.app.read_bytes()
    ballast = fill_up(place.backups, leave=room)
    done = run("import_to_sqlite.py")
    assert_says(done, 5, "no space left for %s" % place.backups, "free some space")
    assert place.app.read_bytes() == old
    ballast.unlink()
    assert listed(place.backups) == []
    assert sorted(path.name for path in place.folder.iterdir()) == ["app.db", "backups", "data"]
    assert run("import_to_sqlite.py").code == 0
    (backup,) = place.in_backups()
    assert len(rows_of(backup, "SELECT * FROM old")) == 100


# The log file


@pytest.mark.parametrize("room", [0, 4 * KIB])
def test_full_log_folder_is_said_once_and_stops_no_migration(
    room: int, bundle: Path, place: Place, tmp_path: Path, mount: Mount, run: Run
) -> None:
    logs = tmp_path / "logs"
    mount(logs, size=64 * KIB)
    (logs / "log").write_bytes(b"before\n" + b"x" * (4089 if room == 0 else 4000))
    ballast = fill_up(logs, leave=0)
    make_old_database(place.app)
    done = run("import_to_sqlite.py", "--log-file", logs / "log", code=0)
    assert done.err.count("warning: the log file %s/log cannot be written: No space left" % logs) == 1
    assert "Traceback" not in done.err and "Logging error" not in done.err
    assert len(rows_of(place.app, "SELECT id FROM clients")) == 12
    assert (logs / "log").read_bytes().startswith(b"before\n")
    ballast.unlink()
    done = run("import_to_sqlite.py", "--log-file", logs / "log")
    assert (done.code, "warning" in done.err) == (0, False)


def test_log_file_on_a_read_only_file_system_is_a_usage_error(
    bundle: Path, place: Place, tmp_path: Path, mount: Mount, run: Run
) -> None:
    logs = tmp_path / "logs"
    mount(logs, size=64 * KIB)
    mount(logs, read_only=True)
    old = make_old_database(place.app)
    assert_says(
        run("import_to_sqlite.py", "--log-file", logs / "log"),
        2,
        "cannot write the log file %s/log: Read-only" % logs,
    )
    assert place.app.read_bytes() == old


# Read-only file systems


def test_bundle_on_read_only_media_is_imported_and_validated(
    annas_run: Place, place: Place, mount: Mount, run: Run
) -> None:
    mount(place.data, size=2048 * KIB)
    copy_bundle(annas_run, place)
    mount(place.data, read_only=True)
    before = contents(place.data)
    run("import_to_sqlite.py", code=0)
    assert len(rows_of(place.app, "SELECT id FROM clients")) == 12
    assert_says(run("validate_migration.py", "--offline"), 4, "cannot write the report")
    assert contents(place.data) == before


def test_data_folder_on_a_read_only_file_system(
    annas_run: Place, sample_database: Database, place: Place, mount: Mount, run: Run
) -> None:
    mount(place.data, size=2048 * KIB)
    copy_bundle(annas_run, place)
    mount(place.data, read_only=True)
    before = contents(place.data)
    done = run("migrate.py", "--user-email", CARLA, "--postgres-url", sample_database.url)
    assert_says(
        done, 4, "cannot write the bundle in %s: Read-only file system" % place.data, "choose a folder"
    )
    assert contents(place.data) == before
    assert not place.app.exists()


@pytest.mark.parametrize("there", [True, False])
def test_target_on_a_read_only_file_system(
    there: bool, bundle: Path, place: Place, tmp_path: Path, disk: Path, mount: Mount, run: Run
) -> None:
    app, folder = disk / "app.db", disk
    if there:
        make_old_database(app)
    before = contents(folder)
    mount(folder, read_only=True)
    assert_says(run("import_to_sqlite.py", "--sqlite-path", app), 5, "cannot be written: ")
    assert_says(
        run("migrate.py", "--restore", make_backup(tmp_path), "--sqlite-path", app), 5, "cannot be written: "
    )
    assert contents(folder) == before
    mount(folder, size=2048 * KIB)
    assert run("import_to_sqlite.py", "--sqlite-path", app).code == 0


def make_backup(folder: Path) -> Path:
    if not (folder / "backup.db").exists():
        make_old_database(folder / "backup.db")
    return folder / "backup.db"


def test_database_on_a_read_only_file_system_is_validated(
    migrated: Place, place: Place, disk: Path, mount: Mount, run: Run
) -> None:
    folder = disk
    shutil.copyfile(str(place.app), str(folder / "app.db"))
    mount(folder, read_only=True)
    run("validate_migration.py", "--offline", "--sqlite-path", folder / "app.db", code=0)


def test_backup_on_a_read_only_file_system_is_restored(place: Place, mount: Mount, run: Run) -> None:
    mount(place.backups, size=256 * KIB)
    make_old_database(place.backups / "theprogram_backup_20250102_030405.db")
    mount(place.backups, read_only=True)
    run("migrate.py", "--restore", code=0)
    assert rows_of(place.app, "SELECT note FROM old") == OLD_ROWS


def test_backup_folder_on_a_read_only_file_system(bundle: Path, place: Place, mount: Mount, run: Run) -> None:
    mount(place.backups, size=256 * KIB)
    mount(place.backups, read_only=True)
    old = make_old_database(place.app)
    assert_says(run("import_to_sqlite.py"), 5, "cannot be written: Read-only file system")
    assert place.app.read_bytes() == old
    assert sorted(path.name for path in place.folder.iterdir()) == ["app.db", "backups", "data"]
    assert run("import_to_sqlite.py", "--no-backup").code == 0


def test_target_whose_folder_has_no_room_for_a_name(bundle: Path, place: Place, disk: Path, run: Run) -> None:
    """A file system can be out of inodes with bytes left."""
    folder = disk
    subprocess.run(["mount", "-o", "remount,nr_inodes=2", str(folder)], check=True)
    app = folder / "app.db"
    old = make_old_database_without_wal(app)
    done = run("import_to_sqlite.py", "--sqlite-path", app)
    assert_says(done, 5, "no space left for ")
    assert app.read_bytes() == old
    assert listed(folder) == ["app.db"]


def make_old_database_without_wal(path: Path) -> bytes:
    other = path.parent.parent / "made.db"
    change(other, "CREATE TABLE old (note)")
    shutil.copyfile(str(other), str(path))
    return path.read_bytes()
