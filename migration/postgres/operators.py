"""How PostgreSQL compares two columns for equality, whatever operators a search_path finds."""

from __future__ import annotations

from migration.model import Column, Equality

_WRITTEN_ALIKE = (
    {"uuid"},
    {"smallint", "integer", "bigint"},
    {"text", "character varying", "character"},
)


def are_written_alike(*columns: Column) -> bool:
    """Whether columns are of types whose equal values are the same text, but for the padding of ``char(n)``."""
    types = {column.type.partition("(")[0] for column in columns}
    return any(types <= alike for alike in _WRITTEN_ALIKE)


# A uuid as its digits, and a text as those of the uuid that it is, if it is one: in capitals, in braces, without hyphens. A cast
# to uuid raises an error for other texts, and a pattern that tells them apart takes fifteen times as long.
_UUID = "pg_catalog.replace({}::pg_catalog.text, '-', '')"
_TEXT = "pg_catalog.replace(pg_catalog.btrim(pg_catalog.lower({}::pg_catalog.text COLLATE pg_catalog.\"C\"), '}{'), '-', '')"
UUID_OF_TEXT = Equality("pg_catalog.=", forms=(_UUID, _TEXT))
# Whether a text column holds a uuid in another form than PostgreSQL's own
OTHER_UUIDS = """
SELECT EXISTS (
    SELECT FROM {table} t
    WHERE ({column}::pg_catalog.text COLLATE pg_catalog."C" <> pg_catalog.lower({column}::pg_catalog.text COLLATE pg_catalog."C")
           OR pg_catalog.octet_length({column}::pg_catalog.text) <> 36)
      AND pg_catalog.octet_length({digits}) = 32
)
"""


def holds_other_uuids(table: str, column: str) -> str:
    """The query of it, of names as SQL has them."""
    return OTHER_UUIDS.format(table=table, column=column, digits=_TEXT.replace("{}", column))


# The types as their operator classes name them, then the operator; where there is none, numbers or text.
EQUALITY = """
WITH RECURSIVE given (side, oid) AS (
    VALUES (1, {key}::regtype::oid), (2, {reference}::regtype::oid)
    UNION ALL
    SELECT g.side, t.typbasetype FROM given g JOIN pg_type t ON t.oid = g.oid WHERE t.typtype = 'd'
), named (side, oid, number) AS (
    SELECT g.side,
           CASE WHEN t.typtype = 'e' THEN 'anyenum'::regtype
                WHEN t.typtype = 'r' THEN 'anyrange'::regtype
                WHEN t.typtype = 'm' THEN to_regtype('anymultirange')
                WHEN t.typtype = 'c' THEN 'record'::regtype
                WHEN t.typcategory = 'A' AND t.typlen = -1 THEN 'anyarray'::regtype
                WHEN t.oid = 'varchar'::regtype THEN 'text'::regtype
                ELSE t.oid END::oid,
           t.oid = 'numeric'::regtype OR EXISTS (
               SELECT FROM pg_cast c WHERE c.castsource = t.oid AND c.casttarget = 'numeric'::regtype AND t.typcategory = 'N'
           )
    FROM given g JOIN pg_type t ON t.oid = g.oid WHERE t.typtype <> 'd'
), found (operator) AS (
    SELECT format('%I.%s', n.nspname, o.oprname)
    FROM named k, named r, pg_opclass c, pg_am a, pg_amop p, pg_operator o, pg_namespace n
    WHERE k.side = 1 AND r.side = 2 AND c.opcdefault AND c.opcintype = k.oid
      AND a.oid = c.opcmethod AND p.amopfamily = c.opcfamily
      AND (a.amname, p.amopstrategy) IN (('btree', 3), ('hash', 1))
      AND p.amoplefttype = k.oid AND p.amoprighttype = r.oid AND o.oid = p.amopopr AND n.oid = o.oprnamespace
    ORDER BY a.amname LIMIT 1
)
SELECT operator, '' FROM found
UNION ALL
SELECT 'pg_catalog.=', CASE WHEN (SELECT bool_and(number) FROM named) THEN '::pg_catalog.numeric' ELSE '::pg_catalog.text' END
WHERE NOT EXISTS (SELECT FROM found)
"""
