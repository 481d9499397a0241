"""References that lead out of the export: stopped, skipped, cut or brought; listed, and checked by the validation."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from typing import Any, Dict, List, NamedTuple, Sequence, Set, Tuple

import pytest

from export_from_postgres import export
from import_to_sqlite import import_
from migrate import Phase
from migrate import migrate as run_phases
from migration.errors import ExitCode, MigrationError
from migration.model import (
    CHANGES,
    Ownership,
    Reference,
    Table,
    all_of,
    any_of,
    child_of,
    owned_by,
    referenced,
    shared,
)
from migration.settings import Settings
from support.bundles import edit_manifest, rewrite
from support.cases import Case, settings_for
from support.places import Place
from support.servers import Database
from support.sqlite_files import rows_of
from validate_migration import validate

# p1 owns teams 1 and 4, p2 team 2, p3 team 3. Notes of a team name authors, who have a plan, and a note that they answer.
DDL = """
CREATE TABLE people (id int PRIMARY KEY, name text);
INSERT INTO people SELECT g, 'p' || g FROM generate_series(1, 3) g;
CREATE TABLE plans (id int PRIMARY KEY, title text); INSERT INTO plans SELECT g, 't' FROM generate_series(1, 5) g;
CREATE TABLE authors (id int PRIMARY KEY, person int NOT NULL, plan int REFERENCES plans, boss int REFERENCES authors);
INSERT INTO authors SELECT g, 1 + g % 3, nullif(g % 5, 0), nullif(g / 2, 0) FROM generate_series(1, 12) g;
CREATE TABLE teams (id int PRIMARY KEY, owner int REFERENCES people); INSERT INTO teams VALUES (1, 1), (2, 2), (3, 3), (4, 1);
CREATE TABLE notes (id bigint PRIMARY KEY, team int NOT NULL REFERENCES teams, author int REFERENCES authors, answers bigint REFERENCES notes);
INSERT INTO notes SELECT g, 1 + g % 4, nullif(g % 13, 0), CASE WHEN g % 3 = 0 THEN g - 1 END FROM generate_series(1, 40) g;
CREATE TABLE pages (note bigint REFERENCES notes, n int); INSERT INTO pages SELECT g, n FROM generate_series(1, 40) g, generate_series(1, 2) n;
"""
WAYS = (
    Table("plans", referenced()),
    Table("authors", owned_by("person"), left_behind=("boss",)),
    Table("teams", owned_by("owner")),
    Table("notes", child_of("teams", "team"), left_behind=("author", "answers")),
    Table("pages", child_of("notes", "note")),
)
MINE = "SELECT n.* FROM notes n JOIN teams t ON t.id = n.team WHERE t.owner = 1"
AUTHORS = "SELECT id FROM authors WHERE person = 1"


def leaving(author: str = "cut", answers: str = "cut", boss: str = "cut") -> Tuple[Reference, ...]:
    return (
        Reference("notes", "author", "authors", leaving=author),
        Reference("notes", "answers", "notes", leaving=answers),
        Reference("authors", "boss", "authors", leaving=boss),
    )


def settings_of_case(
    database: Database, place: Place, references: Sequence[Reference] = (), **changes: Any
) -> Settings:
    database.execute(DDL)
    return settings_for(database, place, Case("", WAYS, {}, references), **changes)


def migrate(settings: Settings) -> Any:
    """The three phases; returns the bundle's manifest."""
    export(settings)
    import_(settings)
    for against in ("bundle", "source"):
        assert validate(dataclasses.replace(settings, against=against)).errors == []
    return json.loads((settings.data_dir / "manifest.json").read_text())


def report_of(settings: Settings) -> Any:
    return json.loads((settings.data_dir / "validation_report.json").read_text())


def listed(settings: Settings) -> List[Dict[str, Any]]:
    path = settings.data_dir / CHANGES
    return json.loads(path.read_text()) if path.exists() else []


def ids(database: Database, query: str) -> List[str]:
    return sorted(str(row[0]) for row in database.rows(query))


def ids_in(place: Place, query: str) -> List[str]:
    return sorted(str(row[0]) for row in rows_of(place.app, query))


def test_reference_that_is_cut_is_null_listed_and_counted(empty: Database, place: Place) -> None:
    settings = settings_of_case(empty, place, leaving())
    manifest = migrate(settings)
    assert ids_in(place, "SELECT id FROM notes") == ids(empty, "SELECT id FROM (%s) n" % MINE)
    for column, kept in (("author", AUTHORS), ("answers", "SELECT id FROM (%s) m" % MINE)):
        still = "SELECT id FROM (%s) n WHERE %s IN (%s)" % (MINE, column, kept)
        cut = "SELECT id FROM (%s) n WHERE %s NOT IN (%s)" % (MINE, column, kept)
        assert ids_in(place, "SELECT id FROM notes WHERE %s IS NOT NULL" % column) == ids(empty, still)
        told = sorted(entry["key"][0] for entry in listed(settings) if entry["columns"] == [column])
        assert told == ids(empty, cut) != []
        parent = "authors" if column == "author" else "notes"
        assert manifest["cut"]["notes (%s) → %s" % (column, parent)] == len(told)
    assert report_of(settings)["cut"] == manifest["cut"]
    page = (settings.data_dir / "validation_report.html").read_text()
    assert "were cut to NULL" in page and "Everything arrived" not in page


def test_rows_that_are_brought_are_those_that_are_named_and_what_these_need(
    empty: Database, place: Place
) -> None:
    settings = settings_of_case(empty, place, leaving(author="bring", boss="stop"))
    manifest = migrate(settings)
    chain = (
        "WITH RECURSIVE a AS (SELECT id, boss FROM authors WHERE person = 1 OR id IN (SELECT author FROM (%s) n)"
        " UNION SELECT b.id, b.boss FROM a JOIN authors b ON b.id = a.boss) " % MINE
    )
    expected = ids(empty, chain + "SELECT id FROM a")
    assert ids_in(place, "SELECT id FROM authors") == expected
    brought = sorted(entry["key"][0] for entry in listed(settings) if entry["change"] == "brought")
    assert brought == ids(empty, chain + "SELECT id FROM a WHERE id NOT IN (%s)" % AUTHORS) != []
    assert manifest["brought"] == report_of(settings)["brought"] == {"authors": len(brought)}
    # plans are the rows that exported rows refer to, brought ones among them; boxes of others' notes stay
    plans = chain + "SELECT DISTINCT plan FROM authors JOIN a USING (id) WHERE plan IS NOT NULL"
    assert ids_in(place, "SELECT id FROM plans") == ids(empty, plans)
    assert ids_in(place, "SELECT id FROM notes") == ids(empty, "SELECT id FROM (%s) n" % MINE)


@pytest.mark.parametrize("owner", ["stop", "bring", "cut"])
def test_row_of_another_user_comes_along_only_where_that_is_declared(
    empty: Database, place: Place, owner: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows of authors that are brought refer to people, whose rows hold what nobody else should see."""
    to_people = () if owner == "stop" else (Reference("authors", "person", "people", leaving=owner),)
    settings = settings_of_case(empty, place, (*leaving(author="bring", boss="stop"), *to_people))
    empty.execute(
        "ALTER TABLE authors ALTER person DROP NOT NULL, ADD FOREIGN KEY (person) REFERENCES people"
    )
    schema = settings.schema_path.read_text()
    settings.schema_path.write_text(
        schema.replace('"person"', '"person" REFERENCES people').replace(
            '"people" ("id"', '"people" ("id" INTEGER PRIMARY KEY'
        )
    )
    if owner == "stop":
        error = refused(settings)
        assert error.exit_code == ExitCode.SOURCE
        assert "authors 1: person leads to no exported row of people (2)" in error.message
        assert 'Reference("authors", ("person",), "people", leaving="bring")' in str(error.hint)
        assert not settings.data_dir.exists() or not list(settings.data_dir.glob("*.json"))
        return
    manifest = migrate(settings)
    people = {"bring": [(1, "p1"), (2, "p2"), (3, "p3")], "cut": [(1, "p1")]}[owner]
    assert sorted(rows_of(place.app, "SELECT id, name FROM people")) == people
    assert manifest["brought"].get("people", 0) == len(people) - 1
    said = "brought: 2 rows of people that are not the user's: whole rows of others, with id, name"
    assert (said in caplog.text) == (owner == "bring")
    assert rows_of(place.app, "PRAGMA foreign_key_check") == []


def test_row_is_skipped_with_what_hangs_on_it_and_what_only_it_refers_to(
    empty: Database, place: Place
) -> None:
    settings = settings_of_case(empty, place, leaving(author="cut", answers="skip", boss="skip"))
    manifest = migrate(settings)
    kept = (
        "WITH RECURSIVE gone AS (SELECT id FROM (%s) n WHERE answers NOT IN (SELECT id FROM (%s) m)"
        " UNION SELECT n.id FROM notes n JOIN gone ON n.answers = gone.id), kept AS"
        " (SELECT * FROM (%s) n WHERE id NOT IN (SELECT id FROM gone)) " % (MINE, MINE, MINE)
    )
    assert ids_in(place, "SELECT id FROM notes") == ids(empty, kept + "SELECT id FROM kept")
    pages = kept + "SELECT note || '/' || n FROM pages WHERE note IN (SELECT id FROM kept)"
    assert ids_in(place, "SELECT note || '/' || n FROM pages") == ids(empty, pages)
    total = len(ids(empty, "SELECT id FROM (%s) n" % MINE))
    assert manifest["orphans_skipped"]["notes"] == total - len(ids_in(place, "SELECT id FROM notes"))
    boss = (
        "WITH RECURSIVE gone AS (SELECT id FROM authors WHERE person = 1 AND boss NOT IN (%s) UNION SELECT a.id FROM"
        % AUTHORS
    )
    authors = (
        boss + " authors a JOIN gone ON a.boss = gone.id) %s AND id NOT IN (SELECT id FROM gone)" % AUTHORS
    )
    assert ids_in(place, "SELECT id FROM authors") == ids(empty, authors)
    plans = authors.replace(") SELECT id FROM", ") SELECT DISTINCT plan FROM") + " AND plan IS NOT NULL"
    assert ids_in(place, "SELECT id FROM plans") == ids(empty, plans)


FORMS = """
CREATE TABLE people (id int PRIMARY KEY, name text); INSERT INTO people VALUES (1, 'p1'), (2, 'p2');
CREATE TABLE forms (id int PRIMARY KEY, person int REFERENCES people); INSERT INTO forms VALUES (1, NULL), (2, 1);
CREATE TABLE fields (id int PRIMARY KEY, form int REFERENCES forms, person int REFERENCES people); INSERT INTO fields VALUES (1, 1, NULL);
CREATE TABLE answers (id int PRIMARY KEY, field int REFERENCES fields, person int REFERENCES people); INSERT INTO answers VALUES (1, 1, 1), (2, 1, 2);
"""


def test_rows_of_others_may_name_what_everybody_gets(empty: Database, place: Place) -> None:
    empty.execute(FORMS)
    ways = (
        Table("forms", owned_by("person", or_shared=True)),
        Table("fields", any_of(child_of("forms", "form"), owned_by("person"))),
        Table("answers", owned_by("person")),
    )
    manifest = export(settings_for(empty, place, Case(FORMS, ways, {}))).manifest
    assert (manifest.left_behind, manifest.row_counts["answers"]) == ({}, 1)


GROUPS = """
CREATE TABLE people (id int PRIMARY KEY, name text); INSERT INTO people VALUES (1, 'p1'), (2, 'p2');
CREATE TABLE groups (id int PRIMARY KEY, person int REFERENCES people); INSERT INTO groups VALUES (1, 1), (2, 2), (3, NULL);
CREATE TABLE members ("group" int REFERENCES groups, person int REFERENCES people);
INSERT INTO members VALUES (1, 1), (1, 2), (2, 2), (3, 1), (3, 2);
CREATE TABLE likes (id int PRIMARY KEY, person int REFERENCES people, of text, ref int);
INSERT INTO likes VALUES (1, 1, 'group', 1), (2, 2, 'group', 1), (3, 2, 'person', 1), (4, 2, 'group', 2), (5, 2, 'group', 3);
"""


@pytest.mark.parametrize("column", ["group", "ref"])
def test_rows_of_others_that_name_own_rows_stop_the_export(
    column: str, empty: Database, place: Place
) -> None:
    """Where other rows of the table come along by being named, and by references that only config knows, too."""
    empty.execute(GROUPS)

    def settings(behind: Tuple[str, ...]) -> Settings:
        ways = (
            Table("groups", any_of(owned_by("person"), referenced())),
            Table("members", owned_by("person"), left_behind=[name for name in behind if name == "group"]),
            Table("likes", owned_by("person"), left_behind=[name for name in behind if name == "ref"]),
        )
        references = (
            Reference("likes", "ref", "groups", when="t.of = 'group'"),
            Reference("likes", "ref", "people", when="t.of = 'person'"),
        )
        return settings_for(empty, place, Case(GROUPS, ways, {}, references))

    error = refused(settings(tuple({"group", "ref"} - {column})))
    assert "%s refers to a row of the user in " % column in error.message and column in str(error.hint)
    # members (1, 2), and likes 2 and 3: not what names group 3, which is nobody's, and group 2, which p2 owns
    assert export(settings(("group", "ref"))).manifest.left_behind == {"members (group)": 1, "likes (ref)": 2}


@pytest.mark.parametrize("validates", [True, False])
def test_rows_that_config_leaves_out_are_said_once(
    empty: Database, place: Place, validates: bool, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of_case(empty, place, leaving(answers="skip"))
    empty.execute("UPDATE notes SET answers = NULL; UPDATE notes SET answers = 1 WHERE id = 4")
    run_phases(settings, [phase for phase in Phase if validates or phase is not Phase.VALIDATION])
    said = [line for line in caplog.messages if "eft out of notes" in line]
    assert said == [
        "%s out of notes by config.py: 1 row with references to rows of others"
        % ("Left" if validates else "left")
    ]


def test_orphans_skip_on_the_command_line_wins(empty: Database, place: Place) -> None:
    settings = settings_of_case(empty, place, leaving(author="bring"), skip_orphans=True)
    manifest = migrate(settings)
    assert listed(settings) == [] and "brought" not in manifest and manifest["orphans"] == "skip"
    outside = "SELECT id FROM notes WHERE author NOT IN (SELECT id FROM authors)"
    assert rows_of(place.app, outside) == []


def refused(settings: Settings) -> MigrationError:
    with pytest.raises(MigrationError) as caught:
        export(settings)
    assert not (settings.data_dir / "manifest.json").exists()
    return caught.value


def test_reference_that_says_nothing_stops(empty: Database, place: Place) -> None:
    error = refused(settings_of_case(empty, place, leaving(author="stop")))
    assert error.exit_code == ExitCode.SOURCE
    assert "author leads to no exported row of authors" in error.message
    assert "answers" not in error.message


@pytest.mark.parametrize("all_of_them", [True, False])
def test_reference_that_may_not_be_null_cannot_be_cut(
    empty: Database, place: Place, all_of_them: bool
) -> None:
    empty.execute(
        DDL + "UPDATE notes SET author = 1 WHERE author IS NULL; ALTER TABLE notes ALTER author SET NOT NULL"
    )
    references = () if all_of_them else leaving()
    case = Case("", WAYS, {}, references)
    error = refused(settings_for(empty, place, case, leaving="cut" if all_of_them else "stop"))
    assert error.exit_code == ExitCode.USAGE
    assert error.message.startswith("notes (author) → authors cannot be cut")


def test_cut_that_sqlite_does_not_take_leaves_the_old_database(empty: Database, place: Place) -> None:
    settings = settings_of_case(empty, place, leaving())
    migrate(settings)
    old = place.app.read_bytes()
    schema = settings.schema_path.read_text()
    rule = '"author" CONSTRAINT signed CHECK (author IS NOT NULL OR id NOT IN (4, 8))'  # 4 is cut, 8 too
    settings.schema_path.write_text(schema.replace('"author"', rule))
    with pytest.raises(MigrationError, match="notes 4 is rejected by SQLite: .* signed") as caught:
        import_(settings)
    assert caught.value.exit_code == ExitCode.TARGET
    assert "or notes (author) → authors, but skip the row or bring the other" in str(caught.value.hint)
    assert place.app.read_bytes() == old
    settings.schema_path.write_text(schema.replace('"author"', '"author" NOT NULL'))
    error = pytest.raises(MigrationError, export, settings).value
    assert error.exit_code == ExitCode.USAGE
    assert error.message.startswith("notes (author) → authors cannot be cut")


def test_rows_of_every_other_user_are_not_brought(empty: Database, place: Place) -> None:
    """A row that is everybody's names each person: with it, each export would hold them all."""
    empty.execute(
        DDL + "CREATE TABLE news (id int PRIMARY KEY, person int REFERENCES people);"
        "INSERT INTO news SELECT g, 1 + g % 3 FROM generate_series(1, 9) g"
    )
    case = Case("", [*WAYS, Table("news", shared())], {}, leaving())
    error = refused(settings_for(empty, place, case, leaving="bring"))
    assert error.exit_code == ExitCode.USAGE
    assert error.message == "2 rows of people would be brought, of 2 of the 2 other rows of people"
    assert "news (person) → people" in str(error.hint)


def rewrite_list(settings: Settings, entries: Sequence[Dict[str, Any]], **counts: Any) -> None:
    """Replace the bundle's list, with a manifest that agrees."""
    lines = ",\n".join(map(json.dumps, entries))
    rewrite(settings.data_dir, CHANGES, "[\n%s\n]\n" % lines)
    edit_manifest(settings.data_dir, lambda manifest: manifest.update(counts))


class Damage(NamedTuple):
    """``sql``: in SQLite. ``found``: what an error of the validation says."""

    sql: str
    found: str


@pytest.mark.parametrize(
    ("references", "damage"),
    [
        (
            leaving(),
            Damage(
                "UPDATE notes SET author = 2 WHERE id = 8", "notes 8: author is listed as cut and is not NULL"
            ),
        ),
        (
            leaving(author="bring"),
            Damage("UPDATE notes SET author = NULL", "was brought and no row needs it"),
        ),
        (
            leaving(),
            Damage(
                "INSERT INTO authors VALUES (7, 2, NULL, NULL)",
                "Isolation: authors 7 is a row of another user",
            ),
        ),
    ],
    ids=["cut, not NULL", "brought, not needed", "of another, not listed"],
)
def test_database_that_is_not_as_listed_fails(
    empty: Database, place: Place, references: Sequence[Reference], damage: Damage
) -> None:
    settings = settings_of_case(empty, place, references)
    migrate(settings)
    with sqlite3.connect(str(place.app)) as connection:
        connection.execute(damage.sql)
    connection.close()
    assert any(damage.found in error for error in validate(settings).errors)


def test_cut_that_is_not_listed_is_a_difference(empty: Database, place: Place) -> None:
    settings = settings_of_case(empty, place, leaving())
    manifest = migrate(settings)
    first, *others = listed(settings)
    name = "%s (%s) → %s" % (first["table"], first["columns"][0], first["parent"])
    rewrite_list(settings, others, cut={**manifest["cut"], name: manifest["cut"][name] - 1})
    (error,) = validate(settings).errors
    assert "row %s would be cut now and is not listed" % first["key"][0] in error


def test_brought_row_that_is_not_listed_is_anothers(empty: Database, place: Place) -> None:
    settings = settings_of_case(empty, place, leaving(author="bring"))
    manifest = migrate(settings)
    entries = listed(settings)
    gone = next(entry for entry in entries if entry["change"] == "brought")
    entries.remove(gone)
    rewrite_list(settings, entries, brought={"authors": manifest["brought"]["authors"] - 1})
    row = "authors %s belongs to another user" % gone["key"][0]
    assert any(row in error for error in validate(settings).errors)
    with pytest.raises(MigrationError, match="belongs to another user") as caught:
        import_(settings)
    assert caught.value.exit_code == ExitCode.BUNDLE
    rewrite_list(settings, entries)
    edit_manifest(settings.data_dir, lambda told: told.update(brought=manifest["brought"]))
    with pytest.raises(MigrationError, match="does not list what the manifest counts"):
        import_(settings)


def test_table_without_a_key_and_composite_references_are_cut(empty: Database, place: Place) -> None:
    """The part of a composite reference that may not be NULL stays, as it is part of another too."""
    empty.execute(
        """
        CREATE TABLE people (id int PRIMARY KEY, name text); INSERT INTO people VALUES (1, 'p1'), (2, 'p2');
        CREATE TABLE rooms (person int REFERENCES people, n int, PRIMARY KEY (person, n)); INSERT INTO rooms VALUES (1, 1), (2, 1), (2, 2);
        CREATE TABLE keys (owner int REFERENCES people, person int NOT NULL, n int, FOREIGN KEY (person, n) REFERENCES rooms);
        INSERT INTO keys VALUES (1, 1, 1), (1, 2, 1), (1, 2, 1), (1, 2, NULL), (2, 2, 2);
        """
    )
    ways = [Table("rooms", owned_by("person")), Table("keys", owned_by("owner"))]
    case = Case("", ways, {}, [Reference("keys", ("person", "n"), "rooms", leaving="cut")])
    settings = settings_for(empty, place, case)
    manifest = migrate(settings)
    rows = rows_of(place.app, "SELECT owner, person, n FROM keys ORDER BY 2, 3")
    assert rows == [(1, 1, 1), *[(1, 2, None)] * 3]
    assert manifest["cut"] == {"keys (person, n) → rooms": 2}
    assert [entry["key"] for entry in listed(settings)] == [[], []]


def test_undeclared_and_polymorphic_references_leave_as_declared(empty: Database, place: Place) -> None:
    empty.execute(
        DDL + "CREATE TABLE likes (id int PRIMARY KEY, owner int, kind text, subject int);"
        "INSERT INTO likes SELECT g, 1, (ARRAY['note', 'author'])[1 + g % 2], g FROM generate_series(1, 12) g"
    )
    references = [
        *leaving(),
        Reference("likes", "subject", "notes", when="t.kind = 'note'", leaving="cut"),
        Reference("likes", "subject", "authors", when="t.kind = 'author'", leaving="bring"),
    ]
    case = Case("", [*WAYS, Table("likes", owned_by("owner"))], {}, references)
    settings = settings_for(empty, place, case)
    migrate(settings)
    kept = "SELECT id FROM likes WHERE kind = 'author' OR subject IN (SELECT id FROM (%s) n)" % MINE
    assert ids_in(place, "SELECT id FROM likes WHERE subject IS NOT NULL") == ids(empty, kept)
    named = "SELECT subject FROM likes WHERE kind = 'author' UNION %s" % AUTHORS
    assert set(ids(empty, named)) <= set(ids_in(place, "SELECT id FROM authors"))


def test_row_of_a_join_table_with_one_end_of_anothers_stays(empty: Database, place: Place) -> None:
    """It is left behind without being declared: all_of says so."""
    empty.execute(
        DDL
        + "CREATE TABLE stars (note bigint REFERENCES notes, author int REFERENCES authors, PRIMARY KEY (note, author));"
        "INSERT INTO stars SELECT n, a FROM generate_series(1, 40) n, generate_series(1, 12) a WHERE (n + a) % 5 = 0"
    )
    both = all_of(child_of("notes", "note"), child_of("authors", "author"))
    case = Case("", [*WAYS, Table("stars", both)], {}, leaving())
    settings = settings_for(empty, place, case)
    migrate(settings)
    expected = (
        "SELECT note || '/' || author FROM stars WHERE note IN (SELECT id FROM (%s) n) AND author IN (%s)"
    )
    assert ids_in(place, "SELECT note || '/' || author FROM stars") == ids(empty, expected % (MINE, AUTHORS))


# Person 1 uses recipe 2 of person 2, and 3 and 4 that are nobody's; recipe 5 is of person 3, who is named by recipe 3.
BELOW = """
CREATE TABLE people (id int PRIMARY KEY, name text); INSERT INTO people SELECT g, 'p' || g FROM generate_series(1, 3) g;
CREATE TABLE recipes (id int PRIMARY KEY, owner int REFERENCES people, base int REFERENCES recipes);
INSERT INTO recipes VALUES (1, 1, NULL), (2, 2, NULL), (3, NULL, 4), (4, NULL, NULL), (5, 3, NULL);
CREATE TABLE meals (id int PRIMARY KEY, person int REFERENCES people, recipe int REFERENCES recipes);
INSERT INTO meals VALUES (1, 1, 1), (2, 1, 2), (3, 1, 3), (4, 2, 2), (5, 2, 5), (6, 3, 3);
CREATE TABLE steps (id int PRIMARY KEY, recipe int REFERENCES recipes, adds int REFERENCES recipes);
INSERT INTO steps SELECT g, 1 + g % 5, CASE WHEN g % 7 = 0 THEN 5 WHEN g % 3 = 0 THEN 1 END FROM generate_series(1, 40) g;
"""


@pytest.mark.parametrize(
    ("recipes", "leaves", "present"),
    [
        (any_of(owned_by("owner"), referenced()), "skip", {1, 3, 4}),
        (any_of(owned_by("owner"), referenced()), "bring", {1, 2, 3, 4, 5}),
        (owned_by("owner"), "skip", {1}),
        (owned_by("owner"), "bring", {1, 2, 3, 4}),
    ],
)
def test_what_stays_behind_below_rows_that_come_along_is_counted(
    empty: Database, place: Place, recipes: Ownership, leaves: str, present: Set[int]
) -> None:
    """Below the rows in the file, not below those that were left out with the row that named them."""
    empty.execute(BELOW)
    references = [
        Reference("meals", "recipe", "recipes", leaving=leaves),
        Reference("recipes", "base", "recipes", leaving=leaves),
        Reference("recipes", "owner", "people", leaving=leaves),
        Reference("steps", "adds", "recipes", leaving="skip"),
    ]
    steps = Table("steps", child_of("recipes", "recipe"), left_behind=("adds",))
    ways = [Table("recipes", recipes), Table("meals", owned_by("person")), steps]
    manifest = migrate(settings_for(empty, place, Case("", ways, {}, references)))
    assert {id for (id,) in rows_of(place.app, "SELECT id FROM recipes")} == present
    hanging = [recipe for (recipe,) in empty.rows("SELECT recipe FROM steps") if recipe in present - {1}]
    assert manifest["left_behind"].get("steps (recipe)", 0) == len(hanging)


KEYS = {
    "bigint": "{}",
    "text": "'key ' || {}",
    "char(8)": "'k' || {}",
    "uuid": "lpad(({})::text, 32, '0')::uuid",
    "bytea": "decode(lpad(({})::text, 8, '0'), 'hex')",
    "date": "'2026-01-01'::date + {}",
}


@pytest.mark.parametrize("leaves", ["cut", "bring", "skip"])
@pytest.mark.parametrize("key", KEYS)
def test_keys_of_any_type_are_matched_listed_and_checked(
    empty: Database, place: Place, key: str, leaves: str
) -> None:
    """Docs in a tree, icons that refer to each other's boxes in a cycle; the answer does not depend on the type."""
    made = KEYS[key].format
    empty.execute(
        f"""
        CREATE TABLE people (id {key} PRIMARY KEY, name text); INSERT INTO people SELECT {made("g")}, 'p' || g FROM generate_series(1, 3) g;
        CREATE TABLE icons (n int, id {key} PRIMARY KEY, box {key}); CREATE TABLE boxes (n int, id {key} PRIMARY KEY, icon {key} REFERENCES icons);
        INSERT INTO icons SELECT g, {made("g")}, CASE WHEN g % 2 = 0 THEN {made("g / 2")} END FROM generate_series(1, 20) g;
        INSERT INTO boxes SELECT g, {made("g")}, {made("g + 10")} FROM generate_series(1, 10) g;
        ALTER TABLE icons ADD FOREIGN KEY (box) REFERENCES boxes;
        CREATE TABLE docs (n int, id {key} PRIMARY KEY, owner {key} REFERENCES people, icon {key} REFERENCES icons, up {key} REFERENCES docs);
        INSERT INTO docs SELECT g, {made("g")}, {made("1 + g % 3")}, {made("g")}, CASE WHEN g > 4 THEN {made("g - 4")} END FROM generate_series(1, 20) g;
        """
    )
    ways = [
        Table("boxes", referenced()),
        Table("icons", referenced()),
        Table("docs", owned_by("owner"), left_behind=("up",)),
    ]
    to_others = [("up", "docs"), *([("owner", "people")] if leaves == "bring" else [])]
    settings = settings_for(
        empty,
        place,
        Case(
            "", ways, {}, [Reference("docs", column, parent, leaving=leaves) for column, parent in to_others]
        ),
    )
    manifest = migrate(settings)
    mine = {n for n in range(1, 21) if n % 3 == 0}
    if leaves == "bring":
        for n in sorted(mine, reverse=True):
            mine.update(range(n, 0, -4))
        assert manifest["brought"] == {"docs": len(mine) - 6, "people": 2}
    if leaves == "skip":
        mine = {3}
    icons, boxes = set(mine), set()
    for _ in range(5):
        boxes |= {n // 2 for n in icons if n % 2 == 0}
        icons |= {n + 10 for n in boxes}
    for table, numbers in (("docs", mine), ("icons", icons), ("boxes", boxes)):
        assert {n for (n,) in rows_of(place.app, "SELECT n FROM %s" % table)} == numbers, table
    if leaves == "cut":
        assert manifest["cut"] == {"docs (up) → docs": 5}
        assert rows_of(place.app, "SELECT count(*) FROM docs WHERE up IS NOT NULL") == [(0,)]
