"""migrate.py --dry-run: everything is looked at, nothing is written."""

from __future__ import annotations

import re
from pathlib import Path

from support.places import ANNA, Place, copy_suite, tree
from support.runs import Run
from support.servers import Database
from support.sqlite_files import make_old_database


def test_dry_run_writes_nothing_anywhere(sample_database: Database, place: Place, run: Run) -> None:
    suite = copy_suite(place.folder / "app" / "suite")
    make_old_database(place.folder / "app" / "app.db")
    before = tree(place.folder)

    done = run(
        "migrate.py",
        "--dry-run",
        *("--user-email", ANNA, "--postgres-url", sample_database.url),
        suite=suite,
        own=False,
    )

    assert done.code == 0, done.err
    assert "nothing was written" in done.out
    assert tree(place.folder) == before


def test_dry_run_makes_no_folder_and_needs_none(sample_database: Database, place: Place, run: Run) -> None:
    run("migrate.py", "--dry-run", "--user-email", ANNA, "--postgres-url", sample_database.url, code=0)
    assert list(place.folder.iterdir()) == []


def test_dry_run_shows_what_a_migration_would_do(
    annas_run: Place, sample_database: Database, place: Place, run: Run
) -> None:
    make_old_database(place.app)
    done = run("migrate.py", "--dry-run", "--user-email", ANNA, "--postgres-url", sample_database.url, code=0)
    table = cells(done.out)
    for name, rows in (("users", 1), ("clients", 12), ("charts", 18), ("session_notes", 20)):
        assert table[name][1] == str(rows), name
    for name in ("clients", "charts", "interpretations"):
        written = len((annas_run.data / (name + ".json")).read_bytes())
        assert abs(size(table[name][2]) - written) <= 0.06 * written, name
    # folded over several lines, so the columns' texts are read as a whole
    assert "user_id" in table["clients"][4]
    for column in ("email", "subscription_tier", "last_login", "is_superuser"):
        assert column in table["users"][4]
    assert table["birth_data"][4] == ""
    assert "jsonb→TEXT" in table["charts"][3]
    for what in ("bundle", "database", "backup"):
        needed, free = table[what][2:4]
        assert size(needed) > 0 and size(free) > size(needed), what


def test_dry_run_finds_what_would_stop_the_migration(
    sample_database: Database, place: Place, run: Run
) -> None:
    done = run(
        "migrate.py", "--dry-run", "--user-email", "who@example.com", "--postgres-url", sample_database.url
    )
    assert done.code == 3
    assert "error: user not found: who@example.com\n" in done.err
    assert list(place.folder.iterdir()) == []


def cells(out: str) -> dict[str, list[str]]:
    """Rows of the printed tables by their first cell; a folded row is put together again."""
    found: dict[str, list[str]] = {}
    last: list[str] = []
    for line in out.splitlines():
        if not line.startswith("│"):
            continue
        row = [cell.strip() for cell in line.strip("│").split("│")]
        if row[0] and not (last and last is found.get(row[0])):
            last = found[row[0]] = row
        else:
            for i, cell in enumerate(row):
                last[i] += cell
    return found


def size(shown: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+) ?(B|kB|MB|GB|TB)", shown).groups()  # type: ignore[union-attr]
    return float(number) * 1000 ** ("B", "kB", "MB", "GB", "TB").index(unit)


def test_dry_run_reports_a_missing_schema_before_connecting(place: Place, run: Run) -> None:
    gone = Path(place.folder, "gone.sql")
    done = run("migrate.py", "--dry-run", "--user-email", ANNA, "--schema-path", gone, code=2)
    assert "error: schema file not found: %s" % gone in done.err
