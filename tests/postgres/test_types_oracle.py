"""Every type of a server with its extensions: a value of each leaves PostgreSQL and comes back from the bundle, equal.

The way back is written from ``migration_mapping.md`` alone, and PostgreSQL says whether the values are the same.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from random import Random
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

import msgspec
import psycopg2
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from export_from_postgres import export
from migration.errors import ExitCode, MigrationError
from migration.model import Table, owned_by
from migration.postgres.connecting import snapshot
from migration.settings import Settings
from support.migrations import export_and_import, typed_settings
from support.places import ANNA, Place, extended_schema
from support.servers import Server
from validate_migration import validate

EXTENSIONS = (
    "citext", "cube", "earthdistance", "hstore", "intarray", "isn", "lo", "ltree", "pg_trgm", "seg", "btree_gist",
    "dblink", "tablefunc", "unaccent", "vector",
)  # fmt: skip

# What nothing may depend on: every setting that changes how some value is written.
SETTINGS = {
    "DateStyle": "'SQL, DMY'",
    "IntervalStyle": "'sql_standard'",
    "TimeZone": "'Asia/Kathmandu'",
    "bytea_output": "'escape'",
    "extra_float_digits": "-15",
    "quote_all_identifiers": "on",
    "xmlbinary": "'hex'",
    "xmloption": "'document'",
    "array_nulls": "off",
    "standard_conforming_strings": "off",
    "search_path": "public, pg_catalog",
}
OURS = "-c DateStyle=ISO -c IntervalStyle=postgres -c array_nulls=on -c standard_conforming_strings=on -c quote_all_identifiers=off -c xmloption=content"

# Random values, as text that the type takes


ODD_WORDS = ["", " ", "a b ", "\t\n\r", "NULL", "null", "☉", "𐍈"]
ODD_WORDS += ["'", '"', "\\", "\\N", "{", "}", ",", "(", ")"]


def _words(random: Random) -> str:
    if random.random() < 0.4:
        return random.choice(ODD_WORDS)
    return "".join(random.choice("ab'\"\\{},() \n\téß🌙%") for _ in range(random.randrange(12)))


def _whole(bits: int, signed: bool = True) -> Callable[[Random], str]:
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return lambda random: str(random.choice([lowest, highest, 0, 1, random.randint(lowest, highest)]))


def _digits(random: Random) -> str:
    sign = random.choice(["", "-"])
    return "%s%d.%s" % (
        sign,
        random.randrange(10 ** random.randrange(1, 25)),
        "".join(random.choice("0123456789") for _ in range(random.randrange(1, 25))),
    )


def _double(random: Random) -> str:
    return random.choice(
        [
            repr(random.uniform(-1e3, 1e3)),
            repr(random.random() * 10.0 ** random.randrange(-300, 300)),
            str(random.randrange(-100, 100)),
            "-0",
            "0.1",
        ]
    )


def _real(random: Random) -> str:
    return random.choice(["0.1", "-0", "16777217", "3.4028235e38", "%r" % random.uniform(-1e3, 1e3)])


def _point(random: Random) -> str:
    return "(%s,%s)" % (_double(random), _double(random))


def _points(random: Random, least: int = 1) -> str:
    return ",".join(_point(random) for _ in range(random.randrange(least, 4)))


def _one_of(*texts: str) -> Callable[[Random], str]:
    return lambda random: random.choice(texts)


def _date(random: Random) -> str:
    if random.random() < 0.2:
        return random.choice(
            ["infinity", "-infinity", "4713-01-01 BC", "0001-12-31 BC", "12025-03-04", "0001-01-01"]
        )
    return "%04d-%02d-%02d" % (random.randrange(1, 9999), random.randrange(1, 13), random.randrange(1, 29))


def _time(random: Random) -> str:
    if random.random() < 0.1:
        return "24:00:00"
    return "%02d:%02d:%02d.%06d" % (
        random.randrange(24),
        random.randrange(60),
        random.randrange(60),
        random.choice([0, 500000, random.randrange(10**6)]),
    )


def _zone(random: Random) -> str:
    return random.choice(["+00", "-03", "+05:45", "+15:59:59", "-00:00:01"])


def _timestamp(random: Random) -> str:
    date = _date(random)
    if "infinity" in date:
        return date
    day, _, era = date.partition(" ")
    return "%s %s %s" % (day, _time(random).replace("24:00:00", "00:00:00"), era)


def _timestamptz(random: Random) -> str:
    found = _timestamp(random)
    return (
        found
        if "infinity" in found
        else found.replace(" BC", "") + "+05:30" + (" BC" if "BC" in found else "")
    )


def _interval(random: Random) -> str:
    def number(size: int) -> int:
        return random.choice([0, 0, random.randint(-size, size)])

    clock = "%d:%02d:%02d.%06d" % (
        number(10**5),
        random.randrange(60),
        random.randrange(60),
        random.randrange(10**6),
    )
    return "%d mons %d days %s%s" % (
        number(10**6),
        number(10**6),
        random.choice(["", "-"]),
        clock.lstrip("-"),
    )


def _json(random: Random, depth: int = 0) -> str:
    kind = random.randrange(7 if depth < 3 else 5)
    if kind < 5:
        return [
            "null",
            "true",
            _digits(random),
            '"a\\"b\\\\ \\n\\u00e9"',
            '"%s"' % random.choice(["", "x", "{1,2}", "NULL"]),
        ][kind]
    blank = random.choice(["", " ", "\n", "\t"])
    inner = [_json(random, depth + 1) for _ in range(random.randrange(3))]
    if kind == 5:
        return "[" + blank + ("," + blank).join(inner) + "]"
    return "{" + ",".join('%s"%s" :%s' % (blank, random.choice("abc"), each) for each in inner) + "}"


def _bytes(random: Random) -> str:
    return "\\x" + "".join("%02x" % random.randrange(256) for _ in range(random.randrange(8)))


def _bits(random: Random) -> str:
    return "".join(random.choice("01") for _ in range(random.randrange(1, 20)))


def _hexes(*lengths: int, between: str) -> Callable[[Random], str]:
    return lambda random: between.join("%0*x" % (length, random.randrange(16**length)) for length in lengths)


def _hstore(random: Random) -> str:
    def word() -> str:
        return '"%s"' % _words(random).replace("\\", "\\\\").replace('"', '\\"')

    pairs = [
        word() + "=>" + random.choice([word(), "NULL", '"1"', '"null"']) for _ in range(random.randrange(4))
    ]
    return ", ".join(pairs)


def _cube(random: Random) -> str:
    size = random.randrange(1, 4)
    return ",".join(
        "(%s)" % ",".join(_double(random) for _ in range(size)) for _ in range(random.randrange(1, 3))
    )


def _seg(random: Random) -> str:
    lower = random.randrange(-999, 999)
    one, other = "%d.%d" % (lower, random.randrange(99)), "%d.50" % (lower + random.randrange(1, 9))
    return random.choice(
        ["%s .. %s" % (one, other), one, "~" + one, "<" + one, one + " ..", ".. " + other, "1e7", "1.50"]
    )


def _isn(prefix: str, digits: int) -> Callable[[Random], str]:
    return lambda random: prefix + "".join(random.choice("0123456789") for _ in range(digits)) + "?"


def _vector(random: Random) -> str:
    return "[%s]" % ",".join(
        random.choice(["0.1", "-2", "1.25", "65504"]) for _ in range(random.randrange(1, 5))
    )


def _snapshot(random: Random) -> str:
    return random.choice(["10:20:10,14,15", "1:1:", "5:9000000000:7,8"])


VALUES: Dict[str, Callable[[Random], str]] = {
    "boolean": _one_of("true", "false"),
    "bytea": _bytes,
    '"char"': _one_of("x", "", "\\", "'", '"', " ", "\\200", "\\377", "\\000", ","),
    "name": lambda random: _words(random)[:15],
    "bigint": _whole(64),
    "smallint": _whole(16),
    "integer": _whole(32),
    "int2vector": _one_of("", "1", "1 2 -3"),
    "oidvector": _one_of("", "1", "1 2 4294967295"),
    "regproc": _one_of("1397", "1398", "now", "0", "4000000000", "public.f"),
    "regprocedure": _one_of("abs(integer)", "now()", "0", "4000000000", 'public."F g"(text,integer[])'),
    "regoper": _one_of("551", "552", "0", "4000000000"),
    "regoperator": _one_of("+(integer,integer)", "-(NONE,bigint)", "0", "4000000000"),
    "regclass": _one_of("pg_class", "users", '"Odd ""x"', "0", "4000000000"),
    "regtype": _one_of("integer", '"char"', "character varying", "int[]", "mood", "0", "4000000000"),
    "regconfig": _one_of("english", "simple", "0", "4000000000"),
    "regdictionary": _one_of("simple", "english_stem", "public.unaccent", "0"),
    "regnamespace": _one_of("public", "pg_catalog", "0", "4000000000"),
    "regrole": _one_of("postgres", "0", "4000000000"),
    "regcollation": _one_of('"C"', '"default"', "0", "4000000000"),
    "text": _words,
    "citext": _words,
    "bpchar": _words,
    "character varying": _words,
    "refcursor": _words,
    "oid": _one_of("0", "4294967295", "1259"),
    "lo": _one_of("0", "4294967295"),
    "tid": _one_of("(0,0)", "(4294967295,65535)"),
    "xid": _whole(32, False),
    "cid": _whole(32, False),
    "xid8": _whole(64, False),
    "json": _json,
    "jsonb": _json,
    "xml": _one_of("<a/>", '<?xml version="1.0" encoding="UTF-8"?><a>é</a>', "x &amp; y", '<?xml version="1.0" standalone="yes"?>\n<a/>'),
    "point": _point,
    "lseg": lambda random: "[%s,%s]" % (_point(random), _point(random)),
    "path": lambda random: random.choice(["[%s]", "(%s)"]) % _points(random),
    "box": lambda random: "%s,%s" % (_point(random), _point(random)),
    "polygon": lambda random: "(%s)" % _points(random),
    "line": lambda random: "{%s,1,%s}" % (_double(random), _double(random)),
    "circle": lambda random: "<%s,%s>" % (_point(random), abs(float(_double(random)))),
    "cidr": _one_of("10.0.0.0/8", "192.168.0.1/32", "::/0", "2001:db8::/32"),
    "inet": _one_of("10.1.2.3/8", "192.168.0.1", "::1", "::ffff:1.2.3.4/96"),
    "macaddr": _hexes(*[2] * 6, between=":"),
    "macaddr8": _hexes(*[2] * 8, between=":"),
    "real": lambda random: random.choice([_real(random), "NaN", "Infinity", "-Infinity"]),
    "double precision": lambda random: random.choice([_double(random), "NaN", "Infinity", "-Infinity"]),
    "numeric": lambda random: random.choice([_digits(random), "NaN", "0.00", "1e50", "-1e-40"]),
    "money": lambda random: random.choice(["0", "92233720368547758.07", "-0.01", "%.2f" % random.uniform(-1e6, 1e6)]),
    "aclitem": _one_of("postgres=arw/postgres", "=r*/postgres", "postgres=/postgres"),
    "date": _date,
    "time without time zone": _time,
    "time with time zone": lambda random: _time(random) + _zone(random),
    "timestamp without time zone": _timestamp,
    "timestamp with time zone": _timestamptz,
    "interval": _interval,
    '"bit"': _bits,
    "bit varying": _bits,
    "uuid": _hexes(8, 4, 4, 4, 12, between="-"),
    "txid_snapshot": _snapshot,
    "pg_snapshot": _snapshot,
    "pg_lsn": _one_of("0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"),
    "tsvector": _one_of("", "a:1A,3 b:2", "'it''s' 'a b':7C", "'\\\\':1", "é"),
    "tsquery": _one_of("", "a & !b | c:*A", "(a | b) <-> c <7> 'd e'", "'it''s'"),
    "jsonpath": _one_of("$", '$."a b"[*] ? (@.x > 3.10)', "strict $.b.size()", '$ ? (@ like_regex "^a" flag "i")'),
    "cube": _cube,
    "earth": _one_of("(6378168, 0, 0)", "(0, -6378168, 0)"),
    "hstore": _hstore,
    "query_int": _one_of("1&(2|!3)", "7"),
    "ean13": _isn("400", 9),
    "isbn13": _isn("978", 9),
    "isbn": _isn("978", 9),
    "ismn13": _isn("9790", 8),
    "ismn": _isn("9790", 8),
    "issn13": _isn("977", 9),
    "issn": _isn("", 7),
    "upc": _isn("0", 11),
    "ltree": _one_of("a.b", "a", "Top.Sci_ence.x1"),
    "lquery": _one_of("*.a.!b|c@*.d%", "*{1,2}.a.*{,3}"),
    "ltxtquery": _one_of("a & b@*", "!(a | c%)"),
    "seg": _seg,
    "vector": _vector,
    "halfvec": _vector,
    "sparsevec": _one_of("{1:1.5,3:-2}/5", "{}/3"),
    "information_schema.cardinal_number": _whole(31, False),
    "information_schema.character_data": _words,
    "information_schema.sql_identifier": lambda random: _words(random)[:15],
    "information_schema.time_stamp": _timestamptz,
    "information_schema.yes_or_no": _one_of("YES", "NO"),
    "mood": _one_of("calm", "very tense", 'it\'s "odd"', "NULL", ""),
    "shade": _one_of("dark", "light"),
}  # fmt: skip

INTERNAL = (
    "pg_node_tree",
    "pg_ndistinct",
    "pg_dependencies",
    "pg_mcv_list",
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
)
# Keys of indexes: no text is a value of these, so no column holds one
NO_VALUES = ("gtsvector", "ghstore", "intbig_gkey", "ltree_gist", "gtrgm", "gbtreekey2", "gbtreekey4", "gbtreekey8", "gbtreekey16", "gbtreekey32", "gbtreekey_var")  # fmt: skip
READ_AS = {"money": "numeric", "regproc": "regprocedure", "regoper": "regoperator", "xml": "text"}

OWN = """
CREATE TYPE mood AS ENUM ('calm', 'very tense', 'it''s "odd"', 'NULL', '');
CREATE TYPE shade AS ENUM ('dark', 'light');
CREATE FUNCTION shade_to_json(shade) RETURNS json LANGUAGE sql AS $$ SELECT '{"lost": true}'::json $$;
CREATE CAST (shade AS json) WITH FUNCTION shade_to_json(shade);
CREATE FUNCTION mood_to_text(mood) RETURNS text LANGUAGE sql AS $$ SELECT 'lost'::text $$;
CREATE CAST (mood AS text) WITH FUNCTION mood_to_text(mood) AS IMPLICIT;
CREATE TABLE "Odd ""x" (id int PRIMARY KEY);
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION "F g"(text, int[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
"""


class Shape(NamedTuple):
    """A type that a column has, and the type that a value of it is made of."""

    name: str
    base: str  # a key of VALUES
    form: str  # plain, array, domain, domain_array, composite, composite_array, range, multirange
    delimiter: str = ","


def _quoted(text: str) -> str:
    return '"%s"' % text.replace("\\", "\\\\").replace('"', '\\"')


def _array(random: Random, texts: Sequence[str], delimiter: str) -> str:
    """An array literal: sometimes empty, of two dimensions, with NULLs, or beginning elsewhere."""
    elements = [random.choice(["NULL", _quoted(text), _quoted(text)]) for text in texts]
    if random.random() < 0.15:
        return "{}"
    if random.random() < 0.3:
        found = "{{%s}%s{%s}}" % (delimiter.join(elements), delimiter, delimiter.join(elements))
        bounds = "[-1:0][1:%d]=" % len(elements)
    else:
        found = "{%s}" % delimiter.join(elements)
        bounds = "[%d:%d]=" % (0, len(elements) - 1)
    return (bounds if random.random() < 0.3 else "") + found


def literal_of(shape: Shape, random: Random) -> Optional[str]:
    """A random value of a shape as text, None is NULL."""
    if random.random() < 0.08:
        return None
    make = VALUES[shape.base]
    texts = [make(random) for _ in range(random.randrange(1, 4))]
    if shape.form in ("plain", "domain"):
        return texts[0]
    if shape.form in ("array", "domain_array"):
        return _array(random, texts, shape.delimiter)
    if shape.form == "array_of_arrays":
        arrays = [_array(random, texts, shape.delimiter) for _ in texts]
        return _array(random, arrays, shape.delimiter)
    if shape.form.startswith("composite"):
        records = [
            "(%s,%s,)"
            % (
                random.choice(["", _quoted(text)]),
                random.choice(["", _quoted(_array(random, texts, shape.delimiter))]),
            )
            for text in texts
        ]
        return records[0] if shape.form == "composite" else _array(random, records, ",")
    one = _quoted(texts[0])
    found = random.choice(["[%s,%s]" % (one, one), "(,%s]" % one, "[%s,)" % one, "empty", "(,)"])
    return found if shape.form == "range" else random.choice(["{%s}" % found, "{}"])


# From the bundle back to text that PostgreSQL takes: migration_mapping.md, read the other way round


def decoded(shape: Shape, raw: bytes) -> str:
    """The text of a value that is not null in JSON."""
    if raw[:1] == b'"' and (shape.form not in ("plain", "domain") or shape.base not in ("json", "jsonb")):
        return str(msgspec.json.decode(raw))
    if shape.form in ("array", "composite_array", "domain_array"):
        element = shape._replace(form="composite" if shape.form == "composite_array" else "plain")
        return _array_of(element, raw)
    if shape.form == "composite":
        members = msgspec.json.decode(raw, type=Dict[str, msgspec.Raw])
        assert list(members) == ["a", "B b", "c"]
        plain, array = shape._replace(form="plain"), shape._replace(form="array")
        fields = [_part(plain, members["a"]), _part(array, members["B b"]), ""]
        assert bytes(members["c"]) == b"null"
        return "(%s)" % ",".join(fields)
    if shape.base == "hstore":
        pairs = msgspec.json.decode(raw, type=Dict[str, Optional[str]])
        return ",".join(
            "%s=>%s" % (_quoted(key), "NULL" if value is None else _quoted(value))
            for key, value in pairs.items()
        )
    return raw.decode("utf-8")  # numbers, true, false, JSON


def _part(shape: Shape, raw: bytes) -> str:
    return "" if bytes(raw) == b"null" else _quoted(decoded(shape, bytes(raw)))


def _array_of(element: Shape, raw: bytes) -> str:
    delimiter = "," if element.form == "composite" else element.delimiter
    parts = []
    for part in msgspec.json.decode(raw, type=List[msgspec.Raw]):
        text = bytes(part)
        if text == b"null":
            parts.append("NULL")
        elif text[:1] == b"[" and (element.form == "composite" or element.base not in ("json", "jsonb")):
            parts.append(_array_of(element, text))
        else:
            parts.append(_quoted(decoded(element, text)))
    return "{%s}" % delimiter.join(parts)


# The tables: one for each form, with a column for each type


class Oracle:
    """``tables``: what is kept, column by column. ``refused``: what is not."""

    def __init__(
        self,
        connection: Any,
        settings: Settings,
        tables: Dict[str, List[Shape]],
        refused: List[Shape],
        anna: str,
    ) -> None:
        self.connection = connection
        self.settings = settings
        self.tables = tables
        self.refused = refused
        self.anna = anna

    def rows(self, sql: str, *parameters: object) -> List[Any]:
        return rows_of(self.connection, sql, *parameters)


def rows_of(connection: Any, sql: str, *parameters: object) -> List[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters or None)
        return list(cursor.fetchall()) if cursor.description else []


_ALL = """
SELECT format_type(t.oid, -1), t.typdelim::text, t.typarray <> 0,
       EXISTS (SELECT FROM pg_opclass c JOIN pg_am a ON a.oid = c.opcmethod
               WHERE c.opcdefault AND a.amname = 'btree' AND c.opcintype = t.oid)
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.typtype IN ('b', 'd', 'e') AND t.typoutput <> 'array_out'::regproc AND n.nspname <> 'pg_toast'
ORDER BY 1
"""


def shapes_of(connection: Any) -> List[Shape]:
    """Every type that a column may have, in every form."""
    found = []
    for number, (name, delimiter, has_array, ordered) in enumerate(rows_of(connection, _ALL)):
        if name in NO_VALUES:
            with pytest.raises(psycopg2.Error):
                rows_of(connection, "SELECT '1'::" + name)
            continue
        found.append(Shape(name, name, "plain"))
        if not has_array:
            assert name in INTERNAL
            continue
        rows_of(
            connection,
            "CREATE DOMAIN o_d{0} AS {1}; CREATE DOMAIN o_da{0} AS {1}[];"
            'CREATE TYPE o_c{0} AS (a {1}, "B b" {1}[], c int)'.format(number, name),
        )
        found.append(Shape(name + "[]", name, "array", delimiter))
        found.append(Shape("o_d%d" % number, name, "domain"))
        found.append(Shape("o_da%d" % number, name, "domain_array", delimiter))
        found.append(Shape("o_d%d[]" % number, name, "array", delimiter))
        found.append(Shape("o_da%d[]" % number, name, "array_of_arrays", delimiter))
        found.append(Shape("o_c%d" % number, name, "composite", delimiter))
        found.append(Shape("o_c%d[]" % number, name, "composite_array", delimiter))
        if ordered:
            rows_of(connection, "CREATE TYPE o_r{0} AS RANGE (subtype = {1})".format(number, name))
            found.append(Shape("o_r%d" % number, name, "range"))
            ((multirange,),) = rows_of(
                connection,
                "SELECT format_type((to_jsonb(r.*) ->> 'rngmultitypid')::oid, -1) FROM pg_range r"
                " WHERE rngtypid = 'o_r%d'::regtype" % number,
            )
            if multirange not in (None, "-"):  # PostgreSQL 14
                found.append(Shape(multirange, name, "multirange"))
    return found


def is_refused(shape: Shape) -> bool:
    inside = shape.form in ("composite", "composite_array", "range", "multirange", "array_of_arrays")
    return shape.base in INTERNAL or (shape.base in READ_AS and inside)


def sqlite_type(shape: Shape) -> str:
    plain = shape.form in ("plain", "domain")
    if plain and shape.base == "bytea":
        return "BLOB"
    return "INTEGER" if plain and shape.base in ("boolean", "smallint", "integer", "bigint") else "TEXT"


@pytest.fixture(scope="module")
def oracle(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    place = Place(tmp_path_factory.mktemp("oracle"))
    with server.new_database() as database, pytest.MonkeyPatch.context() as patch:
        connection = psycopg2.connect(database.url, options=OURS)
        connection.autocommit = True
        for (extension,) in rows_of(connection, "SELECT name::text FROM pg_available_extensions"):
            if extension in EXTENSIONS:
                rows_of(connection, 'CREATE EXTENSION IF NOT EXISTS "%s" CASCADE' % extension)
        rows_of(connection, OWN)
        shapes = [shape for shape in shapes_of(connection) if shape.base != "xml" or knows_xml(connection)]
        tables: Dict[str, List[Shape]] = {}
        for shape in shapes:
            if not is_refused(shape):
                tables.setdefault("o_" + shape.form, []).append(shape)
        ours = []
        for table, kept in tables.items():
            columns = ", ".join("c%d %s" % (i, shape.name) for i, shape in enumerate(kept))
            for name in (table, table + "_back"):
                rows_of(
                    connection,
                    "CREATE TABLE %s (id int PRIMARY KEY, user_id uuid REFERENCES users, %s)"
                    % (name, columns),
                )
            columns = ", ".join("c%d %s" % (i, sqlite_type(shape)) for i, shape in enumerate(kept))
            ours.append("CREATE TABLE %s (id INTEGER PRIMARY KEY, %s);" % (table, columns))
        for name, value in SETTINGS.items():
            ((own,),) = rows_of(connection, "SELECT quote_ident(current_database())")
            rows_of(connection, "ALTER DATABASE %s SET %s = %s" % (own, name, value))
        schema = extended_schema(place.folder, "".join(ours))
        ((anna,),) = rows_of(connection, "SELECT id::text FROM users WHERE email = %s", ANNA)
        settings = typed_settings(database, place, schema, list(tables))
        if connection.server_version < 150000:  # reads no such escape, and writes a bare byte
            patch.setitem(VALUES, '"char"', _one_of("x", "", "\\", "'", " ", ","))
        yield Oracle(connection, settings, tables, [shape for shape in shapes if is_refused(shape)], anna)
        connection.close()


def knows_xml(connection: Any) -> bool:
    try:
        rows_of(connection, "SELECT '<a/>'::xml")
    except psycopg2.errors.FeatureNotSupported:
        return False
    return True


ROWS = 8


def fill(oracle: Oracle, random: Random) -> None:
    for table, shapes in oracle.tables.items():
        oracle.rows("TRUNCATE %s, %s_back" % (table, table))
        places = ", ".join("%%s::%s" % shape.name.replace("%", "%%") for shape in shapes)
        for number in range(ROWS):
            values = [literal_of(shape, random) for shape in shapes]
            oracle.rows(
                "INSERT INTO %s VALUES (%%s, %%s, %s)" % (table, places), number, oracle.anna, *values
            )


def records_of(oracle: Oracle, table: str) -> List[Dict[str, msgspec.Raw]]:
    lines = (oracle.settings.data_dir / (table + ".json")).read_bytes().split(b"\n")[1:-2]
    assert len(lines) == ROWS
    return [msgspec.json.decode(line.rstrip(b","), type=Dict[str, msgspec.Raw]) for line in lines]


def load_back(oracle: Oracle) -> None:
    """Each table's file of the bundle into a second table of the same columns."""
    for table, shapes in oracle.tables.items():
        for record in records_of(oracle, table):
            nulls = msgspec.json.decode(record.pop("$json_null", b"[]"))
            places, values = [], []
            for i, shape in enumerate(shapes):
                raw = bytes(record["c%d" % i])
                null = raw == b"null" and "c%d" % i not in nulls
                values.append(None if null else decoded(shape, raw))
                read = READ_AS.get(shape.base, "")
                places.append(
                    "%s"
                    + ("::%s%s" % (read, "[]" * ("array" in shape.form)) if read else "")
                    + "::"
                    + shape.name
                )
            oracle.rows(
                "INSERT INTO %s_back VALUES (%s, %s)" % (table, "%s, %s", ", ".join(places)),
                bytes(record["id"]).decode(),
                oracle.anna,
                *values,
            )


def differences(oracle: Oracle) -> List[str]:
    """Columns whose values are not the very ones, in the judgement of PostgreSQL: every bit, or but for line ends in json."""
    found = []
    for table, shapes in oracle.tables.items():
        tests = []
        for i, shape in enumerate(shapes):
            test = "record_image_eq(ROW(a.c{0}), ROW(b.c{0}))"
            if shape.base == "json":
                text = "translate(format('%s', {}.c{{0}}), E'\\n\\r', '  ')"
                test = "num_nulls(a.c{0}) = num_nulls(b.c{0}) AND " + " = ".join(map(text.format, "ab"))
            tests.append(test.format(i))
        for row in oracle.rows(
            "SELECT a.id, %s FROM %s a JOIN %s_back b USING (id)" % (", ".join(tests), table, table)
        ):
            for i, same in enumerate(row[1:]):
                if not same:
                    was, now = oracle.rows(
                        "SELECT format('%%s', a.c%d), format('%%s', b.c%d) FROM %s a JOIN %s_back b USING (id) WHERE id = %d"
                        % (i, i, table, table, row[0])
                    )[0]
                    found.append(
                        "%s %s (%s): %r became %r" % (table, shapes[i].name, shapes[i].base, was, now)
                    )
    return found


@given(seed=st.integers(0, 2**32))
@hypothesis_settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=[Phase.generate],
)
def test_a_value_of_every_type_comes_back_from_the_bundle(oracle: Oracle, seed: int) -> None:
    fill(oracle, Random(seed))
    export(oracle.settings)
    load_back(oracle)
    found = differences(oracle)
    assert not found, "\n".join(found[:400])


def test_sqlite_holds_them_all_and_the_validation_agrees(oracle: Oracle) -> None:
    fill(oracle, Random(1))
    export_and_import(oracle.settings)
    assert validate(oracle.settings).errors == []


def test_every_type_is_kept_encoded_or_refused_by_name(oracle: Oracle, tmp_path: Path) -> None:
    fill(oracle, Random(2))
    export(oracle.settings)
    with snapshot(oracle.settings) as db:  # the same settings
        counts: Dict[str, Dict[str, List[str]]] = {}
        for table, shapes in oracle.tables.items():
            texts = ", ".join("format('%%s', c%d)" % i for i in range(len(shapes)))
            rows = {row[0]: row[1:] for row in db.rows("SELECT id, %s FROM public.%s" % (texts, table))}
            as_it_is = [True] * len(shapes)
            for record in records_of(oracle, table):
                for i, text in enumerate(rows[int(bytes(record["id"]))]):
                    raw = bytes(record["c%d" % i])
                    found = str(msgspec.json.decode(raw)) if raw[:1] == b'"' else raw.decode("utf-8")
                    as_it_is[i] &= raw == b"null" or found == text
            for shape, same in zip(shapes, as_it_is):
                counts.setdefault(shape.form, {}).setdefault("kept" if same else "encoded", []).append(
                    shape.base
                )
    for shape in oracle.refused:
        counts.setdefault(shape.form, {}).setdefault("refused", []).append(shape.base)
        assert_refused(oracle, shape, tmp_path)
    for form, found in counts.items():
        print(form, ", ".join("%s %d" % (what, len(names)) for what, names in found.items()))
    plain = counts["plain"]
    print("encoded", *plain["encoded"])
    assert not set(plain["encoded"]) - {
        *("boolean", "bytea", "hstore", "json", "jsonb", "money", "regproc", "regoper", "xml"),
        *("timestamp without time zone", "timestamp with time zone", "information_schema.time_stamp"),
    }
    assert plain["refused"] == sorted(set(INTERNAL) & set(plain["refused"]))


def assert_refused(oracle: Oracle, shape: Shape, folder: Path) -> None:
    """Nothing is written where a column cannot be kept, and it is named."""
    oracle.rows(
        "CREATE TABLE refused (id int PRIMARY KEY, user_id uuid REFERENCES users, fine text, odd %s)"
        % shape.name
    )
    schema = extended_schema(folder, "CREATE TABLE refused (id INTEGER PRIMARY KEY, fine TEXT, odd TEXT);")
    others = (*oracle.settings.excluded_tables, *oracle.tables)
    settings = dataclasses.replace(
        oracle.settings,
        schema_path=schema,
        data_dir=folder / "data",
        tables=(Table("refused", owned_by("user_id")),),
        excluded_tables=others,
    )
    with pytest.raises(MigrationError, match=r"cannot keep refused\.odd \(") as caught:
        export(settings)
    assert caught.value.exit_code == ExitCode.SOURCE
    assert 'add "odd" to dropped' in str(caught.value.hint)
    assert not (folder / "data").exists()
    schema.write_text(schema.read_text().replace(", odd TEXT", ""))
    table = Table("refused", owned_by("user_id"), dropped=("odd",))
    export(dataclasses.replace(settings, tables=(table,)))
    shutil.rmtree(str(folder / "data"))
    oracle.rows("DROP TABLE refused")
