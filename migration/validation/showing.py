"""How values are shown in messages: by a fingerprint, or shortened."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import msgspec

from migration.printing import brief


class Fingerprints:
    """Shows a value's type and length, and a fingerprint instead of the value itself.

    The key of the fingerprints is random, so that nobody can find a date or a number by trying them all.
    """

    def __init__(self) -> None:
        self._key = os.urandom(16)

    def of(self, content: bytes) -> str:
        return hashlib.blake2b(content, key=self._key, digest_size=4).hexdigest()

    def __call__(self, value: Any) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, msgspec.Raw):
            text = str(value, "utf-8", "replace")
            if text in ("null", "true", "false"):
                return "JSON " + text
            return "JSON" + self(text)[len("text") :]
        content = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        return "%s of length %d (fingerprint %s)" % (
            _kind(value),
            len(value) if isinstance(value, (str, bytes)) else len(content),
            self.of(content),
        )


def shortened(value: Any) -> str:
    """The value itself, on one line and not too long."""
    if value is None:
        return "NULL"
    if isinstance(value, msgspec.Raw):
        text = str(value, "utf-8", "replace")
    else:
        text = _kind(value) + " " + repr(value)
    return brief(text)


def _kind(value: Any) -> str:
    return {str: "text", bytes: "bytes", int: "integer", float: "real", bool: "boolean"}.get(
        type(value), "value"
    )
