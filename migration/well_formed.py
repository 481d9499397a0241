"""Whether config.py is well formed: what can be said of it before PostgreSQL is asked."""

from __future__ import annotations

from typing import Dict, Iterable, Mapping, Optional, Sequence, Tuple

from migration.errors import UsageError
from migration.model import WHAT_BECOMES, Ownership, Reference, Root, RowOne, Table, Way, assert_never
from migration.python_text import columns_text, reference_text, text


def require_distinct(names: Iterable[str]) -> None:
    """Tables that are the same to SQLite, or to a file system, cannot both be migrated. Raises MigrationError (exit 2)."""
    known: Dict[str, str] = {}
    for name in names:
        other = known.get(name.lower())
        if other is not None:
            raise UsageError(
                "config.py names table %s twice" % name
                if other == name
                else "config.py names tables %s and %s, which SQLite does not tell apart" % (other, name),
                "leave one of the entries away"
                if other == name
                else "rename one of them in PostgreSQL, or leave it behind with EXCLUDED_TABLES",
            )
        known[name.lower()] = name


def require_well_formed(
    tables: Sequence[Table], root: Root, references: Sequence[Reference] = (), leaving: str = "stop"
) -> None:
    """What stands in config.py is of the right types, one entry is the root's, and single rows have places of their own.

    Raises MigrationError (exit 2).
    """
    if not isinstance(root, Root) or not all(isinstance(part, str) and part for part in vars(root).values()):
        raise UsageError(
            "config.ROOT is no root(…)", 'write ROOT = root("users", key="id", named_by="email")'
        )
    if not isinstance(tables, (tuple, list)) or not all(isinstance(table, Table) for table in tables):
        raise UsageError("config.TABLES is not a tuple of Table(…)", "write TABLES = (Table(…), Table(…), …)")
    for table in tables:
        if not isinstance(table.ownership, Ownership) or not isinstance(table.becomes, (RowOne, type(None))):
            raise UsageError(
                "config.TABLES, %s: its ownership or what it becomes is of a wrong type" % table.name,
                'write Table("%s", owned_by("user_id")), for example, or becomes=row_one("%s", member="…")'
                % (table.name, table.name),
            )
        if not isinstance(table.name, str) or not table.name:
            raise UsageError("config.TABLES: a Table(…) has no name", 'write Table("name", …)')
        for part in table.ownership.parts:
            _require_sound(table.name, part, part is table.ownership)
    _require_decided(tables)
    roots = [table.name for table in tables if table.ownership.is_root]
    if roots != [root.name]:
        raise UsageError(
            "config.TABLES has %s, and ROOT is %s"
            % ("the_root() in " + ", ".join(roots) if roots else "no table with the_root()", root.name),
            'give the entry of %s, and no other, the_root(): Table("%s", the_root(), …)'
            % (root.name, root.name),
        )
    members = [table.member for table in tables if table.becomes is not None]
    for member in members:
        if members.count(member) > 1:
            raise UsageError(
                'config.TABLES has row_one(…, member="%s") twice' % member, "give each a member of its own"
            )
    by_name = {table.name: table for table in tables}
    _require_references(references, leaving, by_name)
    for table in tables:
        for part in table.ownership.parts:
            _require_told_apart(table.name, part, references, root.name)
            _require_followed(table.name, part, by_name)


def _require_sound(table: str, rule: Ownership, is_whole: bool) -> None:
    """Raises MigrationError (exit 2) where one part of a table's ownership says nothing, or what cannot be."""
    problem = _problem(rule, is_whole)
    if problem is not None:
        raise UsageError("config.TABLES, %s: %s" % (table, problem[0]), problem[1])


def _problem(rule: Ownership, is_whole: bool) -> Optional[Tuple[str, str]]:
    way = rule.way
    if not all(isinstance(name, str) and name.strip() for name in (*rule.columns, *rule.texts)):
        return "a column or condition of its ownership is no text, or empty", "write it in quotes"
    if way is Way.OWNED or way is Way.CHILD:
        if not rule.columns:
            return "owned_by or child_of names no column", 'write owned_by("user_id"), for example'
        if len(set(rule.columns)) < len(rule.columns):
            return "its ownership names a column twice: %s" % ", ".join(rule.columns), "name each once"
        if way is Way.OWNED and len(rule.columns) > 1:
            listed = ", ".join('owned_by("%s")' % name for name in rule.columns)
            return (
                "owned_by names %d columns, and the root's key is one" % len(rule.columns),
                "write any_of(%s) if either may hold the root's key, or all_of(…) if both must" % listed,
            )
        if way is Way.CHILD and (not isinstance(rule.parent, str) or not rule.parent):
            return "child_of names no parent", 'write child_of("parent", "parent_id")'
        return None
    if way is Way.ANY or way is Way.ALL:
        name = "any_of" if way is Way.ANY else "all_of"
        if len(rule.ways) < 2:
            return "%s takes two ways or more" % name, "name the others, or write the one way alone"
        for part in rule.ways:
            if not isinstance(part, Ownership):
                return "%s holds %r, which is no ownership" % (name, part), 'write owned_by("user_id"), say'
            if part.way in (Way.ROOT, Way.SHARED):
                return (
                    "%s cannot hold the_root() or shared()" % name,
                    "shared() stands alone: every row is everybody's then",
                )
            if way is Way.ALL and any(inner.way is Way.REFERENCED for inner in part.parts):
                return (
                    "all_of cannot hold referenced()",
                    "rows that exported rows refer to cannot be left away: use referenced() alone or in any_of",
                )
        return None
    if way in (Way.ROOT, Way.SHARED, Way.REFERENCED, Way.WHERE, Way.UNDECIDED):
        return None
    assert_never(way)


def _require_told_apart(table: str, part: Ownership, references: Sequence[Reference], root: str) -> None:
    """Raises MigrationError (exit 2) where a column names rows of several tables, and nothing says when it means this one."""
    meant = root if part.way is Way.OWNED else part.parent
    if meant is None or part.way not in (Way.OWNED, Way.CHILD):
        return
    conditional = [each for each in references if each.when and each.table == table]
    parents = [each.parent for each in conditional if set(each.names) == set(part.columns)]
    if parents and meant not in parents:
        raise UsageError(
            "config.TABLES, %s: it is %s by %s, which names rows of %s, too"
            % (
                table,
                "owned" if part.way is Way.OWNED else "child_of " + meant,
                ", ".join(part.columns),
                parents[0],
            ),
            'say in config.REFERENCES when it means this one: Reference(%s, when="…")'
            % reference_text(table, part.columns, meant),
        )


def _require_followed(table: str, part: Ownership, tables: Mapping[str, Table]) -> None:
    """Raises MigrationError (exit 2) where rows would hang on rows of which none is the root's."""
    parent = tables.get(part.parent or "")
    if parent is not None and parent.ownership.way is Way.REFERENCED and not part.or_referenced:
        raise UsageError(
            "config.TABLES, %s: it is child_of %s, of which no row is the root's: rows there come along by"
            " referenced()" % (table, parent.name),
            "write child_of(%s, %s, or_referenced=True) for all that hangs on the rows that come along, or"
            " leave the table out by EXCLUDED_TABLES or UNRELATED_TABLES"
            % (text(parent.name), columns_text(part.columns)),
        )


def _require_decided(tables: Sequence[Table]) -> None:
    """Raises MigrationError (exit 2) with every question that is open."""
    asked = [
        (table.name, part.texts)
        for table in tables
        for part in table.ownership.parts
        if part.way is Way.UNDECIDED
    ]
    if asked:
        lines = ["%s: %s" % (name, texts[0] if texts else "how its rows belong") for name, texts in asked]
        choices = ["%s: %s" % (name, " | ".join(texts[1:]) or "its ownership") for name, texts in asked]
        raise UsageError(
            "config.TABLES leaves open how rows belong to %s:\n  %s"
            % ("a table" if len(asked) == 1 else "%d tables" % len(asked), "\n  ".join(lines)),
            "write in place of undecided(…), for %s" % "\n     ".join(choices),
        )


def _require_references(references: Sequence[Reference], leaving: str, tables: Mapping[str, Table]) -> None:
    if leaving not in WHAT_BECOMES:
        raise UsageError(
            "config.LEAVING is %r" % (leaving,),
            "write one of %s" % ", ".join('"%s"' % name for name in WHAT_BECOMES),
        )
    if not isinstance(references, (tuple, list)) or not all(
        isinstance(reference, Reference) for reference in references
    ):
        raise UsageError(
            "config.REFERENCES is not a tuple of Reference(…)",
            'write REFERENCES = (Reference("table", "column", "parent"),): the last comma counts',
        )
    known = set()
    for reference in references:
        problem = _problem_of(reference, tables)
        if problem is None and _identity(reference) in known:
            problem = "stands there twice", "leave one of the entries away"
        if problem is not None:
            raise UsageError("config.REFERENCES, %s: %s" % (reference, problem[0]), problem[1])
        known.add(_identity(reference))


def _identity(reference: Reference) -> Tuple[object, ...]:
    return reference.table, reference.names, reference.parent, reference.parent_names, reference.when


def _problem_of(reference: Reference, tables: Mapping[str, Table]) -> Optional[Tuple[str, str]]:
    names = (reference.table, reference.parent, *reference.names, *reference.parent_names)
    if not all(isinstance(name, str) and name for name in names) or not reference.names:
        return "a name is no text, or missing", 'write Reference("table", "column", "parent")'
    for name in (reference.table, reference.parent):
        if name not in tables:
            return "table %s is not in config.TABLES" % name, "correct the name, or add the table"
    if reference.parent_names and len(reference.parent_names) != len(reference.names):
        return "it has other numbers of columns on its two sides", "name as many parent_columns as columns"
    if reference.leaving is not None and reference.leaving not in WHAT_BECOMES:
        return (
            "leaving is %r" % (reference.leaving,),
            "write one of %s" % ", ".join('"%s"' % name for name in WHAT_BECOMES),
        )
    if reference.when is not None and (not isinstance(reference.when, str) or not reference.when.strip()):
        return "when is no SQL", "write when=\"t.kind = 'note'\", or leave it away"
    return None
