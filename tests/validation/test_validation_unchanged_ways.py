"""Rows that become others by a change to another table are found as a later validation finds them, whatever way they are the user's."""

from __future__ import annotations

from typing import Dict, List, Mapping

import pytest

from migrate import phases_in_a_row
from migration.model import Reference, Table, any_of, child_of, owned_by, referenced, where
from migration.validation.report import Changes
from support.cases import Case, settings_for
from support.places import Place
from support.servers import Database
from validate_migration import validate

DDL = """
CREATE TABLE people (id int PRIMARY KEY, name text);
INSERT INTO people SELECT g, 'p' || g FROM generate_series(1, 3) g;
CREATE TABLE chosen (n int); INSERT INTO chosen VALUES (1);
CREATE TABLE odd (id int PRIMARY KEY, team int, person int);
INSERT INTO odd SELECT g, 3 - g, g FROM generate_series(1, 3) g;
CREATE TABLE teams (id int PRIMARY KEY, owner int REFERENCES people, odd int);
INSERT INTO teams SELECT g, g, g FROM generate_series(1, 3) g;
"""
EXCHANGE = "UPDATE teams SET owner = CASE owner WHEN 1 THEN 2 ELSE 1 END WHERE owner IN (1, 2)"


def to_team(leaving: str) -> Reference:
    return Reference("odd", "team", "teams", leaving=leaving)


WAYS = {
    "by a condition": (where("t.id IN (SELECT n FROM public.chosen)"), (), "UPDATE chosen SET n = 2"),
    "as they are named": (
        referenced(),
        (Reference("teams", "odd", "odd"),),
        "UPDATE teams SET odd = 3 WHERE owner = 1",
    ),
    "by a parent or themselves": (
        any_of(child_of("teams", "team"), owned_by("person")),
        (to_team("cut"),),
        "DELETE FROM odd WHERE id = 3; " + EXCHANGE,
    ),
    "with a reference that is cut": (owned_by("person"), (to_team("cut"),), EXCHANGE),
    "and bring others": (
        owned_by("person"),
        (to_team("bring"), Reference("teams", "owner", "people", leaving="bring")),
        "UPDATE odd SET team = 3 WHERE id = 1",
    ),
}


def numbers(changes: Mapping[str, Changes]) -> Dict[str, List[int]]:
    """Of rows added, removed and changed; a row without a key has another name in each run."""
    return {table: [of.added.rows, of.removed.rows, of.changed.rows] for table, of in changes.items()}


@pytest.mark.parametrize("way", WAYS)
def test_rows_changed_by_another_table_are_found(way: str, empty: Database, place: Place) -> None:
    ownership, references, change = WAYS[way]
    empty.execute(DDL)
    left_behind = ("team",) if ownership == owned_by("person") else ()
    tables = [Table("teams", owned_by("owner")), Table("odd", ownership, left_behind=left_behind)]
    settings = settings_for(
        empty, place, Case("", tables, {}, references), unrelated_tables=("chosen",), show_values=True
    )
    for done in phases_in_a_row(settings):
        if done.imported is not None:
            empty.execute(change)
    assert done.report is not None
    expected = validate(settings)
    assert numbers(done.report.source_changes) == numbers(expected.source_changes)
    assert {"by a condition": "odd", "and bring others": "teams"}.get(way, "odd") in expected.source_changes
