"""What has changed in PostgreSQL since config.py was written."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Dict, Iterator, Mapping, NamedTuple, Tuple

from migration.discovery.config_file import Discovered
from migration.discovery.details import VIEW, Details
from migration.discovery.row_types import is_of_types, new_types
from migration.errors import UsageError
from migration.printing import counted


class Written(NamedTuple):
    """What a config.py of discover.py's says of the catalog that it was written from."""

    schema: str
    tables: Discovered


def read_written(path: Path) -> Written:
    """Read it without running it. Raises UsageError where it is missing, damaged or was not written by discover.py."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except OSError as error:
        raise UsageError(
            "cannot read %s: %s" % (path, error.strerror),
            "--check needs the folder that discover.py has written",
        ) from error
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise UsageError(
            "%s%s: %s" % (path, ", line %d" % line if line else "", getattr(error, "msg", error)),
            "correct it",
        ) from error
    found: Dict[str, object] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in ("DISCOVERED", "POSTGRES_SCHEMA"):
                try:
                    found[name] = ast.literal_eval(node.value)
                except ValueError:
                    raise UsageError(
                        "%s, line %d: %s is not as discover.py wrote it" % (path, node.lineno, name),
                        "write a new one to another folder, and take over what you changed",
                    ) from None
    tables, schema = found.get("DISCOVERED"), found.get("POSTGRES_SCHEMA", "public")
    if not _is_sound(tables) or not isinstance(schema, str):
        raise UsageError(
            "%s does not say what it was written from: it has no DISCOVERED" % path,
            "--check is for a config.py that discover.py wrote; write one to another folder, and compare",
        )
    return Written(schema, tables)  # type: ignore[arg-type]


def _is_sound(tables: object) -> bool:
    return isinstance(tables, dict) and all(
        isinstance(table, tuple) and [type(part) for part in table] == [dict, tuple, dict]
        for table in tables.values()
    )


_VALUES = "the values of column "
_SAID_BEFORE = (_VALUES, "foreign key ")  # where they are new or gone, so is the column or the reference
Change = Tuple[str, str]  # the table, and what of it


def changes(before: Discovered, now: Discovered) -> Iterator[Change]:
    """Each table, column, reference and rule that is new, gone or another."""
    for name in (*before, *(name for name in now if name not in before)):
        if name not in now:
            yield name, "the view is gone" if VIEW in before[name][2] else "the table is gone"
        elif name not in before:
            columns = counted(len(now[name][0]), "column")
            yield name, "a new view" if VIEW in now[name][2] else "a new table, of %s" % columns
        else:
            yield from ((name, what) for what in _columns(before[name][0], now[name][0]))
            yield from ((name, what) for what in _keys(before[name][1], now[name][1]))
            yield from ((name, what) for what in _details(before[name][2], now[name][2]))
            yield from ((name, what) for what in new_types(before[name][2], now[name][2]))


def _columns(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name, type_ in before.items():
        if name not in now:
            yield "column %s is gone" % name
        elif now[name] != type_:
            yield "column %s is %s, it was %s" % (name, now[name], type_)
    for name in now:
        if name not in before:
            yield "a new column %s, %s" % (name, now[name])


def _details(before: Details, now: Details) -> Iterator[str]:
    for name, digest in before.items():
        if is_of_types(name):
            continue
        if name not in now and not name.startswith(_SAID_BEFORE):
            yield "%s is gone" % name
        elif now.get(name, digest) != digest:
            yield "%s %s" % (name, "are others" if name.startswith(_VALUES) else "is another")
    for name in now:
        if name not in before and not name.startswith(_SAID_BEFORE) and not is_of_types(name):
            yield "a new %s" % name


def _keys(before: Tuple[str, ...], now: Tuple[str, ...]) -> Iterator[str]:
    for key in before:
        if key not in now:
            yield "the reference %s is gone" % key
    for key in now:
        if key not in before:
            yield "a new reference %s" % key
