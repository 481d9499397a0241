"""Casts that change neither a value nor its text in SQLite, and those of constants; no other cast is kept.

A cast to an enum or a domain would be one to a number in SQLite: a type that it does not know has NUMERIC affinity.
"""

from __future__ import annotations

import re
from typing import Optional, Tuple

from sqlglot import exp

from migration.discovery.sqlite_types import Sort, sort_of
from migration.discovery.values import NUMBERS, Names, Untranslatable, Value, constant


def cast(inner: Optional[Value], to: exp.Expression, names: Names) -> Value:
    """A value, None for NULL, as one of another type. Raises Untranslatable."""
    type_name, sort, modified = _type(to, names)
    if inner is None:
        return Value("NULL", sort)
    if inner.constant is not None:
        if not (
            inner.sort in (Sort.TEXT, sort)
            or (inner.sort in NUMBERS and sort in (*NUMBERS, Sort.DIGITS))
            or (inner.sort is Sort.ENUM and sort is Sort.TEXT)
        ):
            raise Untranslatable("its cast to %s is not known to mean the same in SQLite" % type_name)
        return constant(inner.constant, sort, type_name, modified)
    if modified:
        raise Untranslatable("its cast to %s may change a value" % to.sql("postgres").lower())
    if inner.sort is sort and sort not in (Sort.OTHER, Sort.RECORD, Sort.ENUM):
        return inner
    if sort is Sort.DIGITS and inner.sort in (Sort.INTEGER, Sort.DECIMAL):  # to numeric of any digits
        return inner._replace(sort=Sort.DECIMAL)
    if sort is Sort.TEXT and inner.sort in (Sort.ENUM, Sort.UUID):
        return Value(inner.sql, Sort.TEXT)
    if sort is Sort.TEXT and inner.sort is Sort.FOLDED:
        return Value(inner.sql + " COLLATE BINARY", Sort.TEXT)
    if sort is Sort.TEXT and inner.sort is Sort.PADDED:
        return Value("rtrim(%s, ' ')" % inner.sql, Sort.TEXT)
    if sort is Sort.TEXT and inner.sort is Sort.INTEGER:
        return Value("CAST(%s AS TEXT)" % inner.sql, Sort.TEXT)
    raise Untranslatable("its cast to %s is not known to mean the same in SQLite" % type_name)


def _type(to: exp.Expression, names: Names) -> Tuple[str, Sort, bool]:
    """The name of the type that a cast names, its sort, and whether it has a length or the like; of a domain those of its base."""
    kind = to.args.get("kind")
    name = kind.sql("postgres") if isinstance(kind, exp.Expression) else to.sql("postgres").lower()
    if name in names.types:
        base, is_enum = names.types[name]
        return base, sort_of(base, is_enum), "(" in base
    return name, _TYPES.get(re.sub(r"\(.*\)", "", name), Sort.OTHER), bool(to.args.get("expressions"))


_TYPES = {
    **dict.fromkeys(("smallint", "int", "integer", "bigint"), Sort.INTEGER),
    **dict.fromkeys(("boolean", "bool"), Sort.BOOLEAN),
    **dict.fromkeys(("text", "varchar", "character varying"), Sort.TEXT),
    **dict.fromkeys(("char", "bpchar", "character"), Sort.PADDED),
    **dict.fromkeys(("decimal", "numeric"), Sort.DIGITS),
    **dict.fromkeys(("double precision", "float8"), Sort.DOUBLE),
    **dict.fromkeys(("real", "float4"), Sort.SINGLE),
    "uuid": Sort.UUID,
    "date": Sort.DATE,
    "time": Sort.TIME,
    "time without time zone": Sort.TIME,
    "timestamp": Sort.TIMESTAMP,
    "timestamp without time zone": Sort.TIMESTAMP,
    "timestamptz": Sort.TIMESTAMPTZ,
    "timestamp with time zone": Sort.TIMESTAMPTZ,
    "bytea": Sort.BYTES,
}
