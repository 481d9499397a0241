"""Tables whose rows cannot have changed since an export of this process: PostgreSQL need not render them again.

A row version never changes, and PostgreSQL notes in each the transaction that made it (``xmin``). Where a user's rows are
as many as were exported, and each was made by a transaction that had ended before the exporting snapshot was taken, the
snapshot has seen each of them: they are the exported ones. What could fool this is asked first; docs/decisions.md names it.
"""

from __future__ import annotations

from typing import Dict, FrozenSet, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from migration.model import Ownership, Table, child_of, owned_by, shared
from migration.postgres import kinds
from migration.postgres.rows import Rows


class Life(NamedTuple):
    """One life of one server: no other, and none after a crash, gives the same. ``database``: its oid.

    PostgreSQL resets its statistics after each crash, even one that the first of its processes outlives.
    """

    started: str
    statistics: str
    database: int


class Moment(NamedTuple):
    """When a snapshot was taken. ``oldest``: the first transaction that had not ended then; ``next``: one to come.

    ``layouts``: table → how its rows are stored, of those tables whose records depend on nothing else.
    ``queries``: table → the query of its records.
    """

    life: Life
    oldest: int
    next: int
    layouts: Mapping[str, str]
    queries: Mapping[str, str]


class Taken(NamedTuple):
    """What an export has taken from PostgreSQL.

    ``sent``: table → how many records PostgreSQL says it sent; ``checksums``: file of the bundle → SHA256 of what
    arrived; ``moment``: None where that is not known, so that only the same snapshot can tell that nothing has changed.
    """

    rows: Rows
    sent: Mapping[str, int]
    checksums: Mapping[str, str]
    moment: Optional[Moment]


def taken(rows: Rows, sent: Mapping[str, int], checksums: Mapping[str, str], ends: bool) -> Taken:
    """To be asked in the transaction that has read the rows. ``ends``: another one will be asked for changes."""
    return Taken(rows, sent, checksums, _moment(rows) if ends else None)


def unchanged(before: Taken, now: Rows) -> FrozenSet[str]:
    """The tables with the very records that were sent before; others may have the same all the same."""
    if now is before.rows:
        return frozenset(table.name for table in now.settings.tables if not _is_merged(table, now))
    then = before.moment
    moment = None if then is None else _moment(now)
    if then is None or moment is None or not _is_comparable(then, moment, now):
        return frozenset()
    same = [
        table
        for table in now.settings.tables
        if table.name in moment.layouts
        and moment.layouts[table.name] == then.layouts.get(table.name)
        and moment.queries[table.name] == then.queries.get(table.name)
        and table.name not in now.skipped
        and _is_known(table.ownership)
        and now.is_plain(table)
    ]
    counted = _counted(same, now, then.oldest)
    found: Set[str] = set()
    for table in same:  # parents come first
        parent = table.ownership.parent
        if counted[table.name] == (before.sent[table.name], True) and (parent is None or parent in found):
            found.add(table.name)
    return frozenset(found)


def _is_known(rule: Ownership) -> bool:
    """Whether it depends on the row alone and on those that it leads to. What others depend on is not looked at here."""
    if rule.parent is not None:
        return rule == child_of(rule.parent, rule.columns)
    return rule.is_root or rule == (owned_by(rule.columns[0], rule.or_shared) if rule.columns else shared())


def _is_merged(table: Table, now: Rows) -> bool:
    """Whether its records come from two places, of which PostgreSQL counts one."""
    return table.name in now.db.exported and table.owner is not None


_HALF = 1 << 30  # of the transactions that 32 bits tell apart in one direction


def _is_comparable(before: Moment, moment: Moment, now: Rows) -> bool:
    root = now.settings.root
    return (
        before.life == moment.life
        and moment.next - before.oldest < _HALF
        and root.key not in now.catalog.values.get(root.name, {})  # equality is PostgreSQL's own
    )


# What a snapshot cannot tell of is left out: foreign tables, other table access methods, generated columns that are not
# stored. Whoever may read only some columns may not read xmin.
_LAYOUTS = """
SELECT c.oid::bigint, c.oid::text || string_agg(format(' %%s %%s %%s %%s', a.attnum, a.atttypid, a.atttypmod, a.attcollation),
                                                ',' ORDER BY a.attnum)
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.oid = ANY(%s::bigint[]) AND c.relkind = 'r' AND c.relam = (SELECT m.oid FROM pg_am m WHERE m.amname = 'heap')
  AND has_table_privilege(c.oid, 'SELECT')
  AND (SELECT bool_and(coalesce(has_function_privilege(to_regprocedure(f), 'EXECUTE'), false)) FROM unnest(ARRAY[
       'pg_is_in_recovery()', 'pg_postmaster_start_time()', 'pg_stat_get_bgwriter_stat_reset_time()']) f)
GROUP BY c.oid
HAVING bool_and(a.attgenerated <> 'v')
"""

_MOMENT = """
SELECT pg_postmaster_start_time()::text, pg_stat_get_bgwriter_stat_reset_time()::text, d.oid::bigint,
       txid_snapshot_xmin(s.now), txid_snapshot_xmax(s.now)
FROM pg_database d, txid_current_snapshot() s (now) WHERE d.datname = current_database() AND NOT pg_is_in_recovery()
"""


def _moment(rows: Rows) -> Optional[Moment]:
    """None where PostgreSQL does not say enough to compare two moments."""
    relations = rows.catalog.relations
    oids = {
        relations[table.name].oid: table.name for table in rows.settings.tables if _is_plain(table.name, rows)
    }
    layouts = {oids[oid]: layout for oid, layout in rows.db.rows(_LAYOUTS, (list(oids),))}
    for *life, oldest, next_ in rows.db.rows(_MOMENT) if layouts else ():
        queries = {table.name: rows.as_json(table, ordered=False) for table in rows.settings.tables}
        return Moment(Life(*life), oldest, next_, layouts, queries)
    return None


def _is_plain(table: str, rows: Rows) -> bool:
    """Whether all columns are of PostgreSQL's own types, whose text depends on the value alone, or arrays of these."""
    return all(
        type_.form == "array" and type_.inner[0].known in kinds.PLAIN
        for type_ in rows.catalog.values.get(table, {}).values()
    )


def _counted(tables: Sequence[Table], now: Rows, oldest: int) -> Dict[str, Tuple[int, bool]]:
    """Table → how many rows the user has in it, and whether each was made by a transaction before ``oldest``.

    ``age`` counts from the next transaction back, also for rows that are frozen. Such that are older than 2³¹
    transactions may seem to be new; none that is new seems to be old. A row of an heir, of a partition or of
    another server has another ``tableoid``.
    """
    if not tables:
        return {}
    query = " UNION ALL ".join(
        "SELECT {}, count(*), coalesce(bool_and(t.tableoid = {} AND age(t.xmin) > age('{}'::xid)), true)"
        " FROM {} t WHERE {}".format(
            number,
            now.catalog.relations[table.name].oid,
            oldest % (1 << 32),
            now.db.quoted(table.name),
            now.condition(table),
        )
        for number, table in enumerate(tables)
    )
    return {tables[number].name: (rows, are_old) for number, rows, are_old in now.db.rows(query)}
