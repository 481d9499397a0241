"""What PostgreSQL says of its tables, and whether config accounts for every one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Mapping, Optional, Set, Tuple

from migration.errors import ExitCode, MigrationError
from migration.settings import Settings
from migration.tables import Column, ForeignKey


@dataclass(frozen=True)
class Catalog:
    """What PostgreSQL says of its tables. Tables outside the schema appear as ``schema.table``."""

    columns: Mapping[str, Tuple[Column, ...]]
    primary_keys: Mapping[str, Tuple[str, ...]]
    foreign_keys: Tuple[ForeignKey, ...]
    unreadable: Tuple[str, ...]


def user_tables(catalog: Catalog, users: str) -> Set[str]:
    """Tables with a foreign-key path to ``users``, or with a ``user_id`` column and no key to tell."""
    found = {users}
    while True:
        more = {key.table for key in catalog.foreign_keys if key.parent in found} - found
        if not more:
            break
        found |= more
    found |= {name for name, columns in catalog.columns.items() if any(c.name == "user_id" for c in columns)}
    return found - {users}


def account_for_tables(settings: Settings, catalog: Catalog) -> None:
    """Stop where a table is missing, unreadable or hangs on users and is declared nowhere.

    Raises MigrationError: exit 3 for what PostgreSQL lacks or refuses, exit 2 for what config does.
    """
    declared = [settings.user.name, settings.preferences.name, *(table.name for table in settings.tables)]
    missing = [name for name in declared if name not in catalog.columns]
    if missing:
        raise MigrationError(
            "PostgreSQL has no table %s in schema %s" % (", ".join(missing), settings.postgres_schema),
            hint="check the database's name and POSTGRES_SCHEMA; take a table that your deployment never had out of config.TABLES",
            exit_code=ExitCode.SOURCE,
        )
    unreadable = [name for name in declared if name in catalog.unreadable]
    if unreadable:
        raise MigrationError(
            "no permission to read %s" % ", ".join(unreadable),
            hint="as the tables' owner: GRANT SELECT ON %s TO %s;"
            % (
                ", ".join(settings.postgres_schema + "." + name for name in unreadable),
                settings.postgres.get("user", "the role"),
            ),
            exit_code=ExitCode.SOURCE,
        )
    keyless = [name for name in declared if name not in catalog.primary_keys]
    if keyless:
        raise MigrationError(
            "no primary key on %s" % ", ".join(keyless),
            hint="rows are ordered and compared by primary key: add one in PostgreSQL",
            exit_code=ExitCode.SOURCE,
        )
    unknown = sorted(user_tables(catalog, settings.user.name) - set(declared) - set(settings.excluded_tables))
    if unknown:
        raise MigrationError(
            "users' data that config does not account for: table %s" % ", ".join(unknown),
            hint='add Table("%s", owned_by("user_id")) to config.TABLES to migrate it, or "%s" to config.EXCLUDED_TABLES to leave it behind'
            % (unknown[0], unknown[0]),
            exit_code=ExitCode.USAGE,
        )
    _check_ownership(settings, catalog)


def _check_ownership(settings: Settings, catalog: Catalog) -> None:
    names: List[str] = []
    for table in settings.tables:
        column: Optional[str] = table.ownership.column
        parent = table.ownership.parent
        problem = None
        if column is not None and column not in {c.name for c in catalog.columns[table.name]}:
            problem = "column %s is not in PostgreSQL" % column
        elif parent is not None and parent not in names:
            problem = "its parent %s must stand before it" % parent
        if problem:
            raise MigrationError(
                "config.TABLES, %s: %s" % (table.name, problem),
                hint="correct its owned_by or child_of entry",
                exit_code=ExitCode.USAGE,
            )
        names.append(table.name)
