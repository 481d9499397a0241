"""Which rows are a user's (ownership as SQL), and the queries for them."""

from __future__ import annotations

import functools
import io
from typing import (
    Callable,
    Collection,
    Dict,
    Generator,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
)

import psycopg2

from migration.bundle.writing import Sink
from migration.errors import MigrationError, SourceError, UsageError
from migration.model import Equality, ForeignKey, Table
from migration.postgres import kinds
from migration.postgres.catalog import apart_from, parent_key, read_with, within
from migration.postgres.digests import Digest
from migration.postgres.operators import are_written_alike
from migration.postgres.records import select_json
from migration.postgres.representable import TAKES_OIDS, account_for, migrated_values, unkept
from migration.postgres.shared_rows import merging
from migration.postgres.snapshot import Snapshot
from migration.postgres.users import User, find_user, user_of_id
from migration.settings import Settings
from migration.sql import literal, qualified, texts
from migration.sqlite.mapping import map_all, target_of
from migration.sqlite.schema import Schema

LISTED_ORPHANS = 20


class Orphans(NamedTuple):
    """Rows with a reference between exported and not exported rows: how many, and the first few.

    ``sample``: the key of a row, and its reference.
    """

    table: str
    columns: Tuple[str, ...]
    parent: str
    rows: int
    sample: Tuple[Tuple[str, str], ...]


def rows_of_user(
    db: Snapshot, settings: Settings, schema: Schema, email: Optional[str], skip_orphans: bool
) -> Rows:
    """Find the user and the queries for their rows, with every table and column accounted for.

    ``settings.user_id`` wins over ``email``.

    Raises MigrationError: exit 2 where nobody is named, or where config or schema do not account for a table
    or column; 3 for what PostgreSQL lacks or refuses.
    """
    if settings.user_id is None and email is None:
        raise UsageError(
            "no e-mail address is given: whose data?",
            "--user-email you@example.com, MIGRATION_USER_EMAIL or config.DEFAULT_USER_EMAIL",
        )
    account_for(db, settings, schema)
    if settings.user_id is not None:
        user = user_of_id(db, settings, settings.user_id)
    else:
        user = find_user(db, settings, str(email))
    return Rows(db, settings, user, schema, skip_orphans)


class Rows:
    """Queries for one user's rows; with ``skip_orphans`` only rows whose references lead to exported rows.

    All SQL names its operators: what ``=`` finds depends on the search_path, and a type's own may not be there.
    """

    def __init__(
        self, db: Snapshot, settings: Settings, user: User, schema: Schema, skip_orphans: bool = False
    ) -> None:
        self.db = db
        self.catalog = db.catalog
        self.user = user
        self.settings = settings
        self.schema = schema
        self.tables: Mapping[str, Table] = {table.name: table for table in settings.tables}
        self.skip_orphans = skip_orphans
        self._ways = {name: self._way(table) for name, table in self.tables.items()}
        self.references = self._references(schema)
        self._broken = self._broken_references() if skip_orphans else []
        left_out: Dict[str, Dict[str, None]] = {}
        for number, row in self._broken:
            left_out.setdefault(self.references[number].table, {})[row] = None
        self._left_out = {name: tuple(left_out[name]) for name in self.tables if name in left_out}
        if settings.root.name in self._left_out:
            raise self._user_left_out()

    def _user_left_out(self) -> MigrationError:
        keys = [self.references[number] for number, _ in self._broken]
        key = next(key for key in keys if key.table == self.settings.root.name)
        columns = ", ".join(key.columns)
        return SourceError(
            "the user's own row cannot be left out: %s leads to no exported row of %s"
            % (columns, key.parent),
            "correct it in PostgreSQL, or add %s to dropped=(...) of %s in config.py and take it out of the SQLite schema"
            % (", ".join('"%s"' % name for name in key.columns), key.table),
        )

    @property
    def skipped(self) -> Mapping[str, int]:
        """Rows that ``skip_orphans`` leaves out, by table."""
        return {name: len(rows) for name, rows in self._left_out.items()}

    # Which columns connect tables

    def _way(self, table: Table) -> Optional[ForeignKey]:
        """The reference by which rows of a table belong to a user or to a parent; None for what is shared."""
        users = self.settings.root
        if table.ownership.parent is not None:
            key = parent_key(table, self.catalog)
        elif table.owner is not None:
            key = ForeignKey(table.name, (table.owner,), users.name, (users.key,))
        else:
            return None
        return self._comparable(
            next((known for known in self._source_references if known[:4] == key[:4]), key)
        )

    def _references(self, schema: Schema) -> List[ForeignKey]:
        """The foreign keys of both databases and of config, between exported tables, by columns that SQLite has."""
        dropped = {name: set(table.all_dropped) for name, table in self.tables.items()}
        declared = [
            way
            for name, way in self._ways.items()
            if way is not None and way.columns != (self.tables[name].owner,)
        ]
        found: Dict[Tuple[object, ...], ForeignKey] = {}
        for key in (*self._source_references, *declared, *self._target_references(schema)):
            if (
                key.table in self.tables
                and key.parent in self.tables
                and self.catalog.has(key.table, key.columns)
                and self.catalog.has(key.parent, key.parent_columns)
                and not dropped[key.table] & set(key.columns)
            ):
                found.setdefault(key[:4], key)
        return [self._comparable(key) for key in found.values()]

    @functools.cached_property
    def _heirs(self) -> Mapping[str, str]:
        """The tables that are read with the one that they inherit from → that one."""
        return {heir: name for name in self.tables for heir in read_with(self.settings, self.catalog, name)}

    @functools.cached_property
    def _source_references(self) -> Sequence[ForeignKey]:
        """PostgreSQL's foreign keys without duplicates; those of inheriting tables count as the parent table's."""
        relations, families = self.catalog.relations, set(self._heirs.values())
        found: Dict[Tuple[object, ...], ForeignKey] = {}
        for key in self.catalog.foreign_keys:
            table, parent = (self._heirs.get(name, name) for name in (key.table, key.parent))
            exact = ((relations[key.table].oid, relations[key.parent].oid),) if parent in families else ()
            ours = key._replace(table=table, parent=parent)
            known = found.setdefault(ours[:4], ours)
            found[ours[:4]] = known._replace(exact=known.exact + exact)
        return list(found.values())

    def _target_references(self, schema: Schema) -> Iterator[ForeignKey]:
        """SQLite's foreign keys, by the names that tables and columns have in PostgreSQL: there, case counts."""
        tables = {target_of(table, schema).lower(): name for name, table in self.tables.items()}
        for key in schema.foreign_keys:
            table, parent = tables.get(key.table.lower()), tables.get(key.parent.lower())
            if table is not None and parent is not None:
                mine, theirs = (
                    {column.name.lower(): column.name for column in self.catalog.columns[name]}
                    for name in (table, parent)
                )
                yield ForeignKey(
                    table,
                    tuple(mine.get(name.lower(), name) for name in key.columns),
                    parent,
                    tuple(theirs.get(name.lower(), name) for name in key.parent_columns),
                )

    def _comparable(self, key: ForeignKey) -> ForeignKey:
        if key.equalities:
            return key
        pairs = [
            self._equality(key.parent, theirs, key.table, mine)
            for theirs, mine in zip(key.parent_columns, key.columns)
        ]
        return key._replace(equalities=tuple(pairs))

    def _equality(self, parent: str, theirs: str, table: str, mine: str) -> Equality:
        found = self.db.equality(self.catalog.column(parent, theirs), self.catalog.column(table, mine))
        known, other = self.catalog.collation(parent, theirs), self.catalog.collation(table, mine)
        if known is not None and other is not None and known != other:
            return found._replace(collation=known.name)  # as for a foreign key
        return found

    # Conditions

    def owned(self, table: Table, alias: str = "t") -> str:
        """SQL condition on an alias: the row is the user's, or shared with them."""
        way = self._ways[table.name]
        conditions = [self._within(table.name, alias)]
        if way is not None and way.columns == (table.owner,):
            conditions.append(self._is_owner(table, alias))
        elif way is not None:
            conditions.append(self._leads_to_owned(way, alias))
        return " AND ".join(condition for condition in conditions if condition != "true") or "true"

    def _within(self, table: str, alias: str) -> str:
        """Exclude rows of inheriting tables that are migrated as tables of their own."""
        return within(alias, self._apart.get(table, ()))

    def _is_owner(self, table: Table, alias: str) -> str:
        mine = self._mine(table, alias)
        if table.ownership.or_shared:
            return "(%s OR %s IS NULL)" % (mine, qualified(alias, str(table.owner)))
        return mine

    @functools.cached_property
    def _apart(self) -> Mapping[str, List[int]]:
        """Table → oids of the tables that inherit from it and are not read with it, where there are some."""
        apart = {name: apart_from(self.settings, self.catalog, name) for name in self.tables}
        return {name: oids for name, oids in apart.items() if oids}

    def _mine(self, table: Table, alias: str = "t") -> str:
        """Compare the owner column with the user's key in the key's type, which may be wider than the column's."""
        way, users = self._ways[table.name], self.settings.root
        assert way is not None
        key = "{}::{}".format(literal(self.user.id), self.catalog.column(users.name, users.key).type)
        return way.equalities[0].sql(key, qualified(alias, way.columns[0]))

    def _leads_to_owned(self, key: ForeignKey, alias: str) -> str:
        parent = _next_alias(alias)
        return "EXISTS (SELECT FROM {} {} WHERE {} AND {})".format(
            self.db.quoted(key.parent),
            parent,
            _matches(
                key,
                functools.partial(qualified, parent),
                functools.partial(qualified, alias),
                parent + ".tableoid",
                alias + ".tableoid",
            ),
            self.owned(self.tables[key.parent], parent),
        )

    def condition(self, table: Table) -> str:
        """SQL condition on alias ``t``: the row is to be exported."""
        if table.name not in self._left_out:
            return self.owned(table)
        return "{} AND NOT {}".format(self.owned(table), _among(self._left_out[table.name], _identity("t")))

    # Rows that refer to rows that are not exported, and the other way round

    def orphans(self) -> List[Orphans]:
        """Every reference from an owned row to a row that is not exported, table by table, parents first."""
        if self.skip_orphans:
            rows: Dict[int, List[str]] = {}
            for number, row in self._broken:
                rows.setdefault(number, []).append(row)
            sources = {
                number: "%s t WHERE %s" % (self._set(self.references[number].table), _among(listed, "t.r"))
                for number, listed in rows.items()
            }
        else:
            sources = {
                number: self._dangling_from(key)
                for number, key in enumerate(self.references)
                if key != self._ways[key.table]
            }
        keys = {number: self.references[number] for number in sources}
        tests = [
            _Test(key, sources[number], self._set_columns(key.table), "t.r") for number, key in keys.items()
        ]
        order = list(self.tables)
        tests.sort(key=lambda test: order.index(test.key.table))
        tables = {name for test in tests for name in (test.key.table, test.key.parent)}
        return self._found(self._sets(tables, identities=self.skip_orphans), tests)

    def left_behind(self) -> List[Orphans]:
        """Rows that are not exported but refer to rows of the user's own."""
        tests = [
            _Test(key, self._left_behind_from(key), functools.partial(qualified, "t"), _identity("t"))
            for key in self._source_references
            if self._may_be_left_behind(key)
        ]
        tables = {name for test in tests for name in (test.key.table, test.key.parent)}
        return self._found(self._sets(tables), tests)

    def outside(self) -> Dict[str, int]:
        """Rows of the user by a reference to a table that config leaves behind: ``table (columns) → parent`` → rows."""
        keys = [
            key
            for key in self._source_references
            if key.table in self.tables
            and key.parent not in self.tables
            and not set(self.tables[key.table].all_dropped) & set(key.columns)
        ]
        counts = " UNION ALL ".join(
            "SELECT %d, count(*) FROM %s t WHERE %s AND %s"
            % (
                number,
                self.db.quoted(key.table),
                _present(qualified("t", name) for name in key.columns),
                self.owned(self.tables[key.table]),
            )
            for number, key in enumerate(keys)
        )
        return {
            "%s (%s) → %s" % (keys[number].table, ", ".join(keys[number].columns), keys[number].parent): rows
            for number, rows in (self.db.rows(counts) if keys else ())
            if rows
        }

    def declared_left_behind(self, orphans: Orphans) -> bool:
        """Whether config says that such rows may stay."""
        return set(orphans.columns) <= set(self.tables[orphans.table].left_behind)

    @property
    def lc_monetary(self) -> Optional[str]:
        """The setting under which money was read as numbers; None where there is no money."""
        values = migrated_values(self.db, self.settings, self.schema)
        if not any(kinds.is_monetary(type_) for _, _, type_ in values):
            return None
        return str(self.db.value("SELECT current_setting('lc_monetary')"))

    def require_kept(self) -> None:
        """Stop at the first column with a value that cannot be kept. Raises MigrationError (exit 3)."""
        for table, column, type_ in migrated_values(self.db, self.settings, self.schema):
            for doubt in kinds.doubts(type_, qualified("t", column.name)):
                sql = "SELECT count(*) FROM {} t WHERE {} AND {}".format(
                    self.db.quoted(table.name), self.condition(table), doubt.condition
                )
                try:
                    rows = self.db.value(sql)
                except psycopg2.errors.InsufficientPrivilege:
                    raise
                except (psycopg2.DataError, psycopg2.InternalError, psycopg2.ProgrammingError) as error:
                    raise unkept(table, column, "PostgreSQL cannot read its text back", doubt.hint) from error
                if rows:
                    raise unkept(table, column, "%s (rows: %d)" % (doubt.reason, rows), doubt.hint)

    def suspects(self) -> List[str]:
        """A line for each column of numbers or text, of no key, whose every value names a large object."""
        if not self.db.value("SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)"):
            return []
        keys = {(key.table, name) for key in self.catalog.foreign_keys for name in key.columns}
        found: List[str] = []
        for table, mapped in zip(
            self.tables.values(), map_all(self.settings, self.catalog.columns, self.schema)
        ):
            names = [
                pair.source.name
                for pair in mapped.copied
                if pair.source.type.startswith(TAKES_OIDS)
                and pair.source.name not in self.catalog.primary_keys.get(table.name, ())
                and (table.name, pair.source.name) not in keys
            ]
            if names:
                tests = ", ".join(
                    "bool_and({}::text OPERATOR(pg_catalog.=) ANY (SELECT oid::text FROM pg_catalog.pg_largeobject_metadata))".format(
                        qualified("t", name)
                    )
                    for name in names
                )
                ((*suspected,),) = self.db.rows(
                    "SELECT {} FROM {} t WHERE {}".format(
                        tests, self.db.quoted(table.name), self.condition(table)
                    )
                )
                found += [
                    "%s.%s: each value is the number of a large object; if it points at that, the content stays behind"
                    % (table.name, name)
                    for name, all_are in zip(names, suspected)
                    if all_are
                ]
        return found

    def _broken_references(self) -> List[Tuple[int, str]]:
        """Each reference that makes a row an orphan, directly or through its parents: its number, and the row.

        A row is met once for each reference, so a cycle has an end.
        """
        if not self.references:
            return []
        dangling = self.db.value(
            "{}SELECT sum(n) FROM ({}) counted (n)".format(
                self._sets(self.tables),
                " UNION ALL ".join(
                    "SELECT count(*) FROM " + self._dangling_from(key) for key in self.references
                ),
            )
        )
        if not dangling:
            return []
        edges, starts = [], []
        for number, key in enumerate(self.references):
            edges.append(
                "SELECT {}, {}, unnest(a.r), {}, unnest(a.p)"
                " FROM (SELECT array_agg(t.r), array_agg(p.r) FROM {} t JOIN {} p ON {}) a (r, p)".format(
                    number,
                    self._number(key.table),
                    self._number(key.parent),
                    self._set(key.table),
                    self._set(key.parent),
                    self._joined(key),
                )
            )
            starts.append(
                "SELECT {}, {}, t.r FROM {}".format(number, self._number(key.table), self._dangling_from(key))
            )
        # Make the planner expect few edges and many rows, so that it hashes the edges once.
        starts.append("SELECT 0, 0, '' FROM (SELECT json_each('{}') FROM %s) j" % _MANY)
        with self.db.hashing():
            return self.db.rows(
                "{}, edge (k, n, r, parent_n, parent_r) AS MATERIALIZED ({}), broken (k, n, r) AS (({}) UNION SELECT e.k, e.n, e.r"
                " FROM edge e JOIN broken b ON b.n = e.parent_n AND b.r = e.parent_r) SELECT k, r FROM broken".format(
                    self._sets(self.tables, identities=True).rstrip(),
                    " UNION ALL ".join(edges),
                    " UNION ALL ".join(starts),
                )
            )

    def _dangling_from(self, key: ForeignKey) -> str:
        return "{} t WHERE {} AND NOT EXISTS (SELECT FROM {} p WHERE {})".format(
            self._set(key.table),
            _present(map(self._set_columns(key.table), key.columns)),
            self._set(key.parent),
            self._joined(key),
        )

    def _left_behind_from(self, key: ForeignKey) -> str:
        """FROM clause: rows ``t`` that are not the user's and refer to one that is."""
        return (
            "{} t WHERE {} AND EXISTS (SELECT FROM {} p WHERE {} AND {}) AND {} AND ({}) IS NOT TRUE".format(
                self.db.quoted(key.table),
                _present(qualified("t", name) for name in key.columns),
                self._set(key.parent),
                self._named_by(key),
                self._is_own(self.tables[key.parent], "p"),
                self._within(key.table, "t"),
                self._member(self.tables[key.table]),
            )
        )

    def _may_be_left_behind(self, key: ForeignKey) -> bool:
        return (
            key.table in self.tables
            and key.parent in self.tables
            and key != self._ways[key.table]
            and self._ways[key.table] is not None
            and self._is_own(self.tables[key.parent], "p") != "false"
        )

    def _is_own(self, table: Table, alias: str) -> str:
        """SQL condition on a row of a set: it is the user's own, and not shared with others."""
        way = self._ways[table.name]
        if way is None:
            return "false"
        if way.columns == (table.owner,):
            shared = table.ownership.or_shared
            return (
                "%s.%s IS NOT NULL" % (alias, self._place(table.name, way.columns[0])) if shared else "true"
            )
        parent = _next_alias(alias)
        own = self._is_own(self.tables[way.parent], parent)
        if own in ("true", "false"):
            return own
        return "EXISTS (SELECT FROM {} {} WHERE {} AND {})".format(
            self._set(way.parent), parent, self._joined(way, parent, alias), own
        )

    def _found(self, sets: str, tests: Sequence[_Test]) -> List[Orphans]:
        """Count the rows of each test, and look at the first of them all: two queries."""
        if not tests:
            return []
        counts = self.db.rows(
            "{}SELECT i, n FROM ({}) counted (i, n) WHERE n > 0 ORDER BY i".format(
                sets,
                " UNION ALL ".join(
                    "SELECT %d, count(*) FROM %s" % (number, test.source) for number, test in enumerate(tests)
                ),
            )
        )
        shown, listed = 0, []
        for number, rows in counts:
            if shown < LISTED_ORPHANS:
                key, source, column, row = tests[number]
                listed.append(
                    "(SELECT {}, {}, {} FROM {} ORDER BY 2, 3 LIMIT {})".format(
                        number,
                        self._name(key.table, column, row),
                        _text(map(column, key.columns)),
                        source,
                        LISTED_ORPHANS - shown,
                    )
                )
                shown += rows
        samples: Dict[int, List[Tuple[str, str]]] = {}
        for number, row, reference in self.db.rows(sets + " UNION ALL ".join(listed)) if listed else ():
            samples.setdefault(number, []).append((row, reference))
        return [
            Orphans(key.table, key.columns, key.parent, rows, tuple(samples.get(number, ())))
            for number, rows in counts
            for key in [tests[number].key]
        ]

    # Sets: the keys and references of the rows of a table that are the user's, each made once for a whole query

    def _sets(self, tables: Collection[str], identities: bool = False) -> str:
        """WITH clause of the sets of these tables and of those that they belong to.

        The planner is made to expect some rows in each: of one row, which it may expect where a user is newer than
        its statistics, it would look through the others once for each that is there.
        ``identities``: with column ``r`` in all of them. Reading it takes SELECT on the whole table, not on its columns.
        """
        families = {name for key in self._source_references if key.exact for name in (key.table, key.parent)}
        needed: Set[str] = set()
        for name in tables:
            way: Optional[ForeignKey]
            while name not in needed:
                needed.add(name)
                way = self._ways[name]
                if way is None or way.parent == name:
                    break
                name = way.parent
        made = []
        for name, table in self.tables.items():
            if name in needed:
                columns = ["%s AS %s" % (qualified("t", c), self._place(name, c)) for c in self._kept(name)]
                if identities or not self.catalog.keys[name]:
                    columns.append(_identity("t") + " AS r")
                if name in families:
                    columns.append("t.tableoid AS o")
                rows = "SELECT %s FROM %s t WHERE %s AND %s" % (
                    ", ".join(columns),
                    self.db.quoted(name),
                    self._within(name, "t"),
                    self._member(table),
                )
                nulls = ", ".join(["NULL"] * len(columns))
                made.append("%s AS (%s UNION ALL SELECT %s FROM %s)" % (self._set(name), rows, nulls, _MANY))
        return "WITH RECURSIVE %s " % ", ".join(made)

    def _member(self, table: Table) -> str:
        """As ``owned``, on alias ``t``, by the set of the table's parent."""
        way = self._ways[table.name]
        if way is None:
            return "true"
        if way.columns == (table.owner,):
            return self._is_owner(table, "t")
        return "EXISTS (SELECT FROM {} p WHERE {})".format(self._set(way.parent), self._named_by(way))

    def _number(self, table: str) -> int:
        return list(self.tables).index(table)

    def _set(self, table: str) -> str:
        return "s%d" % self._number(table)

    def _place(self, table: str, column: str) -> str:
        """A column's name in a set: none that a table's column could have beside it."""
        return "c%d" % [known.name for known in self.catalog.columns[table]].index(column)

    def _set_columns(self, table: str) -> Callable[[str], str]:
        return lambda column: "t." + self._place(table, column)

    def _kept(self, table: str) -> List[str]:
        """The columns that a set has: those of keys and references."""
        keys = [
            *self.references,
            *self._source_references,
            *(way for way in self._ways.values() if way is not None),
        ]
        kept = set(self.catalog.keys[table])
        kept.update(name for key in keys if key.table == table for name in key.columns)
        kept.update(name for key in keys if key.parent == table for name in key.parent_columns)
        return [column.name for column in self.catalog.columns[table] if column.name in kept]

    def _joined(self, key: ForeignKey, parent: str = "p", child: str = "t") -> str:
        """SQL condition: a row of a set is referred to by a row of another."""
        return _matches(
            key,
            lambda column: "%s.%s" % (parent, self._place(key.parent, column)),
            lambda column: "%s.%s" % (child, self._place(key.table, column)),
            parent + ".o",
            child + ".o",
        )

    def _named_by(self, key: ForeignKey) -> str:
        """SQL condition: row ``p`` of a set is referred to by row ``t`` of a table."""
        return _matches(
            key,
            lambda column: "p." + self._place(key.parent, column),
            functools.partial(qualified, "t"),
            "p.o",
            "t.tableoid",
        )

    @functools.cached_property
    def owner_texts(self) -> Dict[str, Tuple[str, ...]]:
        """Table → the texts that its owner column has for the user's key, where equal keys may differ as text."""
        found = {}
        for name, table in self.tables.items():
            if table.owner is None or self._has_one_text(table.name, table.owner):
                continue
            texts = self.db.rows(
                "SELECT DISTINCT to_json({}) #>> '{{}}' FROM {} t WHERE {} AND {}".format(
                    qualified("t", table.owner),
                    self.db.quoted(name),
                    self._within(name, "t"),
                    self._mine(table),
                )
            )
            found[name] = tuple(sorted(text for (text,) in texts))
        return found

    def _has_one_text(self, table: str, column: str) -> bool:
        """Whether equal values of a column, and of the users' key, are the same text."""
        users = self.settings.root
        key = self.catalog.column(users.name, users.key)
        collations = (self.catalog.collation(users.name, users.key), self.catalog.collation(table, column))
        return are_written_alike(key, self.catalog.column(table, column)) and all(
            collation is None or collation.deterministic for collation in collations
        )

    def row_name(self, table: str) -> str:
        """SQL expression: the row's key as text."""
        return self._name(table, functools.partial(qualified, "t"), _identity("t"))

    def _name(self, table: str, column: Callable[[str], str], row: str) -> str:
        """SQL expression: a row's key as text; where the table has none, the row's place, which holds nobody's data."""
        keys = self.catalog.keys[table] or self.catalog.primary_keys.get(table, ())
        return _text(map(column, keys)) if keys else "'ctid ' || pg_catalog.substring(%s, '[(].*')" % row

    def count(self, table: Table) -> int:
        sql = "SELECT count(*) FROM {} t WHERE {}".format(self.db.quoted(table.name), self.condition(table))
        return int(self.db.value(sql))

    def as_json(self, table: Table, ordered: bool = True) -> str:
        """Query of one column: each row of the user as a JSON object, in the order of ``select_json``."""
        return select_json(self.db, self.catalog, table.name, self.condition(table), ordered)

    def copy(self, table: Table, sink: Sink) -> None:
        """Write the user's rows to a bundle file; take shared rows from the file that already holds them."""
        shared = self.db.exported.get(table.name)
        if shared is None:
            self.db.copy(self.as_json(table), sink, lambda: sink.taken)
        elif table.owner is None:
            sink.take(*shared[:4])
        else:
            with merging(shared.path, self.catalog.keys[table.name][0], sink) as merged:
                self.db.copy(self._own(table), merged)

    def _own(self, table: Table, ordered: bool = True) -> str:
        """As ``as_json``, without the rows of an ``or_shared`` table that are everybody's."""
        own = "%s AND %s" % (self._within(table.name, "t"), self._mine(table))
        return select_json(self.db, self.catalog, table.name, own, ordered)

    def record(self, table: Table) -> Optional[bytes]:
        """The user's one row of a table as JSON text, None where there is none.

        Raises MigrationError (exit 3) where there are several.
        """
        lines = io.BytesIO()
        self.db.copy(self.as_json(table), lines)
        records = lines.getvalue().split(b"\n")[:-1]
        if len(records) > 1:
            raise SourceError(
                "the user has %d rows in %s; there can be one" % (len(records), table.name),
                "remove all but the one that holds",
            )
        return records[0] if records else None

    def records(self, table: Table) -> Generator[bytes, None, None]:
        """Each row of the user as JSON text, in that order, at flat memory. To be closed where it is left early."""
        return self.db.stream(self.as_json(table))

    def digest(self, table: Table) -> Digest:
        """Count and content digest of the user's rows, made by PostgreSQL itself."""
        shared = self.db.exported.get(table.name)
        if shared is not None:
            if table.owner is None:
                return shared.digest
            own = self.db.digest(self._own(table, ordered=False))
            return Digest(own.rows + shared.digest.rows, own.sum + shared.digest.sum)
        return self.db.digest(self.as_json(table, ordered=False))

    def foreign_rows(self, table: Table, names: Sequence[str]) -> List[str]:
        """Those of the rows named by their key that PostgreSQL has and that are not the user's."""
        names = [
            name for name in names if name.isprintable() and self.db.can_be_told(name)
        ]  # PostgreSQL has no row of a name that it cannot be told
        if not names or not self.catalog.keys[table.name]:
            return []
        sql = "SELECT {name} FROM {table} t WHERE {name} = ANY ({names}) AND ({owned}) IS NOT TRUE".format(
            name=self.row_name(table.name),
            table=self.db.quoted(table.name),
            names=texts(names),
            owned=self.owned(table),
        )
        return [name for (name,) in self.db.rows(sql)]


class _Test(NamedTuple):
    """A search for rows ``t`` by a reference.

    ``source`` is its FROM clause, ``column`` names a column of ``t``, ``row`` the row's identity.
    """

    key: ForeignKey
    source: str
    column: Callable[[str], str]
    row: str


def _matches(
    key: ForeignKey,
    parent: Callable[[str], str],
    child: Callable[[str], str],
    parent_table: str,
    child_table: str,
) -> str:
    """SQL condition: a row names another by a key. Given are names of columns of both, and of the oids of their tables."""
    tests = [
        equality.sql(parent(theirs), child(mine))
        for equality, theirs, mine in zip(key.equalities, key.parent_columns, key.columns)
    ]
    if key.exact:
        tests.append(
            "({child} NOT IN ({oids}) OR ({child}, {parent}) IN ({pairs}))".format(
                child=child_table,
                parent=parent_table,
                oids=", ".join(str(oid) for oid, _ in key.exact),
                pairs=", ".join("(%d, %d)" % pair for pair in key.exact),
            )
        )
    return " AND ".join(tests)


def _next_alias(alias: str) -> str:
    """Of the row that the row of an alias refers to: t, t1, t2 …"""
    return "%s%d" % (alias[0], int(alias[1:] or 0) + 1)


def _among(rows: Sequence[str], row: str) -> str:
    """SQL condition: an identity is one of many."""
    listed = literal(" ".join(rows))
    return "EXISTS (SELECT FROM unnest(string_to_array(%s, ' ')) b (r) WHERE b.r = %s)" % (listed, row)


_MANY = "json_each('{}')"  # no rows, of which the planner expects a hundred


def _present(columns: Iterable[str]) -> str:
    """SQL condition: no part of a reference is NULL, so that it refers to something."""
    return " AND ".join("%s IS NOT NULL" % column for column in columns)


def _text(columns: Iterable[str]) -> str:
    """SQL expression: values as one text."""
    return " || ', ' || ".join(column + "::text" for column in columns)


def _identity(alias: str) -> str:
    """SQL expression: what tells a row apart from all others under a snapshot, in partitions too."""
    return "concat({0}.tableoid, {0}.ctid)".format(alias)
