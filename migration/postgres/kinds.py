"""Which kind a column of PostgreSQL's is, and SQL for its values as JSON that determines them.

``row_to_json`` is not enough: it uses a type's cast to json, drops the lower bounds of arrays, and does not distinguish
JSON null from SQL NULL inside arrays and composites. The text of some types depends on a setting or does not identify the
value. Each is rendered in another way here, or refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Collection, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from migration.model import Kind
from migration.sql import quote

_KINDS = {
    "bool": Kind.BOOLEAN,
    "int2": Kind.INTEGER,
    "int4": Kind.INTEGER,
    "int8": Kind.INTEGER,
    "float4": Kind.FLOAT,
    "float8": Kind.FLOAT,
    "numeric": Kind.NUMERIC,
    "money": Kind.NUMERIC,
    "uuid": Kind.UUID,
    "date": Kind.DATE,
    "time": Kind.TIME,
    "timetz": Kind.TIMETZ,
    "timestamp": Kind.TIMESTAMP,
    "timestamptz": Kind.TIMESTAMPTZ,
    "interval": Kind.INTERVAL,
    "bytea": Kind.BYTEA,
    "json": Kind.JSON,
    "jsonb": Kind.JSONB,
}

# PostgreSQL's own types that row_to_json renders as they are to be, and of which every value can be kept, by name
PLAIN = {
    **{name: kind for name, kind in _KINDS.items() if name != "money"},
    **dict.fromkeys(("text", "varchar", "bpchar", "name", "inet"), Kind.TEXT),
}

# The text of these types does not identify the value: money depends on lc_monetary, xml loses its declaration, functions
# and operators of one name look alike. They are cast to these types.
_READ_AS = {"money": "numeric", "xml": "text", "regproc": "regprocedure", "regoper": "regoperator"}

# What PostgreSQL keeps in its own catalogs. It takes no value of these from a text.
_INTERNAL = (
    "pg_node_tree",
    "pg_ndistinct",
    "pg_dependencies",
    "pg_mcv_list",
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
)

# Extensions of whose types it is known that the text is the value. Others' values are read back (``doubts``).
_EXACT = ("citext", "hstore", "ltree", "vector")


@dataclass(frozen=True, eq=False)
class Type:
    """A type and those that it consists of: a domain's base, an array's or range's element, a composite's attributes.

    ``name`` is SQL for it. ``form``: base, enum, domain, array, composite, range, multirange. ``cast``: the extension
    whose cast to json ``row_to_json`` uses for it, '' for one that somebody made. ``raw``: ``row_to_json`` may take
    it for an array, which it is not.
    ``parse``: SQL of its input function on ``{}``; ``equal``: its own equality operator.
    """

    name: str
    known: str  # its name where it is PostgreSQL's own, else ''
    form: str
    inner: Tuple[Type, ...]
    attributes: Tuple[str, ...]
    cast: Optional[str]
    raw: bool
    extension: Optional[str]
    parse: str
    equal: Optional[str]

    @property
    def base(self) -> Type:
        """The type under a domain."""
        return self.inner[0].base if self.form == "domain" else self


class Doubt(NamedTuple):
    """SQL condition under which a value cannot be kept, why, and what helps."""

    condition: str
    reason: str
    hint: str


# row_to_json uses a cast only of a type that is none of PostgreSQL's own, and only one WITH FUNCTION.
_TYPES = """
WITH RECURSIVE reached (oid) AS (
    SELECT given::oid FROM unnest(%s::bigint[]) given
    UNION
    SELECT next.oid FROM reached k JOIN pg_type t ON t.oid = k.oid CROSS JOIN LATERAL ({inner}) next (oid, place)
)
SELECT t.oid::bigint, format_type(t.oid, -1), CASE WHEN t.oid < 16384 THEN t.typname::text ELSE '' END,
       CASE WHEN t.typtype = 'd' THEN 'domain' WHEN t.typoutput = 'array_out'::regproc THEN 'array'
            WHEN t.typtype = 'c' THEN 'composite' WHEN t.typtype = 'e' THEN 'enum'
            WHEN t.typtype = 'r' THEN 'range' WHEN t.typtype = 'm' THEN 'multirange' ELSE 'base' END,
       ARRAY(SELECT next.oid::bigint FROM ({inner}) next (oid, place) ORDER BY next.place),
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
       CASE WHEN t.oid >= 16384 THEN (
            SELECT coalesce((SELECT e.extname::text FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                             WHERE d.classid = 'pg_cast'::regclass AND d.objid = k.oid
                               AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'), '')
            FROM pg_cast k
            WHERE k.castsource = t.oid AND k.casttarget = 'json'::regtype AND k.castmethod = 'f') END,
       t.typlen = -1 AND t.typelem <> 0 AND t.typoutput <> 'array_out'::regproc,
       (SELECT e.extname::text FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid
          AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'),
       (SELECT format('%%I.%%I(pg_catalog.textout(@)%%s)', n.nspname, p.proname,
                      CASE WHEN p.pronargs = 1 THEN '' ELSE format(', %%s::oid, -1', coalesce(nullif(t.typelem, 0), t.oid)) END)
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = t.typinput),
       CASE WHEN t.oid >= 16384 AND t.typtype = 'b' THEN (
            SELECT format('%%I.%%s', n.nspname, o.oprname)
            FROM pg_opclass c JOIN pg_am m ON m.oid = c.opcmethod
            JOIN pg_amop p ON p.amopfamily = c.opcfamily AND p.amoplefttype = t.oid AND p.amoprighttype = t.oid
            JOIN pg_operator o ON o.oid = p.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
            WHERE c.opcdefault AND c.opcintype = t.oid AND (m.amname, p.amopstrategy) IN (('btree', 3), ('hash', 1))
            ORDER BY m.amname LIMIT 1) END
FROM reached k JOIN pg_type t ON t.oid = k.oid
""".format(
    inner="""
        SELECT t.typbasetype, 0 WHERE t.typtype = 'd'
        UNION ALL
        SELECT t.typelem, 0 WHERE t.typtype <> 'd' AND t.typoutput = 'array_out'::regproc
        UNION ALL
        SELECT a.atttypid, a.attnum::int FROM pg_attribute a
        WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT r.rngsubtype, 0 FROM pg_range r WHERE t.typtype = 'r' AND r.rngtypid = t.oid
        UNION ALL
        SELECT r.rngtypid, 0 FROM pg_range r WHERE t.typtype = 'm' AND to_jsonb(r.*) ->> 'rngmultitypid' = t.oid::text"""
)

Query = Callable[[str, Sequence[object]], List[Tuple[object, ...]]]


def read_types(query: Query, oids: Collection[int]) -> Dict[int, Type]:
    """These types and all that they consist of, by oid."""
    rows = {row[0]: row[1:] for row in query(_TYPES, (sorted(oids),))} if oids else {}
    made: Dict[int, Type] = {}

    def make(oid: int) -> Type:
        if oid not in made:
            name, known, form, inner, attributes, *others = rows[oid]
            made[oid] = Type(name, known, form, tuple(map(make, inner)), tuple(attributes), *others)  # type: ignore[arg-type,call-overload]
        return made[oid]

    for oid in rows:
        make(oid)  # type: ignore[arg-type]
    return made


def kind(type_: Type) -> Kind:
    """The class of a type in the type contract (``conversion.py``); a domain counts as the type under it."""
    base = type_.base
    if base.form in ("array", "composite") or base.cast == "hstore":
        return Kind.STRUCTURE if _is_json(base) else Kind.TEXT
    return _KINDS.get(base.known, Kind.TEXT)


def is_monetary(type_: Type) -> bool:
    """Whether its values depend on lc_monetary, and are read as numbers."""
    return _read_as(type_)[0] == "numeric"


def refusal(type_: Type) -> Optional[str]:
    """Why no value of a type can be kept; None where it can."""
    internal = next((part for part in _parts(type_) if part.known in _INTERNAL), None)
    if internal is not None:
        return "%s is PostgreSQL's own, and takes no value from a text" % internal.known
    if not _read_as(type_)[0]:
        lossy = next((part for part in _parts(type_) if part.known in _READ_AS), None)
        if lossy is not None:
            return "inside of another type, the text of %s does not determine its value" % lossy.known
    return None


def rendered(type_: Type, value: str) -> str:
    """SQL expression: a value as ``row_to_json`` is to see it, so that its JSON determines it."""
    if refusal(type_) is not None:
        return _output(value)
    name, dimensions = _read_as(type_)
    if name:
        value = "{}::pg_catalog.{}{}".format(value, name, dimensions)
    if kind(type_) is Kind.STRUCTURE:
        doubtful = _somewhere(type_.base, value, _lost_in_json)
        if doubtful is not None:
            return "CASE WHEN {} THEN pg_catalog.to_json({}) ELSE pg_catalog.to_json({}) END".format(
                doubtful, _output(value), value
            )
    elif not _is_json(type_):
        return _output(value)
    return value


def doubts(type_: Type, value: str) -> Iterator[Doubt]:
    """What has to be asked of the values of a type before they can be said to be kept."""
    for test, reason, advice in _DOUBTS:
        asked = _somewhere(type_, value, test)
        if asked is not None:
            yield Doubt(asked, reason, advice)


def _parts(type_: Type) -> Iterator[Type]:
    yield type_
    for inner in type_.inner:
        yield from _parts(inner)


def _read_as(type_: Type) -> Tuple[str, str]:
    """The type of PostgreSQL's as which values, or the elements of an array, have to be read, and its brackets."""
    base, dimensions = type_.base, ""
    if base.form == "array":
        base, dimensions = base.inner[0].base, "[]"
    return _READ_AS.get(base.known, ""), dimensions


def _is_json(type_: Type) -> bool:
    """Whether ``row_to_json`` renders a type so that its value can be had back, but for ``_lost_in_json``."""
    if type_.raw or type_.cast not in (None, "hstore"):
        return False
    if type_.form == "array":  # of a domain over arrays: JSON does not show which brackets belong to which
        return type_.inner[0].base.form != "array" and _is_json(type_.inner[0])
    if type_.form in ("domain", "composite"):
        return all(map(_is_json, type_.inner))
    return True  # a range is its own text, whatever its element


def _output(value: str) -> str:
    """The text of the type's output function, whatever casts there are. A composite of NULLs IS NULL and is none."""
    return "CASE WHEN pg_catalog.num_nulls({0}) OPERATOR(pg_catalog.=) 0 THEN pg_catalog.format('%s', {0}) END".format(
        value
    )


# Tests for a value or any value inside it

Test = Callable[[Type, str], Optional[str]]  # of a type, and SQL of a value: SQL condition


def _somewhere(type_: Type, value: str, test: Test, depth: int = 1) -> Optional[str]:
    """SQL condition: the test holds for a value or for one that it consists of; None where it cannot.

    A range is its own text in JSON, whatever its ends are.
    """
    if type_.form == "domain":
        return _somewhere(type_.inner[0], "({}::{})".format(value, type_.inner[0].name), test, depth)
    conditions = [test(type_, value)]
    if type_.form in ("array", "multirange"):
        each = "e%d" % depth
        inside = _somewhere(type_.inner[0], each + ".v", test, depth + 1)
        if inside is not None:
            conditions.append(
                "EXISTS (SELECT FROM (SELECT pg_catalog.unnest({}) AS v) {} WHERE {})".format(
                    value, each, inside
                )
            )
    elif type_.form == "composite":
        for name, inner in zip(type_.attributes, type_.inner):
            conditions.append(_somewhere(inner, "({}).{}".format(value, quote(name)), test, depth))
    elif type_.form == "range" and test is not _lost_in_json:
        for end in ("lower", "upper"):
            conditions.append(_somewhere(type_.inner[0], "pg_catalog.{}({})".format(end, value), test, depth))
    found = [condition for condition in conditions if condition is not None]
    return "(%s)" % " OR ".join(found) if found else None


def _lost_in_json(type_: Type, value: str) -> Optional[str]:
    if type_.form == "array":
        dimensions = "pg_catalog.array_dims({}) OPERATOR(pg_catalog.".format(value)
        if type_.inner[0].base.known in ("json", "jsonb"):  # whose elements may be arrays of JSON
            return dimensions + r"!~) E'^\\[1:\\d+\\]$'"
        return dimensions + r"~) E'\\[(?!1:)'"  # it begins elsewhere than at 1
    if type_.known in ("json", "jsonb"):
        return "pg_catalog.{}_typeof({}) OPERATOR(pg_catalog.=) 'null'".format(type_.known, value)
    return None


def _large_object(type_: Type, value: str) -> Optional[str]:
    if type_.known != "oid":
        return None
    return "EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata l WHERE l.oid OPERATOR(pg_catalog.=) {})".format(
        value
    )


def _bare_byte(type_: Type, value: str) -> Optional[str]:
    if type_.known != "char":
        return None
    return (
        "{0}::pg_catalog.int4 OPERATOR(pg_catalog.<) 0"
        " AND pg_catalog.octet_length(pg_catalog.format('%s', {0})) OPERATOR(pg_catalog.=) 1"
    ).format(value)


def _not_read_back(type_: Type, value: str) -> Optional[str]:
    """True for an extension's type whose input function does not restore the value from its text."""
    if type_.form != "base" or type_.known or type_.extension in _EXACT:
        return None
    back = type_.parse.replace("@", "pg_catalog.format('%s', {})".format(value))
    same = "pg_catalog.record_image_eq(ROW({}), ROW({}))".format(back, value)
    if type_.equal is not None:
        same = "({} OR {} OPERATOR({}) {})".format(same, back, type_.equal, value)
    return "pg_catalog.num_nulls({}) OPERATOR(pg_catalog.=) 0 AND NOT {}".format(value, same)


_DOUBTS = (
    (
        _large_object,
        "it points at large objects, whose content would stay behind",
        "copy the content into a bytea column in PostgreSQL, with lo_get(), and migrate that one",
    ),
    (
        _not_read_back,
        "PostgreSQL does not make the same values of their own text, which says less than they do",
        "keep the value in a column of another type in PostgreSQL",
    ),
    (
        _bare_byte,
        "it holds bytes above 127, which PostgreSQL 14 and older write as they are and which are no text",
        "keep the value in a column of type smallint in PostgreSQL",
    ),
)
