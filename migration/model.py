"""Tables, their columns and keys, and how rows belong to a user. ``config.TABLES`` is written with these."""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import re
from dataclasses import dataclass, field
from typing import Dict, Iterable, Mapping, NamedTuple, NoReturn, Optional, Sequence, Tuple, Union

from migration.errors import UsageError


class Root(NamedTuple):
    """Whose data it is: the table of users, its key, and the column with the name that the command line takes."""

    name: str
    key: str
    named_by: str


def root(name: str, key: str = "id", named_by: str = "email") -> Root:
    """The users' table: ``key`` tells them apart, ``named_by`` is what they are called, an e-mail address say."""
    return Root(name, key, named_by)


@dataclass(frozen=True)
class Ownership:
    """How a row belongs to a user: it is the user's row, has their id, has a parent row that is theirs, or is shared."""

    columns: Tuple[str, ...] = ()
    parent: Optional[str] = None
    or_shared: bool = False
    is_root: bool = False


def the_root() -> Ownership:
    """The one row that is the user: of the table that ``config.ROOT`` names, by its key."""
    return Ownership(is_root=True)


def owned_by(column: str, or_shared: bool = False) -> Ownership:
    """Rows whose ``column`` holds the user's id; with ``or_shared`` also rows where it is NULL."""
    return Ownership((column,), or_shared=or_shared)


def child_of(parent: str, columns: Union[str, Tuple[str, ...]]) -> Ownership:
    """Rows whose ``columns`` (one, or all of a composite key) point at a row of ``parent`` that is the user's."""
    return Ownership((columns,) if isinstance(columns, str) else tuple(columns), parent)


def shared() -> Ownership:
    """Every row, for every user."""
    return Ownership()


def require_tuple(what: str, value: object) -> None:
    """``("name")`` is a string, so ``in`` would match substrings. Raises MigrationError (exit 2)."""
    if isinstance(value, str):
        raise UsageError("config.py: %s is text, not a tuple" % what, 'a comma makes it one: ("%s",)' % value)


# Files of the bundle that no table may overwrite, and devices that Windows knows by name, whatever the extension
_RESERVED = re.compile(
    "user_data|manifest|validation_report|con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE
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


def require_distinct(names: Iterable[str]) -> None:
    """Tables that are the same to SQLite, or to a file system, cannot both be migrated. Raises MigrationError (exit 2)."""
    known: Dict[str, str] = {}
    for name in names:
        other = known.get(name.lower())
        if other is not None:
            raise UsageError(
                "config.py names table %s twice" % name
                if other == name
                else "config.py names tables %s and %s, which SQLite does not tell apart" % (other, name),
                "leave one of the entries away"
                if other == name
                else "rename one of them in PostgreSQL, or leave it behind with EXCLUDED_TABLES",
            )
        known[name.lower()] = name


class RowOne(NamedTuple):
    """A table's one row becomes row 1 of a SQLite table; ``member``: its place in the bundle's ``user_data.json``."""

    table: str
    member: str


def row_one(table: str, member: str) -> RowOne:
    """For ``Table(becomes=…)``: the user has at most one row, which becomes the row with ``id`` 1 of ``table``."""
    return RowOne(table, member)


USER_DATA = "user_data.json"


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
    """

    name: str
    ownership: Ownership
    becomes: Optional[RowOne] = None
    dropped: Tuple[str, ...] = ()
    ranges: Mapping[str, Tuple[float, float]] = field(default_factory=dict)
    json_types: Mapping[str, type] = field(default_factory=dict)
    left_behind: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_tuple("dropped of %s" % self.name, self.dropped)
        require_tuple("left_behind of %s" % self.name, self.left_behind)

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
        return rule.columns[0] if rule.columns and rule.parent is None else None

    @property
    def all_dropped(self) -> Tuple[str, ...]:
        """Columns that may be missing in SQLite: the declared ones, the owner column, and the key of a single row."""
        owner = () if self.owner is None else (self.owner,)
        return (*self.dropped, *owner, *(() if self.becomes is None else ("id",)))


def require_well_formed(tables: Sequence[Table], root: Root) -> None:
    """What stands in config.py is of the right types, one entry is the root's, and single rows have places of their own.

    Raises MigrationError (exit 2).
    """
    if not isinstance(root, Root) or not all(isinstance(part, str) for part in root):
        raise UsageError(
            "config.ROOT is no root(…)", 'write ROOT = root("users", key="id", named_by="email")'
        )
    if not isinstance(tables, (tuple, list)) or not all(isinstance(table, Table) for table in tables):
        raise UsageError("config.TABLES is not a tuple of Table(…)", "write TABLES = (Table(…), Table(…), …)")
    for table in tables:
        if not isinstance(table.ownership, Ownership) or not isinstance(table.becomes, (RowOne, type(None))):
            raise UsageError(
                "config.TABLES, %s: its ownership or what it becomes is of a wrong type" % table.name,
                'write Table("%s", owned_by("user_id")), for example, or becomes=row_one("%s", member="…")'
                % (table.name, table.name),
            )
    roots = [table.name for table in tables if table.ownership.is_root]
    if roots != [root.name]:
        raise UsageError(
            "config.TABLES has %s, and ROOT is %s"
            % ("the_root() in " + ", ".join(roots) if roots else "no table with the_root()", root.name),
            'give the entry of %s, and no other, the_root(): Table("%s", the_root(), …)'
            % (root.name, root.name),
        )
    members = [table.member for table in tables if table.becomes is not None]
    for member in members:
        if members.count(member) > 1:
            raise UsageError(
                'config.TABLES has row_one(…, member="%s") twice' % member, "give each a member of its own"
            )


def of_root(tables: Iterable[Table], root: Root) -> Tuple[Table, ...]:
    """``config.TABLES`` with the root's key as the owner column of the root's own table."""
    return tuple(
        dataclasses.replace(table, ownership=Ownership((root.key,), is_root=True))
        if table.ownership == the_root()
        else table
        for table in tables
    )


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
    """How PostgreSQL compares a key with a reference to it, whatever operators a search_path finds."""

    operator: str
    cast: str = ""  # of both sides
    collation: str = ""  # of the key, where the reference has another

    def sql(self, key: str, reference: str) -> str:
        collate = " COLLATE " + self.collation if self.collation else ""
        return "{}{cast} OPERATOR({}) {}{cast}{}".format(
            key, self.operator, reference, collate, cast=self.cast
        )


class ForeignKey(NamedTuple):
    """Columns of ``table`` that name a row of ``parent``; tables are unqualified inside the schema.

    ``equalities``: of each pair of columns; none where nobody has asked PostgreSQL. ``exact``: where tables that
    inherit from the parent are read with it, of rows of which table (by its oid) rows of which one are named; rows of
    others may name any.
    """

    table: str
    columns: Tuple[str, ...]
    parent: str
    parent_columns: Tuple[str, ...]
    equalities: Tuple[Equality, ...] = ()
    exact: Tuple[Tuple[int, int], ...] = ()
