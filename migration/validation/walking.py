"""What comparisons of rows and records report, and their common words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence, Tuple

from migration.sql import quote
from migration.sqlite.mapping import Copied

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


MISSING = "is missing in SQLite"
EXTRA = "is in SQLite alone"


def select(table: str, pairs: Sequence[Copied]) -> str:
    return "SELECT {} FROM {}".format(", ".join(quote(pair.target.name) for pair in pairs), quote(table))
