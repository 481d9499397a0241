"""The vocabulary of ownership and references: which rows are a root's, by plain SQL written by hand for each shape.

``{r}`` in an answer is the root's key as a literal. Each case is asked for every root of its data.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Dict, Sequence, Set, Tuple

import pytest

from migration.errors import UsageError
from migration.model import Reference, Table, all_of, any_of, child_of, owned_by, referenced, shared, where
from migration.postgres import connecting
from migration.postgres.all_roots import AllRoots
from migration.postgres.references import References
from migration.postgres.rows import rows_of_user
from migration.settings import Settings
from migration.sql import quote
from migration.sqlite.schema import read_schema
from support.cases import Case, settings_for
from support.places import Place
from support.servers import Database

ROOTS = "INSERT INTO people SELECT g, 'p' || g FROM generate_series(1, 3) g;"

DOCS = """
CREATE TABLE docs (id int PRIMARY KEY, owner int REFERENCES people);
INSERT INTO docs SELECT g, 1 + g % 3 FROM generate_series(1, 30) g;
"""
DOCS_WAY = Table("docs", owned_by("owner"))
DOCS_ARE = "SELECT id FROM docs WHERE owner = {r}"

MEMBERS = """
CREATE TABLE users (id int PRIMARY KEY, account int REFERENCES people, boss int REFERENCES users);
INSERT INTO users SELECT g, CASE WHEN g <= 12 THEN 1 + g % 3 END, CASE WHEN g > 12 THEN g - 8 END FROM generate_series(1, 20) g;
CREATE TABLE log (id int PRIMARY KEY, account int REFERENCES people, by int REFERENCES users);
INSERT INTO log SELECT g, 1 + g % 3, 1 + g % 20 FROM generate_series(1, 60) g;
CREATE TABLE thanks (id int PRIMARY KEY, account int REFERENCES people, said_to int REFERENCES users);
INSERT INTO thanks SELECT g, g, 1 + g FROM generate_series(1, 3) g;
CREATE TABLE sessions (id int PRIMARY KEY, user_id int REFERENCES users);
INSERT INTO sessions SELECT g, 1 + g % 20 FROM generate_series(1, 80) g;
CREATE TABLE clicks (id int PRIMARY KEY, session int REFERENCES sessions);
INSERT INTO clicks SELECT g, g FROM generate_series(1, 80) g;
CREATE TABLE badges (id int PRIMARY KEY, user_id int REFERENCES users);
INSERT INTO badges SELECT g, 1 + g % 20 FROM generate_series(1, 20) g;
"""
MINE = (
    "u AS (SELECT id FROM users WHERE account = {r} UNION SELECT c.id FROM users c JOIN u ON u.id = c.boss)"
)

CASES = {
    "join table whose both ends are mine": Case(
        DOCS
        + """
        CREATE TABLE tags (id int PRIMARY KEY, owner int REFERENCES people);
        INSERT INTO tags SELECT g, 1 + g % 3 FROM generate_series(1, 9) g;
        CREATE TABLE doc_tags (doc int REFERENCES docs, tag int REFERENCES tags);
        INSERT INTO doc_tags SELECT d, t FROM generate_series(1, 30) d, generate_series(1, 9) t WHERE (d + t) % 2 = 0;
        INSERT INTO doc_tags SELECT * FROM doc_tags WHERE doc < 5;
        """,
        [
            DOCS_WAY,
            Table("tags", owned_by("owner")),
            Table("doc_tags", all_of(child_of("docs", "doc"), child_of("tags", "tag"))),
        ],
        {
            "docs": DOCS_ARE,
            "doc_tags": "SELECT (j.tableoid, j.ctid) FROM doc_tags j JOIN docs d ON d.id = j.doc JOIN tags t ON t.id = j.tag"
            " WHERE d.owner = {r} AND t.owner = {r}",
        },
    ),
    "several ways, two by columns": Case(
        """
        CREATE TABLE messages (id int PRIMARY KEY, sender int, receiver int);
        INSERT INTO messages SELECT g, 1 + g % 3, 1 + g % 2 FROM generate_series(1, 24) g;
        """,
        [Table("messages", any_of(owned_by("sender"), owned_by("receiver")))],
        {"messages": "SELECT id FROM messages WHERE {r} IN (sender, receiver)"},
    ),
    "several ways, of parents and columns": Case(
        DOCS
        + """
        CREATE TABLE notes (id int PRIMARY KEY, doc int, author int);
        INSERT INTO notes SELECT g, nullif(g % 31, 0), nullif(g % 5, 0) FROM generate_series(1, 100) g;
        CREATE TABLE likes (note int, n int);
        INSERT INTO likes SELECT 1 + g % 100, g % 2 FROM generate_series(1, 400) g;
        """,
        [
            DOCS_WAY,
            Table("notes", any_of(child_of("docs", "doc"), owned_by("author"))),
            Table("likes", child_of("notes", "note")),
        ],
        {
            "notes": "SELECT id FROM notes WHERE author = {r} OR doc IN (SELECT id FROM docs WHERE owner = {r})",
            "likes": "SELECT (tableoid, ctid) FROM likes WHERE note IN (SELECT id FROM notes WHERE author = {r} OR doc IN (SELECT"
            " id FROM docs WHERE owner = {r}))",
        },
    ),
    "where, with the root's key": Case(
        "CREATE TYPE public.level AS ENUM ('low', 'high'); CREATE TABLE jobs (id int PRIMARY KEY, who text, at level);"
        "INSERT INTO jobs SELECT g, 'p-' || 1 + g % 3, (ARRAY['low', 'high']::level[])[1 + g % 2] FROM generate_series(1, 12) g;",
        [Table("jobs", where("t.who = 'p-' || {root} AND t.at = 'high' -- the rest is noise"))],
        {"jobs": "SELECT id FROM jobs WHERE who = 'p-' || {r} AND at = 'high'"},
    ),
    "where above a child, and children of where": Case(
        "CREATE TABLE jobs (id int PRIMARY KEY, who int[]); INSERT INTO jobs SELECT g, ARRAY[g % 3, g % 4] FROM generate_series(1, 12) g;"
        "CREATE TABLE steps (id int PRIMARY KEY, job int); INSERT INTO steps SELECT g, g % 14 FROM generate_series(1, 40) g;",
        [Table("jobs", where("{root} = ANY (t.who)")), Table("steps", child_of("jobs", "job"))],
        {
            "jobs": "SELECT id FROM jobs WHERE {r} = ANY (who)",
            "steps": "SELECT s.id FROM steps s JOIN jobs j ON j.id = job WHERE {r} = ANY (who)",
        },
    ),
    "referenced, over a chain": Case(
        DOCS
        + """
        CREATE TABLE makers (id int PRIMARY KEY); CREATE TABLE formats (id int PRIMARY KEY, maker int REFERENCES makers);
        CREATE TABLE icons (id int PRIMARY KEY, format int REFERENCES formats);
        INSERT INTO makers SELECT generate_series(1, 5); INSERT INTO formats SELECT g, nullif(g, 6) FROM generate_series(1, 6) g;
        INSERT INTO icons SELECT g, nullif(g % 7, 0) FROM generate_series(1, 20) g;
        ALTER TABLE docs ADD icon int REFERENCES icons; UPDATE docs SET icon = id / 2 WHERE id BETWEEN 4 AND 20;
        """,
        [
            DOCS_WAY,
            Table("makers", referenced()),
            Table("formats", referenced()),
            Table("icons", referenced()),
        ],
        {
            "icons": "SELECT DISTINCT icon FROM docs WHERE owner = {r} AND icon IS NOT NULL",
            "formats": "SELECT DISTINCT i.format FROM docs JOIN icons i ON i.id = icon WHERE owner = {r} AND i.format IS NOT NULL",
            "makers": "SELECT DISTINCT f.maker FROM docs JOIN icons i ON i.id = icon JOIN formats f ON f.id = i.format"
            " WHERE owner = {r} AND f.maker IS NOT NULL",
        },
    ),
    "referenced, over a chain in itself": Case(
        DOCS
        + """
        CREATE TABLE kinds (id int PRIMARY KEY, up int REFERENCES kinds);
        INSERT INTO kinds SELECT g, CASE WHEN g % 10 = 1 THEN NULL ELSE g - 1 END FROM generate_series(1, 40) g;
        UPDATE kinds SET up = 10 WHERE id = 1;
        ALTER TABLE docs ADD kind int REFERENCES kinds; UPDATE docs SET kind = id + 4 WHERE id % 4 = 0;
        """,
        [DOCS_WAY, Table("kinds", referenced())],
        {
            "kinds": "WITH RECURSIVE k AS (SELECT kind AS id FROM docs WHERE owner = {r} AND kind IS NOT NULL UNION"
            " SELECT up FROM k JOIN kinds USING (id) WHERE up IS NOT NULL) SELECT id FROM k",
        },
    ),
    "referenced, in a cycle of two tables, and their parts": Case(
        DOCS
        + """
        CREATE TABLE a (id int PRIMARY KEY, b int); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);
        INSERT INTO a SELECT g, nullif(g % 10, 0) FROM generate_series(1, 40) g;
        INSERT INTO b SELECT g, 10 + 2 * g FROM generate_series(1, 10) g;
        ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b DEFERRABLE INITIALLY DEFERRED;
        CREATE TABLE parts (id int PRIMARY KEY, a int NOT NULL); INSERT INTO parts SELECT g, 1 + g % 40 FROM generate_series(1, 120) g;
        ALTER TABLE docs ADD a int REFERENCES a; UPDATE docs SET a = 30 + id % 10 WHERE id % 5 = 0;
        """,
        [
            DOCS_WAY,
            Table("a", referenced()),
            Table("b", referenced()),
            Table("parts", child_of("a", "a", or_referenced=True)),
        ],
        {
            name: "WITH RECURSIVE g AS (SELECT 'a' AS n, a AS id FROM docs WHERE owner = {r} AND a IS NOT NULL UNION SELECT e.* FROM g,"
            " LATERAL (SELECT 'b', b FROM a WHERE a.id = g.id AND g.n = 'a' AND b IS NOT NULL UNION ALL"
            " SELECT 'a', a FROM b WHERE b.id = g.id AND g.n = 'b') e) " + query
            for name, query in {
                "a": "SELECT id FROM g WHERE n = 'a'",
                "b": "SELECT id FROM g WHERE n = 'b'",
                "parts": "SELECT id FROM parts WHERE a IN (SELECT id FROM g WHERE n = 'a')",
            }.items()
        },
    ),
    "tree under a row of mine": Case(
        """
        CREATE TABLE folders (id int PRIMARY KEY, owner int, up int REFERENCES folders);
        INSERT INTO folders SELECT g, CASE WHEN g <= 6 THEN 1 + g % 3 END, nullif(g / 3, 0) FROM generate_series(1, 60) g;
        UPDATE folders SET owner = 3 WHERE id = 20; UPDATE folders SET up = 58 WHERE id = 59; UPDATE folders SET up = 59 WHERE id = 58;
        """,
        [Table("folders", any_of(owned_by("owner"), child_of("folders", "up")))],
        {
            "folders": "WITH RECURSIVE f AS (SELECT id FROM folders WHERE owner = {r} UNION SELECT c.id FROM folders c"
            " JOIN f ON f.id = c.up) SELECT id FROM f"
        },
    ),
    "cycle of ownership between two tables": Case(
        """
        CREATE TABLE folders (id int PRIMARY KEY, owner int, file int);
        CREATE TABLE files (id int PRIMARY KEY, folder int REFERENCES folders);
        INSERT INTO folders SELECT g, CASE WHEN g <= 4 THEN g END, CASE WHEN g > 4 THEN g - 4 END FROM generate_series(1, 30) g;
        INSERT INTO files SELECT g, g FROM generate_series(1, 30) g;
        """,
        [
            Table("folders", any_of(owned_by("owner"), child_of("files", "file"))),
            Table("files", child_of("folders", "folder")),
        ],
        {
            name: "SELECT id FROM %s WHERE (id - {r}) %% 4 = 0 AND {r} <= 4" % name
            for name in ("folders", "files")
        },
    ),
    "composite keys, named in another order": Case(
        """
        CREATE TABLE books (shelf text, place int, owner int, PRIMARY KEY (shelf, place));
        INSERT INTO books SELECT chr(65 + g % 4), g, 1 + g % 3 FROM generate_series(1, 24) g;
        CREATE TABLE pages (id int PRIMARY KEY, place int, shelf text, FOREIGN KEY (place, shelf) REFERENCES books (place, shelf));
        INSERT INTO pages SELECT row_number() OVER (), place, shelf FROM books, generate_series(1, 3);
        CREATE TABLE marks (id int PRIMARY KEY, place int, shelf text); INSERT INTO marks SELECT * FROM pages;
        """.replace("PRIMARY KEY (shelf, place));", "PRIMARY KEY (shelf, place), UNIQUE (place, shelf));"),
        [
            Table("books", owned_by("owner")),
            Table("pages", child_of("books", ("shelf", "place"))),
            Table("marks", any_of(child_of("books", ("shelf", "place")), owned_by("place"))),
        ],
        {
            "books": "SELECT (shelf, place) FROM books WHERE owner = {r}",
            "pages": "SELECT id FROM pages WHERE (shelf, place) IN (SELECT shelf, place FROM books WHERE owner = {r})",
            "marks": "SELECT id FROM marks WHERE place = {r} OR (shelf, place) IN (SELECT shelf, place FROM books WHERE owner = {r})",
        },
    ),
    "polymorphic references": Case(
        DOCS
        + """
        CREATE TABLE tasks (id int PRIMARY KEY, owner int); INSERT INTO tasks SELECT g, 1 + (g / 2) % 3 FROM generate_series(1, 30) g;
        CREATE TABLE comments (id int PRIMARY KEY, kind text, subject int, sticker int);
        INSERT INTO comments SELECT g, (ARRAY['doc', 'task', 'gone'])[1 + g % 3], 1 + g % 30, 1 + g % 40 FROM generate_series(1, 90) g;
        CREATE TABLE stickers (id int PRIMARY KEY); INSERT INTO stickers SELECT generate_series(1, 45);
        """,
        [
            DOCS_WAY,
            Table("tasks", owned_by("owner")),
            Table("stickers", referenced()),
            Table("comments", any_of(child_of("docs", "subject"), child_of("tasks", "subject"))),
        ],
        {
            "comments": "SELECT c.id FROM comments c LEFT JOIN docs d ON d.id = subject AND kind = 'doc'"
            " LEFT JOIN tasks t ON t.id = subject AND kind = 'task' WHERE {r} IN (d.owner, t.owner)",
            "stickers": "SELECT DISTINCT sticker FROM comments c LEFT JOIN docs d ON d.id = subject AND kind = 'doc'"
            " LEFT JOIN tasks t ON t.id = subject AND kind = 'task' WHERE {r} IN (d.owner, t.owner) AND kind = 'task'",
        },
        [
            Reference("comments", "subject", "docs", when="t.kind = 'doc'"),
            Reference("comments", "subject", "tasks", when="t.kind = 'task'"),
            Reference("comments", "sticker", "stickers", when="t.kind = 'task'"),
        ],
    ),
    "referenced beside a way of its own": Case(
        DOCS
        + """
        CREATE TABLE media (id int PRIMARY KEY, owner int, thumb int REFERENCES media);
        INSERT INTO media SELECT g, nullif(g % 5, 0), CASE WHEN g > 20 THEN g - 20 END FROM generate_series(1, 40) g;
        ALTER TABLE docs ADD cover int REFERENCES media; UPDATE docs SET cover = id + 5;
        """,
        [DOCS_WAY, Table("media", any_of(owned_by("owner"), referenced()))],
        {
            "media": "WITH RECURSIVE m AS (SELECT id FROM media WHERE owner = {r} OR id IN (SELECT cover FROM docs WHERE owner = {r})"
            " UNION SELECT thumb FROM m JOIN media USING (id) WHERE thumb IS NOT NULL) SELECT id FROM m"
        },
    ),
    "one column for several tables, by several names of one of them": Case(
        DOCS
        + """
        CREATE TABLE pics (id int PRIMARY KEY, owner int); INSERT INTO pics SELECT g, 1 + (g + 1) % 3 FROM generate_series(1, 30) g;
        CREATE TABLE tags (id int PRIMARY KEY, kind text, subject int);
        INSERT INTO tags SELECT g, (ARRAY['Doc', 'App.Doc', 'Pic', 'gone'])[1 + g % 4], 1 + g / 4 FROM generate_series(1, 120) g;
        """,
        [
            DOCS_WAY,
            Table("pics", owned_by("owner")),
            Table("tags", any_of(child_of("docs", "subject"), child_of("pics", "subject"))),
        ],
        {
            "tags": "SELECT t.id FROM tags t JOIN docs d ON d.id = t.subject WHERE kind IN ('Doc', 'App.Doc') AND d.owner = {r}"
            " UNION SELECT t.id FROM tags t JOIN pics p ON p.id = t.subject WHERE kind = 'Pic' AND p.owner = {r}"
        },
        [
            Reference("tags", "subject", "docs", when="t.kind = 'Doc'"),
            Reference("tags", "subject", "docs", when="t.kind = 'App.Doc'"),
            Reference("tags", "subject", "pics", when="t.kind = 'Pic'"),
        ],
    ),
    "one column for several tables, the root's among them": Case(
        DOCS
        + """
        CREATE TABLE tags (id int PRIMARY KEY, kind text, subject int);
        INSERT INTO tags SELECT g, (ARRAY['Doc', 'Person', 'Human', 'gone'])[1 + g % 4], 1 + g / 12 FROM generate_series(1, 120) g;
        """,
        [DOCS_WAY, Table("tags", any_of(owned_by("subject"), child_of("docs", "subject")))],
        {
            "tags": "SELECT id FROM tags WHERE kind IN ('Person', 'Human') AND subject = {r}"
            " UNION SELECT t.id FROM tags t JOIN docs d ON d.id = t.subject WHERE kind = 'Doc' AND d.owner = {r}"
        },
        [
            Reference("tags", "subject", "docs", when="t.kind = 'Doc'", leaving="cut"),
            Reference("tags", "subject", "people", when="t.kind = 'Person'", leaving="cut"),
            Reference("tags", "subject", "people", when="t.kind = 'Human'", leaving="cut"),
        ],
    ),
    "what hangs on rows that come along": Case(
        MEMBERS,
        [
            Table("users", any_of(owned_by("account"), child_of("users", "boss"), referenced())),
            Table("log", all_of(owned_by("account"), child_of("users", "by"))),
            Table("thanks", owned_by("account")),
            Table("sessions", child_of("users", "user_id")),
            Table("clicks", child_of("sessions", "session")),
            Table("badges", child_of("users", "user_id", or_referenced=True)),
        ],
        {
            "users": "WITH RECURSIVE %s SELECT id FROM u UNION SELECT said_to FROM thanks WHERE account = {r}"
            % MINE,
            "log": "WITH RECURSIVE %s SELECT l.id FROM log l JOIN u ON u.id = l.by WHERE l.account = {r}"
            % MINE,
            "sessions": "WITH RECURSIVE %s SELECT s.id FROM sessions s JOIN u ON u.id = s.user_id" % MINE,
            "clicks": "WITH RECURSIVE %s SELECT c.id FROM clicks c JOIN sessions s ON s.id = c.session"
            " JOIN u ON u.id = s.user_id" % MINE,
            "badges": "WITH RECURSIVE %s SELECT id FROM badges WHERE user_id IN (SELECT id FROM u UNION SELECT said_to"
            " FROM thanks WHERE account = {r})" % MINE,
        },
    ),
    "chain below several ways, partitions": Case(
        DOCS
        + """
        CREATE TABLE events (id int, doc int, day date NOT NULL) PARTITION BY RANGE (day);
        CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
        CREATE TABLE events_2 PARTITION OF events DEFAULT;
        INSERT INTO events SELECT g, g % 30, '2026-01-01'::date + g FROM generate_series(0, 70) g;
        """,
        [DOCS_WAY, Table("events", all_of(child_of("docs", "doc"), where("t.id > 10")))],
        {
            "events": "SELECT (tableoid, ctid) FROM events WHERE id > 10 AND doc IN (SELECT id FROM docs WHERE owner = {r})"
        },
    ),
    "everybody's rows refer too": Case(
        """
        CREATE TABLE colors (id int PRIMARY KEY); INSERT INTO colors SELECT generate_series(1, 9);
        CREATE TABLE themes (id int PRIMARY KEY, color int REFERENCES colors); INSERT INTO themes VALUES (1, 2), (2, 4), (3, NULL);
        CREATE TABLE pens (id int PRIMARY KEY, owner int, color int REFERENCES colors); INSERT INTO pens VALUES (1, 1, 9), (2, NULL, 8), (3, 2, 7);
        """,
        [
            Table("colors", referenced()),
            Table("themes", shared()),
            Table("pens", owned_by("owner", or_shared=True)),
        ],
        {
            "colors": "SELECT unnest('{{2,4,8}}'::int[]) UNION SELECT color FROM pens WHERE owner = {r}",
            "pens": "SELECT id FROM pens WHERE coalesce(owner, {r}) = {r}",
        },
    ),
}


def keys_of(settings: Settings, name: str, user: str) -> Set[Tuple[Any, ...]]:
    """The keys of a root's rows of a table; their places where it has no key."""
    settings = dataclasses.replace(settings, user_email=None, user_id=user)
    with connecting.opened(settings) as db:
        rows = rows_of_user(db, settings, read_schema(settings.schema_path), None, False)
        table = next(table for table in settings.tables if table.name == name)
        keys = db.catalog.keys[name] or ("tableoid", "ctid")
        sql = "SELECT (%s)::text FROM %s t WHERE %s" % (
            ", ".join("t." + quote(key) for key in keys),
            db.quoted(name),
            rows.condition(table),
        )
        found = [row for (row,) in db.rows(sql)]
        assert len(set(found)) == len(found)
        return set(found)


def numbers_of_all_roots(settings: Settings, tables: Sequence[str]) -> Dict[Tuple[str, str], int]:
    """How many rows each root has in each table, by the queries that are for all roots at once."""
    with connecting.opened(settings) as db:
        pairs = AllRoots(References(db, settings, read_schema(settings.schema_path)), skip=False)
        queries = pairs.pairs(tables, {})
        found = [json.loads(line) for query in queries for line in db.stream(query)]
    assert len({tuple(each) for each in found}) == len(found)
    return {
        (table, user): sum(number == each and root in (user, None) for each, _, root in found)
        for number, table in enumerate(tables)
        for user in ("1", "2", "3")
    }


@pytest.mark.parametrize("name", CASES)
def test_rows_are_those_that_plain_sql_finds(empty: Database, place: Place, name: str) -> None:
    case = CASES[name]
    empty.execute("CREATE TABLE people (id int PRIMARY KEY, name text);" + ROOTS + case.ddl)
    settings = settings_for(empty, place, case)
    numbers = numbers_of_all_roots(settings, list(case.answers))
    for table, query in case.answers.items():
        for user in ("1", "2", "3"):
            answer = empty.rows("SELECT (x)::text FROM (%s) q (x)" % query.format(r=user))
            expected = {row for (row,) in answer}
            assert keys_of(settings, table, user) == expected, (table, user)
            assert len(expected) == len(answer) == numbers[table, user]


@pytest.mark.parametrize(
    ("ways", "references", "message"),
    [
        (
            [Table("docs", where("t.gone = {root}"))],
            (),
            "config.TABLES, docs: where is refused by PostgreSQL: column t.gone",
        ),
        (
            [Table("docs", where("t.owner = "))],
            (),
            "config.TABLES, docs: where is refused by PostgreSQL: syntax error",
        ),
        (
            [Table("docs", where("t.owner = {root}) OR (true"))],
            (),
            "config.TABLES, docs: where is refused by PostgreSQL: syntax error",
        ),
        (
            [Table("docs", where("t.owner + {root}"))],
            (),
            "config.TABLES, docs: where is refused by PostgreSQL: argument of IS",
        ),
        (
            [DOCS_WAY],
            (Reference("docs", "id", "docs", when="t.kind = 'x'"),),
            "config.REFERENCES, docs (id) → docs: when is refused by PostgreSQL: column t.kind",
        ),
        (
            [DOCS_WAY],
            (Reference("docs", "gone", "docs"),),
            "config.REFERENCES, docs (gone) → docs: column gone of docs is not in PostgreSQL",
        ),
        (
            [DOCS_WAY, Table("people_docs", owned_by("owner"))],
            (Reference("docs", "id", "people_docs"),),
            "config.REFERENCES, docs (id) → people_docs: people_docs has no key that says what is meant",
        ),
        (
            [
                Table(
                    "docs",
                    any_of(owned_by("owner"), all_of(child_of("docs", "id"), child_of("docs", "owner"))),
                )
            ],
            (),
            "config.TABLES, docs: all_of has two ways that depend on each other's rows",
        ),
    ],
)
def test_config_that_postgresql_refuses_is_named(
    empty: Database, place: Place, ways: Sequence[Table], references: Sequence[Reference], message: str
) -> None:
    empty.execute(
        "CREATE TABLE people (id int PRIMARY KEY, name text);"
        + ROOTS
        + DOCS
        + "CREATE TABLE people_docs (owner int)"
    )
    excluded = {"docs", "people_docs"} - {table.name for table in ways}
    settings = settings_for(empty, place, Case("", ways, {}, references), excluded_tables=tuple(excluded))
    with pytest.raises(UsageError) as caught:
        keys_of(settings, ways[0].name, "1")
    assert caught.value.message.startswith(message)
    assert caught.value.hint


def test_rows_of_a_type_that_config_does_not_know_are_counted(empty: Database, place: Place) -> None:
    case = CASES["one column for several tables, by several names of one of them"]
    empty.execute("CREATE TABLE people (id int PRIMARY KEY, name text);" + ROOTS + case.ddl)
    settings = settings_for(empty, place, case)
    with connecting.opened(settings) as db:
        (line,) = rows_of_user(db, settings, read_schema(settings.schema_path), "p1", False).unmeant()
    assert line.startswith(
        "30 rows of tags, of whomever, stay behind: what they name by subject is of a type"
    )
