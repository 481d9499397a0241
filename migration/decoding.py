"""Records of a table from JSON text: each value in the form in which ``conversion`` takes it, no digit touched."""

from __future__ import annotations

import functools
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import msgspec

from migration.json_text import members
from migration.model import Column, Kind

JSON_NULLS = "$json_null"  # the bundle's own member: which nulls of a record are JSON's, not SQL's

_JSON_TYPES: Dict[str, Any] = {
    Kind.BOOLEAN: Optional[bool],
    Kind.INTEGER: Optional[int],
    Kind.FLOAT: Union[float, str, None],
    Kind.NUMERIC: msgspec.Raw,
    Kind.JSON: msgspec.Raw,
    Kind.JSONB: msgspec.Raw,
    Kind.STRUCTURE: msgspec.Raw,
    Kind.UNDECLARED: msgspec.Raw,
}


def undeclared(names: Sequence[str]) -> Tuple[Column, ...]:
    """Columns of a bundle that names no types."""
    return tuple(Column(name, "", Kind.UNDECLARED, False) for name in names)


def record_decoder(columns: Sequence[Column]) -> RecordDecoder:
    return _record_decoder(tuple(columns))


class RecordDecoder:
    """Decoder of records with exactly these columns, each once.

    Yields structures whose fields ``c0, c1 …`` are the columns in order and ``json_nulls`` names
    the columns whose null is JSON's. JSON and decimal numbers stay raw, so that no digit is touched.
    Raises msgspec.ValidationError where the record is another, msgspec.DecodeError where it is no JSON.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._fields: List[Any] = [
            ("c%d" % i, _JSON_TYPES.get(column.kind, Optional[str])) for i, column in enumerate(columns)
        ]
        self._names = {"c%d" % i: column.name for i, column in enumerate(columns)}
        self._type = msgspec.defstruct(
            "Record",
            [*self._fields, ("json_nulls", Tuple[str, ...], ())],
            rename={**self._names, "json_nulls": JSON_NULLS},
            forbid_unknown_fields=True,
            omit_defaults=True,
            gc=False,
        )
        self._decoder = msgspec.json.Decoder(self._type)
        self._list_decoder = msgspec.json.Decoder(List[self._type])  # type: ignore[name-defined]
        self._encoder = msgspec.json.Encoder()

    def __call__(self, text: bytes) -> Any:
        """One record."""
        try:
            record = self._decoder.decode(text)
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, RecursionError) as error:
            # A json column may hold an escaped half of a surrogate pair, which PostgreSQL and SQLite take,
            # and be deeper than msgspec goes.
            return self._taken_apart(text, error)
        if self._encoder.encode(record) != text:  # another layout, or a repeated key: the last one was kept
            try:
                members(text)
            except ValueError as error:
                raise msgspec.ValidationError(str(error)) from error
        return record

    def _taken_apart(self, text: bytes, error: Exception) -> Any:
        """A record that msgspec does not read; ``error``: its own, to be raised where it is right."""
        try:
            found = members(text)
        except ValueError:
            raise error from None
        nulls = msgspec.json.decode(found.pop(JSON_NULLS, b"[]"), type=Tuple[str, ...])
        if set(found) != set(self._names.values()):
            raise msgspec.ValidationError("it has other members than its table has columns") from error
        return self._type(*(_member(type_, found[self._names[name]]) for name, type_ in self._fields), nulls)

    def many(self, lines: bytes) -> Optional[List[Any]]:
        """The records of lines with a comma between two; None if one of them is not written as we write it."""
        try:
            records: List[Any] = self._list_decoder.decode(b"[%s]" % lines)
        except (msgspec.DecodeError, RecursionError):
            return None
        return records if b",\n".join(map(self._encoder.encode, records)) == lines else None


_record_decoder = functools.lru_cache(maxsize=64)(RecordDecoder)


def _member(type_: Any, raw: bytes) -> Any:
    return msgspec.Raw(raw) if type_ is msgspec.Raw else msgspec.json.decode(raw, type=type_)
