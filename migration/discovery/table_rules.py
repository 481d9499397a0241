"""Keys, foreign keys, CHECKs and indexes of one table as SQLite has them, and what of them it cannot say."""

from __future__ import annotations

from typing import Dict, FrozenSet, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from migration.discovery.definitions import Definition, Index, IndexPart, Rule
from migration.discovery.expressions import condition, translate
from migration.discovery.sqlite_names import Names as Given
from migration.discovery.sqlite_names import listed, name
from migration.discovery.sqlite_types import Form, Sort, fixed_places
from migration.discovery.values import Names, Untranslatable


class Side(NamedTuple):
    """What a table becomes, as far as others refer to it. ``bases``: the PostgreSQL types under all domains.

    ``folds``: texts that differ in the case of ASCII letters alone are one to PostgreSQL's lower(), as in all languages but a
    few. ``inherited``: other tables' rows are read with it, for which its keys do not hold.
    """

    table: str
    target: str
    forms: Mapping[str, Form]
    bases: Mapping[str, str]
    definition: Definition
    inherited: bool
    folds: bool


class Found(NamedTuple):
    """SQL for SQLite, and what is left out or means less."""

    sql: Tuple[str, ...]
    notes: Tuple[str, ...]


def unique_keys(side: Side) -> Set[FrozenSet[str]]:
    """The columns of each key that the SQLite table has."""
    if side.inherited:
        return set()
    found = {frozenset(rule.columns) for rule in side.definition.rules if _is_key(rule, side)}
    for index in side.definition.indexes:
        if index.unique and not index.constraint and index.predicate is None and _is_kept(index):
            names = [part.column for part in index.parts]
            if all(column in side.forms for column in names):
                found.add(frozenset(filter(None, names)))
    return found


def _is_key(rule: Rule, side: Side) -> bool:
    return (
        rule.kind in "pu" and not rule.weaker and not _overlaps(rule) and set(rule.columns) <= set(side.forms)
    )


def _overlaps(rule: Rule) -> bool:
    return "WITHOUT OVERLAPS" in rule.definition


def primary_key(side: Side) -> Tuple[str, ...]:
    """The columns of the primary key; () where SQLite's table has none."""
    if side.inherited:
        return ()
    return next(
        (rule.columns for rule in side.definition.rules if rule.kind == "p" and _is_key(rule, side)), ()
    )


def keys(side: Side) -> Found:
    """UNIQUE constraints; the primary key where it has several columns, or is no column's own."""
    sql: List[str] = []
    notes: List[str] = []
    for rule in side.definition.rules:
        if rule.kind not in "pux":
            continue
        if rule.kind == "x" or _overlaps(rule):
            notes.append("%s is left out: SQLite has no such rule" % _shown(rule))
        elif side.inherited:
            notes.append(
                "%s is left out: it does not hold for the rows of tables that inherit from this one"
                % _shown(rule)
            )
        elif not _is_key(rule, side):
            notes.append("%s is left out: a column of it is not migrated" % _shown(rule))
        else:
            if rule.kind == "u":
                sql.append("UNIQUE (%s)" % listed(rule.columns))
            elif len(rule.columns) > 1:
                sql.append("PRIMARY KEY (%s)" % listed(rule.columns))
            if rule.deferrable:
                notes.append("%s is checked at once: SQLite defers foreign keys alone" % _shown(rule))
            notes.extend(_weaker(side, rule.columns, _shown(rule)))
    nulls_equal = {index.name for index in side.definition.indexes if index.nulls_equal}
    for rule in side.definition.rules:
        if rule.kind == "u" and rule.name in nulls_equal and not side.inherited:
            notes.append("%s: SQLite takes two NULLs for different" % _shown(rule))
    return Found(tuple(sql), tuple(notes))


_SAME_VALUES = {
    Sort.DIGITS: "numbers are kept as text, so that 1 and 1.0 are different",
    Sort.FOLDED: "SQLite's NOCASE knows the case of ASCII letters alone",
    Sort.OTHER: "SQLite compares the text of its values",
}


def _weaker(side: Side, columns: Sequence[Optional[str]], shown: str) -> Iterator[str]:
    for column in filter(None, columns):
        sort = side.forms[column].sort
        if sort is Sort.DIGITS and fixed_places(side.bases[column]) is not None:
            continue
        if sort in _SAME_VALUES:
            yield "%s is weaker here: %s" % (shown, _SAME_VALUES[sort])


def _shown(rule: Rule) -> str:
    return "`%s` (%s)" % (rule.definition.replace("\n", " "), rule.name)


# Foreign keys

_ACTIONS = {"a": "", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_SAME = (
    *(Sort.INTEGER, Sort.BOOLEAN, Sort.DOUBLE, Sort.SINGLE, Sort.DECIMAL, Sort.TEXT, Sort.ENUM),
    *(Sort.UUID, Sort.DATE, Sort.TIME, Sort.TIMESTAMP, Sort.TIMESTAMPTZ, Sort.BYTES),
)


def foreign_keys(
    side: Side,
    sides: Mapping[int, Side],
    uniques: Mapping[int, Set[FrozenSet[str]]],
    names: Mapping[int, str],
) -> Found:
    """``sides``: tables that are migrated, by oid. ``names``: of all tables, by oid."""
    sql: Dict[str, None] = {}
    notes: List[str] = []
    for rule in side.definition.rules:
        if rule.kind != "f":
            continue
        why = _no_reference(rule, side, sides, uniques, names)
        if why is not None:
            notes.append("%s is left out: %s" % (_shown(rule), why))
            continue
        assert rule.parent is not None
        clause = "FOREIGN KEY (%s) REFERENCES %s (%s)" % (
            listed(rule.columns),
            name(sides[rule.parent].target),
            listed(rule.parent_columns),
        )
        if rule.some_deleted:
            notes.append("%s has no ON DELETE: SQLite sets all of its columns or none" % _shown(rule))
        elif _ACTIONS[rule.on_delete]:
            clause += " ON DELETE " + _ACTIONS[rule.on_delete]
        if _ACTIONS[rule.on_update]:
            clause += " ON UPDATE " + _ACTIONS[rule.on_update]
        if rule.deferrable:
            clause += " DEFERRABLE INITIALLY " + ("DEFERRED" if rule.deferred else "IMMEDIATE")
        if rule.match == "f" and len(rule.columns) > 1:
            notes.append(
                "%s: SQLite has MATCH SIMPLE alone, so a key that is NULL in part is allowed" % _shown(rule)
            )
        sql[clause] = None
    return Found(tuple(sql), tuple(notes))


def _no_reference(
    rule: Rule,
    side: Side,
    sides: Mapping[int, Side],
    uniques: Mapping[int, Set[FrozenSet[str]]],
    names: Mapping[int, str],
) -> Optional[str]:
    """Why SQLite's table cannot have a foreign key."""
    if rule.parent is None or rule.parent not in sides:
        return "table %s is not migrated" % names.get(rule.parent or 0, "of the other side")
    parent = sides[rule.parent]
    if rule.weaker:
        return "PostgreSQL does not hold all rows to it"
    if side.inherited:
        return "it does not hold for the rows of tables that inherit from this one"
    if not set(rule.columns) <= set(side.forms) or not set(rule.parent_columns) <= set(parent.forms):
        return "a column of it is not migrated"
    if frozenset(rule.parent_columns) not in uniques[rule.parent]:
        return "%s has no such key in SQLite" % parent.table
    for mine, theirs in zip(rule.columns, rule.parent_columns):
        if not _equal_alike(side, mine, parent, theirs):
            return "SQLite would not take the values of %s and %s.%s for equal where PostgreSQL does" % (
                mine,
                parent.table,
                theirs,
            )
    return None


def _equal_alike(side: Side, mine: str, parent: Side, theirs: str) -> bool:
    """Whether values that PostgreSQL takes for equal are so for SQLite."""
    sorts = {side.forms[mine].sort, parent.forms[theirs].sort}
    if sorts == {Sort.PADDED}:
        return side.bases[mine] == parent.bases[theirs]
    if sorts == {Sort.DIGITS}:
        return fixed_places(side.bases[mine]) == fixed_places(parent.bases[theirs]) is not None
    return (len(sorts) == 1 and sorts <= set(_SAME)) or sorts == {Sort.INTEGER, Sort.DECIMAL}


# CHECKs


def checks(side: Side, names: Names) -> Found:
    """CHECKs of the table; those of its domains are the columns' own."""
    sql: List[str] = []
    notes: List[str] = []
    for rule in side.definition.rules:
        if rule.kind != "c":
            continue
        if rule.weaker:
            notes.append("%s is left out: PostgreSQL does not hold all rows to it" % _shown(rule))
        elif rule.no_inherit and side.inherited:
            notes.append(
                "%s is left out: it does not hold for the rows of tables that inherit from this one"
                % _shown(rule)
            )
        else:
            try:
                sql.append(
                    "CONSTRAINT %s CHECK (%s)" % (name(rule.name), condition(rule.expression or "", names))
                )
            except Untranslatable as why:
                notes.append("%s is left out: %s" % (_shown(rule), why))
    return Found(tuple(sql), tuple(notes))


# Indexes


def _is_kept(index: Index) -> bool:
    return index.method == "btree" and index.valid


def indexes(side: Side, names: Names, given: Given) -> Found:
    """CREATE INDEX of each index that is no constraint's."""
    sql: List[str] = []
    notes: List[str] = []
    for index in side.definition.indexes:
        if index.constraint:
            continue
        shown = "index `%s`" % index.name
        if not _is_kept(index):
            why = "SQLite has no %s index" % index.method if index.valid else "it is not valid in PostgreSQL"
            notes.append("%s is left out: %s" % (shown, why))
            continue
        unique = index.unique
        if unique and side.inherited:
            unique = False
            notes.append(
                "%s is not unique: that does not hold for the rows of tables that inherit from this one"
                % shown
            )
        if unique and not all(part.plain for part in index.parts):
            unique = False
            notes.append("%s is not unique: its operator class has an equality of its own" % shown)
        try:
            statement = _index(index, unique, side, names)
        except Untranslatable as why:
            if unique:
                notes.append("%s is left out, and with it that its columns are unique: %s" % (shown, why))
            else:
                notes.append("%s is left out: %s" % (shown, why))
            continue
        if index.included:
            notes.append("%s is without the columns that it only INCLUDEs: SQLite has none such" % shown)
        if unique:
            notes.extend(_less_unique(index, side, shown))
        chosen = given.give(index.name, side.target)
        if chosen != index.name:
            notes.append("%s is called `%s`: its own name is taken" % (shown, chosen))
        sql.append(
            "CREATE %sINDEX %s ON %s %s;"
            % ("UNIQUE " if unique else "", name(chosen), name(side.target), statement)
        )
    return Found(tuple(sql), tuple(notes))


def _index(index: Index, unique: bool, side: Side, names: Names) -> str:
    """``(parts) WHERE condition``. Raises Untranslatable."""
    lax = names._replace(lax=True)
    parts = []
    for part in index.parts:
        if part.column is not None:
            if part.column not in side.forms:
                raise Untranslatable("column %s is not migrated" % part.column)
            sql = name(part.column)
        else:
            sql = _expression(part, names if unique and not (side.folds and _is_lowered(part)) else lax)
        parts.append(sql + (" DESC" if part.descending else ""))
    where = ""
    if index.predicate is not None:
        where = " WHERE " + condition(index.predicate, names if unique else lax)
    return "(%s)%s" % (", ".join(parts), where)


def _expression(part: IndexPart, names: Names) -> str:
    value = translate(part.sql, names)
    return value.sql if value.sql.endswith(")") or value.sql.isidentifier() else "(%s)" % value.sql


def _is_lowered(part: IndexPart) -> bool:
    return part.column is None and part.sql.lower().startswith(("lower(", "upper("))


def _less_unique(index: Index, side: Side, shown: str) -> Iterator[str]:
    if any(map(_is_lowered, index.parts)):
        yield "%s is weaker here: SQLite's lower() and upper() know ASCII letters alone" % shown
    if index.nulls_equal:
        yield "%s: SQLite takes two NULLs for different" % shown
    yield from _weaker(side, [part.column for part in index.parts], shown)
