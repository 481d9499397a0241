"""What comparisons of rows and records report, and their common words."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence, Tuple, TypeVar

from migration.bundle.damage import damaged
from migration.sql import quote
from migration.sqlite.mapping import Copied

Walked = TypeVar("Walked")
Row = Tuple[Any, ...]
Describe = Callable[[Any], str]


class Difference(NamedTuple):
    """A cell that is not what its record says; a whole row where ``column`` is None."""

    table: str
    row: str
    column: Optional[str]
    message: str
    is_extra: bool = False  # a row that SQLite alone has


@dataclass(frozen=True)
class ComparedBlock:
    """A block of records after its comparison. ``records``: decoded; none where the rows are those byte for byte."""

    rows: int
    records: Sequence[Any]
    differences: Iterator[Difference]

    def __len__(self) -> int:
        return self.rows


class Unordered(Exception):
    """Records and rows do not come in the order of one key that is unique on both sides."""


def in_any_order(walk: Callable[[bool], Walked], table: str, ordered: bool) -> Walked:
    """``walk(True)``, if both sides seem ordered by one key and prove to be; else ``walk(False)``, which sorts them.

    Raises BundleError for two records of one key.
    """
    if ordered:
        with contextlib.suppress(Unordered):
            return walk(True)
    try:
        return walk(False)
    except Unordered:
        raise damaged("%s has two records of the same primary key" % table) from None


MISSING = "is missing in SQLite"
EXTRA = "is in SQLite alone"


def select(table: str, pairs: Sequence[Copied]) -> str:
    return "SELECT {} FROM {}".format(", ".join(quote(pair.target.name) for pair in pairs), quote(table))
