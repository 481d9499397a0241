"""What PostgreSQL's catalog says of tables beyond their columns and keys: defaults, rules, indexes, views, comments.

Expressions are PostgreSQL's own text of them (``pg_get_expr`` and its kin) under the snapshot's pinned ``search_path``, so
that every name outside of pg_catalog has its schema.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from migration.postgres.snapshot import Snapshot


class Domain(NamedTuple):
    """A domain that a column has, or one under it. ``checks``: as ``CHECK (…)`` on ``VALUE``; validated ones alone."""

    name: str
    not_null: bool
    checks: Tuple[str, ...]


class ColumnDefinition(NamedTuple):
    """``base``: the type under all domains, with its modifier. ``default``: its own, else that of a domain; of a generated column its expression.

    ``generated``: '' or how it is kept, ``s`` (stored) or ``v`` (virtual). ``labels``: an enum's, in their order.
    """

    name: str
    base: str
    is_enum: bool
    labels: Tuple[str, ...]
    domains: Tuple[Domain, ...]
    default: Optional[str]
    generated: str
    is_identity: bool
    comment: Optional[str]


class Rule(NamedTuple):
    """A constraint. ``kind``: p, u, f, c or x as in ``pg_constraint.contype``; ``definition``: PostgreSQL's text of it.

    ``on_update``, ``on_delete``, ``match``: letters of ``pg_constraint``. ``some_deleted``: ON DELETE SET names columns.
    ``weaker``: not validated, not enforced, or temporal: rows may be there that do not meet it.
    """

    kind: str
    name: str
    definition: str
    columns: Tuple[str, ...]
    parent: Optional[int]
    parent_columns: Tuple[str, ...]
    on_update: str
    on_delete: str
    match: str
    deferrable: bool
    deferred: bool
    weaker: bool
    no_inherit: bool
    expression: Optional[str]
    some_deleted: bool


class IndexPart(NamedTuple):
    """``column``: None for an expression, which is ``sql``. ``plain``: its operator class compares as ``=`` does."""

    column: Optional[str]
    sql: str
    descending: bool
    plain: bool


class Index(NamedTuple):
    """An index, of a constraint too (``constraint``: its kind). ``included``: further columns that it only carries."""

    name: str
    method: str
    unique: bool
    constraint: str
    valid: bool
    nulls_equal: bool
    predicate: Optional[str]
    parts: Tuple[IndexPart, ...]
    included: int
    definition: str


class View(NamedTuple):
    """``materialized`` or not; ``uses``: the oids of all that it reads."""

    oid: int
    schema: str
    name: str
    materialized: bool
    definition: str
    columns: Tuple[str, ...]
    uses: Tuple[int, ...]
    comment: Optional[str]


class Definition(NamedTuple):
    """What the catalog says of one table. ``others``: what SQLite has none of or in another language, such as triggers, or
    for some of its partitions alone."""

    columns: Mapping[str, ColumnDefinition]
    rules: Tuple[Rule, ...]
    indexes: Tuple[Index, ...]
    comment: Optional[str]
    others: Tuple[str, ...]


class Definitions(NamedTuple):
    """``tables``: by oid. ``types``: the enums and domains of the database, by name: the base type, and labels or none."""

    tables: Mapping[int, Definition]
    views: Tuple[View, ...]
    types: Mapping[str, Tuple[str, bool]]
    encoding: str
    ctype: str


_COLUMNS = """
WITH RECURSIVE chain (relation, place, type, modifier, depth) AS (
    SELECT a.attrelid, a.attnum, a.atttypid, a.atttypmod, 0
    FROM pg_attribute a WHERE a.attrelid = ANY (%s::bigint[]::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT c.relation, c.place, t.typbasetype, CASE WHEN t.typtypmod <> -1 THEN t.typtypmod ELSE c.modifier END, c.depth + 1
    FROM chain c JOIN pg_type t ON t.oid = c.type AND t.typtype = 'd'
)
SELECT c.relation::bigint, a.attname::text, format_type(c.type, c.modifier), t.typtype::text,
       CASE WHEN t.typtype = 'e' THEN ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)
            ELSE '{}' END,
       t.typnotnull,
       ARRAY(SELECT pg_get_constraintdef(k.oid) FROM pg_constraint k
             WHERE k.contypid = t.oid AND k.contype = 'c' AND k.convalidated ORDER BY k.conname),
       CASE WHEN c.depth = 0 THEN pg_get_expr(d.adbin, d.adrelid) END, pg_get_expr(t.typdefaultbin, 0), a.attgenerated::text, a.attidentity::text, col_description(c.relation, c.place::int)
FROM chain c
JOIN pg_type t ON t.oid = c.type
JOIN pg_attribute a ON a.attrelid = c.relation AND a.attnum = c.place
LEFT JOIN pg_attrdef d ON d.adrelid = c.relation AND d.adnum = c.place
ORDER BY c.relation, c.place, c.depth
"""

# What PostgreSQL 14 and older lack in pg_constraint is read by its name in JSON.
_RULES = """
SELECT k.conrelid::bigint, k.contype::text, k.conname::text, pg_get_constraintdef(k.oid),
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u (num, i)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY u.i),
       nullif(coalesce(pg_partition_root(k.confrelid)::oid, k.confrelid), 0)::bigint,
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u (num, i)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY u.i),
       k.confupdtype::text, k.confdeltype::text, k.confmatchtype::text, k.condeferrable, k.condeferred,
       NOT k.convalidated OR coalesce((to_jsonb(k.*) ->> 'conperiod')::boolean, false), k.connoinherit,
       pg_get_expr(k.conbin, k.conrelid), coalesce(jsonb_typeof(to_jsonb(k.*) -> 'confdelsetcols'), 'null') = 'array'
FROM pg_constraint k
WHERE k.conrelid = ANY (%s::bigint[]::oid[]) AND k.contype IN ('p', 'u', 'f', 'c', 'x') AND (k.contype <> 'f' OR k.conparentid = 0)
ORDER BY k.conrelid, k.conname
"""

# pg_get_indexdef of a part says nothing of its direction, which is bit 1 of its option.
_INDEXES = """
SELECT i.indrelid::bigint, c.relname::text, m.amname::text, i.indisunique,
       coalesce((SELECT min(k.contype::text) FROM pg_constraint k
                 WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')), ''),
       i.indisvalid, coalesce((to_jsonb(i.*) ->> 'indnullsnotdistinct')::boolean, false), pg_get_expr(i.indpred, i.indrelid),
       ARRAY(SELECT (SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[n] AND a.attnum <> 0)
             FROM generate_series(0, i.indnkeyatts - 1) n ORDER BY n),
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, n + 1, false) FROM generate_series(0, i.indnkeyatts - 1) n ORDER BY n),
       ARRAY(SELECT i.indoption[n] & 1 = 1 FROM generate_series(0, i.indnkeyatts - 1) n ORDER BY n),
       ARRAY(SELECT o.opcdefault OR o.opcname IN ('text_pattern_ops', 'varchar_pattern_ops', 'bpchar_pattern_ops')
             FROM generate_series(0, i.indnkeyatts - 1) n JOIN pg_opclass o ON o.oid = i.indclass[n] ORDER BY n),
       i.indnatts - i.indnkeyatts, pg_get_indexdef(i.indexrelid)
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am m ON m.oid = c.relam
WHERE i.indrelid = ANY (%s::bigint[]::oid[])
ORDER BY i.indrelid, c.relname
"""

_VIEWS = """
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind = 'm', pg_get_viewdef(c.oid),
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
       ARRAY(SELECT DISTINCT d.refobjid::bigint FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
             WHERE r.ev_class = c.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid),
       obj_description(c.oid, 'pg_class')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY c.oid
"""

_TYPES = """
WITH RECURSIVE chain (named, type, modifier) AS (
    SELECT t.oid, t.oid, -1 FROM pg_type t WHERE t.typtype IN ('e', 'd') AND t.oid >= 16384
    UNION ALL
    SELECT c.named, t.typbasetype, CASE WHEN t.typtypmod <> -1 THEN t.typtypmod ELSE c.modifier END
    FROM chain c JOIN pg_type t ON t.oid = c.type AND t.typtype = 'd'
)
SELECT format_type(c.named, -1), format_type(c.type, c.modifier), t.typtype = 'e'
FROM chain c JOIN pg_type t ON t.oid = c.type AND t.typtype <> 'd'
"""

_COMMENTS = """
SELECT u.oid, obj_description(u.oid::oid, 'pg_class'),
       ARRAY(SELECT 'trigger `' || t.tgname || '`' FROM pg_trigger t WHERE t.tgrelid = u.oid AND NOT t.tgisinternal
             UNION ALL SELECT 'rule `' || r.rulename || '`' FROM pg_rewrite r WHERE r.ev_class = u.oid
             UNION ALL SELECT 'policy `' || p.polname || '`' FROM pg_policy p WHERE p.polrelid = u.oid
             UNION ALL
             SELECT format('index `%%s` of partition `%%s`', x.relname, c.relname)
             FROM pg_partition_tree(u.oid::regclass) t JOIN pg_class c ON c.oid = t.relid JOIN pg_index i ON i.indrelid = c.oid
             JOIN pg_class x ON x.oid = i.indexrelid WHERE t.level > 0 AND NOT x.relispartition
             UNION ALL
             SELECT format('`%%s` (%%s) of partition `%%s`', pg_get_constraintdef(k.oid), k.conname, c.relname)
             FROM pg_partition_tree(u.oid::regclass) t JOIN pg_class c ON c.oid = t.relid JOIN pg_constraint k ON k.conrelid = c.oid
             WHERE t.level > 0 AND k.contype IN ('c', 'f') AND k.conparentid = 0 AND k.coninhcount = 0
             ORDER BY 1)
FROM unnest(%s::bigint[]) u (oid)
"""

_DATABASE = """
SELECT pg_encoding_to_char(encoding), lower(coalesce(to_jsonb(d.*) ->> 'datlocale', to_jsonb(d.*) ->> 'daticulocale', datctype))
FROM pg_database d WHERE datname = current_database()
"""


def read_definitions(db: Snapshot, tables: Sequence[str]) -> Definitions:
    """Definitions of these tables, and all views of the database. Reading the catalog takes no privilege."""
    db.rows("SELECT pg_catalog.set_config('standard_conforming_strings', 'on', true)")  # a backslash is one
    oids = [db.catalog.relations[table].oid for table in tables]
    columns: Dict[int, Dict[str, ColumnDefinition]] = {oid: {} for oid in oids}
    domains: List[Domain] = []
    default: Optional[str] = None
    for (
        oid,
        name,
        shown,
        form,
        labels,
        not_null,
        checks,
        own,
        of_type,
        generated,
        identity,
        comment,
    ) in db.rows(_COLUMNS, (oids,)):
        default = default or own or (None if generated else of_type)
        if form == "d":
            domains.append(Domain(shown, not_null, tuple(checks)))
            continue
        columns[oid][name] = ColumnDefinition(
            name,
            shown,
            form == "e",
            tuple(labels),
            tuple(domains),
            default,
            generated,
            identity != "",
            comment,
        )
        domains, default = [], None
    rules: Dict[int, List[Rule]] = {oid: [] for oid in oids}
    for oid, kind, name, definition, mine, parent, theirs, *others in db.rows(_RULES, (oids,)):
        rules[oid].append(Rule(kind, name, definition, tuple(mine), parent, tuple(theirs), *others))
    indexes: Dict[int, List[Index]] = {oid: [] for oid in oids}
    for row in db.rows(_INDEXES, (oids,)):
        indexes[row[0]].append(_index(row[1:]))
    comments = {oid: (comment, tuple(others)) for oid, comment, others in db.rows(_COMMENTS, (oids,))}
    encoding, ctype = db.rows(_DATABASE)[0]
    return Definitions(
        {
            oid: Definition(columns[oid], tuple(rules[oid]), tuple(indexes[oid]), *comments[oid])
            for oid in oids
        },
        tuple(
            View(oid, schema, name, materialized, definition, tuple(names), tuple(uses), comment)
            for oid, schema, name, materialized, definition, names, uses, comment in db.rows(_VIEWS)
        ),
        {name: (base, is_enum) for name, base, is_enum in db.rows(_TYPES)},
        encoding,
        ctype,
    )


def _index(row: Tuple[Any, ...]) -> Index:
    (
        name,
        method,
        unique,
        constraint,
        valid,
        nulls_equal,
        predicate,
        names,
        sql,
        descending,
        plain,
        included,
        definition,
    ) = row
    parts = tuple(map(IndexPart, names, sql, descending, plain))
    return Index(name, method, unique, constraint, valid, nulls_equal, predicate, parts, included, definition)
