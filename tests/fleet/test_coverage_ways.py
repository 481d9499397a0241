"""Coverage of an application whose rows belong to users in every way there is: each row is in files, or named with a reason.

Whose a row is, is told by SQL written by hand. Users 1 and 2 are migrated, 3 fails, 4 is not chosen.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Collection

import pytest

from migration.fleet import coverage
from migration.postgres.coverage import NOBODYS, UNREFERENCED, Whose
from support.fleet import Output, command, migrate_all
from support.places import SUITE, copy_suite
from support.servers import Database

CHANGED, CHANGED_OR_SKIPPED, DIFFERENT, FAILED, NOT_CHOSEN, SKIPPED = (
    reason.replace("{root}", "member")
    for reason in (
        coverage.CHANGED,
        coverage.CHANGED_OR_SKIPPED,
        coverage.DIFFERENT,
        coverage.FAILED,
        coverage.NOT_CHOSEN,
        coverage.SKIPPED,
    )
)
DDL = """
CREATE TABLE people (id int PRIMARY KEY, name text); INSERT INTO people SELECT g, 'p' || g FROM generate_series(1, 4) g;
CREATE TABLE icons (id int PRIMARY KEY); INSERT INTO icons SELECT generate_series(1, 20);
CREATE TABLE files (id int PRIMARY KEY, owner int); INSERT INTO files SELECT g, nullif(g % 6, 5) FROM generate_series(1, 24) g;
CREATE TABLE docs (id int PRIMARY KEY, owner int, icon int, file int, see int);
INSERT INTO docs SELECT g, 1 + g % 4, g % 19 + 1, g % 12 + 1, CASE g WHEN 2 THEN 4 END FROM generate_series(1, 40) g;
CREATE TABLE tags (id int PRIMARY KEY, owner int); INSERT INTO tags SELECT g, 1 + g % 4 FROM generate_series(1, 8) g;
CREATE TABLE doc_tags (doc int, tag int, PRIMARY KEY (doc, tag));
INSERT INTO doc_tags SELECT d, t FROM generate_series(1, 40) d, generate_series(1, 8) t WHERE (d + t) % 3 = 0;
CREATE TABLE messages (id int PRIMARY KEY, sender int, receiver int, about int, sticker int);
INSERT INTO messages SELECT g, nullif(g % 6, 5), nullif(g % 5, 0), CASE WHEN g IN (6, 13, 16) THEN g + 1 END, CASE g WHEN 6 THEN 20 END FROM generate_series(1, 60) g;
CREATE TABLE likes (message int, n int); INSERT INTO likes SELECT 1 + g % 62, g % 3 FROM generate_series(1, 150) g;
INSERT INTO likes SELECT * FROM likes WHERE n = 0;
CREATE TABLE jobs (id date PRIMARY KEY, who text); INSERT INTO jobs SELECT date '2026-01-01' + g, 'p-' || g % 6 FROM generate_series(1, 12) g;
CREATE TABLE news (word text PRIMARY KEY, shown bool); INSERT INTO news SELECT 'w' || g, g % 2 = 0 FROM generate_series(1, 9) g;
CREATE TABLE nodes (id int PRIMARY KEY, owner int, parent int);
INSERT INTO nodes SELECT g, CASE WHEN g <= 10 THEN nullif(g % 6, 5) END, CASE WHEN g > 10 THEN g - 9 END FROM generate_series(1, 50) g;
CREATE TABLE pens (id int PRIMARY KEY, owner int, icon int); INSERT INTO pens SELECT g, nullif(g % 5, 0), CASE WHEN g IN (5, 6) THEN 21 END FROM generate_series(1, 15) g;
CREATE TABLE themes (id int PRIMARY KEY, icon int); INSERT INTO themes VALUES (1, NULL), (2, 21);
CREATE TABLE stray (id int PRIMARY KEY, word text); INSERT INTO stray VALUES (1, 'a'), (2, 'b');
"""
CONFIG = """
from migration.model import Reference, all_of, any_of, referenced, where
ROOT = root("people", key="id", named_by="name", called="member")
TABLES = (
    Table("people", the_root()),
    Table("icons", referenced()),
    Table("files", owned_by("owner")),
    Table("docs", owned_by("owner"), left_behind=("see", "file")),
    Table("tags", owned_by("owner")),
    Table("doc_tags", all_of(child_of("docs", "doc"), child_of("tags", "tag"))),
    Table("messages", any_of(owned_by("sender"), owned_by("receiver")), left_behind=("about",)),
    Table("likes", child_of("messages", "message")),
    Table("jobs", where("who = 'p-' || {root}")),
    Table("news", where("t.shown")),
    Table("nodes", any_of(owned_by("owner"), child_of("nodes", "parent"))),
    Table("pens", owned_by("owner", or_shared=True)),
    Table("themes", shared()),
)
REFERENCES = (
    Reference("docs", "icon", "icons", leaving="cut"),
    Reference("docs", "file", "files", leaving="bring"),
    Reference("docs", "see", "docs"),
    Reference("messages", "about", "docs", leaving="skip"),
    Reference("messages", "sticker", "icons", leaving="cut"),
    Reference("pens", "icon", "icons", leaving="skip"),
    Reference("themes", "icon", "icons", leaving="skip"),
)
del UNRELATED_TABLES
"""
LITE = """
CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE icons (id INTEGER PRIMARY KEY);
CREATE TABLE files (id INTEGER PRIMARY KEY, owner INTEGER); CREATE TABLE tags (id INTEGER PRIMARY KEY, owner INTEGER);
CREATE TABLE docs (id INTEGER PRIMARY KEY, owner INTEGER, icon INTEGER, file INTEGER, see INTEGER);
CREATE TABLE doc_tags (doc INTEGER, tag INTEGER, PRIMARY KEY (doc, tag)); CREATE TABLE likes (message INTEGER, n INTEGER);
CREATE TABLE messages (id INTEGER PRIMARY KEY, sender INTEGER, receiver INTEGER, about INTEGER, sticker INTEGER);
CREATE TABLE jobs (id TEXT PRIMARY KEY, who TEXT); CREATE TABLE news (word TEXT PRIMARY KEY, shown INTEGER);
CREATE TABLE nodes (id INTEGER PRIMARY KEY, owner INTEGER, parent INTEGER);
CREATE TABLE pens (id INTEGER PRIMARY KEY, owner INTEGER, icon INTEGER); CREATE TABLE themes (id INTEGER PRIMARY KEY, icon INTEGER);
"""
# Table → a row's key, a root whose it is (-1: everybody's), and whether it stays there when rows are skipped
MAIL = "messages m, unnest(ARRAY[sender, receiver]) u"
STAYS = "about IS NULL OR EXISTS (SELECT FROM docs d WHERE d.id = about AND d.owner = u)"
WHOSE = {
    "icons": "SELECT icon, owner, true FROM docs UNION SELECT sticker, u, %s FROM %s WHERE sticker > 0"
    % (STAYS, MAIL),
    "files": "SELECT id, owner, true FROM files UNION SELECT file, owner, true FROM docs",
    "docs": "SELECT id, owner, true FROM docs",
    "doc_tags": "SELECT ARRAY[doc, tag], t.owner, true FROM doc_tags JOIN docs d ON d.id = doc JOIN tags t ON t.id = tag"
    " AND t.owner = d.owner",
    "messages": "SELECT id, u, %s FROM %s" % (STAYS, MAIL),
    "likes": "SELECT l.ctid::text, u, %s FROM likes l JOIN %s ON m.id = message"
    % (STAYS, MAIL.replace(", ", " CROSS JOIN ", 1)),
    "jobs": "SELECT id::text, substr(who, 3)::int, true FROM jobs",
    "news": "SELECT word, -1, true FROM news WHERE shown",
    "nodes": "WITH RECURSIVE n AS (SELECT id, owner FROM nodes UNION SELECT c.id, n.owner FROM nodes c JOIN n ON n.id = c.parent)"
    " SELECT id, owner, true FROM n",
    "pens": "SELECT id, coalesce(owner, -1), icon IS NULL FROM pens",
    "themes": "SELECT id, -1, icon IS NULL FROM themes",
}
KEYS = {"doc_tags": "ARRAY[doc, tag]", "likes": "ctid::text", "jobs": "id::text", "news": "word"}
NOT_SHOWN = ("likes", "news")  # without a key, and a text: it may be a secret


@pytest.fixture()
def made(empty: Database, tmp_path: Path) -> Database:
    empty.execute(DDL)
    text = (SUITE / "config.py").read_text(encoding="utf-8")
    (tmp_path / "config.py").write_text(text + CONFIG, encoding="utf-8")
    (tmp_path / "lite.sql").write_text(LITE, encoding="utf-8")
    return empty


def options(tmp_path: Path, users: Collection[int]) -> list[object]:
    (tmp_path / "chosen").write_text("\n".join(map(str, users)), encoding="utf-8")
    given = {"config": "config.py", "schema-path": "lite.sql", "users-from": "chosen"}
    return [*("--%s=%s" % (name, tmp_path / file) for name, file in given.items()), "--workers=1"]


def tables_of(output: Output) -> dict[str, dict[str, Any]]:
    return {table["table"]: table for table in output.summary["coverage"]["tables"]}


def reasons_of(table: dict[str, Any]) -> dict[str, tuple[int, list[str]]]:
    return {reason["reason"]: (reason["rows"], reason.get("first_keys", [])) for reason in table["reasons"]}


def expected(database: Database, table: str, done: Collection[int], other: dict[int, str]) -> dict[str, Any]:
    """What coverage should say of a table. ``other``: users without files, and why."""
    roots: dict[Any, list[tuple[int, bool]]] = {
        _key(key): [] for (key,) in database.rows("SELECT %s FROM %s" % (KEYS.get(table, "id"), table))
    }
    for key, root, stays in database.rows(WHOSE[table]):
        roots[_key(key)].append((root, stays))
    in_files = in_several = 0
    none: dict[str, list[Any]] = {}
    for key, found in roots.items():
        files = {user for user in done for root, stays in found if root in (user, -1) and stays}
        in_files += bool(files)
        in_several += len(files) > 1
        if not files:
            why = [
                SKIPPED if root in (-1, *done) else other[root]
                for root, _ in found
                if root in (-1, *done, *other)
            ]
            nobodys = UNREFERENCED if table == "icons" else NOBODYS
            none.setdefault(min(why, key=(SKIPPED, FAILED, NOT_CHOSEN).index, default=nobodys), []).append(
                key
            )
    return {
        "in_files": in_files,
        "in_several": in_several,
        "in_none": len(roots) - in_files,
        "reasons": {why: (len(keys), _first(table, keys)) for why, keys in none.items()},
    }


def _key(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key


def _first(table: str, keys: list[Any]) -> list[str]:
    shown = [] if table in NOT_SHOWN else sorted(keys)[:3]
    return [", ".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in shown]


def told(table: dict[str, Any]) -> dict[str, Any]:
    names = ("in_files", "in_several", "in_none")
    return {**{name: table[name] for name in names}, "reasons": reasons_of(table)}


def test_every_row_is_in_files_or_named_with_the_reason(
    made: Database, output: Output, tmp_path: Path
) -> None:
    done = migrate_all(output, made.url, *options(tmp_path, [1, 2, 3]))
    assert {user: state[0] for user, state in output.states().items()} == {
        "1": "done",
        "2": "done",
        "3": "failed",
    }, done.err
    assert done.code == 1
    assert output.summary["coverage"]["problems"] == []
    tables = tables_of(output)
    for name in WHOSE:
        assert told(tables[name]) == expected(made, name, (1, 2), {3: FAILED, 4: NOT_CHOSEN}), name
        assert tables[name]["in_none"], name  # each has a row to find
        assert "note" not in tables[name]
    assert reasons_of(tables["stray"]) == {Whose.UNLISTED.value: (2, ["1", "2"])}
    assert "Coverage: every row is accounted for" in done.out.splitlines()


# Table → a row of user 1 alone, which a fault leaves out of the file; news are everybody's. The message takes its likes along.
DROPPED = {
    "icons": "t.id = 5",
    "files": "t.id = 13",
    "doc_tags": "t.doc = 4 AND t.tag = 8",
    "messages": "t.id = 1",
    "jobs": "t.id = '2026-01-08'",
    "news": "t.word = 'w4'",
    "nodes": "t.id = 43",
}


def test_row_that_the_export_drops_is_named_however_it_belongs_to_users(
    made: Database, output: Output, tmp_path: Path
) -> None:
    """The suite with a fault, by which export and validation leave out the same rows."""
    users = {name: {root for _, root, _ in _pairs(made, name)} for name in DROPPED}
    assert users == {name: {-1 if name == "news" else 1} for name in DROPPED}
    suite = copy_suite(tmp_path / "suite")
    ownership = suite / "migration" / "postgres" / "ownership.py"
    text = ownership.read_text(encoding="utf-8")
    sound = "        return within(alias, self._apart.get(table, ()))\n"
    assert sound in text
    fault = sound.replace("\n", " + %r.get(table, '').replace('t.', alias + '.')\n")
    dropped = {name: " AND NOT (%s)" % row for name, row in DROPPED.items()}
    ownership.write_text(text.replace(sound, fault % dropped), encoding="utf-8")
    words = command(output, made.url, *options(tmp_path, [1, 2]))
    done = subprocess.run(
        [sys.executable, str(suite / "migrate_all_users.py"), *words[2:]],
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert {state[0] for state in output.states().values()} == {"done"}, done.stderr
    assert done.returncode == 1
    tables = tables_of(output)
    problems = output.summary["coverage"]["problems"]
    for name in DROPPED:
        key = made.rows("SELECT %s FROM %s t WHERE %s" % (KEYS.get(name, "id"), name, DROPPED[name]))[0][0]
        rows, first = reasons_of(tables[name])[DIFFERENT]
        assert first[:1] == _first(name, [_key(key)]), name
        # with rows that are skipped, as the number tells no more
        assert rows == (4 if name == "messages" else 2 if name == "icons" else 1), name
        found = [problem for problem in problems if ", table %s: " % name in problem]
        assert [problem.split(",")[0] for problem in found] == ["member 1", "member 2"][
            : 1 + (name == "news")
        ], name
    assert any(problem.startswith("member 1, table likes: ") for problem in problems)
    for table in tables.values():
        assert table["rows"] == table["in_files"] + sum(reason["rows"] for reason in table["reasons"])


def _pairs(database: Database, table: str) -> list[Any]:
    key = KEYS.get(table, "id")
    return database.rows(
        "SELECT * FROM (%s) w (key, root, stays) WHERE key IN (SELECT %s FROM %s t WHERE %s) AND root IN (-1, 1, 2)"
        % (WHOSE[table], key, table, DROPPED[table])
    )


def test_rows_of_who_is_not_migrated_again_are_listed_as_changed_since(
    made: Database, output: Output, tmp_path: Path
) -> None:
    """However a table's rows are counted; where a row may be of several, if their number is the same as before, too."""
    chosen = options(tmp_path, [1, 2])
    assert migrate_all(output, made.url, *chosen).code == 0
    likes = reasons_of(tables_of(output)["likes"])[SKIPPED][0]
    made.execute(
        "DELETE FROM messages WHERE id = 1; INSERT INTO messages VALUES (70, 1, 1), (71, 2, 4); DELETE FROM likes WHERE message = 1;"
        "INSERT INTO likes VALUES (70, 9); INSERT INTO docs VALUES (50, 2); DELETE FROM nodes WHERE id = 43; INSERT INTO nodes VALUES (60, NULL, 1);"
        "INSERT INTO pens VALUES (20, 1), (21, NULL)"
    )
    done = migrate_all(output, made.url, *chosen, "--resume")
    assert "all 2 members were done before" in done.err
    assert done.code == 0
    tables = tables_of(output)
    for name, why, rows, first in (
        ("messages", CHANGED_OR_SKIPPED, 4, ["6", "13", "16"]),
        ("messages", CHANGED, 1, ["71"]),
        ("nodes", CHANGED, 1, ["60"]),
        ("likes", CHANGED_OR_SKIPPED, likes + 1, []),
        ("pens", CHANGED_OR_SKIPPED, 4, ["5", "6", "20"]),
        ("docs", CHANGED, 1, ["50"]),
    ):
        assert reasons_of(tables[name])[why] == (rows, first), name
    for table in tables.values():
        assert table["rows"] == table["in_files"] + sum(reason["rows"] for reason in table["reasons"])
