"""Tables, their columns and keys, and how rows belong to a user. ``config.TABLES`` is written with these."""

from __future__ import annotations

import enum
import functools
import hashlib
import re
from dataclasses import dataclass, field
from typing import Iterable, Iterator, Mapping, NamedTuple, NoReturn, Optional, Sequence, Tuple, Union

from migration.errors import UsageError


@dataclass(frozen=True)
class Root:
    """Whose data it is: the table of users, its key, and the column with the name that the command line takes.

    ``called``: what messages call one of them, in the singular; no part of what a root is.
    """

    name: str
    key: str
    named_by: str
    called: str = field(default="user", compare=False)


def root(name: str, key: str = "id", named_by: str = "email", called: str = "user") -> Root:
    """The users' table: ``key`` tells them apart, ``named_by`` is what they are called, an e-mail address say.

    ``called``: what one of them is in messages: "workspace", "account".
    """
    return Root(name, key, named_by, called)


class Way(enum.Enum):
    """How rows belong to a root. What depends on it ends in ``assert_never``."""

    ROOT = enum.auto()
    OWNED = enum.auto()
    CHILD = enum.auto()
    SHARED = enum.auto()
    REFERENCED = enum.auto()
    ANY = enum.auto()
    ALL = enum.auto()
    WHERE = enum.auto()
    UNDECIDED = enum.auto()


@dataclass(frozen=True)
class Ownership:
    """How a row belongs to a user; made by the functions below.

    ``columns``: of OWNED and CHILD, and the root's key. ``parent``, ``or_referenced``: of CHILD. ``when``: of OWNED and
    CHILD, the condition of the Reference that is meant, where a column names rows of several tables. ``ways``: of ANY and
    ALL. ``texts``: the SQL of WHERE; the question and the choices of UNDECIDED.
    """

    way: Way
    columns: Tuple[str, ...] = ()
    parent: Optional[str] = None
    or_shared: bool = False
    or_referenced: bool = False
    when: str = ""
    ways: Tuple[Ownership, ...] = ()
    texts: Tuple[str, ...] = ()

    @property
    def is_root(self) -> bool:
        return self.way is Way.ROOT

    @property
    def parts(self) -> Iterator[Ownership]:
        """This one, and the ways that it is made of, down to the last."""
        yield self
        for way in self.ways:
            yield from way.parts

    @property
    def comes_along(self) -> bool:
        """Whether rows may come with rows that refer to them, without being the user's."""
        return any(part.way is Way.REFERENCED for part in self.parts)


Columns = Union[str, Sequence[str]]


def _columns(columns: Columns) -> Tuple[str, ...]:
    return tuple(columns) if isinstance(columns, (tuple, list)) else (columns,)  # type: ignore[return-value]


def the_root() -> Ownership:
    """The one row that is the user: of the table that ``config.ROOT`` names, by its key."""
    return Ownership(Way.ROOT)


def owned_by(columns: Columns, or_shared: bool = False) -> Ownership:
    """Rows whose column holds the user's key; with ``or_shared`` also rows where it is NULL."""
    return Ownership(Way.OWNED, _columns(columns), or_shared=or_shared)


def child_of(parent: str, columns: Columns, or_referenced: bool = False) -> Ownership:
    """Rows whose ``columns`` (one, or all of a composite key) point at a row of ``parent`` that is the user's.

    Rows of ``parent`` that only come along, by ``referenced()`` or because they are brought, are not the user's. With
    ``or_referenced``, what hangs on those that come along by ``referenced()`` is taken too, whoever put it there.
    ``parent`` may be the table itself: then rows under a row that is the user's by another way.
    """
    return Ownership(Way.CHILD, _columns(columns), parent, or_referenced=or_referenced)


def shared() -> Ownership:
    """Every row, for every user."""
    return Ownership(Way.SHARED)


def referenced() -> Ownership:
    """The rows that exported rows refer to, and no others: what these refer to follows."""
    return Ownership(Way.REFERENCED)


def any_of(*ways: Ownership) -> Ownership:
    """Rows that are the user's in one of these ways, or in several."""
    return Ownership(Way.ANY, ways=ways)


def all_of(*ways: Ownership) -> Ownership:
    """Rows that are the user's in each of these ways: both ends of a join table, for example."""
    return Ownership(Way.ALL, ways=ways)


def where(condition: str) -> Ownership:
    """Rows for which a condition in PostgreSQL's SQL holds.

    The row is ``t``, ``{root}`` the user's key. Tables and functions need their schema: ``public.members``.
    """
    return Ownership(Way.WHERE, texts=(condition,))


def undecided(question: str, *choices: str) -> Ownership:
    """A question that only the operator can answer; until then every phase stops, and shows it."""
    return Ownership(Way.UNDECIDED, texts=(question, *choices))


WHAT_BECOMES = ("stop", "skip", "cut", "bring")


def reference_name(table: str, columns: Iterable[object], parent: str) -> str:
    """What a reference is called in messages, manifests and reports."""
    return "%s (%s) → %s" % (table, ", ".join(map(str, columns)), parent)


@dataclass(frozen=True)
class Reference:
    """A reference that PostgreSQL does not declare, or what becomes of one that leads out of the export.

    ``parent_columns``: () for the parent's primary key. ``when``: SQL on alias ``t``, for references that hold for
    some rows only. ``leaving``: "stop" the export (None is config.LEAVING), "skip" the row, "cut" the reference to
    NULL, or "bring" the row that it names.
    """

    table: str
    columns: Columns
    parent: str
    parent_columns: Columns = ()
    when: Optional[str] = None
    leaving: Optional[str] = None

    @property
    def names(self) -> Tuple[str, ...]:
        return _columns(self.columns)

    @property
    def parent_names(self) -> Tuple[str, ...]:
        return _columns(self.parent_columns)

    def is_of(self, table: str, parent: Optional[str], columns: Sequence[str]) -> bool:
        """Whether a way of this table means this reference, in whatever order it names the columns."""
        return (self.table, self.parent) == (table, parent) and sorted(self.names) == sorted(columns)

    def __str__(self) -> str:
        return reference_name(self.table, self.names, self.parent)


def require_tuple(what: str, value: object) -> None:
    """``("name")`` is a string, so ``in`` would match substrings. Raises MigrationError (exit 2)."""
    if isinstance(value, str):
        raise UsageError("config.py: %s is text, not a tuple" % what, 'a comma makes it one: ("%s",)' % value)


# Files of the bundle that no table may overwrite, and devices that Windows knows by name, whatever the extension
_RESERVED = re.compile(
    "user_data|manifest|validation_report|cut_and_brought|con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE
)
_LONGEST = 200  # bytes: file systems take 255


@functools.lru_cache(maxsize=1024)
def file_name(table: str) -> str:
    """The table's file in a bundle: its own name where that is plain, else what is unsafe as ``%`` and two hex digits.

    Two names have two files; where letters differ in case alone, ``require_distinct`` refuses them.
    """
    name = "".join(
        sign if sign.isascii() and (sign.isalnum() or sign in "_-.") else _escaped(sign) for sign in table
    )
    if name[:1] in ("", ".", "-") or _RESERVED.fullmatch(name.partition(".")[0]):
        name = _escaped(name[:1]) + name[1:]
    if len(name) > _LONGEST:
        digest = hashlib.sha256(table.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        name = name[:_LONGEST].rpartition("%")[0] + "%-" + digest
    return name + ".json"


def _escaped(sign: str) -> str:
    return "".join("%%%02X" % byte for byte in sign.encode("utf-8", "surrogatepass"))


class RowOne(NamedTuple):
    """A table's one row becomes row 1 of a SQLite table; ``member``: its place in the bundle's ``user_data.json``."""

    table: str
    member: str


def row_one(table: str, member: str) -> RowOne:
    """For ``Table(becomes=…)``: the user has at most one row, which becomes the row with ``id`` 1 of ``table``."""
    return RowOne(table, member)


USER_DATA = "user_data.json"
CHANGES = "cut_and_brought.json"  # listed by the export: references cut, rows brought


@dataclass(frozen=True, eq=False)  # hashed by identity: it is used as a cache key
class Table:
    """One table to migrate, of the same name in PostgreSQL and SQLite unless it ``becomes`` a single row.

    ``dropped``: source columns that SQLite has no place for and that are meant to be left behind
    (the owner column is so without saying).
    ``ranges``: column → (lowest, highest) valid number, for the validation.
    ``json_types``: JSON column → Python type its values must have (``list``, ``dict``; ``object`` for
    any JSON value), for the validation and for bundles that do not say their column types.
    ``left_behind``: columns of foreign keys by which rows that are not the user's may refer to rows that are.
    Such rows stay in PostgreSQL and are counted; without this declaration they stop the export.
    ``key``: columns that tell rows apart where PostgreSQL declares no key.
    """

    name: str
    ownership: Ownership
    becomes: Optional[RowOne] = None
    dropped: Tuple[str, ...] = ()
    ranges: Mapping[str, Tuple[float, float]] = field(default_factory=dict)
    json_types: Mapping[str, type] = field(default_factory=dict)
    left_behind: Tuple[str, ...] = ()
    key: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_tuple("dropped of %s" % self.name, self.dropped)
        require_tuple("left_behind of %s" % self.name, self.left_behind)
        require_tuple("key of %s" % self.name, self.key)

    @property
    def file(self) -> str:
        """Its file in the bundle."""
        return file_name(self.name) if self.becomes is None else USER_DATA

    @property
    def target(self) -> str:
        """What it is called in SQLite; a schema's name may still be part of it."""
        return self.name if self.becomes is None else self.becomes.table

    @property
    def member(self) -> str:
        """The place of a single row in the bundle's ``user_data.json``."""
        assert self.becomes is not None
        return self.becomes.member

    @property
    def owner(self) -> Optional[str]:
        """The column that holds the user's id, where the table has one."""
        rule = self.ownership
        return rule.columns[0] if rule.columns and rule.way in (Way.ROOT, Way.OWNED) else None

    @property
    def all_dropped(self) -> Tuple[str, ...]:
        """Columns that may be missing in SQLite: the declared ones, the owner column, and the key of a single row."""
        owner = () if self.owner is None else (self.owner,)
        return (*self.dropped, *owner, *(() if self.becomes is None else ("id",)))


class Family(enum.Enum):
    """Kinds that are converted, compared and rendered alike.

    What depends on the family ends in ``assert_never``: one that is forgotten there does not type-check.
    """

    WHOLE = enum.auto()  # 0 and 1 for booleans
    NUMBER = enum.auto()
    MOMENT = enum.auto()
    JSON = enum.auto()
    STRUCTURE = enum.auto()  # JSON that PostgreSQL makes of arrays, composites and the like
    BINARY = enum.auto()
    TEXT = enum.auto()
    UNDECLARED = enum.auto()  # of a bundle that names no types


class Kind(str, enum.Enum):
    """What a column's values are, in the type contract, and its family. Its text stands in the manifest."""

    family: Family

    BOOLEAN = "boolean", Family.WHOLE
    INTEGER = "integer", Family.WHOLE
    FLOAT = "float", Family.NUMBER
    NUMERIC = "numeric", Family.NUMBER
    UUID = "uuid", Family.TEXT
    DATE = "date", Family.MOMENT
    TIME = "time", Family.MOMENT
    TIMETZ = "timetz", Family.MOMENT
    TIMESTAMP = "timestamp", Family.MOMENT
    TIMESTAMPTZ = "timestamptz", Family.MOMENT
    INTERVAL = "interval", Family.TEXT
    BYTEA = "bytea", Family.BINARY
    JSON = "json", Family.JSON
    JSONB = "jsonb", Family.JSON
    STRUCTURE = "structure", Family.STRUCTURE
    TEXT = "text", Family.TEXT
    UNDECLARED = "undeclared", Family.UNDECLARED

    def __new__(cls, text: str, family: Family) -> Kind:
        made = str.__new__(cls, text)
        made._value_ = text
        made.family = family
        return made

    __str__ = str.__str__
    __format__ = str.__format__  # type: ignore[assignment]


def assert_never(value: NoReturn) -> NoReturn:
    """For the type checker: no value is left here."""
    raise AssertionError(value)


@dataclass(frozen=True)
class Column:
    """A source column. ``kind`` is its class in the type contract (``conversion.py``)."""

    name: str
    type: str
    kind: Kind
    not_null: bool


class Equality(NamedTuple):
    """How PostgreSQL compares a key with a reference to it, whatever operators a search_path finds.

    ``forms``: of key and reference, SQL with ``{}`` for the value, where one value may be written in several ways.
    """

    operator: str
    cast: str = ""  # of both sides
    collation: str = ""  # of the key, where the reference has another
    forms: Tuple[str, ...] = ()

    def sql(self, key: str, reference: str) -> str:
        if self.forms:
            key, reference = (form.replace("{}", value) for form, value in zip(self.forms, (key, reference)))
        collate = " COLLATE " + self.collation if self.collation else ""
        return "{}{cast} OPERATOR({}) {}{cast}{}".format(
            key, self.operator, reference, collate, cast=self.cast
        )


class ForeignKey(NamedTuple):
    """Columns of ``table`` that name a row of ``parent``; tables are unqualified inside the schema.

    ``equalities``: of each pair of columns; none where nobody has asked PostgreSQL. ``exact``: where tables that
    inherit from the parent are read with it, of rows of which table (by its oid) rows of which one are named; rows of
    others may name any. ``when``: SQL on alias ``t``, where the reference holds for some rows only.
    """

    table: str
    columns: Tuple[str, ...]
    parent: str
    parent_columns: Tuple[str, ...]
    equalities: Tuple[Equality, ...] = ()
    exact: Tuple[Tuple[int, int], ...] = ()
    when: str = ""

    @property
    def name(self) -> str:
        return reference_name(self.table, self.columns, self.parent)
