"""An application is discovered and migrated for each of its roots; plain SQL says which rows that are."""

from __future__ import annotations

import ast
import re
import sqlite3
from typing import Any, Dict, Set, Tuple

import pytest

from export_from_postgres import export
from migration.discovery.written import loaded
from migration.errors import MigrationError
from migration.settings import Settings
from support.applications import GARDENS, LENDING
from support.places import Place
from support.runs import Run
from support.servers import Database
from support.whole_runs import migrate_strictly, settings_for

_OPEN = re.compile(r"undecided\(\n\s+.*\n\s+(.*),\n(?:\s+['\"].*['\"],\n)*\s+\)")


def first_answers(text: str) -> str:
    """A config.py with each open question answered by its first choice."""
    return _OPEN.sub(lambda match: str(ast.literal_eval(match[1])), text)


def discovered(database: Database, place: Place, run: Run, root: str, *options: str) -> Dict[str, Any]:
    made = place.folder / "made"
    run("discover.py", "--postgres-url", database.url, "--root", root, "--output", made, *options, code=0)
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
    "settings": "login",
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
    done = run("discover.py", "--postgres-url", empty.url, "--root", "Gardener", "--output", made, code=0)
    options = ("migrate.py", "--config", made / "config.py", "--user", "rob@example.com")
    done = run(*options, own=False, code=2)
    assert "leaves open how rows belong to 2 tables" in done.err
    text = first_answers((made / "config.py").read_text(encoding="utf-8"))
    (made / "config.py").write_text(text.replace('LEAVING = "stop"', 'LEAVING = "bring"'), encoding="utf-8")
    done = run(*options, own=False)
    assert (done.code, "Validation: PASS" in done.out) == (0, True), done.err
    with sqlite3.connect(str(made / "app.db")) as database:
        # rob helps in plot 1, which is pia's: she is brought
        assert database.execute('SELECT id FROM "Gardener" ORDER BY id').fetchall() == [("g1",), ("g2",)]
        assert database.execute('SELECT "plotId" FROM "PlotHelper"').fetchall() == [(1,)]


# Nothing but values says whose most of these rows are; of each kind some are of accounts that are gone, or of nobody
KITCHEN = """
CREATE TABLE cooks (id uuid PRIMARY KEY, login text UNIQUE NOT NULL);
INSERT INTO cooks SELECT md5(login)::uuid, login FROM unnest(ARRAY['ann', 'bob', 'cid']) login;
CREATE FUNCTION key(login text) RETURNS uuid LANGUAGE sql AS 'SELECT md5($1)::uuid';
CREATE TABLE recipes (id int PRIMARY KEY, cook_id uuid REFERENCES cooks);
INSERT INTO recipes VALUES (1, key('ann')), (2, key('bob')), (3, NULL), (4, NULL);
CREATE TABLE remarks (id int PRIMARY KEY, recipe_id int NOT NULL REFERENCES recipes, written_by uuid NOT NULL);
INSERT INTO remarks VALUES (1, 1, key('ann')), (2, 3, key('bob')), (3, 3, key('ann')), (4, 4, key('cid')), (5, 2, key('bob'));
CREATE TABLE loans (id int PRIMARY KEY, recipe_id int REFERENCES recipes, borrower text);
INSERT INTO loans VALUES (1, 1, key('ann')), (2, NULL, key('ann')), (3, 2, key('bob')), (4, NULL, 'gone');
CREATE TABLE log (id int PRIMARY KEY, who text);
INSERT INTO log VALUES (1, upper(key('ann')::text)), (2, '{' || key('bob') || '}'), (3, 'system'), (4, key('gone')), (5, key('bob'));
CREATE TABLE late (id int PRIMARY KEY, who uuid);
INSERT INTO late SELECT g, CASE WHEN g > 5000 THEN key('cid') END FROM generate_series(1, 5001) g;
CREATE TABLE parties (id int PRIMARY KEY, cooks uuid[], names text[]);
INSERT INTO parties VALUES (1, ARRAY[key('ann'), key('bob')]), (2, ARRAY[key('cid')]), (3, '{}'), (4, NULL);
CREATE TABLE texts (id int PRIMARY KEY, guests text[]);
INSERT INTO texts VALUES (1, ARRAY[key('ann')::text, 'x']), (2, ARRAY[key('cid')::text]);
CREATE TABLE settings (login text PRIMARY KEY, is_dark boolean); INSERT INTO settings SELECT login, true FROM cooks;
CREATE TABLE courses (id int PRIMARY KEY, name text); INSERT INTO courses VALUES (1, 'a'), (2, 'b'), (3, 'c');
CREATE TABLE ratings (id int PRIMARY KEY, course_id int NOT NULL REFERENCES courses, cook text);
INSERT INTO ratings VALUES (1, 1, key('ann')), (2, 2, key('bob')), (3, 1, key('bob'));
CREATE TABLE kitchens (id uuid PRIMARY KEY, slug text UNIQUE NOT NULL, cook_id uuid NOT NULL REFERENCES cooks);
INSERT INTO kitchens SELECT md5(login || 'k')::uuid, 'at-' || login, id FROM cooks;
CREATE TABLE stays (id int PRIMARY KEY, at text); INSERT INTO stays VALUES (1, 'at-ann'), (2, 'at-bob'), (3, 'at-ann'), (4, NULL);
CREATE TABLE content_types (id int PRIMARY KEY, app_label text, model text);
INSERT INTO content_types VALUES (7, 'food', 'rating'), (8, 'food', 'cook'), (9, 'food', 'course');
CREATE TABLE pins (id int PRIMARY KEY, content_type_id int NOT NULL REFERENCES content_types, object_id text NOT NULL);
INSERT INTO pins VALUES (1, 7, '1'), (2, 7, '3'), (3, 8, key('ann')), (4, 8, key('cid')), (5, 7, '999'), (6, 8, '1');
"""
PINS = (
    "(content_type_id = 8 AND object_id = '{0}') OR (content_type_id = 7 AND object_id IN (SELECT id::text FROM ratings WHERE"
    " cook = '{0}'))"
)
ANSWERED = {
    "recipes": "cook_id = '{0}' OR id IN (SELECT recipe_id FROM remarks WHERE written_by = '{0}')",  # not all that are nobody's
    "remarks": "written_by = '{0}'",
    "loans": "borrower = '{0}'",
    "log": "lower(btrim(who, '}}{{')) = '{0}'",
    "late": "who = '{0}'",
    "parties": "'{0}' = ANY (cooks)",
    "texts": "'{0}' = ANY (guests)",
    "settings": "login = (SELECT login FROM cooks WHERE id = '{0}')",
    "courses": "id IN (SELECT course_id FROM ratings WHERE cook = '{0}')",
    "ratings": "cook = '{0}'",
    "kitchens": "cook_id = '{0}'",
    "stays": "at = (SELECT slug FROM kitchens WHERE cook_id = '{0}')",
    "pins": PINS,
    "content_types": "id IN (SELECT content_type_id FROM pins WHERE %s)" % PINS,
}


def test_rows_that_say_by_their_values_alone_whose_they_are(empty: Database, place: Place, run: Run) -> None:
    empty.execute(KITCHEN)
    config = discovered(empty, place, run, "cooks")
    asked = (place.folder / "made" / "config.py").read_text(encoding="utf-8").count("undecided(\n")
    assert (asked, config["UNRELATED_TABLES"]) == (10, ())
    for name in ("ann", "bob", "cid"):
        ((key,),) = empty.rows("SELECT id::text FROM cooks WHERE login = %s", (name,))
        found = migrated(settings_for(empty, place.folder, config, name))
        assert found.pop("cooks") == [(key,)]
        assert found == by_hand(empty, ANSWERED, key), name


def test_export_stops_where_what_said_the_same_no_longer_does(
    empty: Database, place: Place, run: Run
) -> None:
    empty.execute(
        """
        CREATE TABLE cooks (id uuid PRIMARY KEY, login text UNIQUE);
        INSERT INTO cooks SELECT md5(login)::uuid, login FROM unnest(ARRAY['ann', 'bob']) login;
        CREATE TABLE recipes (id int PRIMARY KEY, cook_id uuid NOT NULL REFERENCES cooks);
        INSERT INTO recipes SELECT row_number() OVER (), id FROM cooks;
        CREATE TABLE remarks (id int PRIMARY KEY, recipe_id int NOT NULL REFERENCES recipes, x uuid);
        INSERT INTO remarks SELECT id, id, cook_id FROM recipes; INSERT INTO remarks VALUES (3, 1, NULL);
        ALTER TABLE remarks ADD cook_id uuid;
        """
    )
    config = discovered(empty, place, run, "cooks")
    assert len(migrated(settings_for(empty, place.folder, config, "ann"))["remarks"]) == 2
    for column in ("x", "cook_id"):  # the second one had no value yet
        empty.execute(
            "INSERT INTO remarks (id, recipe_id, %s) SELECT 4, 1, id FROM cooks WHERE login = 'bob'" % column
        )
        (place.folder / column).mkdir()
        (place.folder / column / "made").symlink_to(place.folder / "made")
        with pytest.raises(MigrationError, match="remarks 4: %s leads to no exported row of cooks" % column):
            export(settings_for(empty, place.folder / column, config, "ann"))
        empty.execute("DELETE FROM remarks WHERE id = 4")


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
