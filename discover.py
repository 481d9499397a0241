"""Any other application: its config.py and SQLite schema, written from PostgreSQL's catalog.

    python discover.py --postgres-url postgresql://user@host/database --root accounts --output accounts

Reads in one REPEATABLE READ READ ONLY transaction; PostgreSQL is never changed. What the catalog leaves open stands in
the config.py as a question.
"""

from __future__ import annotations

if __name__ == "__main__":  # before what may fail is imported
    from migration.cli import packages, running

    running.begin((*packages.FOR_ALL, *packages.FOR_DISCOVERY))

import argparse
import dataclasses
import logging
import sys
from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Type, TypeVar

from migration.cli import configuration, options, running, terminal
from migration.discovery import changes, config_file, written
from migration.discovery.classed import Classed, Classes, Group
from migration.discovery.classes import classify
from migration.discovery.definitions import read_definitions
from migration.discovery.one_root import rows_of_one
from migration.discovery.references import find_references
from migration.discovery.row_types import without_reference
from migration.discovery.source import Source, find_root, leave_out, read_source, schema_of_root
from migration.discovery.words import listed
from migration.errors import ExitCode, UsageError
from migration.model import WHAT_BECOMES, Reference, Table, Way
from migration.postgres import connecting
from migration.postgres.representable import account_for
from migration.settings import Settings
from migration.sqlite.schema import read_schema

log = logging.getLogger("migration.discover")

_Entry = TypeVar("_Entry", Reference, Table)


def discover(settings: Settings, arguments: argparse.Namespace) -> Classes:
    """Class the tables and write the three files to ``arguments.output``. Prints what was found.

    Raises MigrationError: exit 2 where there is no such root, where nothing names its rows or where a config.py is
    there already, 3 for what PostgreSQL refuses, 5 where the folder cannot be written.
    """
    folder = Path(arguments.output)
    with written.new_folder(folder):
        with connecting.opened(settings) as db:
            db.schema, root_name = schema_of_root(db, arguments.root)
            source = read_source(db)
            with terminal.progress("whose rows they are", len(source.tables), "tables") as advance:
                root = find_root(source, root_name, arguments.named_by)
                source = leave_out(source, root, arguments.exclude)
                classes = classify(source, root, find_references(source, root.name), advance)
                mine: Optional[Mapping[str, int]] = None
                if arguments.user is not None or arguments.user_id is not None:
                    mine = rows_of_one(source, classes, settings, arguments.user, arguments.user_id)
            texts = written.texts(source, classes, settings, arguments.references)
        written.write(folder, texts)
    _show(classes, source, arguments, mine)
    return classes


def _show(
    classes: Classes, source: Source, arguments: argparse.Namespace, mine: Optional[Mapping[str, int]]
) -> None:
    head = [
        "table",
        "class",
        "rows",
        *([] if mine is None else ["of " + (arguments.user or arguments.user_id)]),
    ]
    rows: List[List[object]] = [
        [
            table.name,
            table.group.value,
            _size(table, source),
            *([] if mine is None else [mine.get(table.name)]),
        ]
        for group in Group
        for table in classes.of(group)
    ]
    terminal.summary("Written to %s" % arguments.output, head, rows)
    for name, what in sorted(source.no_tables.items()):
        log.info("not exported, as its rows are those of tables: %s %s", what, name)
    for departure in classes.departures:
        log.warning("leaves a root's data: %s", config_file.described(departure))
    if classes.departures and arguments.references == "bring":
        log.warning("%s", config_file.whole_rows(source, classes.root.name))
    for table in classes.of(Group.OPEN):
        assert table.rule is not None
        log.warning("open question: %s: %s", table.name, table.rule.texts[0])
    for table in classes.of(Group.UNRELATED, Group.REFERENCED):
        if table.may_name:
            log.warning(
                "taken for nobody's, though values of %s are keys of %s, perhaps by chance: %s",
                listed(table.may_name),
                classes.root.name,
                table.name,
            )
    open_ = len(classes.of(Group.OPEN))
    path = Path(arguments.output) / written.CONFIG
    if open_:
        log.warning(
            "%s: answer %s in %s before the export",
            "1 question is open" if open_ == 1 else "%d questions are open" % open_,
            "it" if open_ == 1 else "them",
            path,
        )
        log.warning(
            "rows of roots and references that leave them are counted by the first answer to each question: another"
            " answer may let others leave, and the export says which"
        )
    else:
        log.info("next: python migrate.py --config %s --user NAME", path)


def _size(table: Classed, source: Source) -> str:
    if table.exact:
        return str(table.rows)
    return "~%d" % table.rows if table.rows else "not counted"


def check(settings: Settings, folder: Path) -> List[changes.Change]:
    """What has changed in PostgreSQL since ``folder``'s config.py was written.

    Raises MigrationError, as the export does (exit 2), where nothing has changed and every question is answered, but the
    config.py does not fit PostgreSQL or its SQLite schema.
    """
    path = folder / written.CONFIG
    before = changes.read_written(path)
    config = configuration.load(path.absolute())
    references, tables = _entries(config.REFERENCES, Reference), _entries(config.TABLES, Table)
    with connecting.opened(settings) as db:
        db.schema = before.schema
        definitions = read_definitions(db, list(db.catalog.relations))
        now = config_file.discovered(db, definitions, without_reference(db, references))
        found = list(changes.changes(before.tables, now))
        if not found and not any(table.ownership.way is Way.UNDECIDED for table in tables):
            whole = dataclasses.replace(settings, **configuration.what_is_migrated(config))
            account_for(db, whole, read_schema(Path(config.SCHEMA_PATH)))
        return found


def _entries(given: object, kind: Type[_Entry]) -> List[_Entry]:
    """Those of a tuple of config.py's, which may be anything yet."""
    return [each for each in given if isinstance(each, kind)] if isinstance(given, (tuple, list)) else []


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = options.parser(__doc__ or "", data_dir=False, needs_config=False)
    options.add_source(parser)
    parser.add_argument(
        "--root", metavar="TABLE", help="whose data it is: the table of users, accounts or workspaces"
    )
    parser.add_argument(
        "--named-by",
        metavar="COLUMN",
        help="what the command line calls them by (default: the unique one of email, username, name, slug and the like)",
    )
    parser.add_argument(
        "--references",
        choices=WHAT_BECOMES,
        help="what becomes of references to rows of others: stop the export, skip the row, cut the reference, bring the row (default: stop)",
    )
    parser.add_argument(
        "--exclude",
        metavar="TABLE[.COLUMN]",
        action="append",
        default=[],
        help="leave this table or column behind: one that SQLite cannot tell from another, say; may be repeated",
    )
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--user", metavar="NAME", help="also count the rows of this one, table by table")
    one.add_argument("--user-id", metavar="KEY", help="the same, by their key")
    parser.add_argument(
        "--output", metavar="DIR", help="folder for config.py, sqlite_schema.sql and migration_mapping.md"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; say what has changed in PostgreSQL since the config.py in DIR was written (exit 1 if something)",
    )
    arguments = parser.parse_args(argv)
    if arguments.check and arguments.config is None and arguments.output:
        made = Path(arguments.output) / written.CONFIG
        arguments.config = str(made) if made.is_file() else None  # it knows the server
    return running.run(_main, arguments)


def _main(arguments: argparse.Namespace) -> int:
    for name in ("output", "root", "named_by", "user", "user_id"):
        value = getattr(arguments, name)
        if value == "" or (value is None and (name == "output" or (name == "root" and not arguments.check))):
            raise UsageError(
                "--%s is %s" % (name.replace("_", "-"), "missing" if value is None else "empty"),
                "python discover.py --postgres-url URL --root TABLE --output DIR",
            )
    settings = configuration.source_settings(arguments)
    if not arguments.check:
        discover(settings, arguments)
        return ExitCode.DONE
    found = check(settings, Path(arguments.output))
    if not found:
        log.info("nothing has changed since %s was written", Path(arguments.output) / written.CONFIG)
        return ExitCode.DONE
    terminal.summary("Changed in PostgreSQL", ("table", "what"), found, even_if_quiet=True, is_result=True)
    return ExitCode.DIFFERENCES


if __name__ == "__main__":
    sys.exit(main())
