"""manifest.json: what a bundle holds, whose it is, and the checksums by which its files are proved."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, Optional, Sequence, Tuple

from migration.bundle.damage import damaged, read_file
from migration.conversion import refuse_constant
from migration.errors import MigrationError
from migration.model import Column

FORMAT_VERSION = 1


MANIFEST = "manifest.json"


USER_DATA = "user_data.json"


REPORTS = ("validation_report.json", "validation_report.html")


@dataclass(frozen=True)
class Manifest:
    """``manifest.json``. The first five are in every bundle; a bundle made elsewhere may lack the rest."""

    export_timestamp: str
    user_email: Optional[str]  # None where the user has no name in PostgreSQL
    user_id: str
    row_counts: Mapping[str, int]
    checksums: Mapping[str, str]
    format_version: int = FORMAT_VERSION
    sizes: Mapping[str, int] = field(default_factory=dict)
    columns: Mapping[str, Tuple[Column, ...]] = field(default_factory=dict)
    keys: Mapping[str, Tuple[str, ...]] = field(default_factory=dict)  # () where only whole rows differ
    orphans_skipped: Mapping[str, int] = field(default_factory=dict)
    left_behind: Mapping[str, int] = field(default_factory=dict)  # others' rows that refer to the user's
    owners: Mapping[str, Sequence[str]] = field(default_factory=dict)  # as ``owners_of`` needs them
    source: str = ""
    server_version: str = ""
    snapshot: str = ""
    lc_monetary: Optional[str] = None  # which currency, where columns of money became numbers


def owners_of(manifest: Manifest, table: str) -> FrozenSet[str]:
    """The texts by which the owner column of a table names the user: of citext, say, there may be several."""
    return as_written((manifest.user_id, *manifest.owners.get(table, ())))


def as_written(owners: Iterable[str]) -> FrozenSet[str]:
    """Owners, and as they are where char(n) has padded them or they are compared without their padding."""
    return frozenset(text for owner in owners for text in (owner, owner.rstrip()))


def files_of(tables: Sequence[Any]) -> Dict[str, str]:
    """Table name → file name."""
    return {table.name: table.file for table in tables}


def as_json(manifest: Manifest) -> Dict[str, Any]:
    columns = {table: [c._asdict() for c in columns] for table, columns in manifest.columns.items()}
    plain = {**vars(manifest), "columns": columns}
    for key in ("row_counts", "checksums", "sizes"):  # whichever was written first
        plain[key] = dict(sorted(plain[key].items()))
    return plain


def read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        text = read_file(path)
    except MigrationError:
        if not path.exists() and not path.is_symlink():
            raise damaged(
                "no export bundle: %s does not exist" % path,
                "run export_from_postgres.py first, or set --data-dir",
            ) from None
        raise
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=refuse_constant)
        _check_manifest(content)
        return Manifest(
            **{
                **{key: value for key, value in content.items() if key in Manifest.__dataclass_fields__},
                "columns": {
                    table: tuple(Column(**column) for column in columns)
                    for table, columns in content.get("columns", {}).items()
                },
                "keys": {table: tuple(names) for table, names in content.get("keys", {}).items()},
            }
        )
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise damaged("%s is damaged: %s" % (path, error)) from error


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member stands there twice")
    return members


def _check_manifest(content: Any) -> None:
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    for key, kind in {
        "export_timestamp": str,
        "user_id": str,
        "row_counts": dict,
        "checksums": dict,
    }.items():
        if not isinstance(content.get(key), kind):
            raise ValueError("%s is missing or not %s" % (key, "an object" if kind is dict else "text"))
    if not isinstance(content.get("user_email", 0), (str, type(None))):
        raise ValueError("user_email is missing or neither text nor null")
    if content.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise ValueError(
            "format version %r; this program reads %d" % (content["format_version"], FORMAT_VERSION)
        )
    for table, rows in content["row_counts"].items():
        if type(rows) is not int or rows < 0:
            raise ValueError("row count of %s is not a number" % table)
    for name, checksum in content["checksums"].items():
        if not isinstance(checksum, str) or not re.fullmatch("[0-9a-fA-F]{64}", checksum):
            raise ValueError("checksum of %r is not a SHA256" % name)
    for key in ("sizes", "orphans_skipped", "left_behind"):
        if not isinstance(content.get(key, {}), dict) or not all(
            type(number) is int for number in content.get(key, {}).values()
        ):
            raise ValueError("%s is not an object of numbers" % key)
    for texts in content.get("owners", {}).values():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError("owners is not an object of lists of text")
    for table, columns in content.get("columns", {}).items():
        names = [column["name"] for column in columns]
        if len(set(names)) < len(names):
            raise ValueError("a column of %s stands there twice" % table)
        for column in columns:
            if [type(column[key]) for key in Column._fields] != [str, str, str, bool]:
                raise ValueError("a column of %s is not described by name, type, kind and not_null" % table)
    for table, names in content.get("keys", {}).items():
        columns = content.get("columns", {}).get(table)
        known = names if columns is None else [column["name"] for column in columns]
        if not isinstance(names, list) or not all(isinstance(name, str) and name in known for name in names):
            raise ValueError("the key of %s is none of its columns" % table)
    json.dumps(content, ensure_ascii=False).encode("utf-8")  # half a surrogate pair can be shown nowhere
