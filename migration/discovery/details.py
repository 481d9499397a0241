"""Defaults, constraints, indexes and views as short digests, by which --check knows them again."""

from __future__ import annotations

import hashlib
from typing import Dict, Iterator, Tuple

from migration.discovery.definitions import ColumnDefinition, Definition, Definitions
from migration.postgres.snapshot import Snapshot

Details = Dict[str, str]  # what it is, and a digest of how it is
VIEW = "view"


def details(db: Snapshot, definitions: Definitions) -> Dict[str, Details]:
    """Of each table and each view that is defined there."""
    names = {relation.oid: name for name, relation in db.catalog.relations.items()}
    made = {names[oid]: dict(_of(table)) for oid, table in definitions.tables.items()}
    for view in definitions.views:
        name = view.name if view.schema == db.schema else view.schema + "." + view.name
        made[name] = {VIEW: _digest(view.definition)}
    return made


def _of(table: Definition) -> Iterator[Tuple[str, str]]:
    for name, column in table.columns.items():
        yield "the values of column %s" % name, _digest(_values(column))
    for rule in table.rules:
        what = rule.definition, rule.weaker, rule.deferrable, rule.deferred
        yield "%s %s" % ("foreign key" if rule.kind == "f" else "constraint", rule.name), _digest(what)
    for index in table.indexes:
        if not index.constraint:
            yield "index %s" % index.name, _digest(index.definition)


def _values(column: ColumnDefinition) -> Tuple[object, ...]:
    """What values a column may have by its type, and which it has where none is given."""
    return column.labels, column.domains, column.default, column.generated, column.is_identity


def _digest(what: object) -> str:
    return hashlib.sha256(repr(what).encode("utf-8", "surrogatepass")).hexdigest()[:8]
