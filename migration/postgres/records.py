"""SQL for rows as JSON objects, one a line."""

from __future__ import annotations

from typing import NamedTuple, Sequence, Tuple

from migration.model import Column, Kind
from migration.postgres import kinds
from migration.postgres.catalog import Catalog
from migration.postgres.snapshot import Snapshot
from migration.sql import literal, quote


class Cut(NamedTuple):
    """Columns that are NULL in the rows ``on`` a condition of a subquery, ``x`` and its number, with column ``cut``."""

    columns: Sequence[str]
    rows: str
    on: str


def select_json(
    db: Snapshot,
    catalog: Catalog,
    table: str,
    condition: str,
    ordered: bool = True,
    cuts: Sequence[Cut] = (),
) -> str:
    """Query of one column, the rows of ``table`` as JSON objects, keys = columns.

    If ``ordered``, by the table's key, or by the objects' text where it has none: always the same for the same rows.
    SQL NULL and JSON ``null`` are both ``null`` in JSON. A record with a JSON ``null`` in a column that
    could be NULL carries one more member, ``"$json_null": [columns]``, that tells them apart.
    """
    columns, values = catalog.columns[table], catalog.values.get(table, {})
    chosen, order, nulls = [], [], []
    for column in columns:
        name = "t." + quote(column.name)
        value = kinds.rendered(values[column.name], name) if column.name in values else name
        kept = ["x%d.cut IS NULL" % number for number, cut in enumerate(cuts) if column.name in cut.columns]
        if kept:
            value = "CASE WHEN {} THEN {} END".format(" AND ".join(kept), value)
        chosen.append(name if value == name else "{} AS {}".format(value, quote(column.name)))
        if column.kind in (Kind.JSON, Kind.JSONB) and not column.not_null:
            nulls.append(
                (column, "pg_catalog.{}_typeof(r.{}) = 'null'".format(column.kind, quote(column.name)))
            )
    for key in catalog.keys[table]:
        kind = next(c.kind for c in columns if c.name == key)
        order.append(
            "t." + quote(key) + (' COLLATE "C"' if kind == Kind.TEXT and _collatable(columns, key) else "")
        )
    source = db.quoted(table) + " t"
    for number, cut in enumerate(cuts):
        source += " LEFT JOIN (%s) x%d ON %s" % (cut.rows, number, cut.on)
    inner = ROWS + "SELECT {} FROM {} WHERE {}".format(", ".join(chosen), source, condition)
    if ordered and order:
        inner += " ORDER BY " + ", ".join(order)
    line = "pg_catalog.row_to_json(r.*)"  # r alone could be a column
    if any(column.kind in (Kind.JSON, Kind.STRUCTURE) for column in columns):
        # a json value keeps its white space; a newline in it would break the record's line
        for sign in ("n", "r"):
            line = "pg_catalog.replace({}::text, E'\\{}', ' ')".format(line, sign)
    query = _marked(line, inner, nulls) if nulls else "SELECT " + line + " FROM (" + inner + ") r"
    if ordered and not order:
        return 'SELECT l.line FROM (%s) l (line) ORDER BY l.line::text COLLATE "C"' % query
    return query


ROWS = "/* rows */ "  # by which ``largest`` finds them again


def _marked(line: str, inner: str, nulls: Sequence[Tuple[Column, str]]) -> str:
    """The query with the member ``"$json_null"`` in the records of which a test in ``nulls`` is true."""
    line += "::text"
    marks = ", ".join("CASE WHEN {} THEN {} END".format(test, literal(column.name)) for column, test in nulls)
    return (
        "SELECT CASE WHEN {any} THEN pg_catalog.left({line}, -1) || "
        "',\"$json_null\":' || pg_catalog.array_to_json(pg_catalog.array_remove(ARRAY[{marks}]::text[], NULL))::text || '}}' "
        "ELSE {line} END FROM ({inner}) r"
    ).format(any=" OR ".join(test for _, test in nulls), line=line, marks=marks, inner=inner)


def _collatable(columns: Sequence[Column], name: str) -> bool:
    shown = next(c.type for c in columns if c.name == name)
    return shown.startswith(("text", "character", "citext", "name"))
