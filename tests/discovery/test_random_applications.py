"""Generated applications with rows of three roots: each is discovered, and each root's rows and no others come out.

The rows know whose they are when they are made; which references lead there is for the discovery to find.
"""

from __future__ import annotations

import sqlite3
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Dict, List, Optional, Set, Tuple

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import discover
from migration.discovery.written import loaded
from migration.model import Way
from migration.sql import literal, quote
from support.servers import Server
from support.whole_runs import migrate_strictly, settings_for

NAMES = (
    "users",
    "Account",
    "order",
    "time_entries",
    "user-notes",
    "Ärger",
    "a b",
    'q"x',
    "selects",
    "log",
    "Box",
    "item_tags",
)
ABOVE, BACK = -1, -2  # places of a row's parents beside its references: in a tree, and in a cycle
KEYS = {
    "int": lambda n: n,
    "bigint": lambda n: n + 2**40,
    "text": lambda n: "k'%d" % n,
    "uuid": lambda n: "00000000-0000-4000-8000-%012d" % n,
    "varchar(9)": lambda n: "v%d" % n,
    "bytea": lambda n: "\\x%04x" % n,
}


@dataclass
class Row:
    number: int
    root: Optional[int]  # None: nobody's
    key: Tuple[Any, ...]
    parents: Dict[int, Row] = field(default_factory=dict)


@dataclass
class Generated:
    """``references``: columns → the table that they name, and whether they may be NULL."""

    name: str
    types: Tuple[str, ...]  # of its key's columns; none: it has no key
    first: int  # number of its keys: no key of it is one of the root's by chance
    owned: bool = True
    references: List[Tuple[Generated, bool]] = field(default_factory=list)
    is_tree: bool = False
    back: Optional[Generated] = None  # a table that refers to this one, directly or not: a cycle
    rows: List[Row] = field(default_factory=list)

    @property
    def key(self) -> List[str]:
        return ["key part %d" % place if place else "Key" for place in range(len(self.types))]

    def columns(self, place: int) -> List[str]:
        parent = self.references[place][0]
        return ["ref%d %s" % (place, name) for name in parent.key]


def application(random: Random) -> List[Generated]:
    """The root, tables of nobody that others refer to, and tables that lead to the root in one or several ways."""
    names = random.sample(NAMES, random.randint(3, 7))
    made = [Generated(names[0], (random.choice(list(KEYS)),), 0)]
    for name in names[1:]:
        types = tuple(random.choice(list(KEYS)) for _ in range(random.choice((0, 1, 1, 1, 2))))
        table = Generated(name, types, 100 * len(made), owned=random.random() < 0.8)
        possible = [other for other in made if other.types and other.owned <= table.owned]
        some = random.sample(possible, min(len(possible), random.randint(1, 3)))
        if table.owned and not any(other.owned for other in some):
            some[0] = made[0]
        for other in sorted(some, key=lambda other: not other.owned):
            table.references.append((other, bool(table.references) and random.random() < 0.5))
        table.is_tree = len(types) == 1 and random.random() < 0.3
        made.append(table)
    for number, table in enumerate(made):
        later = [other for other in made[number + 1 :] if other.types and other.owned and table.owned]
        if later and random.random() < 0.3:
            table.back = random.choice(later)
    for table in made:
        for number in range(3 if table is made[0] else random.randint(0, 8)):
            add_row(random, table, number, number if table is made[0] else random.randrange(3))
    for table in made:
        for row in table.rows if table.back is not None else ():
            fit = [one for one in table.back.rows if one.root == row.root]
            if fit and random.random() < 0.6:
                row.parents[BACK] = random.choice(fit)
    return made


def add_row(random: Random, table: Generated, number: int, root: int) -> None:
    row = Row(
        number,
        root if table.owned else None,
        tuple(KEYS[type_](table.first + number) for type_ in table.types),
    )
    for place, (parent, optional) in enumerate(table.references):
        fit = [one for one in parent.rows if one.root in (row.root, None)]
        if fit and not (optional and random.random() < 0.4):
            row.parents[place] = random.choice(fit)
        elif not optional:
            return
    fit = [one for one in table.rows if one.root == row.root]
    if table.is_tree and fit:
        row.parents[ABOVE] = random.choice(fit)
    table.rows.append(row)


def sql(made: List[Generated]) -> str:
    script = []
    for table in made:
        columns = ["%s %s NOT NULL" % (quote(name), type_) for name, type_ in zip(table.key, table.types)]
        columns.append("nr int NOT NULL" + (", email text NOT NULL UNIQUE" if table is made[0] else ""))
        rules = ["PRIMARY KEY (%s)" % ", ".join(map(quote, table.key))] if table.types else []
        for place, (parent, optional) in enumerate(table.references):
            mine = table.columns(place)
            for name, type_ in zip(mine, parent.types):
                columns.append("%s %s %s" % (quote(name), type_, "" if optional else "NOT NULL"))
            rules.append(reference(mine, parent))
        if table.is_tree:
            columns.append("%s %s" % (quote("above"), table.types[0]))
            rules.append(reference(["above"], table))
        script.append("CREATE TABLE %s (%s)" % (quote(table.name), ", ".join([*columns, *rules])))
        for row in table.rows:
            values = [*row.key, row.number, *(["r%d@example.com" % row.number] if table is made[0] else [])]
            for place, (parent, _) in enumerate(table.references):
                named = row.parents.get(place)
                values += [None] * len(parent.types) if named is None else named.key
            if table.is_tree:
                values.append(row.parents[ABOVE].key[0] if ABOVE in row.parents else None)
            script.append(
                "INSERT INTO %s VALUES (%s)"
                % (quote(table.name), ", ".join("NULL" if v is None else literal(str(v)) for v in values))
            )
    for table in made:
        if table.back is not None:
            mine = ["back " + name for name in table.back.key]
            added = ["ADD %s %s" % (quote(name), type_) for name, type_ in zip(mine, table.back.types)]
            script.append(
                "ALTER TABLE %s %s, ADD %s DEFERRABLE INITIALLY DEFERRED"
                % (quote(table.name), ", ".join(added), reference(mine, table.back))
            )
        for row in table.rows if table.back is not None else ():
            if BACK in row.parents:
                new = [
                    "%s = %s" % (quote(name), literal(str(v))) for name, v in zip(mine, row.parents[BACK].key)
                ]
                script.append(
                    "UPDATE %s SET %s WHERE nr = %d" % (quote(table.name), ", ".join(new), row.number)
                )
    return "; ".join(script)


def reference(columns: List[str], parent: Generated) -> str:
    mine, theirs = (", ".join(map(quote, names)) for names in (columns, parent.key))
    return "FOREIGN KEY (%s) REFERENCES %s (%s)" % (mine, quote(parent.name), theirs)


def rows_of(made: List[Generated], root: int) -> Dict[str, Set[int]]:
    """The rows of a root, and those of nobody that they name, directly or not; by tables that are not empty."""
    found = {
        (table.name, row.number): (table, row) for table in made for row in table.rows if row.root == root
    }
    waiting = list(found.values())
    for table, row in waiting:
        for place, named in row.parents.items():
            parent = table if place == ABOVE else table.back if place == BACK else table.references[place][0]
            assert parent is not None
            if (parent.name, named.number) not in found:
                found[parent.name, named.number] = parent, named
                waiting.append((parent, named))
    return {table.name: {number for name, number in found if name == table.name} for table in made}


def without_questions(config: Dict[str, Any], made: List[Generated]) -> Dict[str, Any]:
    """The tables of nobody that hang on rows which come along are asked for, and here they stay behind."""
    asked = {table.name for table in config["TABLES"] if table.ownership.way is Way.UNDECIDED}
    assert asked <= {table.name for table in made if not table.owned}
    tables = tuple(table for table in config["TABLES"] if table.name not in asked)
    return {**config, "TABLES": tables, "UNRELATED_TABLES": (*config["UNRELATED_TABLES"], *asked)}


@hypothesis_settings(
    max_examples=6, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(random=st.randoms(use_true_random=False))
def test_rows_of_each_root_and_no_others_come_out(server: Server, random: Random) -> None:
    made = application(random)
    with server.new_database("TEMPLATE template0") as database, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database.execute(sql(made))
        options = ["--postgres-url", database.url, "--output", str(folder / "made"), "--quiet"]
        if len(made) > 1 and not any(parent is made[0] for table in made for parent, _ in table.references):
            assert discover.main([*options, "--root", made[0].name]) == 2  # it owns nothing
            return
        assert discover.main([*options, "--root", made[0].name]) == 0
        config = without_questions(loaded((folder / "made" / "config.py").read_text(encoding="utf-8")), made)
        for root in range(3):
            settings = settings_for(database, folder, config, "r%d@example.com" % root)
            migrate_strictly(settings)
            with sqlite3.connect(str(settings.sqlite_path)) as result:
                found = {
                    table.name: {nr for (nr,) in result.execute("SELECT nr FROM " + quote(table.name))}
                    for table in settings.tables
                }
            expected = rows_of(made, root)
            assert found == {table: numbers for table, numbers in expected.items() if table in found}
            assert not any(numbers for table, numbers in expected.items() if table not in found)
        assert discover.main([*options, "--check"]) == 0
