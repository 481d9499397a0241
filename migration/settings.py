"""One run's settings: what the phases are handed instead of globals."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping, NamedTuple, Optional, Tuple

from migration.model import Reference, Root, Table, of_root, told_apart


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
        object.__setattr__(self, "tables", told_apart(of_root(self.tables, self.root), self.references))

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
