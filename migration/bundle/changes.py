"""The list of what an export changed as config.py declares: references that were cut to NULL, and rows that were brought."""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

import msgspec

from migration.bundle.damage import damaged
from migration.bundle.reading import Reader
from migration.model import CHANGES, reference_name

Key = Tuple[Optional[str], ...]


class Changes(NamedTuple):
    """``cut``: table and columns that are NULL → keys of the rows, each as often as it is listed. ``brought``: table → keys."""

    cut: Mapping[Tuple[str, Tuple[str, ...]], Sequence[Key]] = {}
    brought: Mapping[str, FrozenSet[Key]] = {}


class _Entry(msgspec.Struct, rename={"nulls": "null"}):
    change: str
    table: str
    key: List[Optional[str]]
    columns: List[str] = []
    parent: str = ""
    nulls: List[str] = []


def read_changes(export: Reader) -> Changes:
    """The list in a bundle. Raises MigrationError (exit 4) where it is damaged, or not as long as the manifest says."""
    if CHANGES not in export.manifest.checksums:
        entries: List[_Entry] = []
    else:
        entries = list(export.records(CHANGES, msgspec.json.Decoder(_Entry).decode))
    made = changes_of(entries)
    told: Dict[str, int] = {}
    for entry in entries:
        name = entry.table
        if entry.change == "cut":
            name = reference_name(entry.table, entry.columns, entry.parent)
        told[name] = told.get(name, 0) + 1
    if told != {**export.manifest.cut, **export.manifest.brought}:
        raise damaged("%s does not list what the manifest counts" % CHANGES, "export again")
    return made


def parsed(lines: Sequence[bytes]) -> Changes:
    """The list as an export would write it."""
    return changes_of([msgspec.json.decode(line, type=_Entry) for line in lines])


def changes_of(entries: Sequence[_Entry]) -> Changes:
    cut: Dict[Tuple[str, Tuple[str, ...]], List[Key]] = {}
    brought: Dict[str, Set[Key]] = {}
    for entry in entries:
        if entry.change == "cut":
            cut.setdefault((entry.table, tuple(entry.nulls)), []).append(tuple(entry.key))
        else:
            brought.setdefault(entry.table, set()).add(tuple(entry.key))
    return Changes(cut, {table: frozenset(keys) for table, keys in brought.items()})


def key_text(value: Any) -> Optional[str]:
    """A decoded value of a key as the list has it."""
    if isinstance(value, msgspec.Raw):
        text = bytes(value)
        value = msgspec.json.decode(text) if text[:1] in (b'"', b"n") else text.decode("utf-8", "replace")
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return None if value is None else str(value)
