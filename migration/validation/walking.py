"""Types and words that all comparisons of rows with records share."""

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
    """A cell that differs from its record; if ``column`` is None, a missing or extra row."""

    table: str
    row: str
    column: Optional[str]
    message: str
    is_extra: bool = False  # only SQLite has the row


@dataclass(frozen=True)
class ComparedBlock:
    """A compared block of records. ``records``: decoded; empty if the rows equal them byte for byte."""

    rows: int
    records: Sequence[Any]
    differences: Iterator[Difference]

    def __len__(self) -> int:
        return self.rows


class Unordered(Exception):
    """Records or rows are not ordered by one key that is unique on both sides."""


def in_any_order(walk: Callable[[bool], Walked], table: str, ordered: bool) -> Walked:
    """Call ``walk(True)`` if both sides seem ordered by one key, and ``walk(False)``, which sorts them, if they are not.

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
