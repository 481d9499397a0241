"""PostgreSQL's views as SQLite's: selections, joins and counts of migrated tables; others are left out.

Every expression in them goes through ``expressions``, so that a row is in the view, and a value is, as in PostgreSQL.
"""

from __future__ import annotations

from typing import Collection, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from sqlglot import exp

from migration.discovery.comparisons import alike, compared
from migration.discovery.definitions import View
from migration.discovery.expressions import bare, parse_query, translated, truth
from migration.discovery.sqlite_names import name
from migration.discovery.sqlite_types import Sort
from migration.discovery.values import Names, Untranslatable, Value


class Source(NamedTuple):
    """A table or view that a view may read: its name in SQLite, and what its columns hold."""

    target: str
    columns: Mapping[str, Value]


class Translated(NamedTuple):
    """``query``: SELECT for SQLite. ``columns``: what the view's columns hold. ``notes``: what is different in it."""

    query: str
    columns: Dict[str, Value]
    notes: Tuple[str, ...]


Sources = Mapping[Tuple[str, str], Source]
Columns = Dict[Tuple[str, ...], Value]


def translate_view(view: View, sources: Sources, names: Names) -> Translated:
    """``sources``: by schema and name; ``names``: the types of the database. Raises Untranslatable."""
    query = _Query(sources, names, {})
    try:
        values = query.read(parse_query(view.definition.rstrip().rstrip(";")))
    except RecursionError:
        raise Untranslatable("it is nested too deep") from None
    columns = {
        column: value._replace(sql=name(column), constant=None) for column, value in zip(view.columns, values)
    }
    return Translated(query.sql(view.columns), columns, tuple(dict.fromkeys(query.notes)))


_ALLOWED = {"expressions", "from", "from_", "joins", "where", "group", "having", "order", "limit", "distinct"}
# On which rows may be grouped or told apart: those of the others may be equal in PostgreSQL, and different texts
_EQUAL_AS_KEPT = (
    *(Sort.INTEGER, Sort.BOOLEAN, Sort.DOUBLE, Sort.SINGLE, Sort.DECIMAL, Sort.TEXT, Sort.ENUM, Sort.UUID),
    *(Sort.DATE, Sort.TIME, Sort.TIMESTAMP, Sort.TIMESTAMPTZ, Sort.BYTES, Sort.PADDED),
)
_ORDERED_AS_KEPT = (Sort.INTEGER, Sort.BOOLEAN, Sort.DECIMAL, Sort.UUID, Sort.TIME, Sort.BYTES)
_DATED = (Sort.DATE, Sort.TIMESTAMP, Sort.TIMESTAMPTZ)
_YEARS = "dates before year 0 or after 9999 are not in their place"


class _Query:
    """One SELECT, read part by part: what its names stand for is known once its FROM is read."""

    def __init__(self, sources: Sources, names: Names, outer: Columns) -> None:
        self._sources = sources
        self._outer = outer
        self._columns: Columns = {}
        self._given = names
        self._names = names
        self._select: List[str] = []
        self._clauses: List[str] = []
        self._distinct = ""
        self.notes: List[str] = []

    def read(self, node: exp.Expression) -> List[Value]:
        """What the columns hold."""
        if not isinstance(node, exp.Select):
            raise Untranslatable("%s is not known to mean the same in SQLite" % node.key.upper())
        _require_only(node, _ALLOWED)
        source = node.args.get("from") or node.args.get("from_")
        if source is not None:
            joined = self._table(source.this) + self._joined(node.args.get("joins") or [])
            self._clauses.append("FROM " + joined)
        self._names = self._given._replace(columns={**self._outer, **self._columns}, further=self._further)
        values = [translated(bare(_unnamed(one)), self._names) for one in node.expressions]
        self._select = [value.sql for value in values]
        if node.args.get("distinct") is not None:
            _require_only(node.args["distinct"], ())
            self._require_equal(values)
            self._distinct = "DISTINCT "
        if node.args.get("where") is not None:
            self._clauses.append("WHERE " + self._condition(node.args["where"].this))
        if node.args.get("group") is not None:
            self._group(node.args["group"])
        if node.args.get("having") is not None:
            self._clauses.append("HAVING " + self._condition(node.args["having"].this))
        self._order(node.args.get("order"), node.args.get("limit"))
        return values

    def sql(self, columns: Optional[Sequence[str]] = None) -> str:
        """The SELECT, its columns called by these names."""
        listed = self._select
        if columns is not None:
            listed = ["%s AS %s" % (sql, name(column)) for sql, column in zip(self._select, columns)]
        return "\n".join(["SELECT %s%s" % (self._distinct, ", ".join(listed) or "1"), *self._clauses])

    # FROM and JOIN

    def _table(self, node: exp.Expression) -> str:
        if isinstance(node, exp.Subquery) and node.args.get("alias") is None:  # brackets around joins
            _require_only(node, ("this", "joins"))
            return self._table(node.this) + self._joined(node.args.get("joins") or [])
        if not isinstance(node, exp.Table):
            raise Untranslatable("it reads from %s" % node.key.upper())
        _require_only(node, ("this", "db", "alias", "joins"))
        place = (node.db, node.name)
        if place not in self._sources:
            raise Untranslatable("%s.%s is not migrated" % place)
        source, alias = self._sources[place], node.args.get("alias")
        if alias is not None and alias.args.get("columns"):
            raise Untranslatable("it names the columns of a table anew")
        called = node.name if alias is None else alias.name
        for column, value in source.columns.items():
            own = value._replace(sql="%s.%s" % (name(called), name(column)))
            self._columns[(called, column)] = own
            if (column,) in self._columns and self._columns[(column,)] != own:
                self._columns[(column,)] = Value("", Sort.OTHER)  # of several tables
            else:
                self._columns[(column,)] = own
        sql = name(source.target) + ("" if called == source.target else " AS " + name(called))
        return sql + self._joined(node.args.get("joins") or [])

    def _joined(self, joins: Sequence[exp.Expression]) -> str:
        sql = ""
        for join in joins:
            _require_only(join, ("this", "side", "kind", "on", "using"))
            side, kind = str(join.args.get("side") or ""), str(join.args.get("kind") or "")
            if side not in ("", "LEFT") or kind not in ("", "INNER", "CROSS", "OUTER"):
                raise Untranslatable("SQLite has no %s JOIN before its version 3.39" % (side or kind))
            if not isinstance(join.this, exp.Table) or join.this.args.get("joins"):
                raise Untranslatable("it joins what is joined itself")
            before = dict(self._columns)
            table = self._table(join.this)
            on, using = join.args.get("on"), join.args.get("using") or []
            if on is None and not using:
                sql += ", " + table
                continue
            self._names = self._given._replace(columns={**self._outer, **self._columns})
            condition = self._condition(on) if on is not None else self._using(using, before, join.this)
            sql += "\n%sJOIN %s ON %s" % ("LEFT " if side else "", table, condition)
        return sql

    def _using(self, columns: Sequence[exp.Expression], before: Columns, table: exp.Table) -> str:
        conditions = []
        for column in columns:
            left = before.get((column.name,))
            right = self._columns.get((table.alias_or_name, column.name))
            if left is None or right is None or not left.sql:
                raise Untranslatable("its USING is not understood")
            conditions.append(compared(left, "=", right))
            self._columns[(column.name,)] = left
        return " AND ".join(conditions)

    # The other clauses

    def _condition(self, node: exp.Expression) -> str:
        return truth(bare(node), self._names)

    def _group(self, node: exp.Expression) -> None:
        _require_only(node, ("expressions",))
        values = [translated(one, self._names) for one in node.expressions]
        self._require_equal(values)
        self._clauses.append("GROUP BY " + ", ".join(value.sql for value in values))

    def _order(self, order: Optional[exp.Expression], limit: Optional[exp.Expression]) -> None:
        parts = []
        try:
            for one in () if order is None else order.expressions:
                _require_only(one, ("this", "desc", "nulls_first"))
                value = translated(one.this, self._names)
                self._require_ordered(value)
                nulls = "FIRST" if one.args.get("nulls_first") else "LAST"
                parts.append("%s %s NULLS %s" % (value.sql, "DESC" if one.args.get("desc") else "ASC", nulls))
        except Untranslatable as why:
            if limit is not None:
                raise
            self.notes.append("its ORDER BY is left out: %s" % why)
            parts = []
        if parts:
            self._clauses.append("ORDER BY " + ", ".join(parts))
        if limit is not None:
            _require_only(limit, ("expression",))
            self._clauses.append("LIMIT " + translated(limit.expression, self._names).sql)

    # What only a query has: aggregates and subqueries

    def _further(self, node: exp.Expression, names: Names) -> Optional[Value]:
        if isinstance(node, exp.Count):
            return self._count(node)
        if isinstance(node, (exp.Min, exp.Max, exp.Sum, exp.LogicalOr, exp.LogicalAnd)):
            _require_only(node, ("this",))
            return self._aggregate(node, translated(node.this, self._names))
        if isinstance(node, exp.Exists):
            inner = self._inner()
            inner.read(node.this)
            return Value("EXISTS (%s)" % inner.sql(), Sort.BOOLEAN)
        if isinstance(node, exp.Subquery):
            return self._column_of(node)
        if isinstance(node, exp.In):
            _require_only(node, ("this", "query"))
            left, right = alike(translated(node.this, self._names), self._column_of(node.args["query"]))
            if left.sort is Sort.PADDED:
                raise Untranslatable("its text is padded")
            return Value("%s IN %s" % (left.sql, right.sql), Sort.BOOLEAN)
        return None

    def _column_of(self, node: exp.Expression) -> Value:
        """A subquery of one column, in brackets."""
        _require_only(node, ("this",))
        inner = self._inner()
        (value, *others) = inner.read(node.this)
        if others:
            raise Untranslatable("its subquery has several columns")
        return value._replace(sql="(%s)" % inner.sql(), constant=None)

    def _inner(self) -> _Query:
        return _Query(self._sources, self._given, dict(self._names.columns))

    def _count(self, node: exp.Count) -> Value:
        _require_only(node, ("this", "big_int"))
        if isinstance(node.this, exp.Star):
            return Value("count(*)", Sort.INTEGER)
        if not isinstance(node.this, exp.Distinct):
            value = translated(node.this, self._names)
            return Value("count(%s)" % value.sql, Sort.INTEGER)
        _require_only(node.this, ("expressions",))
        (value,) = [translated(one, self._names) for one in node.this.expressions]
        self._require_equal([value])
        return Value("count(DISTINCT %s)" % value.sql, Sort.INTEGER)

    def _aggregate(self, node: exp.Expression, value: Value) -> Value:
        if isinstance(node, exp.Sum):
            if value.sort is not Sort.INTEGER:
                raise Untranslatable("SQLite reckons with doubles")
            return Value("sum(%s)" % value.sql, Sort.INTEGER)
        function = "min" if isinstance(node, (exp.Min, exp.LogicalAnd)) else "max"
        self._require_ordered(value)
        return value._replace(sql="%s(%s)" % (function, value.sql), constant=None)

    # What is required

    def _require_equal(self, values: Sequence[Value]) -> None:
        if not all(value.sort in _EQUAL_AS_KEPT for value in values):
            raise Untranslatable("values that PostgreSQL takes for equal may be different texts")

    def _require_ordered(self, value: Value) -> None:
        if value.sort in _DATED:
            self.notes.append(_YEARS)
        elif value.sort not in _ORDERED_AS_KEPT and not (value.sort is Sort.TEXT and value.ordered):
            raise Untranslatable("SQLite orders such values otherwise")


def _unnamed(node: exp.Expression) -> exp.Expression:
    return node.this if isinstance(node, exp.Alias) else node


def _require_only(node: exp.Expression, allowed: Collection[str]) -> None:
    for part, value in node.args.items():
        if value not in (None, False, []) and part not in allowed:
            raise Untranslatable(
                "its %s has a part (%s) that is not understood" % (node.key.upper(), part.rstrip("_"))
            )
