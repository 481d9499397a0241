"""Of which class each table is, by its keys, its names and its data."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Tuple

import pytest

import config
from migration.discovery.classed import Classes
from migration.discovery.classes import classify
from migration.discovery.one_root import rows_of_one
from migration.discovery.references import find_references
from migration.discovery.source import Source, find_root, read_source, schema_of_root
from migration.discovery.words import written
from migration.errors import MigrationError
from migration.model import Way, child_of
from migration.postgres import connecting
from support.applications import GARDENS, LENDING
from support.migrations import settings_of
from support.places import Place
from support.servers import Database

PEOPLE = (
    "CREATE TABLE people (id int PRIMARY KEY, email text UNIQUE);"
    "INSERT INTO people VALUES (1, 'a'), (2, 'b'), (3, 'c');"
)


@contextmanager
def opened(database: Database, place: Place, root: str) -> Iterator[Tuple[Source, Classes]]:
    with connecting.opened(settings_of(database.url, place, tables=())) as db:
        db.schema, name = schema_of_root(db, root)
        source = read_source(db)
        found = find_root(source, name, None)
        looked_at: List[int] = []
        classes = classify(source, found, find_references(source, found.name), looked_at.append)
        assert sum(looked_at) == len(source.tables)  # where a terminal's progress bar ends
        yield source, classes


def classes_of(database: Database, place: Place, root: str = "people") -> Dict[str, Any]:
    """What config.py would say of each table; of an open question the choices; the group where it says nothing."""
    with opened(database, place, root) as (_, classes):
        return {
            table.name: table.group.value
            if table.rule is None
            else table.rule.texts[1:]
            if table.rule.way is Way.UNDECIDED
            else written(table.rule)
            for table in classes.tables
        }


def test_application_of_serial_ids(empty: Database, place: Place) -> None:
    empty.execute(LENDING)
    assert classes_of(empty, place, "members") == {
        "members": "the_root()",
        "lists": 'owned_by("member_id")',
        "books": 'owned_by("member_id")',
        "book_covers": 'child_of("books", "book_id")',
        "covers": "referenced()",
        "notes": 'owned_by("member_id")',
        "preferences": 'owned_by("member_id")',
        "visits": 'owned_by("member_id")',
        "settings_of_all": "nobody's",
    }


def test_application_of_quoted_names_and_rows_that_others_share(empty: Database, place: Place) -> None:
    empty.execute(GARDENS)
    found = classes_of(empty, place, "Gardener")
    assert found == {
        "Gardener": "the_root()",
        "Plan": 'owned_by("gardenerId")',
        "Plot": (
            'owned_by("ownerId")',
            'owned_by("madeById")',
            'all_of(owned_by("ownerId"), owned_by("madeById"))',
            'any_of(owned_by("ownerId"), owned_by("madeById"))',
        ),
        "PlotHelper": (
            'owned_by("gardenerId")',
            'child_of("Plot", "plotId")',
            'all_of(owned_by("gardenerId"), child_of("Plot", "plotId"))',
            'any_of(owned_by("gardenerId"), child_of("Plot", "plotId"))',
        ),
        "Plant": 'child_of("Plot", "plotId")',
        "Label": 'owned_by("ownerId")',
        "_LabelToPlant": 'all_of(child_of("Label", "A"), child_of("Plant", "B"))',
        "Season": 'child_of("Plant", "plantId")',
        "Harvest": 'child_of("Season", ("plantId", "year"))',
        "_migrations": "nobody's",
    }
    assert list(found).index("Plot") < list(found).index("Plant") < list(found).index("Season")


def test_shipped_configuration_is_what_the_catalog_says(sample_database: Database, place: Place) -> None:
    """But for what no catalog says: that rows of nobody are everybody's, and that a cache is worth taking along."""
    found = classes_of(sample_database, place, "users")
    assert found.pop("location_cache") == "nobody's"
    shipped = {table.name: written(table.ownership) for table in config.TABLES}
    assert shipped.pop("location_cache") == "shared()"
    shipped["interpretations"] = shipped["interpretations"].replace(", or_shared=True", "")
    assert found == shipped


A = "CREATE TABLE a (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people); INSERT INTO a VALUES (1, 1), (2, 2);"
ANY_AB = 'any_of(owned_by("a"), owned_by("b"))'
# A schema, and what its table t is found to be
SHAPES = {
    "hangs on what hangs on rows that others refer to": (
        "CREATE TABLE teams (id int PRIMARY KEY); INSERT INTO teams VALUES (1);"
        "CREATE TABLE members (team_id int REFERENCES teams, person_id int REFERENCES people);"
        "CREATE TABLE pages (id int PRIMARY KEY, team_id int NOT NULL REFERENCES teams);"
        "CREATE TABLE t (page_id int NOT NULL REFERENCES pages); INSERT INTO members VALUES (1, 1)",
        ('child_of("pages", "page_id")', 'no entry here, and "t" in UNRELATED_TABLES'),
    ),
    "agree: the way that is never NULL": (
        A
        + "CREATE TABLE t (id int PRIMARY KEY, person_id int REFERENCES people, a_id int NOT NULL REFERENCES a);"
        "INSERT INTO t VALUES (1, 1, 1), (2, NULL, 2)",
        'child_of("a", "a_id")',
    ),
    "agree, and each way says it of some rows": (
        A + "CREATE TABLE t (person_id int REFERENCES people, a_id int REFERENCES a);"
        "INSERT INTO t VALUES (1, NULL), (NULL, 2)",
        'any_of(owned_by("person_id"), child_of("a", "a_id"))',
    ),
    "two parents that disagree: both must be mine": (
        A
        + "CREATE TABLE t (id int PRIMARY KEY, a_id int NOT NULL REFERENCES a, b_id int NOT NULL REFERENCES a);"
        "INSERT INTO t VALUES (1, 1, 2), (2, 2, 2)",
        (
            'all_of(child_of("a", "a_id"), child_of("a", "b_id"))',
            'child_of("a", "a_id")',
            'child_of("a", "b_id")',
            'any_of(child_of("a", "a_id"), child_of("a", "b_id"))',
        ),
    ),
    "one row each of one parent, with another one": (
        A + "CREATE TABLE t (a_id int PRIMARY KEY REFERENCES a, b_id int NOT NULL REFERENCES a, note text);"
        "INSERT INTO t VALUES (1, 1), (2, 2)",
        'child_of("a", "a_id")',
    ),
    "rows of nobody that rows of somebody name": (
        "CREATE TABLE t (id int PRIMARY KEY, person_id int REFERENCES people); INSERT INTO t VALUES (1, 1), (2, NULL);"
        "CREATE TABLE a (person_id int NOT NULL REFERENCES people, t_id int REFERENCES t);"
        "INSERT INTO a VALUES (1, 1), (2, 2)",
        (
            'owned_by("person_id", or_shared=True)',
            'any_of(owned_by("person_id"), referenced())',
            'owned_by("person_id")',
        ),
    ),
    "a tree with rows of nobody and of others": (
        "CREATE TABLE t (id int PRIMARY KEY, person_id int REFERENCES people, up int REFERENCES t);"
        "INSERT INTO t VALUES (1, 1, NULL), (2, NULL, 1), (3, 2, 1), (4, 2, 3)",
        (
            """any_of(owned_by("person_id"), all_of(child_of("t", "up"), where('t."person_id" IS NULL')))""",
            'owned_by("person_id")',
            'any_of(owned_by("person_id"), child_of("t", "up"))',
        ),
    ),
    "a composite key that one NULL takes out": (
        "CREATE TABLE rooms (person_id int NOT NULL REFERENCES people, no int, PRIMARY KEY (person_id, no));"
        "CREATE TABLE t (person_id int, no int, FOREIGN KEY (person_id, no) REFERENCES rooms);"
        "INSERT INTO rooms VALUES (1, 1), (2, 1); INSERT INTO t VALUES (1, 1), (1, NULL), (2, 1)",
        'owned_by("person_id")',
    ),
    "an end of a join table that is nobody's": (
        "CREATE TABLE t (id int PRIMARY KEY, person_id int REFERENCES people); CREATE TABLE a (id int PRIMARY KEY, person_id int NOT NULL"
        " REFERENCES people); CREATE TABLE j (a_id int NOT NULL REFERENCES a, t_id int NOT NULL REFERENCES t, PRIMARY KEY (a_id, t_id));"
        "INSERT INTO t VALUES (1, 1), (2, NULL); INSERT INTO a VALUES (1, 1), (2, 2); INSERT INTO j VALUES (1, 1), (1, 2), (2, 2)",
        ('owned_by("person_id", or_shared=True)', 'owned_by("person_id")'),
    ),
    "undeclared, beside another way, with a row that is gone": (
        "CREATE TABLE t (by_id int REFERENCES people, person_id int); INSERT INTO t VALUES (1, 2), (2, 1), (3, 9)",
        (
            'owned_by("by_id")',
            'owned_by("person_id")',
            *('%s(owned_by("by_id"), owned_by("person_id"))' % several for several in ("all_of", "any_of")),
        ),
    ),
    "undeclared, beside another way, and the same": (
        "CREATE TABLE a (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people); INSERT INTO a VALUES (1, 1), (2, 2);"
        "CREATE TABLE t (a_id int NOT NULL REFERENCES a, author int); INSERT INTO t VALUES (1, 1), (2, 2), (2, NULL)",
        'child_of("a", "a_id")',
    ),
    "undeclared, beside rows of nobody": (
        "CREATE TABLE a (id int PRIMARY KEY, person_id int REFERENCES people); INSERT INTO a VALUES (1, 1), (2, NULL);"
        "CREATE TABLE t (a_id int NOT NULL REFERENCES a, written_by text NOT NULL); INSERT INTO t VALUES (1, 1), (2, 2)",
        (
            'owned_by("written_by")',
            'child_of("a", "a_id")',
            'all_of(owned_by("written_by"), child_of("a", "a_id"))',
            'any_of(owned_by("written_by"), child_of("a", "a_id"))',
        ),
    ),
    "undeclared, in a join table": (
        A
        + "CREATE TABLE t (a_id int NOT NULL REFERENCES a, b_id int NOT NULL REFERENCES a, by int, UNIQUE (a_id, b_id));"
        "INSERT INTO t VALUES (1, 1, 1), (2, 2, 1)",
        (
            'all_of(child_of("a", "a_id"), child_of("a", "b_id"))',
            'owned_by("by")',
            'all_of(child_of("a", "a_id"), child_of("a", "b_id"), owned_by("by"))',
            'any_of(all_of(child_of("a", "a_id"), child_of("a", "b_id")), owned_by("by"))',
        ),
    ),
    "named by name": (
        "CREATE TABLE t (mail text); INSERT INTO t VALUES ('a'), ('b'), ('gone')",
        (
            """where('t."mail" = (SELECT u."email" FROM "public"."people" u WHERE u."id" = {root})')""",
            "shared()",
        ),
    ),
    "chance: small numbers beside another way": (
        "CREATE TABLE t (person_id int NOT NULL REFERENCES people, place int); INSERT INTO t VALUES (1, 2), (2, 1)",
        'owned_by("person_id")',
    ),
    "rows of nobody, on which a root's hang": (
        "CREATE TABLE t (id int PRIMARY KEY, person_id int REFERENCES people); INSERT INTO t VALUES (1, 1), (2, NULL);"
        "CREATE TABLE a (t_id int NOT NULL REFERENCES t, author_id int REFERENCES people); INSERT INTO a VALUES (1, NULL), (2, 2)",
        (
            'any_of(owned_by("person_id"), referenced())',
            'owned_by("person_id")',
            'owned_by("person_id", or_shared=True)',
        ),
    ),
    "one column for several tables, with rows that are gone": (
        "CREATE TABLE posts (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people); CREATE TABLE photos (id int PRIMARY KEY,"
        " person_id int NOT NULL REFERENCES people); CREATE TABLE t (on_type text, on_id int); INSERT INTO posts VALUES (1, 1), (2, 2);"
        "INSERT INTO photos VALUES (1, 2), (2, 1); INSERT INTO t VALUES ('Post', 1), ('Photo', 2), ('Post', 99), ('Photo', 99)",
        'any_of(child_of("photos", "on_id"), child_of("posts", "on_id"))',
    ),
    "one column for several tables, as Django has it": (
        "CREATE TABLE types (id int PRIMARY KEY, app_label text, model text); INSERT INTO types VALUES (7, 'shop', 'timeentry'),"
        " (8, 'shop', 'post'), (9, 'auth', 'group'); CREATE TABLE shop_time_entries (id int PRIMARY KEY, person_id int NOT NULL"
        " REFERENCES people); CREATE TABLE posts (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people);"
        "INSERT INTO posts VALUES (1, 1); INSERT INTO shop_time_entries VALUES (1, 2);"
        "CREATE TABLE t (content_type_id int REFERENCES types, object_id text); INSERT INTO t VALUES (7, '1'), (8, '1'), (9, '1')",
        'any_of(child_of("shop_time_entries", "object_id"), child_of("posts", "object_id"))',
    ),
    "one column for several tables, without a word in front": (
        A
        + "CREATE TABLE t (kind text, ref int); INSERT INTO t VALUES ('A', 1), ('A', 2), (NULL, 1), ('people', 3)",
        'any_of(owned_by("ref"), child_of("a", "ref"))',
    ),
    "one column for several tables, by values under any name": (
        A
        + "CREATE TABLE logs (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people); INSERT INTO logs VALUES (1, 2);"
        "CREATE TABLE t (tbl text, row_id int); INSERT INTO t VALUES ('a', 1), ('logs', 1), ('A', 2)",
        'any_of(child_of("a", "row_id"), child_of("logs", "row_id"))',
    ),
    "one column for several tables, beside a word that is one of them": (
        A
        + "CREATE TABLE logs (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people); INSERT INTO logs VALUES (1, 2), (2, 1);"
        "CREATE TABLE t (item text, log_id int); INSERT INTO t VALUES ('a', 1), ('log', 1), ('a', 2)",
        'any_of(child_of("a", "log_id"), child_of("logs", "log_id"))',
    ),
    "a row of any table": (
        A
        + "CREATE TABLE t (id int PRIMARY KEY, parent_id int NOT NULL); INSERT INTO t VALUES (7, 1), (8, 2)",
        ('where("false")', "shared()"),
    ),
    "one column for several tables, by a table of types": (
        A
        + "CREATE TABLE logs (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people); INSERT INTO logs VALUES (1, 2), (2, 1);"
        "CREATE TABLE kinds (id int PRIMARY KEY, name text); INSERT INTO kinds VALUES (7, 'a'), (8, 'log');"
        "CREATE TABLE t (what int REFERENCES kinds, log_id int); INSERT INTO t VALUES (7, 1), (8, 1), (7, 2)",
        'any_of(child_of("a", "log_id"), child_of("logs", "log_id"))',
    ),
    "a word that is called like a table, beside a key of another": (
        A
        + "CREATE TABLE logs (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people); INSERT INTO logs VALUES (1, 2), (2, 1);"
        "CREATE TABLE t (unit text, log_id int); INSERT INTO t VALUES ('a', 1), ('a', 2)",
        ('where("false")', 'child_of("logs", "log_id")', "shared()"),
    ),
    "a boolean that says of which table": (
        A + "CREATE TABLE t (is_person boolean, a_id int); INSERT INTO t VALUES (true, 1), (false, 2)",
        ('where("false")', 'child_of("a", "a_id")', "shared()"),
    ),
    "one column for several tables, of whatever there is no word of": (
        "CREATE TABLE t (on_type text, on_id int); INSERT INTO t VALUES ('X', 1), ('Y', 2)",
        ('where("false")', "shared()"),
    ),
    "one column for several tables, empty": (
        "CREATE TABLE t (on_type text, on_id int)",
        ('where("false")', "shared()"),
    ),
    "a number that says of which table": (
        A + "CREATE TABLE t (a_type smallint, a_id int); INSERT INTO t VALUES (1, 1), (2, 2)",
        ('where("false")', 'child_of("a", "a_id")', "shared()"),
    ),
    "called after another unique column": (
        "ALTER TABLE people ADD legacy_id int UNIQUE; UPDATE people SET legacy_id = 4 - id;"
        "CREATE TABLE t (legacy_person_id int); INSERT INTO t VALUES (1), (2)",
        'child_of("people", "legacy_person_id")',
    ),
    "beside another unique column": (
        "ALTER TABLE people ADD number int UNIQUE; CREATE TABLE t (old_person_id int); INSERT INTO t VALUES (1), (2)",
        ('owned_by("old_person_id")', "shared()"),
    ),
    "named by another unique column": (
        "ALTER TABLE people ADD token uuid UNIQUE; UPDATE people SET token = md5(email)::uuid;"
        "CREATE TABLE t (x text); INSERT INTO t SELECT token FROM people",
        (
            """where('t."x" = (SELECT u."token" FROM "public"."people" u WHERE u."id" = {root})')""",
            "shared()",
        ),
    ),
    "called after a table whose name ends in key": (
        "CREATE TABLE api_keys (token text PRIMARY KEY, person_id int NOT NULL REFERENCES people);"
        "INSERT INTO api_keys VALUES ('k1', 1), ('k2', 2); CREATE TABLE t (api_key text); INSERT INTO t VALUES ('k1'), ('k2')",
        'child_of("api_keys", "api_key")',
    ),
    "keys of a table of the root's under any name": (
        "CREATE TABLE lists (id uuid PRIMARY KEY, person_id int NOT NULL REFERENCES people);"
        "INSERT INTO lists SELECT md5(id::text)::uuid, id FROM people;"
        "CREATE TABLE t (x text); INSERT INTO t SELECT id::text FROM lists UNION ALL SELECT md5('gone')",
        ('child_of("lists", "x")', "shared()"),
    ),
    "keys of a table of the root's beside another way": (
        "CREATE TABLE lists (id uuid PRIMARY KEY, person_id int NOT NULL REFERENCES people);"
        "INSERT INTO lists SELECT md5(id::text)::uuid, id FROM people;"
        "CREATE TABLE t (person_id int NOT NULL REFERENCES people, l uuid NOT NULL); INSERT INTO t SELECT 4 - person_id, id FROM lists",
        (
            'owned_by("person_id")',
            'child_of("lists", "l")',
            'all_of(owned_by("person_id"), child_of("lists", "l"))',
            'any_of(owned_by("person_id"), child_of("lists", "l"))',
        ),
    ),
    "a number that is called like a table": (
        "CREATE TABLE pages (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people); INSERT INTO pages VALUES (1, 1), (2, 2);"
        "CREATE TABLE t (page int NOT NULL); INSERT INTO t VALUES (1), (2)",
        ('where("false")', 'child_of("pages", "page")', "shared()"),
    ),
    "called as a foreign key is elsewhere, and after another table": (
        "CREATE TABLE other_people (id int PRIMARY KEY, person int NOT NULL REFERENCES people); INSERT INTO other_people VALUES (1, 3), (2, 1);"
        "CREATE TABLE b (person_id int NOT NULL REFERENCES other_people);"
        "CREATE TABLE t (person_id int NOT NULL); INSERT INTO t VALUES (1), (2)",
        ('owned_by("person_id")', "shared()"),
    ),
    "called as a foreign key is elsewhere": (
        A
        + "CREATE TABLE b (x_id int NOT NULL REFERENCES a); CREATE TABLE t (x_id int NOT NULL); INSERT INTO t VALUES (1), (2)",
        'child_of("a", "x_id")',
    ),
    "called as the end of a table's name": (
        "CREATE TABLE cart_items (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people); INSERT INTO cart_items VALUES (1, 1);"
        "CREATE TABLE t (item_id int); INSERT INTO t VALUES (1)",
        ('where("false")', 'child_of("cart_items", "item_id")', "shared()"),
    ),
    "one column for several tables, one of which comes along": (
        "CREATE TABLE docs (id int PRIMARY KEY); CREATE TABLE a (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people, doc_id"
        " int REFERENCES docs); INSERT INTO docs VALUES (1); INSERT INTO a VALUES (1, 1, 1);"
        "CREATE TABLE t (on_type text, on_id int); INSERT INTO t VALUES ('a', 1), ('Doc', 1)",
        (
            'any_of(child_of("a", "on_id"), child_of("docs", "on_id", or_referenced=True))',
            'child_of("a", "on_id")',
        ),
    ),
    "one column for several tables, all of which come along": (
        "CREATE TABLE docs (id int PRIMARY KEY); CREATE TABLE a (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people, doc_id"
        " int REFERENCES docs); INSERT INTO docs VALUES (1); INSERT INTO a VALUES (1, 1, 1);"
        "CREATE TABLE t (on_type text, on_id int); INSERT INTO t VALUES ('Doc', 1)",
        (
            'child_of("docs", "on_id", or_referenced=True)',
            'no entry here, and "t" in UNRELATED_TABLES',
        ),
    ),
    "what members share": (
        "CREATE TABLE threads (id int PRIMARY KEY); INSERT INTO threads VALUES (1), (2); CREATE TABLE members (thread_id int NOT NULL"
        " REFERENCES threads, person_id int NOT NULL REFERENCES people, PRIMARY KEY (thread_id, person_id));"
        "INSERT INTO members VALUES (1, 1), (1, 2), (2, 3); CREATE TABLE t (thread_id int NOT NULL REFERENCES threads, sender int"
        " NOT NULL REFERENCES people); INSERT INTO t VALUES (1, 1), (2, 3)",
        (
            'owned_by("sender")',
            'any_of(owned_by("sender"), child_of("threads", "thread_id", or_referenced=True))',
        ),
    ),
    "what hangs on rows that come along, and names others": (
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE kinds (id int PRIMARY KEY);"
        "CREATE TABLE notes (kind_id int NOT NULL REFERENCES kinds, t_id int NOT NULL REFERENCES t);"
        "CREATE TABLE a (person_id int NOT NULL REFERENCES people, kind_id int REFERENCES kinds)",
        "referenced()",
    ),
    "called after movies": (
        "CREATE TABLE movies (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people); INSERT INTO movies VALUES (1, 1);"
        "CREATE TABLE t (movie_id int); INSERT INTO t VALUES (1)",
        'child_of("movies", "movie_id")',
    ),
    "called after statuses": (
        "CREATE TABLE statuses (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people); INSERT INTO statuses VALUES (1, 1);"
        "CREATE TABLE t (status_id int); INSERT INTO t VALUES (1)",
        'child_of("statuses", "status_id")',
    ),
    "called after caches": (
        "CREATE TABLE caches (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people); INSERT INTO caches VALUES (1, 1);"
        "CREATE TABLE t (fk_cache int); INSERT INTO t VALUES (1)",
        'child_of("caches", "fk_cache")',
    ),
    "called after orders": (
        "CREATE TABLE orders (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people); INSERT INTO orders VALUES (1, 1);"
        "CREATE TABLE t (orderid int); INSERT INTO t VALUES (1)",
        'child_of("orders", "orderid")',
    ),
    "keys of a table of the root's that are large numbers": (
        "CREATE TABLE rooms (id bigint PRIMARY KEY, person_id int NOT NULL REFERENCES people);"
        "INSERT INTO rooms SELECT 900000000000000000 + id, id FROM people; CREATE TABLE t (x bigint); INSERT INTO t SELECT id FROM rooms",
        ('child_of("rooms", "x")', "shared()"),
    ),
    "a cycle, of which one table has a way for all rows": (
        A + "CREATE TABLE z (id int PRIMARY KEY, a_id int REFERENCES a, last int);"
        "CREATE TABLE t (id int PRIMARY KEY, doc_id int REFERENCES z, b_id int REFERENCES a); ALTER TABLE z ADD FOREIGN KEY (last)"
        " REFERENCES t; INSERT INTO z VALUES (1, 1), (2, 2); INSERT INTO t VALUES (1, 1, 1), (2, 2, NULL); UPDATE z SET last = id",
        'child_of("z", "doc_id")',
    ),
    "persons whose root may change": (
        "CREATE TABLE t (id int PRIMARY KEY, email text, current_person int REFERENCES people); INSERT INTO t VALUES (1, 'x', 1), (2, 'y', 2);"
        "CREATE TABLE a (person_id int NOT NULL REFERENCES people, t_id int NOT NULL REFERENCES t); INSERT INTO a VALUES (1, 2)",
        (
            'owned_by("current_person")',
            'any_of(owned_by("current_person"), referenced())',
            "referenced()",
        ),
    ),
    "named by a number that the column is called after": (
        "ALTER TABLE people ADD staff_number int UNIQUE; UPDATE people SET staff_number = 4 - id;"
        "CREATE TABLE t (staff_id int); INSERT INTO t VALUES (1), (2)",
        (
            """where('t."staff_id" = (SELECT u."staff_number" FROM "public"."people" u WHERE u."id" = {root})')""",
            "shared()",
        ),
    ),
    "a join table of rows of several roots": (
        A
        + "CREATE TABLE t (buyer_a int REFERENCES a NOT NULL, seller_a int REFERENCES a NOT NULL, n int, PRIMARY KEY (buyer_a, seller_a));"
        "INSERT INTO t VALUES (1, 2, 1), (2, 2, 1)",
        (
            'all_of(child_of("a", "buyer_a"), child_of("a", "seller_a"))',
            'child_of("a", "buyer_a")',
            'child_of("a", "seller_a")',
            'any_of(child_of("a", "buyer_a"), child_of("a", "seller_a"))',
        ),
    ),
    "beside keys of types that are no text": (
        "CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE k1 (k mood PRIMARY KEY, person_id int REFERENCES people); CREATE TABLE k2"
        " (k inet PRIMARY KEY, person_id int REFERENCES people); CREATE TABLE k3 (k varchar(9) PRIMARY KEY, person_id int REFERENCES people);"
        "CREATE TABLE k4 (k char(9) PRIMARY KEY, person_id int REFERENCES people); INSERT INTO k1 VALUES ('ok', 1);"
        "INSERT INTO k2 VALUES ('::1', 1); INSERT INTO k3 VALUES ('eins', 1); INSERT INTO k4 VALUES ('zwei', 1);"
        "CREATE TABLE t (x text); INSERT INTO t VALUES ('zwei'), ('zwei')",
        ('child_of("k4", "x")', "shared()"),
    ),
    "keys of a table of the root's in arrays": (
        "CREATE TABLE lists (id uuid PRIMARY KEY, person_id int NOT NULL REFERENCES people);"
        "INSERT INTO lists SELECT md5(id::text)::uuid, id FROM people; CREATE TABLE t (x uuid[]); INSERT INTO t SELECT array_agg(id) FROM lists",
        ('where("false")', "shared()"),
    ),
    "a part of a key of several columns": (
        "CREATE TABLE a (person_id int REFERENCES people, id int, PRIMARY KEY (person_id, id)); INSERT INTO a VALUES (1, 1);"
        "CREATE TABLE t (a_id int); INSERT INTO t VALUES (1)",
        ('where("false")', "shared()"),
    ),
    "the row above, of another table": (
        A
        + "CREATE TABLE a_line (id int PRIMARY KEY, parent_id int); INSERT INTO a_line VALUES (1, 1), (2, 2);"
        "CREATE TABLE t (a_line_id int NOT NULL REFERENCES a_line); INSERT INTO t VALUES (1)",
        'child_of("a_line", "a_line_id")',
    ),
    "inheritance: what names a row of the heir": (
        "CREATE TABLE docs (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people); INSERT INTO docs VALUES (1, 1);"
        "CREATE TABLE contracts (until date) INHERITS (docs); INSERT INTO contracts VALUES (2, 2);"
        "CREATE TABLE t (doc_id int); INSERT INTO t VALUES (1), (2)",
        ('child_of("docs", "doc_id")', "shared()"),
    ),
    "undeclared, of one type that is no whole number": (
        "CREATE TABLE a (id numeric(20) PRIMARY KEY, person_id int REFERENCES people); CREATE TABLE t (a_id numeric);"
        "INSERT INTO a VALUES (7, 1); INSERT INTO t VALUES (7.0)",
        'child_of("a", "a_id")',
    ),
    "undeclared, of another type": (
        "CREATE TABLE t (by_person text); INSERT INTO t VALUES ('1'), ('2')",
        ('owned_by("by_person")', "shared()"),
    ),
    "numbers that are keys, and tell rows apart only together": (
        "CREATE TABLE t (a int, b int, since int, UNIQUE (a, b)); INSERT INTO t VALUES (1, 2, 1), (2, 3, 4)",
        ('owned_by("a")', 'owned_by("b")', ANY_AB, ANY_AB.replace("any", "all"), "shared()"),
    ),
    "names without an ASCII letter": (
        """CREATE TABLE t ("ä" int, "%" int, "размер_type" text, person_id int REFERENCES people); INSERT INTO t VALUES (1, 1, 'x', 1)""",
        'owned_by("person_id")',
    ),
    "undeclared, by its name": (
        "CREATE TABLE t (person_id int); INSERT INTO t VALUES (1), (NULL)",
        'owned_by("person_id")',
    ),
    "undeclared, by the end of its name": (
        'CREATE TABLE t ("madeByPersonId" int); INSERT INTO t VALUES (2)',
        'owned_by("madeByPersonId")',
    ),
    "undeclared, by a parent's name": (
        "CREATE TABLE boxes (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people);"
        "CREATE TABLE t (box_id int); INSERT INTO boxes VALUES (7, 1); INSERT INTO t VALUES (7)",
        'child_of("boxes", "box_id")',
    ),
    "undeclared, by the name of a parent's key": (
        "CREATE TABLE things (box_no int PRIMARY KEY, person_id int NOT NULL REFERENCES people);"
        "CREATE TABLE t (box_no int); INSERT INTO things VALUES (7, 1); INSERT INTO t VALUES (7)",
        'child_of("things", "box_no")',
    ),
    "a key that is itself a reference to the root": (
        "CREATE TABLE badges (holder_no int PRIMARY KEY REFERENCES people); INSERT INTO badges VALUES (1), (2);"
        "CREATE TABLE t (holder_no int); INSERT INTO t VALUES (1), (2)",
        'owned_by("holder_no")',
    ),
    "undeclared, and a value leads nowhere": (
        "CREATE TABLE t (person_id int); INSERT INTO t VALUES (1), (9)",
        ('owned_by("person_id")', "shared()"),
    ),
    "undeclared, and no value": (
        "CREATE TABLE t (person_id int)",
        ('owned_by("person_id")', "shared()"),
    ),
    "the owner of most tables, of another type": (
        "CREATE TABLE a (person_id int REFERENCES people); CREATE TABLE t (person_id uuid)",
        ('owned_by("person_id")', "shared()"),
    ),
    "the owner of most tables, not counting those that are asked for": (
        "CREATE TABLE a (person_id int REFERENCES people); CREATE TABLE u (a int, b int, UNIQUE (a, b)); INSERT INTO u VALUES (1, 2),"
        " (2, 3); CREATE TABLE v (LIKE u INCLUDING ALL); INSERT INTO v SELECT * FROM u; CREATE TABLE t (person_id uuid)",
        ('owned_by("person_id")', "shared()"),
    ),
    "the owner of most tables, of which a foreign key says otherwise": (
        "CREATE TABLE a (person_id int REFERENCES people); CREATE TABLE alias (id int PRIMARY KEY);"
        "CREATE TABLE t (person_id int REFERENCES alias)",
        "nobody's",
    ),
    "a name of another type": ("CREATE TABLE t (person_id uuid)", ('where("false")', "shared()")),
    "referred to, over a chain": (
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, t_id int REFERENCES t);"
        "CREATE TABLE a (person_id int NOT NULL REFERENCES people, b_id int REFERENCES b)",
        "referenced()",
    ),
    "referred to by the root alone": (
        "CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE people ADD t_id int REFERENCES t",
        "referenced()",
    ),
    "a tree": (
        "CREATE TABLE t (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people, parent_id int REFERENCES t);"
        "INSERT INTO t VALUES (1, 1, NULL), (2, 1, 1)",
        'owned_by("person_id")',
    ),
    "a tree of which the root alone names its owner": (
        "CREATE TABLE t (id int PRIMARY KEY, person_id int REFERENCES people, parent_id int REFERENCES t);"
        "INSERT INTO t VALUES (1, 1, NULL), (2, NULL, 1), (3, NULL, 2)",
        ('any_of(owned_by("person_id"), child_of("t", "parent_id"))', 'owned_by("person_id")'),
    ),
    "a cycle": (
        "CREATE TABLE t (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people, last_id int);"
        "CREATE TABLE a (id int PRIMARY KEY, t_id int NOT NULL REFERENCES t);"
        "ALTER TABLE t ADD FOREIGN KEY (last_id) REFERENCES a",
        'owned_by("person_id")',
    ),
    "a cycle, of which a way that may be NULL comes first": (
        A + "CREATE TABLE t (id int PRIMARY KEY, a_id int REFERENCES a, u_id int NOT NULL);"
        "CREATE TABLE u (id int PRIMARY KEY, a_id int NOT NULL REFERENCES a, t_id int REFERENCES t);"
        "ALTER TABLE t ADD FOREIGN KEY (u_id) REFERENCES u DEFERRABLE INITIALLY DEFERRED;"
        "INSERT INTO t VALUES (1, NULL, 1); INSERT INTO u VALUES (1, 2, 1)",
        'child_of("u", "u_id")',
    ),
    "the root by another unique column": (
        "CREATE TABLE t (email text REFERENCES people (email)); INSERT INTO t VALUES ('a')",
        'child_of("people", "email")',
    ),
    "partitions are one with their table": (
        "CREATE TABLE t (id int, person_id int NOT NULL REFERENCES people) PARTITION BY LIST (person_id);"
        "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1, 2); INSERT INTO t VALUES (1, 2)",
        'owned_by("person_id")',
    ),
    "inheritance: columns of its own make a table of its own": (
        "CREATE TABLE p (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people, a int);"
        "CREATE TABLE t (more text) INHERITS (p); INSERT INTO p VALUES (1, 1); INSERT INTO t VALUES (2, 2)",
        'owned_by("person_id")',
    ),
    "inheritance: where a value leads nowhere": (
        "CREATE TABLE p (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people, a int);"
        "CREATE TABLE t (more text) INHERITS (p); INSERT INTO t VALUES (2, 9)",
        ('owned_by("person_id")', "shared()"),
    ),
    "a foreign table": (
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
        "CREATE FOREIGN TABLE t (person_id int) SERVER s",
        "left behind",
    ),
    "reserved words, and a table of another schema": (
        'CREATE SCHEMA "Other"; CREATE TABLE "Other"."T-1" (id int PRIMARY KEY, person_id int REFERENCES people);'
        'CREATE TABLE t ("select" int NOT NULL REFERENCES "Other"."T-1")',
        'child_of("Other.T-1", "select")',
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_table_is_classed(shape: str, empty: Database, place: Place) -> None:
    sql, expected = SHAPES[shape]
    empty.execute(PEOPLE + "CREATE TABLE anything (person_id int REFERENCES people);" + sql)
    assert classes_of(empty, place)["t"] == expected


def test_tables_of_any_width_and_type_are_looked_at(empty: Database, place: Place) -> None:
    columns = ", ".join("c%d text" % number for number in range(700))
    kinds = "oid, regclass, money, real, double precision, numeric, bigint[], inet, int4range, tsvector, json, jsonb, xml, bit(3)"
    odd = ", ".join(
        "k%d %s" % pair
        for pair in enumerate(
            (kinds + ', interval, date, time, timetz, bytea, boolean, name, "char"').split(", ")
        )
    )
    empty.execute(
        PEOPLE + "ALTER TABLE people ADD nick text UNIQUE, ADD token uuid UNIQUE, ADD number int UNIQUE;"
        "CREATE TABLE w (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people, %s); INSERT INTO w (id, person_id) VALUES (1, 1);"
        "CREATE TABLE x (%s); INSERT INTO x DEFAULT VALUES; CREATE TABLE y (%s, person_id int); INSERT INTO y (person_id) VALUES (1)"
        % (columns, columns, odd)
    )
    for number in range(odd.count(",") + 1):
        column = odd.split(", ")[number].replace("k%d " % number, "person_id ")
        empty.execute("CREATE TABLE p%d (%s); INSERT INTO p%d DEFAULT VALUES" % (number, column, number))
    found = classes_of(empty, place)
    assert (found["w"], found["x"], found["y"]) == (
        'owned_by("person_id")',
        "nobody's",
        'owned_by("person_id")',
    )


def test_table_of_the_same_schema_is_meant(empty: Database, place: Place) -> None:
    empty.execute(
        PEOPLE
        + 'CREATE SCHEMA "b"; CREATE TABLE b.people (id int PRIMARY KEY, person int REFERENCES public.people);'
        "INSERT INTO b.people VALUES (1, 3), (2, 2), (3, 1);"
        "CREATE TABLE b.bills (person_id int); INSERT INTO b.bills VALUES (1), (2)"
    )
    assert classes_of(empty, place)["b.bills"] == 'child_of("b.people", "person_id")'


def test_question_says_what_comes_along_and_what_stays_behind(empty: Database, place: Place) -> None:
    empty.execute(
        PEOPLE
        + "CREATE TABLE t (id int PRIMARY KEY, person_id int REFERENCES people); INSERT INTO t VALUES (1, 1), (2, NULL);"
        "CREATE TABLE a (person_id int NOT NULL REFERENCES people, t_id int REFERENCES t);"
        "CREATE TABLE u (t_id int REFERENCES t); INSERT INTO a VALUES (1, 1), (2, 2), (2, 1); INSERT INTO u VALUES (1), (2)"
    )
    with opened(empty, place, "people") as (_, classes):
        table = next(table for table in classes.tables if table.name == "t")
        assert table.rule is not None
        assert table.rule.texts[0] == (
            "rows of this table that are nobody's are named by 1 row of roots; referenced() takes others' rows, too, which are"
            " named by 1 row; with it, what hangs on such rows in u stays behind, unless its child_of has or_referenced=True; or_shared=True"
            " gives every root all that is child_of rows that are nobody's, in a if answered so and u"
        )


def test_columns_that_hold_the_roots_keys_are_asked_for(empty: Database, place: Place) -> None:
    empty.execute(
        """
        CREATE TABLE accounts (id uuid PRIMARY KEY, email text UNIQUE);
        INSERT INTO accounts SELECT md5(g::text)::uuid, 'a' || g FROM generate_series(1, 9) g;
        CREATE TABLE lists (account_id uuid NOT NULL REFERENCES accounts); INSERT INTO lists SELECT id FROM accounts;
        CREATE TABLE friends (a uuid, b uuid); INSERT INTO friends SELECT x.id, y.id FROM accounts x, accounts y;
        CREATE TABLE audit (id int PRIMARY KEY, whose text, what text); INSERT INTO audit SELECT row_number() OVER (), id, 'x' FROM accounts;
        CREATE TABLE hints (id int PRIMARY KEY, "99%" uuid); INSERT INTO hints SELECT row_number() OVER (), id FROM accounts;
        CREATE TABLE hint_lines (hint int REFERENCES hints);
        CREATE TABLE tokens (token uuid); INSERT INTO tokens SELECT id FROM accounts UNION ALL SELECT md5('x')::uuid;
        CREATE TABLE old (account_key text); INSERT INTO old SELECT min(id::text) FROM accounts UNION ALL VALUES ('gone'), ('-');
        CREATE TABLE seeds (seed uuid); INSERT INTO seeds SELECT id FROM accounts WHERE email = 'a1'
            UNION ALL SELECT md5(g::text)::uuid FROM generate_series(10, 11) g;
        """
    )
    with opened(empty, place, "accounts") as (_, classes):
        tables = {table.name: table for table in classes.tables}
        rules = {name: table.rule for name, table in tables.items()}
    asked = {name: rule.texts for name, rule in rules.items() if rule is not None and rule.texts}
    assert {name: texts[1:3] for name, texts in asked.items()} == {
        "friends": ('owned_by("a")', 'owned_by("b")'),
        "audit": ('owned_by("whose")', "shared()"),
        "hints": ('owned_by("99%")', "referenced()"),
        "tokens": ('owned_by("token")', "shared()"),
        "old": ('owned_by("account_key")', "shared()"),
    }
    assert asked["friends"][0].startswith(
        "a and b hold keys of accounts, all that were looked at, though no foreign key says so; any_of gives a row to each that"
        " it names, and 72 rows name several"
    )
    assert "account_key holds keys of accounts, 1 of 3 different values, though" in asked["old"][0]
    assert rules["hint_lines"] == child_of("hints", "hint")
    assert rules["seeds"] is None and tables["seeds"].may_name == ("seed",)
    assert (
        tables["seeds"]
        .reasons[0]
        .endswith('are keys or names of accounts: 1 of 3 of seed; if seed names one: owned_by("seed")')
    )


def test_small_numbers_that_may_be_keys_are_said(empty: Database, place: Place) -> None:
    empty.execute(
        PEOPLE
        + "CREATE TABLE a (person_id int REFERENCES people); CREATE TABLE t (id int PRIMARY KEY, x int, y int);"
        "INSERT INTO t VALUES (1, 2, 0), (2, 3, 1)"
    )
    with opened(empty, place, "people") as (_, classes):
        (table,) = [table for table in classes.tables if table.name == "t"]
        assert table.reasons == (
            "no foreign key and no name of a column leads to a root, and nothing of a root's refers to it; of the different values"
            ' that were looked at, these are keys or names of people: 2 of 2 of x and 1 of 2 of y; if x names one: owned_by("x")',
        )
        assert table.may_name == ("x",)


# The end of a question, which says how many rows an answer takes that are others', too
TOLD = {
    "; all_of takes 3 rows, any_of gives 2 to several roots": (
        "CREATE TABLE t (a int NOT NULL REFERENCES people, b int NOT NULL REFERENCES people, c int REFERENCES people);"
        "INSERT INTO t VALUES (1, 1, NULL), (2, 2, 3), (3, 3, 3), (1, 2, NULL)"
    ),
    "; all_of takes 1 row, any_of gives 1 to several roots": (
        "CREATE TABLE t (by_id int REFERENCES people, person_id int); INSERT INTO t VALUES (1, 1), (2, 1), (3, 9)"
    ),
}


@pytest.mark.parametrize("told", TOLD)
def test_question_says_how_many_rows_an_answer_gives_to_several_roots(
    told: str, empty: Database, place: Place
) -> None:
    empty.execute(PEOPLE + TOLD[told])
    with opened(empty, place, "people") as (_, classes):
        (rule,) = [table.rule for table in classes.tables if table.name == "t"]
        assert rule is not None and rule.texts[0].endswith(told)


def test_reference_that_the_data_do_not_bear_out_is_none(empty: Database, place: Place) -> None:
    empty.execute(PEOPLE + "CREATE TABLE a (person_id int REFERENCES people); CREATE TABLE t (person_id int)")
    with opened(empty, place, "people") as (_, classes):
        assert [link.key.table for link in classes.links] == ["a"]


def test_one_column_names_rows_of_several_tables(empty: Database, place: Place) -> None:
    empty.execute(
        PEOPLE
        + """
        CREATE TABLE tasks (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people);
        CREATE TABLE photos (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people);
        CREATE TABLE remarks (id int PRIMARY KEY, subject_type text, subject_id int);
        INSERT INTO tasks VALUES (1, 1), (2, 2); INSERT INTO photos VALUES (1, 2);
        INSERT INTO remarks VALUES (1, 'App::Task', 1), (2, 'photo', 1), (3, NULL, NULL);
        """
    )
    with opened(empty, place, "people") as (_, classes):
        table = next(table for table in classes.tables if table.name == "remarks")
        assert table.rule is not None
        assert (
            written(table.rule) == 'any_of(child_of("tasks", "subject_id"), child_of("photos", "subject_id"))'
        )
        assert {(link.key.parent, link.when) for link in classes.links if link.when} == {
            ("tasks", """t."subject_type" = 'App::Task'"""),
            ("photos", """t."subject_type" = 'photo'"""),
        }


def test_references_to_rows_of_others_are_counted(empty: Database, place: Place) -> None:
    empty.execute(GARDENS)
    expected = empty.rows(
        """
        SELECT 'Plot', count(*) FROM "Plot" WHERE "madeById" <> "ownerId"
        UNION ALL SELECT 'PlotHelper', count(*) FROM "PlotHelper" h JOIN "Plot" p ON p.id = h."plotId"
                  WHERE p."ownerId" <> h."gardenerId"
        """
    )
    with opened(empty, place, "Gardener") as (_, classes):
        found = [(one.link.key.table, one.counts.to_others) for one in classes.departures]
    assert sorted(found) == sorted(expected)


# Rows of a root's, by hand
BY_HAND = {
    "members": "members WHERE id = {0}",
    "book_covers": "book_covers c JOIN books b ON b.id = c.book_id WHERE b.member_id = {0}",
    "covers": "covers WHERE id IN (SELECT cover_id FROM book_covers c JOIN books b ON b.id = c.book_id WHERE b.member_id = {0})",
}


def test_rows_of_one_root_are_what_plain_sql_counts(empty: Database, place: Place) -> None:
    empty.execute(LENDING)
    with opened(empty, place, "members") as (source, classes):
        for key, name in enumerate(("mia", "noa", "oda"), start=1):
            counts = rows_of_one(source, classes, settings_of(empty.url, place, tables=()), name)
            assert len(counts) == 8
            for table, rows in counts.items():
                sql = BY_HAND.get(table, table + " WHERE member_id = {0}").format(key)
                assert [(rows,)] == empty.rows("SELECT count(*) FROM " + sql), table


ROOTS = {
    "no such table": ("persons", "no table persons in the database", "similar: people"),
    "nothing refers to it": ("alone", "no table refers to alone", "--root"),
    "no name": ("nameless", "no text column", "--named-by"),
    "no key of one column": ("keyless", "no key of one column", "--root"),
}


@pytest.mark.parametrize("case", ROOTS)
def test_root_that_cannot_be_one_is_refused(case: str, empty: Database, place: Place) -> None:
    empty.execute(
        PEOPLE
        + "CREATE TABLE alone (id int PRIMARY KEY, name text UNIQUE); CREATE TABLE nameless (id int PRIMARY KEY, age int);"
        + "CREATE TABLE keyless (a int, b int, name text UNIQUE, PRIMARY KEY (a, b));"
    )
    root, message, hint = ROOTS[case]
    with pytest.raises(MigrationError) as caught:
        classes_of(empty, place, root)
    assert caught.value.exit_code == 2
    assert message in caught.value.message and hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    "columns, name",
    [
        ("email text UNIQUE, username text UNIQUE", "email"),
        ("email text, username text UNIQUE", "email"),  # no two of the rows have the same
        ('age int UNIQUE, "Name" varchar(9) UNIQUE', "Name"),
        ("code text UNIQUE", "code"),
    ],
)
def test_column_that_names_the_root(columns: str, name: str, empty: Database, place: Place) -> None:
    empty.execute(
        "CREATE TABLE people (id int PRIMARY KEY, %s); CREATE TABLE t (person_id int REFERENCES people)"
        % columns
    )
    with opened(empty, place, "people") as (_, classes):
        assert (classes.root.key, classes.root.named_by) == ("id", name)
