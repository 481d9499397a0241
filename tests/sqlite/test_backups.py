"""Backups of the database: verified, private, each under its own name, and pruned only where asked."""

from __future__ import annotations

import os
import random
import re
import sqlite3
import stat
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Callable, List

import pytest

from import_to_sqlite import import_
from migration.errors import ExitCode, MigrationError
from migration.settings import Backups
from migration.sqlite import backups, restoring
from support.migrations import settings_of
from support.places import Place, tree
from support.runs import Run
from support.servers import NOWHERE
from support.sqlite_files import OLD_ROWS, change, make_old_database, rows_of

UNUSED = "host=/nowhere"
NAME = re.compile(r"theprogram_backup_\d{8}_\d{6}\.db")


def import_again(place: Place, **changes: object) -> Path | None:
    return import_(settings_of(UNUSED, place, None, **changes)).backup  # type: ignore[arg-type]


def names(place: Place) -> List[str]:
    return sorted(path.name for path in place.in_backups())


def test_backup_is_named_private_and_whole_under_any_umask(bundle: Path, place: Place, run: Run) -> None:
    make_old_database(place.app)
    before = os.umask(0)
    try:
        done = run("import_to_sqlite.py", "--log-file", place.folder / "log")
    finally:
        os.umask(before)
    assert done.code == 0, done.err
    (name,) = names(place)
    assert NAME.fullmatch(name)
    backup = place.backups / name
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.backups.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.app.stat().st_mode) == 0o600
    assert stat.S_IMODE((place.folder / "log").stat().st_mode) == 0o600
    assert rows_of(backup, "PRAGMA integrity_check") == [("ok",)]
    assert rows_of(backup, "SELECT note FROM old") == OLD_ROWS
    assert str(backup) in done.err


def test_open_files_of_the_old_database_are_not_open_in_the_backup(bundle: Path, place: Place) -> None:
    make_old_database(place.app)
    place.app.chmod(0o666)
    backup = import_again(place)
    assert backup is not None
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600


def test_backups_in_one_second_do_not_meet(bundle: Path, place: Place) -> None:
    made = [import_again(place)]
    assert made == [None], "there was nothing to back up"
    made = [import_again(place) for _ in range(2)]
    assert len(set(made)) == 2
    assert names(place) == sorted(path.name for path in made if path is not None)


def test_backups_of_two_databases_in_one_second_do_not_meet(place: Place) -> None:
    places = [place.folder / ("%d.db" % number) for number in range(2)]
    for number, path in enumerate(places):
        change(path, "CREATE TABLE old (note)", "INSERT INTO old VALUES (%d)" % number)
    made: List[Path] = []
    start = threading.Barrier(len(places))

    def back_up(path: Path) -> None:
        connection = sqlite3.connect(str(path))
        start.wait()
        made.append(backups.back_up(connection, path, Backups(place.backups, "theprogram")))
        connection.close()

    threads = [threading.Thread(target=back_up, args=(path,)) for path in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == len(places)
    assert sorted(rows_of(path, "SELECT note FROM old")[0][0] for path in made) == [0, 1]
    assert len(names(place)) == len(places), "nothing else is left"


def test_damaged_old_database_is_no_backup_and_stays(bundle: Path, place: Place, run: Run) -> None:
    database = sqlite3.connect(str(place.app))
    database.execute("CREATE TABLE old (note)")
    database.execute("CREATE INDEX by_note ON old (note)")
    database.executemany(
        "INSERT INTO old VALUES (?)", [("a note of some length %d" % n,) for n in range(3000)]
    )
    database.commit()
    database.close()
    content = bytearray(place.app.read_bytes())
    content[3 * 4096 + 100 : 3 * 4096 + 400] = b"\xee" * 300
    place.app.write_bytes(bytes(content))
    done = run("import_to_sqlite.py", code=5)
    assert "Traceback" not in done.err
    assert "\ntry: " in done.err
    assert place.app.read_bytes() == bytes(content)
    assert not place.backups.exists() or names(place) == []
    assert run("import_to_sqlite.py", "--no-backup").code == 0
    assert rows_of(place.app, "SELECT count(*) FROM clients") == [(12,)]


def test_no_backup_makes_none(bundle: Path, place: Place, run: Run) -> None:
    make_old_database(place.app)
    assert run("import_to_sqlite.py", "--no-backup").code == 0
    assert not place.backups.exists()


# Pruning


OTHERS = (
    "theprogram_backup_20240101_000000.db.gz",
    "theprogram_backup_20240101_000000.db-wal",
    "theprogram_backup_of_mine.db",
    "theprogram_damaged_20240101_000000.db",
    "my_theprogram_backup_20240101_000000.db",
    "app.db",
    ".hidden",
)


def belong_to(database: Path, folder: Path, names: List[str]) -> None:
    """Note whose backups these are, as a run does."""
    with (folder / ".databases").open("a", encoding="utf-8") as file:
        file.writelines("%s %s\n" % (name, database) for name in names)


def fill_backups(place: Place, count: int) -> List[str]:
    """Backups whose age by name is the reverse of that by time of change, and files that are none."""
    place.backups.mkdir()
    made = ["theprogram_backup_20240101_0000%02d.db" % number for number in range(count)]
    for number, name in enumerate(made):
        (place.backups / name).write_bytes(b"")
        os.utime(str(place.backups / name), (10**9 - number, 10**9 - number))
    belong_to(place.app, place.backups, made)
    for name in OTHERS:
        (place.backups / name).write_bytes(b"mine")
    (place.backups / "folder").mkdir()
    (place.backups / "folder" / made[0]).write_bytes(b"mine")
    return made


@pytest.mark.parametrize("keep", [1, 2, 5, 6, 100])
def test_only_the_newest_backups_are_kept_and_no_other_file_touched(
    keep: int, bundle: Path, place: Place, run: Run
) -> None:
    made = fill_backups(place, 5)
    make_old_database(place.app)
    run("import_to_sqlite.py", "--keep-backups", keep, code=0)
    found = [name for name in names(place) if NAME.fullmatch(name)]
    newest = found[-1]
    assert newest not in made
    assert rows_of(place.backups / newest, "SELECT note FROM old") == OLD_ROWS
    assert found == [*made, newest][-keep:]
    assert set(names(place)) - set(found) == {*OTHERS, "folder"}
    for name in OTHERS:
        assert (place.backups / name).read_bytes() == b"mine"
    assert (place.backups / "folder" / made[0]).read_bytes() == b"mine"


def test_all_backups_are_kept_where_nothing_is_said(bundle: Path, place: Place, run: Run) -> None:
    made = fill_backups(place, 5)
    make_old_database(place.app)
    assert run("migrate.py", "--skip-export", "--offline").code == 0
    assert set(made) < set(names(place))
    assert len([name for name in names(place) if NAME.fullmatch(name)]) == 6


def test_migrate_prunes_after_its_import_and_after_a_restore(bundle: Path, place: Place, run: Run) -> None:
    fill_backups(place, 3)
    make_old_database(place.app)
    assert run("migrate.py", "--skip-export", "--offline", "--keep-backups", 1).code == 0
    (only,) = [name for name in names(place) if NAME.fullmatch(name)]
    assert rows_of(place.backups / only, "SELECT note FROM old") == OLD_ROWS
    assert run("migrate.py", "--restore", "--keep-backups", 1).code == 0
    assert rows_of(place.app, "SELECT note FROM old") == OLD_ROWS
    (last,) = [name for name in names(place) if NAME.fullmatch(name)]
    assert rows_of(place.backups / last, "SELECT count(*) FROM clients") == [(12,)]


@pytest.mark.parametrize("ahead", [timedelta(minutes=30), timedelta(hours=23, minutes=59)], ids=str)
def test_backup_made_after_clocks_went_back_is_the_newest(
    ahead: timedelta, bundle: Path, place: Place, run: Run
) -> None:
    place.backups.mkdir()
    earlier = datetime.now() + ahead
    name = earlier.strftime("theprogram_backup_%Y%m%d_%H%M%S.db")
    (place.backups / name).write_bytes(b"")
    belong_to(place.app, place.backups, [name])
    (place.backups / "theprogram_backup_99999999_999999.db").write_bytes(b"no time")
    make_old_database(place.app)
    assert run("import_to_sqlite.py", "--keep-backups", 1).code == 0
    last, other = (name for name in names(place) if NAME.fullmatch(name))
    assert other == "theprogram_backup_99999999_999999.db"
    assert rows_of(place.backups / last, "SELECT note FROM old") == OLD_ROWS
    assert run("migrate.py", "--restore").code == 0
    assert rows_of(place.app, "SELECT note FROM old") == OLD_ROWS


def test_failed_import_prunes_nothing(bundle: Path, place: Place, run: Run) -> None:
    fill_backups(place, 3)
    make_old_database(place.app)
    (place.data / "charts.json").write_bytes(b"[\n]\n")
    before = tree(place.backups)
    assert run("import_to_sqlite.py", "--keep-backups", 1).code == 4
    assert tree(place.backups) == before


@pytest.mark.parametrize("number", ["0", "-1", "x", ""])
def test_number_of_backups_to_keep_is_one_or_more(number: str, bundle: Path, place: Place, run: Run) -> None:
    fill_backups(place, 3)
    make_old_database(place.app)
    before = tree(place.backups)
    assert run("import_to_sqlite.py", "--keep-backups=" + number).code == 2
    assert tree(place.backups) == before


# Restoring what is damaged


def a_backup(place: Place) -> Path:
    place.backups.mkdir()
    path = place.backups / "theprogram_backup_20250102_030405.db"
    database = sqlite3.connect(str(path))
    database.execute("CREATE TABLE kept (id INTEGER PRIMARY KEY, note TEXT)")
    database.execute("CREATE INDEX by_note ON kept (note)")
    database.executemany(
        "INSERT INTO kept (note) VALUES (?)",
        [("kept note number %d, of some length" % number,) for number in range(400)],
    )
    database.commit()
    database.close()
    return path


def restore(backup: Path, place: Place) -> MigrationError | None:
    try:
        restoring.restore(backup, place.app, None)
    except MigrationError as error:
        return error
    return None


def assert_untouched(place: Place, old: bytes, backup: Path, content: bytes) -> None:
    assert place.app.read_bytes() == old
    assert backup.read_bytes() == content
    assert names(place) == [backup.name]
    assert sorted(path.name for path in place.folder.iterdir()) == ["app.db", "backups"]


def test_truncated_backup_is_refused_at_any_length(place: Place) -> None:
    old = make_old_database(place.app)
    backup = a_backup(place)
    whole = backup.read_bytes()
    random_ = random.Random(7)
    lengths = [0, 1, 16, 99, 100, 512, 4095, 4096, 4097, len(whole) - 4096, len(whole) - 1]
    for length in lengths + [random_.randrange(len(whole)) for _ in range(30)]:
        backup.write_bytes(whole[:length])
        error = restore(backup, place)
        assert error is not None, length
        assert error.exit_code == ExitCode.TARGET
        assert "the backup %s is damaged" % backup in error.message
        assert_untouched(place, old, backup, whole[:length])


@pytest.mark.parametrize(
    "text", [b"", b"PK\x03\x04", b"SQLite format 3\0", b"-- a dump\n" * 500, b"\0" * 8192, b"\xff" * 8192]
)
def test_file_that_is_no_database_is_refused(text: bytes, place: Place) -> None:
    old = make_old_database(place.app)
    backup = a_backup(place)
    backup.write_bytes(text)
    error = restore(backup, place)
    assert error is not None and error.exit_code == ExitCode.TARGET
    assert_untouched(place, old, backup, text)


def test_backup_with_flipped_bits_is_refused_or_holds_its_rows(place: Place) -> None:
    """integrity_check sees damage to the structure; a letter that became another is a letter."""
    old = make_old_database(place.app)
    backup = a_backup(place)
    whole = backup.read_bytes()
    random_ = random.Random(11)
    refused = 0
    for _ in range(150):
        changed = bytearray(whole)
        changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
        backup.write_bytes(bytes(changed))
        error = restore(backup, place)
        if error is None:
            assert rows_of(place.app, "PRAGMA integrity_check") == [("ok",)]
            assert len(rows_of(place.app, "SELECT * FROM kept")) == 400
            place.app.write_bytes(old)
        else:
            refused += 1
            assert error.exit_code == ExitCode.TARGET
            assert_untouched(place, old, backup, bytes(changed))
    assert refused > 15


def overwritten_page(content: bytearray) -> None:
    content[4096 : 2 * 4096] = os.urandom(4096)


def wrong_page_count(content: bytearray) -> None:
    content[28:32] = (2).to_bytes(4, "big")


def zeroed_header(content: bytearray) -> None:
    content[:100] = bytes(100)


def swapped_pages(content: bytearray) -> None:
    content[4096:8192], content[8192:12288] = content[8192:12288], content[4096:8192]


@pytest.mark.parametrize("damage", [overwritten_page, wrong_page_count, zeroed_header, swapped_pages])
def test_backup_with_damaged_pages_is_refused(
    damage: Callable[[bytearray], None], place: Place, run: Run
) -> None:
    old = make_old_database(place.app)
    backup = a_backup(place)
    content = bytearray(backup.read_bytes())
    damage(content)
    backup.write_bytes(bytes(content))
    done = run("migrate.py", "--restore", backup, code=5)
    assert "error: the backup %s is damaged: " % backup in done.err
    assert "Traceback" not in done.err
    assert_untouched(place, old, backup, bytes(content))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root alone gives files away")
def test_database_of_another_account_stays_its_own(bundle: Path, place: Place) -> None:
    make_old_database(place.app)
    os.chown(str(place.app), 12345, 12345)
    import_(settings_of(NOWHERE, place))
    assert (place.app.stat().st_uid, place.app.stat().st_gid) == (12345, 12345)
