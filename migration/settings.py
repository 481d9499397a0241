"""One run's settings: what the phases are handed instead of globals."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterable, Mapping, NamedTuple, Optional, Sequence, Tuple

from migration.model import Ownership, Reference, Root, Table, Way, all_of, any_of, the_root, where


class Backups(NamedTuple):
    """A folder of backups, and the name of the application with which theirs begin."""

    folder: Path
    application: str

    def pattern(self, what: str) -> str:
        """The names of its files, for strftime in local time: ``what`` is "backup", for example."""
        return "%s_%s_%%Y%%m%%d_%%H%%M%%S.db" % (self.application.replace("%", "%%"), what)


@dataclass(frozen=True)
class Settings:
    """Everything that a phase needs to know, resolved from options, environment, ``.env`` and config."""

    postgres: Mapping[str, str] = field(repr=False)  # libpq parameters; holds the password
    postgres_schema: str
    user_email: Optional[str]
    sqlite_path: Path
    schema_path: Path
    data_dir: Path
    backup_dir: Path
    root: Root
    tables: Tuple[Table, ...]  # parents before children
    excluded_tables: Tuple[str, ...]
    unrelated_tables: Tuple[str, ...] = ()
    every_table: bool = (
        True  # False: config has no UNRELATED_TABLES, so tables without a way to the root need no entry
    )
    references: Tuple[Reference, ...] = ()
    leaving: str = (
        "stop"  # what becomes of references that lead out of the export, unless a Reference says it
    )
    declares_leaving: bool = False  # whether config.py has LEAVING at all, as those of discover.py do
    application: str = "app"  # its name, of backups and of the connection
    backup: bool = True
    keep_backups: Optional[int] = None
    skip_orphans: bool = False
    offline: bool = False
    against: Optional[str] = (
        None  # what SQLite's cells are compared with: "bundle" or "source"; None: what is there
    )
    strict: bool = False
    show_values: bool = False
    max_differences: int = 20  # listed for each table and check; all are counted
    json: bool = False
    fallback_password: Optional[str] = field(default=None, repr=False)  # tried where libpq has none
    user_id: Optional[str] = None  # whose data; wins over every e-mail address
    default_email: Optional[str] = None  # config.DEFAULT_USER_EMAIL; the export's last resort

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "tables", _told_apart(_of_root(self.tables, self.root), self.references, self.root)
        )

    @property
    def skips(self) -> bool:
        """Whether config.py has rows left out whose references leave the export."""
        return "skip" in (self.leaving, *(reference.leaving for reference in self.references))

    @property
    def backups(self) -> Backups:
        return Backups(self.backup_dir, self.application)

    @property
    def wanted_backups(self) -> Optional[Backups]:
        """Where the old database is backed up; None with --no-backup."""
        return self.backups if self.backup else None

    @property
    def whole_tables(self) -> Tuple[Table, ...]:
        """The tables that become tables."""
        return tuple(table for table in self.tables if table.becomes is None)

    @property
    def single_rows(self) -> Tuple[Table, ...]:
        """The tables of which the user has one row, which becomes row 1 of a SQLite table."""
        return tuple(table for table in self.tables if table.becomes is not None)


def _of_root(tables: Iterable[Table], root: Root) -> Tuple[Table, ...]:
    """``config.TABLES`` with the root's key as the owner column of the root's own table."""
    return tuple(
        dataclasses.replace(table, ownership=Ownership(Way.ROOT, (root.key,)))
        if table.ownership == the_root()
        else table
        for table in tables
    )


def _told_apart(tables: Iterable[Table], references: Sequence[Reference], root: Root) -> Tuple[Table, ...]:
    """With the conditions of references in the ways that they mean, where a column names rows of several tables."""
    return tuple(
        table if rule == table.ownership else dataclasses.replace(table, ownership=rule)
        for table in tables
        for rule in [_one_told_apart(table.name, table.ownership, references, root)]
    )


def _one_told_apart(table: str, rule: Ownership, references: Sequence[Reference], root: Root) -> Ownership:
    """Each ``child_of`` for which config has several references is ``any_of`` one for each; ``owned_by`` asks for one of them."""
    if rule.way is Way.ALL and any(way.when for way in rule.ways):
        return rule  # made here
    if rule.ways:
        ways = tuple(_one_told_apart(table, way, references, root) for way in rule.ways)
        return dataclasses.replace(rule, ways=ways)
    if rule.way not in (Way.OWNED, Way.CHILD) or rule.when:
        return rule
    parent = root.name if rule.way is Way.OWNED else rule.parent
    whens = dict.fromkeys(
        each.when for each in references if each.when and each.is_of(table, parent, rule.columns)
    )
    if rule.way is Way.OWNED and whens:
        condition = " OR ".join("(%s\n)" % when for when in whens)
        return all_of(dataclasses.replace(rule, when=condition), where(condition))
    ways = tuple(dataclasses.replace(rule, when=when) for when in whens if when)
    return any_of(*ways) if len(ways) > 1 else rule
