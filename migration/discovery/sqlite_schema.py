"""A SQLite schema for tables of any application, from PostgreSQL's catalog, and what SQLite cannot say of them.

What is not known to mean the same in SQLite is left out with a note: never wrong, never silent.
"""

from __future__ import annotations

import sqlite3
from typing import Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from migration.discovery import table_rules
from migration.discovery.defaults import Default, Wanted, defaults_of
from migration.discovery.definitions import ColumnDefinition, Definitions, read_definitions
from migration.discovery.expressions import check_condition, condition, translate
from migration.discovery.sqlite_names import Names as Given
from migration.discovery.sqlite_names import name, table_names
from migration.discovery.sqlite_types import Form, Sort, form
from migration.discovery.table_rules import Side
from migration.discovery.values import Names, Untranslatable, Value, text
from migration.errors import UsageError
from migration.model import Column
from migration.postgres import kinds
from migration.postgres.catalog import Catalog
from migration.postgres.snapshot import Snapshot


class Field(NamedTuple):
    """A column on both sides. ``declared``: None where it is left behind. ``says``: what becomes of its values."""

    name: str
    type: str
    not_null: bool
    declared: Optional[str]
    says: str


class TableDescription(NamedTuple):
    """``notes``: sentences on what SQLite cannot express, and what became of it."""

    table: str
    target: str
    fields: Tuple[Field, ...]
    notes: Tuple[str, ...]


class SqliteSchema(NamedTuple):
    """``text``: of the schema file. ``refused``: table → columns that no value can be kept of, for ``dropped=(…)``.

    ``others``: notes on what belongs to no table, such as views.
    """

    text: str
    tables: Mapping[str, TableDescription]
    refused: Mapping[str, Tuple[str, ...]]
    others: Tuple[str, ...]


# In Turkish, Azeri and Lithuanian, lower('I') is no i: texts differ that SQLite's NOCASE and lower() take for one.
_OWN_CASE = ("tr", "az", "lt")


def schema_of(db: Snapshot, tables: Sequence[str]) -> SqliteSchema:
    """The SQLite schema of these tables, in their order. Raises MigrationError (exit 2) for names that SQLite lacks."""
    catalog = db.catalog
    definitions = read_definitions(db, tables)
    targets = table_names(tables, {table: catalog.relations[table].name for table in tables})
    folds = not definitions.ctype.startswith(_OWN_CASE)
    sides = {
        catalog.relations[table].oid: _side(catalog, table, targets[table], definitions, folds)
        for table in tables
    }
    uniques = {oid: table_rules.unique_keys(side) for oid, side in sides.items()}
    relations = {relation.oid: table for table, relation in catalog.relations.items()}
    given = Given(list(targets.values()))
    described: Dict[str, TableDescription] = {}
    refused: Dict[str, Tuple[str, ...]] = {}
    script = [_HEAD]
    for table in tables:
        side = sides[catalog.relations[table].oid]
        made = _Made(db, side, definitions, catalog.columns[table])
        foreign = table_rules.foreign_keys(side, sides, uniques, relations)
        keys, checks = table_rules.keys(side), table_rules.checks(side, made.names)
        indexes = table_rules.indexes(side, made.names, given, folds)
        script.append(_create_table(side, made.columns, [*keys.sql, *foreign.sql, *checks.sql]))
        script.extend(indexes.sql)
        notes = (*made.notes, *keys.notes, *foreign.notes, *checks.notes, *indexes.notes)
        described[table] = TableDescription(table, side.target, tuple(made.fields), notes)
        left = tuple(field.name for field in made.fields if field.declared is None)
        if left:
            refused[table] = left
    sql = "\n".join(script) + "\n"
    _require_valid(sql)
    return SqliteSchema(sql, described, refused, ())


_HEAD = """-- Made by discover.py from PostgreSQL's catalog. migration_mapping.md says what SQLite cannot express.
"""


def _side(catalog: Catalog, table: str, target: str, definitions: Definitions, folds: bool) -> Side:
    definition = definitions.tables[catalog.relations[table].oid]
    forms: Dict[str, Form] = {}
    for column in catalog.columns[table]:
        made = definition.columns[column.name]
        type_ = catalog.values.get(table, {}).get(column.name)
        if type_ is not None and kinds.refusal(type_) is not None:
            continue
        collation = catalog.collation(table, column.name)
        found = form(
            column.kind, made.base, made.is_enum, made.labels, collation is None or collation.deterministic
        )
        if type_ is not None and type_.base.form == "composite":
            found = found._replace(sort=Sort.RECORD)
        if found.sort is Sort.FOLDED and not folds:
            found = Form(Sort.OTHER, "TEXT", "as it is; compared with regard to case")
        forms[column.name] = found
    lowered = [column.lower() for column in forms]
    twice = sorted(column for column in forms if lowered.count(column.lower()) > 1)
    if twice:
        raise UsageError(
            "columns of %s differ only in case, which SQLite does not tell apart: %s"
            % (table, ", ".join(twice)),
            "rename one of them in PostgreSQL",
        )
    bases = {column: made.base for column, made in definition.columns.items()}
    return Side(table, target, forms, bases, definition, bool(catalog.heirs(table)))


class _Made:
    """The columns of a table: their SQL, what is said of them, and the names that its expressions may use."""

    def __init__(self, db: Snapshot, side: Side, definitions: Definitions, columns: Sequence[Column]) -> None:
        self.columns: List[Tuple[str, Optional[str]]] = []  # SQL and comment
        self.fields: List[Field] = []
        self.notes: List[str] = []
        self._side = side
        self.names = _names(db.catalog, side, definitions)
        wanted = [
            Wanted(column, side.forms[column.name], made.base, made.default)
            for column in columns
            for made in [side.definition.columns[column.name]]
            if made.default is not None and not made.generated and column.name in side.forms
        ]
        self._defaults = defaults_of(db, side.table, wanted)
        key = table_rules.primary_key(side)
        for column in columns:
            self._add(column, side.definition.columns[column.name], key)

    def _add(self, column: Column, made: ColumnDefinition, key: Tuple[str, ...]) -> None:
        found = self._side.forms.get(column.name)
        if found is None:
            self.fields.append(Field(column.name, column.type, column.not_null, None, "left behind"))
            self.notes.append(
                "column `%s` is left behind: no value of its type %s can be kept" % (column.name, column.type)
            )
            return
        words, says = [name(column.name), found.declared], found.says
        if key == (column.name,) and found.sort is Sort.INTEGER:
            counted = made.is_identity or (made.default or "").startswith("nextval(")
            words.append("PRIMARY KEY AUTOINCREMENT" if counted else "PRIMARY KEY")
        else:
            words += ["NOT NULL"] if column.not_null else []
            words += ["PRIMARY KEY"] if key == (column.name,) else []
            if made.is_identity:
                self.notes.append(
                    "column `%s` has no default: SQLite counts a single integer key alone" % column.name
                )
        words += self._default(column.name, key == (column.name,) and found.sort is Sort.INTEGER)
        if made.generated:
            words += self._generated(column.name, made, found)
        words += self._checks(column.name, made, found)
        if found.limit is not None:
            says += "; SQLite does not check %s" % found.limit
        self.columns.append((" ".join(words), made.comment))
        self.fields.append(
            Field(
                column.name,
                column.type,
                column.not_null,
                " ".join(words[1:3]) if words[2:3] == ["NOT NULL"] else found.declared,
                says,
            )
        )

    def _default(self, column: str, is_counted: bool) -> Iterable[str]:
        default = self._defaults.get(column, Default(None))
        if is_counted:
            return []
        original = "default `%s` of `%s`" % (self._side.definition.columns[column].default, column)
        if default.note is not None and default.sql is None:
            self.notes.append("%s is left out: %s" % (original, default.note))
        elif default.note is not None:
            self.notes.append("%s: %s" % (original, default.note))
        return [] if default.sql is None else ["DEFAULT " + default.sql]

    def _generated(self, column: str, made: ColumnDefinition, found: Form) -> Iterable[str]:
        """Generated columns of text, integers and truth are so in SQLite; others are copied, as the validation proves."""
        rules = self._side.definition.rules
        try:
            value = translate(made.default or "", self.names)
            if value.sort is not found.sort or found.sort not in (Sort.TEXT, Sort.INTEGER, Sort.BOOLEAN):
                raise Untranslatable("SQLite may compute another value")
            if any(column in rule.columns for rule in rules if rule.kind in "pf"):
                raise Untranslatable("it is part of a key")
        except Untranslatable as why:
            self.notes.append(
                "column `%s` is generated in PostgreSQL, as `%s`, and a plain column here, with the values copied: %s"
                % (column, made.default, why)
            )
            return []
        return ["GENERATED ALWAYS AS (%s) %s" % (value.sql, "STORED" if made.generated == "s" else "VIRTUAL")]

    def _checks(self, column: str, made: ColumnDefinition, found: Form) -> Iterator[str]:
        if found.sort is Sort.BOOLEAN:
            yield "CHECK (%s IN (0, 1))" % name(column)
        if found.sort is Sort.ENUM:
            yield "CHECK (%s IN (%s))" % (name(column), ", ".join(map(text, made.labels)))
        value = self.names.columns[(column,)]
        names = self.names._replace(columns={("VALUE",): value, ("value",): value})
        for domain in made.domains:
            if domain.not_null:
                self.notes.append(
                    "column `%s` may be NULL here: its domain %s may not, but for a few ways"
                    % (column, domain.name)
                )
            for check in domain.checks:
                try:
                    yield "CHECK (%s)" % condition(check_condition(check), names)
                except Untranslatable as why:
                    self.notes.append(
                        "`%s` of domain %s is left out for column `%s`: %s"
                        % (check, domain.name, column, why)
                    )


def _names(catalog: Catalog, side: Side, definitions: Definitions) -> Names:
    columns: Dict[Tuple[str, ...], Value] = {}
    for column, found in side.forms.items():
        made = side.definition.columns[column]
        collation = catalog.collation(side.table, column)
        by_bytes = collation is not None and collation.name in ('pg_catalog."C"', 'pg_catalog."POSIX"')
        columns[(column,)] = Value(
            name(column), found.sort, None, by_bytes, made.base if made.is_enum else ""
        )
    return Names(columns, definitions.types, definitions.encoding == "UTF8")


def _create_table(side: Side, columns: Sequence[Tuple[str, Optional[str]]], rules: Sequence[str]) -> str:
    lines = list(_comment(side.definition.comment, ""))
    lines.append("CREATE TABLE %s (" % name(side.target))
    parts: List[Tuple[str, Optional[str]]] = [*columns, *((rule, None) for rule in rules)]
    for place, (sql, comment) in enumerate(parts):
        lines.extend(_comment(comment, "    "))
        lines.append("    %s%s" % (sql, "," if place < len(parts) - 1 else ""))
    return "\n".join(["", *lines, ");"])


def _comment(comment: Optional[str], indent: str) -> Iterator[str]:
    for line in (comment or "").splitlines():
        yield "%s-- %s" % (indent, line)


def _require_valid(script: str) -> None:
    """Have SQLite load it, and look up every foreign key."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    try:
        database.executescript(script)
        database.execute("PRAGMA foreign_key_check").fetchall()
    finally:
        database.close()
