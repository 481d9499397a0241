"""The catalog as PostgreSQL's system tables have it."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Set, Tuple

from migration.model import Column, Equality, ForeignKey
from migration.postgres import kinds
from migration.postgres.catalog import Catalog, Collation, Relation
from migration.postgres.kinds import Type, read_types
from migration.sql import quote

# PostgreSQL 18 has NOT NULL constraints that the rows from before, or those of heirs, need not fulfil.
_COLUMNS = """
SELECT c.oid::bigint, a.attname, format_type(a.atttypid, a.atttypmod), a.atttypid::bigint,
       CASE WHEN t.oid < 16384 THEN t.typname::text ELSE '' END,
       a.attnotnull AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'n'
                                    AND k.conkey = ARRAY[a.attnum] AND NOT (k.convalidated AND NOT k.connoinherit)),
       has_column_privilege(c.oid, a.attnum, 'SELECT'),
       quote_ident(s.nspname) || '.' || quote_ident(l.collname), l.collisdeterministic
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_namespace s ON s.oid = l.collnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
ORDER BY n.nspname, c.relname, a.attnum
"""


# Partitions are one with their table. Tables that an extension keeps for itself are nobody's.
_RELATIONS = """
SELECT c.oid::bigint, n.nspname, c.relname,
       ARRAY(SELECT i.inhparent::bigint FROM pg_inherits i WHERE i.inhrelid = c.oid),
       EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
ORDER BY n.nspname, c.relname
"""


# A key that only some partitions have is their table's; those that PostgreSQL makes of one for partitions are left out.
# The operators of a foreign key are those that PostgreSQL itself checks it with (left the key, right the reference),
# in the key's collation. The period of a temporal key is left out: there, references are not equal but contained.
_KEYS = """
SELECT k.contype::text, coalesce(pg_partition_root(k.conrelid), k.conrelid)::bigint,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u (num, i)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY u.i),
       p.oid::bigint,
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u (num, i)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY u.i),
       ARRAY(SELECT format('%I.%s', s.nspname, o.oprname) FROM unnest(k.conpfeqop) WITH ORDINALITY u (op, i)
             JOIN pg_operator o ON o.oid = u.op JOIN pg_namespace s ON s.oid = o.oprnamespace ORDER BY u.i),
       ARRAY(SELECT CASE WHEN a.attcollation <> b.attcollation THEN format('%I.%I', s.nspname, l.collname) ELSE '' END
             FROM unnest(k.confkey, k.conkey) WITH ORDINALITY u (theirs, mine, i)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.theirs
             JOIN pg_attribute b ON b.attrelid = k.conrelid AND b.attnum = u.mine
             LEFT JOIN pg_collation l ON l.oid = a.attcollation
             LEFT JOIN pg_namespace s ON s.oid = l.collnamespace ORDER BY u.i),
       coalesce((to_jsonb(k.*) ->> 'conperiod')::boolean, false)
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid
LEFT JOIN pg_class p ON p.oid = coalesce(pg_partition_root(k.confrelid), k.confrelid)
WHERE k.contype = 'p' AND NOT c.relispartition OR k.contype = 'f' AND k.conparentid = 0
ORDER BY c.relname, k.conrelid, k.conname
"""


# Unique indexes of all rows, by columns alone, the best one of each table first
_UNIQUE_KEYS = """
SELECT i.indrelid::bigint,
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY u (num, i)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.num
             WHERE u.i <= i.indnkeyatts ORDER BY u.i)
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY i.indrelid, i.indisreplident DESC, i.indnkeyatts, c.relname
"""


def read_catalog(ask: Callable[..., List[Tuple[Any, ...]]], schema: str) -> Catalog:
    """Tables, columns and keys of every schema but the system's; those of ``schema`` go by their bare names.

    ``ask`` runs a query. Reading the catalog takes no privilege.
    """
    relations: Dict[str, Relation] = {}
    names: Dict[int, str] = {}
    listed = [
        (oid, Relation(place, name, oid, tuple(parents), extension))
        for oid, place, name, parents, extension in ask(_RELATIONS)
    ]
    for oid, relation in sorted(listed, key=lambda pair: pair[1].schema != schema):
        name = relation.name if relation.schema == schema else relation.schema + "." + relation.name
        if name in relations:  # a dot in a name
            name = quote(relation.schema) + "." + quote(relation.name)
        relations[name], names[oid] = relation, name

    columns: Dict[str, List[Column]] = {}
    values: Dict[str, Dict[str, Type]] = {}
    collations: Dict[str, Dict[str, Collation]] = {}
    unreadable: Set[str] = set()
    found = [row for row in ask(_COLUMNS) if row[0] in names]
    types = read_types(ask, {row[3] for row in found if row[4] not in kinds.PLAIN})
    for oid, column, shown, type_oid, known, not_null, readable, collation, deterministic in found:
        name, kind = names[oid], kinds.PLAIN.get(known)
        if kind is None:
            kind = kinds.kind(types[type_oid])
            values.setdefault(name, {})[column] = types[type_oid]
        columns.setdefault(name, []).append(Column(column, shown, kind, not_null))
        if not readable:
            unreadable.add(name)
        if deterministic is not None:
            collations.setdefault(name, {})[column] = Collation(collation, deterministic)

    primary_keys: Dict[str, Tuple[str, ...]] = {}
    foreign_keys: List[ForeignKey] = []
    for contype, oid, mine, parent, theirs, operators, collated, temporal in ask(_KEYS):
        if oid not in names or (contype == "f" and parent not in names):
            continue
        if contype == "p":
            primary_keys[names[oid]] = tuple(mine)
            continue
        equalities = tuple(Equality(*pair) for pair in zip(operators, [""] * len(mine), collated))
        end = len(mine) - 1 if temporal else len(mine)
        foreign_keys.append(
            ForeignKey(names[oid], tuple(mine[:end]), names[parent], tuple(theirs[:end]), equalities[:end])
        )
    keys = dict(primary_keys)
    for oid, mine in ask(_UNIQUE_KEYS):
        never_null = {column.name for column in columns.get(names.get(oid, ""), ()) if column.not_null}
        if set(mine) <= never_null:
            keys.setdefault(names[oid], tuple(mine))
    # No key holds for the rows of the tables that inherit from one.
    parents = {parent for relation in relations.values() for parent in relation.parents}
    return Catalog(
        relations,
        {table: tuple(listed) for table, listed in columns.items()},
        primary_keys,
        {name: () if relation.oid in parents else keys.get(name, ()) for name, relation in relations.items()},
        tuple(dict.fromkeys(foreign_keys)),
        tuple(sorted(unreadable)),
        values,
        collations,
    )
