"""Counts and content digests of records, independent of their order."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import NamedTuple, Sequence, Union


class Digest(NamedTuple):
    """Of a set of records, in whatever order: how many, and the sum of the first 64 bits of each one's SHA256.

    Tells sets apart that differ by accident; it is no protection against somebody who forges records.
    """

    rows: int
    sum: int


class SharedRows(NamedTuple):
    """The rows of one table that are everybody's, in a file that is laid out as a bundle's."""

    path: Path
    rows: int
    size: int
    checksum: str
    digest: Digest


class Digester:
    """Makes the Digest of records here that ``Snapshot.digest`` makes in PostgreSQL."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, records: "Sequence[Union[bytes, memoryview]]") -> None:
        self.rows += len(records)
        hashes = b"".join([hashlib.sha256(record).digest() for record in records])
        self._sum += sum(first for (first,) in _FIRST(hashes))

    @property
    def digest(self) -> Digest:
        return Digest(self.rows, self._sum)


_FIRST = struct.Struct(">q24x").iter_unpack
