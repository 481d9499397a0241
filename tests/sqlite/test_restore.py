"""migrate.py --restore: a backup back in the database's place."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from migration.errors import MigrationError
from migration.settings import Backups
from migration.sqlite import restoring
from support.places import Place
from support.runs import Run
from support.sqlite_files import OLD_ROWS, change, make_old_database, rows_of


def add_backup(place: Place, stamp: str, note: str) -> Path:
    place.backups.mkdir(exist_ok=True)
    path = place.backups / ("theprogram_backup_%s.db" % stamp)
    change(path, "CREATE TABLE old (note)", "INSERT INTO old VALUES ('%s')" % note)
    return path


def backups(place: Place) -> list[str]:
    return sorted(path.name for path in place.in_backups())


def test_restore_undoes_a_migration(bundle: Path, place: Place, run: Run) -> None:
    make_old_database(place.app)
    assert run("migrate.py", "--skip-export", "--offline").code == 0
    assert rows_of(place.app, "SELECT count(*) FROM clients") == [(12,)]
    (backup,) = backups(place)

    done = run("migrate.py", "--restore", code=0)

    assert rows_of(place.app, "SELECT note FROM old") == OLD_ROWS
    assert rows_of(place.app, "SELECT count(*) FROM sqlite_master WHERE name = 'clients'") == [(0,)]
    assert stat.S_IMODE(place.app.stat().st_mode) == 0o600
    # what was there has become a backup of its own, so that restoring can be undone too
    (saved,) = set(backups(place)) - {backup}
    assert rows_of(place.backups / saved, "SELECT count(*) FROM clients") == [(12,)]
    assert str(place.backups / saved) in done.err
    assert sorted(p.name for p in place.folder.iterdir()) == ["app.db", "backups", "data"]


def test_restore_takes_the_newest_backup_by_its_name(place: Place, run: Run) -> None:
    # neither the order of writing nor that of the folder decides
    for stamp in ("20241231_235959", "20240630_111213", "20250102_030405", "20240102_030405"):
        add_backup(place, stamp, "newest" if stamp.startswith("2025") else "older")
    for day in range(10, 30):
        add_backup(place, "202301%d_120000" % day, "older still")
    (place.backups / "theprogram_backup_of_mine.db").write_bytes(b"not ours")
    done = run("migrate.py", "--restore", code=0)
    assert rows_of(place.app, "SELECT note FROM old") == [("newest",)]
    assert "20250102_030405" in done.err


def test_restore_takes_the_file_that_is_named(place: Place, run: Run) -> None:
    add_backup(place, "20250102_030405", "newest")
    wanted = add_backup(place, "20241231_235959", "wanted")
    copied_away = place.folder / "elsewhere.sqlite"
    shutil.copyfile(str(wanted), str(copied_away))
    before = wanted.read_bytes()
    assert run("migrate.py", "--restore", copied_away).code == 0
    assert rows_of(place.app, "SELECT note FROM old") == [("wanted",)]
    assert wanted.read_bytes() == copied_away.read_bytes() == before


def test_restore_without_backup_keeps_none_of_what_was_there(place: Place, run: Run) -> None:
    add_backup(place, "20250102_030405", "newest")
    make_old_database(place.app)
    assert run("migrate.py", "--restore", "--no-backup").code == 0
    assert rows_of(place.app, "SELECT note FROM old") == [("newest",)]
    assert len(backups(place)) == 1


def damage_page(path: Path) -> None:
    """A b-tree page that is none: the header and so the opening stay good."""
    content = bytearray(path.read_bytes())
    content[4096:4196] = b"\xee" * 100
    path.write_bytes(bytes(content))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def not_a_database(path: Path) -> None:
    path.write_bytes(b"-- a dump, not a database\n" * 100)


@pytest.mark.parametrize("damage", [damage_page, cut_short, empty, not_a_database])
def test_damaged_backup_is_refused(damage, place: Place, run: Run) -> None:
    old = make_old_database(place.app)
    backup = add_backup(place, "20250102_030405", "newest")
    damage(backup)
    damaged = backup.read_bytes()
    done = run("migrate.py", "--restore", code=5)
    assert "error: the backup %s is damaged: " % backup in done.err
    assert "try: restore another one: --restore FILE" in done.err
    assert "Traceback" not in done.err
    assert place.app.read_bytes() == old
    assert sorted(p.name for p in place.folder.iterdir()) == ["app.db", "backups"]
    assert backups(place) == [backup.name] and backup.read_bytes() == damaged


@pytest.mark.parametrize(
    "options, message",
    [
        ((), "error: no backup in {place}/backups\n"),
        (("{place}/gone.db",), "error: backup not found: {place}/gone.db\n"),
        (("{place}/app.db",), "error: {place}/app.db is the database itself, not a backup of it\n"),
    ],
    ids=["none there", "file not there", "itself"],
)
def test_what_is_no_backup_cannot_be_restored(options, message, place: Place, run: Run) -> None:
    old = make_old_database(place.app)
    done = run("migrate.py", "--restore", *(option.format(place=place.folder) for option in options), code=5)
    assert message.format(place=place.folder) in done.err
    assert "\ntry: " in done.err
    assert place.app.read_bytes() == old
    assert [p.name for p in place.folder.iterdir()] == ["app.db"]


@pytest.mark.parametrize("damage", [damage_page, cut_short, not_a_database])
def test_restore_over_a_corrupted_database_sets_that_aside(damage, place: Place, run: Run) -> None:
    make_old_database(place.app)
    damage(place.app)
    corrupt = place.app.read_bytes()
    add_backup(place, "20250102_030405", "newest")
    done = run("migrate.py", "--restore", code=0)
    assert rows_of(place.app, "SELECT note FROM old") == [("newest",)]
    (aside,) = set(backups(place)) - {"theprogram_backup_20250102_030405.db"}
    assert (place.backups / aside).read_bytes() == corrupt
    assert stat.S_IMODE((place.backups / aside).stat().st_mode) == 0o600
    assert aside in done.err, "the person is told where it went"


def test_database_set_aside_before_is_not_overwritten(place: Place, run: Run) -> None:
    make_old_database(place.app)
    not_a_database(place.app)
    corrupt = place.app.read_bytes()
    add_backup(place, "20250102_030405", "newest")
    now = datetime.now()
    times = [(now + timedelta(seconds=n)).strftime("%Y%m%d_%H%M%S") for n in range(20)]
    there = {"theprogram_damaged_%s.db" % when for when in times}
    for name in there:
        (place.backups / name).write_bytes(b"rescued before")
    assert run("migrate.py", "--restore").code == 0
    (aside,) = set(backups(place)) - there - {"theprogram_backup_20250102_030405.db"}
    assert (place.backups / aside).read_bytes() == corrupt
    assert {(place.backups / name).read_bytes() for name in there} == {b"rescued before"}


def test_restore_refuses_while_another_program_writes(place: Place, impatient: None) -> None:
    make_old_database(place.app)
    backup = add_backup(place, "20250102_030405", "newest")
    application = sqlite3.connect(str(place.app), isolation_level=None)
    try:
        application.execute("BEGIN IMMEDIATE")
        application.execute("INSERT INTO old VALUES ('being written')")
        with pytest.raises(MigrationError, match="%s is open in another program" % place.app) as caught:
            restoring.restore(backup, place.app, Backups(place.backups, "theprogram"))
        assert caught.value.exit_code == 5
        application.execute("COMMIT")
    finally:
        application.close()
    assert rows_of(place.app, "SELECT note FROM old") == [*OLD_ROWS, ("being written",)]
    assert len(backups(place)) == 1
