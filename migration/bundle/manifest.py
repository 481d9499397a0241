"""manifest.json: what a bundle holds, whose it is, and the checksums by which its files are proved."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, Optional, Sequence, Tuple

import msgspec

from migration.bundle.damage import damaged, read_file
from migration.errors import MigrationError
from migration.json_text import refuse_constant
from migration.model import Column

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
REPORTS = ("validation_report.json", "validation_report.html")


@dataclass(frozen=True)
class Manifest:
    """``manifest.json``. The first five are in every bundle; a bundle made elsewhere may lack the rest."""

    export_timestamp: str
    user_email: Optional[str]  # None if the user has no name in PostgreSQL
    user_id: str
    row_counts: Mapping[str, int]
    checksums: Mapping[str, str]
    format_version: int = FORMAT_VERSION
    sizes: Mapping[str, int] = field(default_factory=dict)
    columns: Mapping[str, Tuple[Column, ...]] = field(default_factory=dict)
    keys: Mapping[str, Tuple[str, ...]] = field(default_factory=dict)  # (): rows differ only as a whole
    orphans_skipped: Mapping[str, int] = field(default_factory=dict)
    left_behind: Mapping[str, int] = field(default_factory=dict)  # rows of others that refer to the user's
    orphans: Optional[str] = None  # "skip" or "stop", where config.py says of references what becomes of them
    cut: Mapping[str, int] = field(default_factory=dict)  # reference → rows in which it was cut to NULL
    brought: Mapping[str, int] = field(default_factory=dict)  # table → rows of others that came along
    brought_by: Mapping[str, Sequence[Tuple[str, Tuple[str, ...], Tuple[str, ...]]]] = field(
        default_factory=dict
    )  # table → the references that bring its rows: table, columns, columns of the brought row
    owners: Mapping[str, Sequence[str]] = field(
        default_factory=dict
    )  # other spellings of the user, see ``owners_of``
    source: str = ""
    server_version: str = ""
    snapshot: str = ""
    lc_monetary: Optional[str] = None  # whose currency the numbers from columns of money are in

    @property
    def skipped_by(self) -> str:
        """What had rows left out."""
        return "config.py" if self.orphans == "stop" else "--orphans skip"


def owners_of(manifest: Manifest, table: str) -> FrozenSet[str]:
    """The texts that name the user in a table's owner column: several if its type is citext, for example."""
    return as_written((manifest.user_id, *manifest.owners.get(table, ())))


def as_written(owners: Iterable[str]) -> FrozenSet[str]:
    """Owners, with and without the padding of char(n)."""
    return frozenset(text for owner in owners for text in (owner, owner.rstrip()))


def files_of(tables: Sequence[Any]) -> Dict[str, str]:
    """Table name → file name."""
    return {table.name: table.file for table in tables}


def as_json(manifest: Manifest) -> bytes:
    """The content of ``manifest.json``, with files and tables in alphabetical order."""
    in_order: Dict[str, Any] = {
        name: dict(sorted(getattr(manifest, name).items())) for name in ("row_counts", "checksums", "sizes")
    }
    members = msgspec.to_builtins(dataclasses.replace(manifest, **in_order))
    for name in ("orphans", "cut", "brought", "brought_by"):  # only where there is something
        if not members[name]:
            del members[name]
    return msgspec.json.format(msgspec.json.encode(members)) + b"\n"


def read_manifest(folder: Path) -> Manifest:
    """The manifest in a folder. Raises MigrationError (exit 4), naming what is wrong with it."""
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
        return _parsed(text)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise damaged("%s is damaged: %s" % (path, error)) from error


@functools.lru_cache(maxsize=2)  # a run reads it again and again
def _parsed(text: bytes) -> Manifest:
    """Raises msgspec.DecodeError, ValueError or RecursionError."""
    content = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=refuse_constant)
    json.dumps(content, ensure_ascii=False).encode("utf-8")  # half a surrogate pair can be shown nowhere
    if isinstance(content, dict):
        if content.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
            message = "format version %r; this program reads %d"
            raise ValueError(message % (content["format_version"], FORMAT_VERSION))
        for name in (
            "source",
            "server_version",
            "snapshot",
        ):  # only shown; other exporters may mean others by it
            if not isinstance(content.get(name, ""), str):
                del content[name]
        _require_numbers(content)
    manifest = msgspec.convert(content, Manifest)
    _require_sound(manifest)
    return manifest


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member stands there twice")
    return members


def _require_numbers(content: Dict[str, Any]) -> None:
    """Name the table or file whose entry is no number, as msgspec does not. Raises ValueError."""
    for member in ("row_counts", "sizes"):
        entries = content.get(member)
        for name, number in entries.items() if isinstance(entries, dict) else ():
            if type(number) is not int:
                raise ValueError("%s of %s is %.40s, not a whole number" % (member, name, json.dumps(number)))


def _require_sound(manifest: Manifest) -> None:
    """Check what the types of the members cannot express. Raises ValueError."""
    for table, rows in manifest.row_counts.items():
        if rows < 0:
            raise ValueError("row count of %s is negative" % table)
    for name, checksum in manifest.checksums.items():
        if not re.fullmatch("[0-9a-fA-F]{64}", checksum):
            raise ValueError("checksum of %r is not a SHA256" % name)
    for table, columns in manifest.columns.items():
        if len({column.name for column in columns}) < len(columns):
            raise ValueError("a column of %s stands there twice" % table)
    for table, key in manifest.keys.items():
        if table in manifest.columns and not {column.name for column in manifest.columns[table]} >= {*key}:
            raise ValueError("the key of %s is none of its columns" % table)
