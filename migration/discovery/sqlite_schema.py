"""A SQLite schema for tables of any application, from PostgreSQL's catalog, and what SQLite cannot say of them.

What is not known to mean the same in SQLite is left out with a note: never wrong, never silent.
"""

from __future__ import annotations

from typing import Collection, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from migration.discovery import table_rules
from migration.discovery.definitions import Definitions, View, read_definitions
from migration.discovery.sqlite_columns import Columns, Field
from migration.discovery.sqlite_names import Names as Given
from migration.discovery.sqlite_names import table_names
from migration.discovery.sqlite_script import Part, Script
from migration.discovery.sqlite_types import Form, Sort, form
from migration.discovery.table_rules import Side
from migration.discovery.values import Names, Untranslatable
from migration.discovery.views import Source, translate_view
from migration.errors import UsageError
from migration.postgres import kinds
from migration.postgres.catalog import Catalog
from migration.postgres.snapshot import Snapshot
from migration.sqlite.mapping import require_nameable


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
_KNOWN_COLLATIONS = ("default", "C", "POSIX", "ucs_basic")


def _folds(catalog: Catalog, table: str, ctype: str) -> bool:
    """Whether PostgreSQL surely takes texts for one that differ in the case of ASCII letters alone, once in lower case."""
    names = {
        collation.name.partition(".")[2].strip('"')
        for collation in catalog.collations.get(table, {}).values()
    }
    return not ctype.startswith(_OWN_CASE) and names <= set(_KNOWN_COLLATIONS)


def schema_of(
    db: Snapshot,
    tables: Sequence[str],
    without: Mapping[str, Collection[str]] = {},
    definitions: Optional[Definitions] = None,
) -> SqliteSchema:
    """The SQLite schema of these tables, in their order. Raises MigrationError (exit 2) for names that SQLite lacks.

    ``without``: table → columns that are left behind. ``definitions``: of these tables at least; None: read them.
    """
    catalog = db.catalog
    definitions = definitions or read_definitions(db, tables)
    targets = table_names(tables, {table: catalog.relations[table].name for table in tables})
    sides = {
        catalog.relations[table].oid: _side(
            catalog, table, targets[table], definitions, without.get(table, ())
        )
        for table in tables
    }
    uniques = {oid: table_rules.unique_keys(side) for oid, side in sides.items()}
    relations = {relation.oid: table for table, relation in catalog.relations.items()}
    given = Given(list(targets.values()))
    described: Dict[str, TableDescription] = {}
    refused: Dict[str, Tuple[str, ...]] = {}
    script = Script()
    sources: Dict[Tuple[str, str], Source] = {}
    for table in tables:
        side = sides[catalog.relations[table].oid]
        made = Columns(db, side, definitions, catalog.columns[table], without.get(table, ()))
        foreign = table_rules.foreign_keys(side, sides, uniques, relations)
        keys, checks = table_rules.keys(side), table_rules.checks(side, made.names)
        indexes = table_rules.indexes(side, made.names, given)
        rules = [Part(sql) for sql in (*keys.sql, *foreign.sql)]
        refusals = script.add_table(
            side.target, side.definition.comment, [*made.parts, *rules], list(map(Part, checks.sql))
        )
        for statement in indexes.sql:
            why = script.add_index(statement)
            if why is not None:
                refusals.append("`%s` is left out: %s" % (statement, why))
        further = ["%s is left out" % what for what in side.definition.others]
        notes = (*made.notes, *keys.notes, *foreign.notes, *checks.notes, *indexes.notes, *refusals, *further)
        sources[(catalog.relations[table].schema, catalog.relations[table].name)] = Source(
            side.target, {column: value for (column,), value in made.names.columns.items()}
        )
        described[table] = TableDescription(table, side.target, tuple(made.fields), notes)
        left = tuple(field.name for field in made.fields if field.declared is None)
        if left:
            refused[table] = left
    others = _add_views(definitions, sources, given, script)
    return SqliteSchema(script.text(), described, refused, others)


def _side(
    catalog: Catalog, table: str, target: str, definitions: Definitions, without: Collection[str]
) -> Side:
    require_nameable(
        table,
        (column.name for column in catalog.columns[table]),
        "rename the column in PostgreSQL, or leave the whole table behind: --exclude '%s'; to exclude the column is not"
        " enough, as the bundle has every column of a row" % table,
    )
    folds = _folds(catalog, table, definitions.ctype)
    definition = definitions.tables[catalog.relations[table].oid]
    forms: Dict[str, Form] = {}
    for column in catalog.columns[table]:
        made = definition.columns[column.name]
        type_ = catalog.values.get(table, {}).get(column.name)
        if column.name in without or (type_ is not None and kinds.refusal(type_) is not None):
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
            "leave all but one behind: %s; or rename them in PostgreSQL"
            % " ".join("--exclude '%s.%s'" % (table, column) for column in twice[1:]),
        )
    bases = {column: made.base for column, made in definition.columns.items()}
    return Side(table, target, forms, bases, definition, bool(catalog.heirs(table)), folds)


def _add_views(
    definitions: Definitions, sources: Dict[Tuple[str, str], Source], given: Given, script: Script
) -> Tuple[str, ...]:
    """Each view that reads migrated tables alone and is translated. Returns notes on the others."""
    names = Names({}, definitions.types, definitions.encoding == "UTF8")
    notes: List[str] = []
    for view in _in_order(definitions.views):
        shown = "view `%s.%s`" % (view.schema, view.name)
        if view.materialized:
            notes.append("materialized %s is left out: SQLite has none such" % shown)
            continue
        try:
            made = translate_view(view, sources, names)
        except Untranslatable as error:
            notes.append("%s is left out: %s" % (shown, error))
            continue
        chosen = given.give(view.name, view.schema)
        if chosen != view.name:
            notes.append("%s is called `%s`: its own name is taken" % (shown, chosen))
        why = script.add_view(chosen, view.comment, made.query)
        if why is not None:
            notes.append("%s is left out: %s" % (shown, why))
            continue
        notes.extend("%s: %s" % (shown, note) for note in made.notes)
        sources[(view.schema, view.name)] = Source(chosen, made.columns)
    return tuple(notes)


def _in_order(views: Sequence[View]) -> Iterator[View]:
    """Views behind those that they read, else as they were made. PostgreSQL allows no cycle."""
    waiting = {view.oid: view for view in views}

    def take(view: View) -> Iterator[View]:
        for oid in view.uses:
            if oid in waiting:
                yield from take(waiting.pop(oid))
        yield view

    for oid in list(waiting):
        if oid in waiting:
            yield from take(waiting.pop(oid))
