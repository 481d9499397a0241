"""What was cut and brought, against the list of it: in SQLite, and in PostgreSQL now."""

from __future__ import annotations

from collections import Counter
from typing import Iterator, List, Mapping, Sequence, Tuple

from migration.bundle.changes import Changes, Key, key_text, parsed
from migration.model import Kind, Table
from migration.printing import brief
from migration.sql import quote
from migration.validation.inputs import Context
from migration.validation.report import PREFIXES, Finding, Listing


def differences(context: Context) -> Iterator[Finding]:
    """References that are cut and not listed, or listed and not NULL; brought rows that nothing needs."""
    changes = context.changes
    if not (changes.cut or changes.brought) and (context.live is None or context.export is None):
        return
    for table in context.settings.tables:
        cut = Listing("contents", table.name, context.settings.max_differences)
        for (name, columns), keys in changes.cut.items():
            if name == table.name:
                for row in _not_cut(context, table, columns, keys):
                    message = "%s: %s %s: %s is listed as cut and is not NULL"
                    shown = message % (PREFIXES["contents"], name, row, ", ".join(columns))
                    cut.add(Finding("contents", shown, name, row, columns[0]))
        yield from cut.findings
        brought = Listing("isolation", table.name, context.settings.max_differences)
        for row in _not_needed(context, table):
            message = "%s: %s %s was brought and no row needs it" % (PREFIXES["isolation"], table.name, row)
            brought.add(Finding("isolation", message, table.name, row))
        yield from brought.findings
    if context.live is not None and context.export is not None:
        yield from _since_export(changes, parsed(list(context.live.leaving.listed())), context)


def _pairs(context: Context, table: Table) -> Mapping[str, str]:
    """Source column → column of SQLite."""
    return {pair.source.name: pair.target.name for pair in context.mapped(table, context.compared).copied}


def _named(key: Key) -> str:
    return brief(", ".join(map(str, key)))


def _not_cut(context: Context, table: Table, columns: Sequence[str], keys: Sequence[Key]) -> Iterator[str]:
    """The listed rows in which none of the columns is NULL."""
    pairs, key = _pairs(context, table), context.source_key(table, context.compared)
    names = [pairs[name] for name in columns if name in pairs]
    if not names:
        return
    target = context.mapped(table, context.compared).target
    kept = " AND ".join("%s IS NOT NULL" % quote(name) for name in names)
    if table.becomes is not None:
        found = context.database.execute("SELECT 1 FROM %s WHERE %s AND id = 1" % (quote(target), kept))
        yield from (_named(keys[0]) for _ in found.fetchall())
        return
    if key and set(key) <= set(pairs):
        listed = set(keys)
        yield from (_named(found) for found in _keys(context, table, kept) if found in listed)


def _keys(context: Context, table: Table, condition: str) -> Iterator[Key]:
    """The keys of the rows ``t`` of SQLite for which a condition holds."""
    pairs = _pairs(context, table)
    query = "SELECT %s FROM %s t WHERE %s" % (
        ", ".join("t." + quote(pairs[name]) for name in context.source_key(table, context.compared)),
        quote(context.mapped(table, context.compared).target),
        condition,
    )
    for values in context.database.execute(query):
        yield tuple(map(key_text, values))


def _not_needed(context: Context, table: Table) -> Iterator[str]:
    """The brought rows that no row of SQLite refers to."""
    brought = context.changes.brought.get(table.name)
    ways = _ways(context).get(table.name, ())
    pairs, key = _pairs(context, table), context.source_key(table, context.compared)
    if not brought or not set(key) <= set(pairs):
        return
    by_name = {each.name: each for each in context.settings.tables}
    tests = []
    for child, columns, theirs in ways:
        if child not in by_name or not set(theirs) <= set(pairs):
            return  # SQLite cannot say it
        others = _pairs(context, by_name[child])
        if not set(columns) <= set(others):
            return
        forms = [SAME]
        if any(_may_differ(context, child, a, table.name, b) for a, b in zip(columns, theirs)):
            forms.append(SAME_UUID)  # asked of the few rows alone for which the other finds none
        for form in forms:
            matches = [form % (quote(others[a]), quote(pairs[b])) for a, b in zip(columns, theirs)]
            if child == table.name:
                matches.append("c.rowid <> t.rowid")
            source = quote(context.mapped(by_name[child], context.compared).target)
            tests.append("NOT EXISTS (SELECT 1 FROM %s c WHERE %s)" % (source, " AND ".join(matches)))
    condition = " AND ".join(tests) or "1"
    yield from (_named(found) for found in _keys(context, table, condition) if found in brought)


SAME = "c.%s = t.%s"
# As PostgreSQL compares a text that names a uuid in another form than its own
SAME_UUID = "replace(trim(lower(c.%s), '{}'), '-', '') = replace(lower(t.%s), '-', '')"


def _may_differ(context: Context, child: str, column: str, parent: str, key: str) -> bool:
    """Whether a reference that is no uuid names one."""
    kinds = [
        next((each.kind for each in context.compared[table] if each.name == name), None)
        for table, name in ((child, column), (parent, key))
    ]
    return kinds[0] is not Kind.UUID and kinds[1] is Kind.UUID


def _ways(context: Context) -> Mapping[str, Sequence[Tuple[str, Sequence[str], Sequence[str]]]]:
    if context.export is not None:
        return context.export.manifest.brought_by
    assert context.live is not None
    return context.live.leaving.brought_by()


def _since_export(then: Changes, now: Changes, context: Context) -> Iterator[Finding]:
    """Whether PostgreSQL would have the same rows cut and brought."""
    for name, columns in sorted({*then.cut, *now.cut}):
        held, today = (Counter(side.cut.get((name, columns), ())) for side in (then, now))
        what = "%s by %s" % (name, ", ".join(columns))
        yield from _unlike(
            "source",
            name,
            what,
            "cut",
            list((today - held).elements()),
            list((held - today).elements()),
            context,
        )
    for name in sorted({*then.brought, *now.brought}):
        held_rows, rows = then.brought.get(name, frozenset()), now.brought.get(name, frozenset())
        yield from _unlike(
            "isolation",
            name,
            name,
            "brought",
            sorted(rows - held_rows, key=str),
            sorted(held_rows - rows, key=str),
            context,
        )


def _unlike(
    check: str, table: str, what: str, done: str, missing: List[Key], more: List[Key], context: Context
) -> Iterator[Finding]:
    listing = Listing(check, table, context.settings.max_differences)
    assert context.export is not None
    prefix = PREFIXES[check]
    if check == "source":
        prefix += " " + context.export.manifest.export_timestamp
    for keys, message in (
        (missing, "would be %s now and is not listed"),
        (more, "is listed as %s and would not be now"),
    ):
        for key in keys:
            shown = "%s: %s: row %s %s" % (prefix, what, _named(key), message % done)
            listing.add(Finding(check, shown, table, _named(key)))
    yield from listing.findings
