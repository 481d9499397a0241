"""What is found of the tables of an application: their classes, and the references that leave a root's rows."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import List, Optional, Set, Tuple

from migration.discovery.belonging import Leaving
from migration.discovery.references import Link
from migration.model import Ownership, Reference, Root


class Group(enum.Enum):
    """Classes of tables, as the terminal names them."""

    ROOT = "the root"
    OWNED = "the root's"
    OPEN = "open question"
    REFERENCED = "referred to"
    UNRELATED = "nobody's"
    FOREIGN = "left behind"


@dataclass(frozen=True)
class Classed:
    """A table, and what config.py will say of it. ``assumed``: of an open question the first answer.

    ``rows``: as counted, or estimated; ``exact``: which of them. ``choices``: of an open question. ``may_name``: columns of a table of nobody's that hold keys
    of the root, perhaps by chance.
    """

    name: str
    group: Group
    rule: Optional[Ownership]
    assumed: Optional[Ownership]
    reasons: Tuple[str, ...]
    rows: int
    exact: bool = False
    left_behind: Tuple[str, ...] = ()
    may_name: Tuple[str, ...] = ()
    choices: Tuple[Ownership, ...] = ()

    @property
    def parents(self) -> Set[str]:
        """Tables that have to stand before this one, whatever is answered."""
        rules = self.choices or ((self.rule,) if self.rule is not None else ())
        return {part.parent for rule in rules for part in rule.parts if part.parent is not None}


@dataclass(frozen=True)
class Departure:
    """A reference by which rows of a root name rows of others, or of nobody. ``has_key``: the table that it leads to.

    ``can_be_null``: the columns, so that it can be cut.
    """

    link: Link
    counts: Leaving
    has_key: bool
    can_be_null: bool


@dataclass(frozen=True)
class Classes:
    """``tables``: parents before children, those without a place in TABLES last. ``links``: between tables of TABLES."""

    root: Root
    tables: Tuple[Classed, ...]
    links: Tuple[Link, ...]
    departures: Tuple[Departure, ...]

    def of(self, *groups: Group) -> List[Classed]:
        return [table for table in self.tables if table.group in groups]

    @property
    def inferred(self) -> List[Reference]:
        """The references that config.py declares, as PostgreSQL does not."""
        return [
            Reference(key.table, key.columns, key.parent, key.parent_columns, when or None)
            for key, _, why, when, _ in self.links
            if why
        ]

    @property
    def migrated(self) -> List[Classed]:
        return self.of(Group.ROOT, Group.OWNED, Group.OPEN, Group.REFERENCED)
