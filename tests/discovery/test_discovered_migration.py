"""An application is discovered and migrated for each of its roots; plain SQL says which rows that are."""

from __future__ import annotations

import re
import sqlite3
from typing import Any, Dict, Set, Tuple

from migration.discovery.written import loaded
from migration.settings import Settings
from support.applications import GARDENS, LENDING
from support.places import Place
from support.runs import Run
from support.servers import Database
from support.whole_runs import migrate_strictly, settings_for

_OPEN = re.compile(r"undecided\(\n\s+.*\n\s+'(.*)',\n(?:\s+'.*',\n)*\s+\)")


def first_answers(text: str) -> str:
    """A config.py with each open question answered by its first choice."""
    return _OPEN.sub(lambda match: match[1], text)


def discovered(database: Database, place: Place, run: Run, root: str, *options: str) -> Dict[str, Any]:
    made = place.folder / "made"
    done = run("discover.py", "--postgres-url", database.url, "--root", root, "--output", made, *options)
    assert done.code == 0, done.err
    return dict(loaded(first_answers((made / "config.py").read_text(encoding="utf-8"))))


def migrated(settings: Settings) -> Dict[str, Set[Tuple[Any, ...]]]:
    """Export, import, validate against both; the keys of every table, or its rows where it has none."""
    migrate_strictly(settings)
    with sqlite3.connect(str(settings.sqlite_path)) as database:
        return {
            table.name: sorted(
                database.execute('SELECT %s FROM "%s"' % (KEYS.get(table.name, '"id"'), table.name))
            )
            for table in settings.tables
        }


KEYS = {
    "book_covers": "book_id, cover_id",
    "preferences": "member_id",
    "visits": "member_id, at, what",
    "PlotHelper": '"gardenerId", "plotId"',
    "_LabelToPlant": '"A", "B"',
    "Season": '"plantId", year',
    "Harvest": '"plantId", year, part',
}

# Table → its rows that are a root's
BOOKS = "SELECT id FROM books WHERE member_id = {0}"
LENT = {
    "members": "id = {0}",
    "book_covers": "book_id IN (%s)" % BOOKS,
    "covers": "id IN (SELECT cover_id FROM book_covers WHERE book_id IN (%s))" % BOOKS,
    **dict.fromkeys(("lists", "books", "notes", "preferences", "visits"), "member_id = {0}"),
}
PLOTS = """SELECT id FROM "Plot" WHERE "ownerId" = '{0}'"""
PLANTS = 'SELECT id FROM "Plant" WHERE "plotId" IN (%s)' % PLOTS
GARDENED = {
    "Gardener": "id = '{0}'",
    "Plan": "\"gardenerId\" = '{0}'",
    "Plot": "\"ownerId\" = '{0}'",
    "Plant": '"plotId" IN (%s)' % PLOTS,
    "Label": "\"ownerId\" = '{0}'",
    "_LabelToPlant": '"B" IN (%s) AND "A" IN (SELECT id FROM "Label" WHERE "ownerId" = \'{0}\')' % PLANTS,
    "Season": '"plantId" IN (%s)' % PLANTS,
    "Harvest": '"plantId" IN (%s)' % PLANTS,
}


def by_hand(database: Database, conditions: Dict[str, str], key: str) -> Dict[str, Set[Tuple[Any, ...]]]:
    return {
        table: sorted(
            tuple(value.isoformat() if hasattr(value, "isoformat") else value for value in row)
            for row in database.rows(
                'SELECT %s FROM "%s" WHERE %s' % (KEYS.get(table, '"id"'), table, condition.format(key))
            )
        )
        for table, condition in conditions.items()
    }


def test_each_member_of_a_lending_library(empty: Database, place: Place, run: Run) -> None:
    empty.execute(LENDING)
    config = discovered(empty, place, run, "members")
    for key, name in enumerate(("mia", "noa", "oda"), start=1):
        found = migrated(settings_for(empty, place.folder, config, name))
        assert found == by_hand(empty, LENT, str(key)), name


def test_each_gardener_with_references_to_others_cut(empty: Database, place: Place, run: Run) -> None:
    empty.execute(GARDENS)
    empty.execute('DELETE FROM "PlotHelper"')  # of plots of others, by columns that cannot be NULL
    config = discovered(empty, place, run, "Gardener", "--references", "cut")
    for key, name in (("g1", "pia"), ("g2", "rob"), ("g3", "sam")):
        found = migrated(settings_for(empty, place.folder, config, name + "@example.com"))
        assert found.pop("PlotHelper") == []
        assert found == by_hand(empty, GARDENED, key), name


def test_command_line_from_discovery_to_the_database(empty: Database, place: Place, run: Run) -> None:
    """As an operator does it: the written config.py says where everything is, and a question stops the run."""
    empty.execute(GARDENS)
    made = place.folder / "made"
    done = run("discover.py", "--postgres-url", empty.url, "--root", "Gardener", "--output", made)
    assert done.code == 0
    options = ("migrate.py", "--config", made / "config.py", "--user", "rob@example.com")
    done = run(*options, own=False)
    assert done.code == 2
    assert "leaves open how rows belong to 2 tables" in done.err
    text = first_answers((made / "config.py").read_text(encoding="utf-8"))
    (made / "config.py").write_text(text.replace('LEAVING = "stop"', 'LEAVING = "bring"'), encoding="utf-8")
    done = run(*options, own=False)
    assert (done.code, "Validation: PASS" in done.out) == (0, True), done.err
    with sqlite3.connect(str(made / "app.db")) as database:
        # rob helps in plot 1, which is pia's: she is brought
        assert database.execute('SELECT id FROM "Gardener" ORDER BY id').fetchall() == [("g1",), ("g2",)]
        assert database.execute('SELECT "plotId" FROM "PlotHelper"').fetchall() == [(1,)]


ALIKE = """
CREATE TABLE people (id int PRIMARY KEY, name text UNIQUE, "Name" text);
INSERT INTO people VALUES (1, 'ann', 'A'), (2, 'bob', 'B');
CREATE TABLE "Orders" (id int PRIMARY KEY, "Id" int, "ID" int REFERENCES "Orders", up int REFERENCES "Orders", person int REFERENCES people);
INSERT INTO "Orders" VALUES (1, 11, 2, 1, 1), (2, 12, 2, NULL, 2);
CREATE TABLE orders (id int PRIMARY KEY, person int REFERENCES people); INSERT INTO orders VALUES (3, 1);
CREATE TABLE lines (id int PRIMARY KEY, a int NOT NULL REFERENCES "Orders", b int REFERENCES orders);
INSERT INTO lines VALUES (1, 1, 3), (2, 2, NULL);
CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES;
"""


def test_what_sqlite_cannot_tell_apart_is_left_behind_by_name(
    empty: Database, place: Place, run: Run
) -> None:
    """Each error says which option leaves one of the two behind, until the rest is migrated."""
    empty.execute(ALIKE)
    options: Tuple[str, ...] = ()
    for wanted in ("orders", "people.name", "Orders.Id", "Orders.id"):
        done = run(
            *("discover.py", "--postgres-url", empty.url, "--root", "people", "--named-by", "name", *options),
            *("--output", place.folder / "made"),
        )
        assert done.code == 2 and "--exclude '%s'" % wanted in done.err, done.err
        options += ("--exclude", {"people.name": "people.Name", "Orders.id": "Orders.ID"}.get(wanted, wanted))
    config = discovered(empty, place, run, "people", "--named-by", "name", *options)
    assert (config["EXCLUDED_TABLES"], config["UNRELATED_TABLES"]) == (("orders",), ("nothing",))
    settings = settings_for(empty, place.folder, config, "ann")
    migrate_strictly(settings)
    with sqlite3.connect(str(settings.sqlite_path)) as database:
        found = [
            database.execute('SELECT * FROM "%s"' % name).fetchall() for name in ("people", "Orders", "lines")
        ]
    assert found == [[(1, "ann")], [(1, 1, 1)], [(1, 1, 3)]]
    mapping = (place.folder / "made" / "migration_mapping.md").read_text(encoding="utf-8")
    assert "Column `Id` is left behind: --exclude names it." in mapping
