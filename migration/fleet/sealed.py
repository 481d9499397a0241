"""A finished output's ledger: the checksums in the index prove it, and it is read without changing a file.

The index ends with the SHA256 of the other files of the output folder, and with that of all that stands before it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sqlite3
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional

from migration.errors import BundleError, TargetError
from migration.files import BLOCK, hash_into, open_regular
from migration.fleet import results
from migration.fleet.ledger import Ledger
from migration.sqlite.connecting import connected
from migration.sqlite.integrity import integrity_problems

RESTORE = "bring it back from another copy of the folder; or, while PostgreSQL is there, migrate again to another --output-dir"

_SEAL = re.compile(rb',\n  "files": (\{[^\n]*\}),\n  "sha256": "([0-9a-f]{64})"\n\}\n\Z')
_END_WITHOUT = b"\n  ]\n}\n"  # of an index by an earlier version


def seal(index: Path, files: Mapping[str, Path]) -> bytes:
    """The end of an index: what is to be written after what stands in the file. ``files``: those to name, by name."""
    digests = {name: results.sha256_of(path) for name, path in files.items()}
    named = (',\n  "files": %s' % json.dumps(digests)).encode("ascii")
    digest = hashlib.sha256()
    with open_regular(index) as file:
        hash_into(digest, file)
    digest.update(named)
    return named + (',\n  "sha256": "%s"\n}\n' % digest.hexdigest()).encode("ascii")


class Index(NamedTuple):
    """What an index says of the other files. ``damage``: why it cannot be relied on."""

    digests: Mapping[str, str]
    damage: Optional[str] = None


def read_index(index: Path) -> Index:
    """The SHA256 of files by name; empty without damage if an earlier version wrote the index."""
    try:
        with open_regular(index) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 1000))
            tail = file.read()
            found = _SEAL.search(tail)
            if found is None:
                old = tail.endswith(_END_WITHOUT)
                return Index({}, None if old else "is damaged: its end is not that of an index")
            file.seek(0)
            digest, left = hashlib.sha256(), size - len(tail) + found.end(1)
            while left:
                block = file.read(min(left, BLOCK))
                digest.update(block)
                left -= len(block)
    except FileNotFoundError:
        return Index({}, "is missing")
    except OSError as error:
        return Index({}, "cannot be read: %s" % (error.strerror or error))
    if digest.hexdigest() != found[2].decode("ascii"):
        return Index({}, "is damaged: it does not match the SHA256 at its end")
    digests: Dict[str, str] = json.loads(found[1].decode("ascii"))
    return Index(digests)


def require(path: Path) -> None:
    """Raises BundleError if there is no ledger, or none that can be read."""
    try:
        open_regular(path).close()
    except FileNotFoundError:
        raise BundleError("no ledger: %s does not exist" % path, "name the --output-dir of a run") from None
    except OSError as error:
        raise BundleError(
            "the ledger %s cannot be read: %s" % (path, error.strerror or error),
            "check its permissions, and those of its folder; symbolic links are not followed",
        ) from error


def changed(path: Path, index: Path) -> BundleError:
    """The error to raise for a ledger that is not the one that the index names."""
    return BundleError(
        "the ledger %s is damaged, or was changed after the last run: it does not match its SHA256 in %s"
        % (path, index.name),
        RESTORE,
    )


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Ledger]:
    """Open a ledger to read it. No file is changed or made. Raises BundleError if it is damaged."""
    for end in results.COMPANIONS:
        beside = path.with_name(path.name + end)
        if os.path.exists(str(beside)) and os.path.getsize(str(beside)):
            raise BundleError(
                "%s is beside the ledger: a run was killed while it wrote, or another program has the ledger open"
                % beside,
                "close that program; or run again with --resume, which brings the ledger in order",
            )
    with _damaged(path), contextlib.closing(connected(path.absolute(), "ro&immutable=1")) as connection:
        problems = _problems(connection)
        if problems:
            raise sqlite3.DatabaseError("; ".join(problems[:3]))
        yield Ledger(connection, path)


@contextlib.contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """Report what SQLite cannot read of the ledger as damage (exit 4)."""
    try:
        yield
    except (sqlite3.Error, TargetError) as error:
        words = error.message if isinstance(error, TargetError) else str(error)
        raise BundleError("the ledger %s is damaged: %s" % (path, words), RESTORE) from error


def _problems(connection: sqlite3.Connection) -> List[str]:
    lacking = [
        "it has no column %s in %s" % (name, table)
        for table, needed in (("runs", ("run", "ended")), ("users", ("user_id", "state", "run")))
        for name in needed
        if name not in {row[1] for row in connection.execute("PRAGMA table_info(%s)" % table)}
    ]
    return lacking or integrity_problems(connection)
