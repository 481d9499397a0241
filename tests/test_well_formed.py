"""What config.py may not say: each is refused before PostgreSQL is asked, with what to write instead."""

from __future__ import annotations

from typing import Any

import pytest

from migration.errors import ExitCode, MigrationError
from migration.model import (
    Ownership,
    Reference,
    Root,
    Table,
    all_of,
    any_of,
    child_of,
    owned_by,
    referenced,
    root,
    shared,
    the_root,
    undecided,
    where,
)
from migration.well_formed import require_well_formed

ROOT: Root = root("users")
USERS = Table("users", the_root())


def refused(*tables: Table, **more: Any) -> MigrationError:
    with pytest.raises(MigrationError) as caught:
        require_well_formed((USERS, *tables), ROOT, **more)
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("ownership", "message"),
    [
        (owned_by(("a", "b")), "owned_by names 2 columns, and the root's key is one"),
        (owned_by(()), "owned_by or child_of names no column"),
        (owned_by(""), "a column or condition of its ownership is no text, or empty"),
        (owned_by(7), "a column or condition of its ownership is no text, or empty"),  # type: ignore[arg-type]
        (child_of("users", ("a", "a")), "its ownership names a column twice: a, a"),
        (child_of("", "a"), "child_of names no parent"),
        (any_of(owned_by("a")), "any_of takes two ways or more"),
        (any_of(owned_by("a"), "b"), "any_of holds 'b', which is no ownership"),  # type: ignore[arg-type]
        (any_of(owned_by("a"), shared()), "any_of cannot hold the_root() or shared()"),
        (all_of(owned_by("a"), the_root()), "all_of cannot hold the_root() or shared()"),
        (all_of(owned_by("a"), any_of(owned_by("b"), referenced())), "all_of cannot hold referenced()"),
        (any_of(owned_by("a"), all_of(owned_by("b"), owned_by(()))), "owned_by or child_of names no column"),
        (where(" "), "a column or condition of its ownership is no text, or empty"),
    ],
)
def test_ownership_that_says_nothing_or_what_cannot_be_is_refused(ownership: Ownership, message: str) -> None:
    assert refused(Table("notes", ownership)).message == "config.TABLES, notes: " + message


def test_what_hangs_on_rows_of_which_none_is_the_roots_has_to_be_asked_for() -> None:
    tags = Table("tags", referenced())
    error = refused(tags, Table("aliases", any_of(owned_by("a"), child_of("tags", "tag"))))
    assert error.message.startswith(
        "config.TABLES, aliases: it is child_of tags, of which no row is the root's"
    )
    assert 'child_of("tags", "tag", or_referenced=True)' in str(error.hint)


def test_column_that_names_rows_of_several_tables_has_to_say_when() -> None:
    tables = (
        Table("docs", owned_by("a")),
        Table("pics", owned_by("a")),
        Table("tags", child_of("docs", "on")),
    )
    error = refused(*tables, references=(Reference("tags", "on", "pics", when="t.kind = 'pic'"),))
    assert error.message == "config.TABLES, tags: it is child_of docs by on, which names rows of pics, too"
    assert 'Reference("tags", "on", "docs", when="…")' in str(error.hint)
    both = Reference("tags", ("a", "b"), "pics", when="t.kind = 'pic'")
    error = refused(*tables[:2], Table("tags", child_of("docs", ("a", "b"))), references=(both,))
    assert 'Reference("tags", ("a", "b"), "docs", when="…")' in str(error.hint)


def test_every_open_question_is_shown_with_its_choices() -> None:
    error = refused(
        Table("notes", undecided("by author or by team?", 'owned_by("author")', 'child_of("teams", "team")')),
        Table("tags", any_of(owned_by("a"), undecided("whose?"))),
    )
    assert error.message == (
        "config.TABLES leaves open how rows belong to 2 tables:\n"
        "  notes: by author or by team?\n  tags: whose?"
    )
    assert 'notes: owned_by("author") | child_of("teams", "team")' in str(error.hint)


NOTE = Table("notes", owned_by("user_id"))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (Reference("notes", "a", "gone"), "notes (a) → gone: table gone is not in config.TABLES"),
        (Reference("notes", (), "users"), "notes () → users: a name is no text, or missing"),
        (Reference("notes", 7, "users"), "notes (7) → users: a name is no text, or missing"),  # type: ignore[arg-type]
        (
            Reference("notes", ("a", "b"), "users", "id"),
            "notes (a, b) → users: it has other numbers of columns on its two sides",
        ),
        (Reference("notes", "a", "users", leaving="drop"), "notes (a) → users: leaving is 'drop'"),
        (Reference("notes", "a", "users", when=""), "notes (a) → users: when is no SQL"),
    ],
)
def test_reference_that_cannot_be_is_refused(reference: Reference, message: str) -> None:
    assert refused(NOTE, references=(reference,)).message == "config.REFERENCES, " + message


def test_reference_stands_once_and_the_list_is_a_list() -> None:
    twice = (Reference("notes", "a", "users"), Reference("notes", ("a",), "users", leaving="cut"))
    assert refused(NOTE, references=twice).message.endswith("stands there twice")
    assert refused(NOTE, references=twice[0]).message == "config.REFERENCES is not a tuple of Reference(…)"
    assert refused(NOTE, leaving="drop").message == "config.LEAVING is 'drop'"


def test_whole_vocabulary_is_well_formed() -> None:
    require_well_formed(
        (
            USERS,
            NOTE,
            Table("tags", referenced()),
            Table("links", all_of(child_of("notes", "note"), any_of(owned_by("a"), where("t.b = {root}")))),
        ),
        ROOT,
        (Reference("links", "note", "notes", when="t.kind = 'note'", leaving="bring"),),
        "cut",
    )
