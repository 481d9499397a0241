"""Random applications: rows of a root by the suite's SQL are those that a plain loop over all rows finds."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

import pytest

from migration.bundle.changes import parsed
from migration.errors import UsageError
from migration.model import (
    Ownership,
    Reference,
    Table,
    Way,
    all_of,
    any_of,
    child_of,
    owned_by,
    referenced,
    where,
)
from migration.postgres import all_roots, connecting
from migration.postgres.all_roots import AllRoots
from migration.postgres.cycles import components
from migration.postgres.references import References
from migration.postgres.rows import rows_of_user
from migration.sqlite.schema import read_schema
from support.cases import Case, settings_for
from support.places import Place
from support.servers import Database

Row = Dict[str, Optional[int]]
ROOTS = (1, 2, 3)


class Application(NamedTuple):
    """``references``: table and column → the table that it names; ``leaving`` says what becomes of each."""

    rows: Dict[str, List[Row]]
    references: Dict[Tuple[str, str], str]
    ways: Dict[str, Ownership]
    leaving: Dict[Tuple[str, str], str]


def random_application(rng: random.Random) -> Application:
    names = ["t%d" % number for number in range(rng.randint(2, 4))]
    references = {
        (name, "r%d" % number): rng.choice(names) for name in names for number in range(rng.randint(1, 3))
    }
    rows: Dict[str, List[Row]] = {}
    sizes = {name: rng.randint(3, 25) for name in names}
    for name in names:
        rows[name] = []
        for key in range(1, sizes[name] + 1):
            row: Row = {"id": key, "owner": rng.choice([None, 1, 2, 3])}
            for (table, column), parent in references.items():
                if table == name:
                    row[column] = rng.choice([None, *[rng.randint(1, sizes[parent])] * 3])
            rows[name].append(row)
    ways = {name: random_ownership(rng, name, references) for name in names}
    leaving = {reference: rng.choice(["cut", "cut", "bring", "skip"]) for reference in references}
    return Application(rows, references, ways, leaving)


def random_ownership(rng: random.Random, name: str, references: Dict[Tuple[str, str], str]) -> Ownership:
    mine = [(column, parent) for (table, column), parent in references.items() if table == name]

    def part() -> Ownership:
        chosen = rng.random()
        if chosen < 0.3:
            return owned_by("owner")
        if chosen < 0.4:
            return where("t.owner = {root} AND t.id > 4")
        column, parent = rng.choice(mine)
        return child_of(parent, column, or_referenced=rng.random() < 0.3)

    shape = rng.random()
    if shape < 0.25:
        return referenced()
    if shape < 0.45:
        return part()
    if shape < 0.65:
        return all_of(part(), part())
    more = [referenced()] if rng.random() < 0.4 else [all_of(part(), part())]
    return any_of(part(), part(), *more)


# The answer, by looking at every row again until nothing changes


class Sets(NamedTuple):
    """``mine``: with what comes along by referenced(); ``own``: without."""

    root: int
    own: Dict[str, Set[int]]
    mine: Dict[str, Set[int]]
    brought: Dict[str, Set[int]]

    def exported(self, table: str) -> Set[int]:
        return self.mine[table] | self.brought[table]


def is_mine(rule: Ownership, table: str, row: Row, app: Application, sets: Sets) -> bool:
    if rule.way is Way.OWNED:
        return row["owner"] == sets.root
    if rule.way is Way.WHERE:
        return row["owner"] == sets.root and int(row["id"] or 0) > 4
    if rule.way is Way.CHILD:
        parents = sets.mine if rule.or_referenced else sets.own
        return row[rule.columns[0]] in parents[str(rule.parent)]
    if rule.way is Way.REFERENCED:
        return is_named(table, row, app, sets, ["cut", "bring", "skip"])
    tests = [is_mine(part, table, row, app, sets) for part in rule.ways]
    return any(tests) if rule.way is Way.ANY else all(tests)


def is_named(table: str, row: Row, app: Application, sets: Sets, leaving: Sequence[str]) -> bool:
    return any(
        other[column] == row["id"]
        for (child, column), parent in app.references.items()
        if parent == table and app.leaving[child, column] in leaving
        for other in app.rows[child]
        if other["id"] in sets.exported(child)
    )


class Answer(NamedTuple):
    """``cut``: rows by reference. ``left_out``: rows whose own reference has them left out. ``first``: exported, if none were."""

    sets: Sets
    exported: Dict[str, Set[int]]
    cut: Dict[Tuple[str, str], Set[int]]
    left_out: Dict[str, Set[Any]]
    first: Dict[str, Set[int]]


def answer(app: Application, root: int) -> Answer:
    left_out: Dict[str, Set[Any]] = {name: set() for name in app.rows}
    first: Optional[Dict[str, Set[int]]] = None
    while True:
        sets = Sets(root, *({name: set() for name in app.rows} for _ in range(3)))
        before = None
        while before != repr(sets):
            before = repr(sets)
            for name, rows in app.rows.items():
                for row in rows:
                    if row["id"] in left_out[name]:
                        continue
                    rule = app.ways[name]
                    own = [part for part in (rule.ways or (rule,)) if part != referenced()]
                    if any(is_mine(part, name, row, app, sets) for part in own) and (
                        rule.way is not Way.ALL or is_mine(rule, name, row, app, sets)
                    ):
                        sets.own[name].add(int(row["id"] or 0))
                    if is_mine(rule, name, row, app, sets):
                        sets.mine[name].add(int(row["id"] or 0))
                    if is_named(name, row, app, sets, ["bring"]):
                        sets.brought[name].add(int(row["id"] or 0))
        dangling = {
            (name, column): {
                int(row["id"] or 0)
                for row in app.rows[name]
                if row["id"] in sets.exported(name)
                and row[column] is not None
                and row[column] not in sets.exported(parent)
            }
            for (name, column), parent in app.references.items()
        }
        exported = {name: sets.exported(name) for name in app.rows}
        first = first or exported
        skipped = {key: rows for key, rows in dangling.items() if app.leaving[key] == "skip" and rows}
        if not skipped:
            cut = {key: rows for key, rows in dangling.items() if app.leaving[key] == "cut" and rows}
            return Answer(sets, exported, cut, left_out, first)
        for (name, _), rows in skipped.items():
            left_out[name] |= rows


def hanging(app: Application, found: Answer) -> Dict[Tuple[str, str], Tuple[int, int]]:
    """Rows that stay behind and hang on rows that only come along, by reference: at least, and at most.

    A row that stays behind with one that was left out may count as left out, or as hanging on another one.
    """
    counts = {}
    for name, way in app.ways.items():
        for part in way.parts:
            if part.parent is not None:
                along = found.exported[part.parent]
                if not app.ways[part.parent].comes_along:
                    along = along - found.sets.mine[part.parent]
                stay = {
                    int(row["id"] or 0)
                    for row in app.rows[name]
                    if row[part.columns[0]] in along and row["id"] not in found.exported[name]
                }
                most = len(stay - found.left_out[name])
                counts[name, part.columns[0]] = len(stay - found.first[name]), most
    return counts


def create(database: Database, app: Application, rng: random.Random) -> List[Reference]:
    """Make the tables; half of the references are declared there, all of them in config."""
    sql = "CREATE TABLE people (id int PRIMARY KEY, name text); INSERT INTO people VALUES (1, 'p1'), (2, 'p2'), (3, 'p3');"
    for name, rows in app.rows.items():
        columns = list(rows[0])
        sql += "CREATE TABLE %s (%s, PRIMARY KEY (id));" % (
            name,
            ", ".join(column + " int" for column in columns),
        )
        for row in rows:
            values = ("NULL" if row[column] is None else str(row[column]) for column in columns)
            sql += "INSERT INTO %s VALUES (%s);" % (name, ", ".join(values))
    for (name, column), parent in app.references.items():
        if rng.random() < 0.5:
            sql += "ALTER TABLE %s ADD FOREIGN KEY (%s) REFERENCES %s DEFERRABLE;" % (name, column, parent)
    database.execute(sql)
    return [
        Reference(name, column, parent, leaving=app.leaving[name, column])
        for (name, column), parent in app.references.items()
    ]


@pytest.mark.parametrize("seed", [*range(20), 118, 181, 193])
def test_rows_are_those_that_a_plain_loop_finds(
    empty: Database, place: Place, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    app = random_application(rng)
    references = create(empty, app, rng)
    parents = {
        name: [str(part.parent) for part in way.parts if part.parent] for name, way in app.ways.items()
    }
    order = list(itertools.chain(*components(parents)))
    tables = [Table(name, app.ways[name]) for name in order]
    settings = settings_for(empty, place, Case("", tables, {}, references))
    found = answer(app, 1)
    try:
        with connecting.opened(settings) as db:
            rows = rows_of_user(db, settings, read_schema(settings.schema_path), "p1", False)
            for table in tables:
                sql = "SELECT t.id FROM %s t WHERE %s" % (db.quoted(table.name), rows.condition(table))
                keys = [key for (key,) in db.rows(sql)]
                assert sorted(keys) == sorted(found.exported[table.name]), (table, seed)
                assert rows.count(table) == len(keys) == rows.digest(table).rows
            gone = rows.gone_along({name: len(keys) for name, keys in found.exported.items()})
            for name, keys in found.first.items():  # each row that is missing has its reason
                missing = rows.skipped.get(name, 0) + gone.get(name, 0)
                assert len(keys) == len(found.exported[name]) + missing, (name, seed)
            listed = parsed(list(rows.leaving.listed())).cut
            assert {key: sorted(cut) for key, cut in listed.items()} == {
                (name, (column,)): sorted((str(key),) for key in keys)
                for (name, column), keys in found.cut.items()
            }
            behind = {(each.table, each.columns[0]): each.rows for each in rows.left_behind() if each.hangs}
            for key, (least, most) in hanging(app, found).items():
                assert least <= behind.pop(key, 0) <= most, (key, seed)
            assert not behind
            # and those of all roots at once, taken in parts too
            everybodys = [
                [order.index(name), "[%d]" % key, str(root)]
                for root in ROOTS
                for name, numbers in answer(app, root).first.items()
                for key in numbers
            ]
            pairs = AllRoots(References(db, settings, read_schema(settings.schema_path)), skip=False)
            for most in (all_roots.PAIRS, 20):
                monkeypatch.setattr(all_roots, "PAIRS", most)
                queries = pairs.pairs(order, {name: len(each) for name, each in app.rows.items()})
                lines = [json.loads(line) for query in queries for line in db.stream(query)]
                assert sorted(lines) == sorted(everybodys), (most, seed)
    except UsageError as error:
        assert "all_of has two ways that depend on each other's rows" in error.message
