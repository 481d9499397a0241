"""Which keys config's ownership and references mean, and whether PostgreSQL has their columns."""

from __future__ import annotations

from typing import List, Optional, Sequence, Set, Tuple

from migration.errors import UsageError
from migration.model import ForeignKey, Ownership, Reference, Table
from migration.postgres.catalog import Catalog, child_advice, ownership_advice
from migration.settings import Settings


def check_ownership(settings: Settings, catalog: Catalog) -> None:
    """Stop where config's ownership or references name what PostgreSQL lacks. Raises MigrationError (exit 2)."""
    before: List[str] = []
    for table in settings.tables:
        for rule in table.ownership.parts:
            problem = _ownership_problem(table, rule, before, settings, catalog)
            if problem is not None:
                raise UsageError("config.TABLES, %s: %s" % (table.name, problem[0]), problem[1])
        before.append(table.name)
    for reference in settings.references:
        undeclared_key(reference, catalog)


def _ownership_problem(
    table: Table, rule: Ownership, before: Sequence[str], settings: Settings, catalog: Catalog
) -> Optional[Tuple[str, str]]:
    """What is wrong with a part of an entry, and what to write instead."""
    correct = "correct its owned_by or child_of entry"
    advice = ownership_advice(table.name, settings, catalog)
    if advice is not None:
        correct += ": by its foreign keys it is %s" % advice
    root = settings.root
    for column in (*rule.columns, *table.left_behind, *([root.named_by] if rule.is_root else [])):
        if not catalog.has(table.name, (column,)):
            own = rule.is_root and column in (root.key, root.named_by)
            return "column %s is not in PostgreSQL" % column, "correct ROOT" if own else correct
    if rule.parent is None:
        keys = [
            key for key in catalog.foreign_keys if key.table == table.name and key.columns == rule.columns
        ]
        for key in keys:
            if key.parent == root.name and key.parent_columns != (root.key,):
                return (
                    "%s refers to %s (%s), not to its key %s"
                    % (rule.columns[0], root.name, ", ".join(key.parent_columns), root.key),
                    "it is %s" % child_advice(key),
                )
        return None
    if rule.parent not in before and not _is_below(rule.parent, table.name, settings):
        return (
            "its parent %s must stand before it" % rule.parent,
            "move its entry behind that of " + rule.parent,
        )
    if _declared_key(table.name, rule, settings, catalog) is None:
        primary = catalog.primary_keys.get(rule.parent, ())
        if len(primary) != len(rule.columns):
            what = "no foreign key says which columns of %s are meant by %s, and it has %s" % (
                rule.parent,
                ", ".join(rule.columns),
                "the primary key (%s)" % ", ".join(primary) if primary else "no primary key",
            )
            keys = [
                key for key in catalog.foreign_keys if (key.table, key.parent) == (table.name, rule.parent)
            ]
            if keys:
                return what, "by its foreign keys it is %s" % " or ".join(map(child_advice, keys))
            return what, "name as many columns as the primary key has, or add a foreign key to PostgreSQL"
    return None


def _is_below(table: str, ancestor: str, settings: Settings) -> bool:
    """Whether rows of a table belong to the user through an ancestor: a cycle has no order."""
    parents = {
        each.name: {part.parent for part in each.ownership.parts if part.parent} for each in settings.tables
    }
    seen: Set[str] = set()
    waiting = [table] if table in parents else []
    while waiting:
        name = waiting.pop()
        if name == ancestor:
            return True
        seen.add(name)
        waiting += parents.get(name, set()) - seen
    return False


def parent_key(table: str, rule: Ownership, settings: Settings, catalog: Catalog) -> ForeignKey:
    """The reference of a ``child_of``: a foreign key, else one of config.REFERENCES, else to the primary key."""
    assert rule.parent is not None
    return _declared_key(table, rule, settings, catalog) or ForeignKey(
        table, rule.columns, rule.parent, catalog.primary_keys[rule.parent]
    )


def _declared_key(table: str, rule: Ownership, settings: Settings, catalog: Catalog) -> Optional[ForeignKey]:
    """The declared reference that a ``child_of`` means, in whatever order it names the columns."""
    for key in catalog.foreign_keys:
        if (key.table, key.parent) == (table, rule.parent) and sorted(key.columns) == sorted(rule.columns):
            return key
    for reference in settings.references:
        if reference.is_of(table, rule.parent, rule.columns) and rule.when in ("", reference.when):
            return undeclared_key(reference, catalog)
    return None


def undeclared_key(reference: Reference, catalog: Catalog) -> ForeignKey:
    """An entry of config.REFERENCES as a foreign key. Raises MigrationError (exit 2) where its columns are not there."""
    primary = catalog.primary_keys.get(reference.parent) or catalog.keys.get(reference.parent, ())
    for key in catalog.foreign_keys:
        if (key.table, key.parent) == (reference.table, reference.parent) and sorted(key.columns) == sorted(
            reference.names
        ):
            primary = tuple(key.parent_columns[key.columns.index(name)] for name in reference.names)
    theirs = reference.parent_names or primary
    for name, columns in ((reference.table, reference.names), (reference.parent, theirs)):
        missing = [column for column in columns if not catalog.has(name, (column,))]
        if missing:
            raise UsageError(
                "config.REFERENCES, %s: column %s of %s is not in PostgreSQL"
                % (reference, ", ".join(missing), name),
                "correct the entry",
            )
    if len(theirs) != len(reference.names):
        raise UsageError(
            "config.REFERENCES, %s: %s has %s"
            % (
                reference,
                reference.parent,
                "the key (%s)" % ", ".join(theirs) if theirs else "no key that says what is meant",
            ),
            "name the columns of %s that it means: parent_columns=(…)" % reference.parent,
        )
    return ForeignKey(reference.table, reference.names, reference.parent, theirs, when=reference.when or "")
