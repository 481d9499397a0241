"""The records of a file alone: which layout is streamed, which is read whole, and where damage is found."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import List

import pytest

from migration.bundle import records
from migration.bundle.records import OtherLayout, in_array, in_lines
from migration.decoding import record_decoder
from migration.model import Column, Kind


def streamed(path: Path, content: bytes) -> List[bytes]:
    path.write_bytes(content)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        found = [text for block in in_lines(file, digest) for text in block.texts]
    assert digest.digest() == hashlib.sha256(content).digest()
    return found


@pytest.mark.parametrize("size", range(1, 20))
def test_our_own_layout_is_streamed(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LINES", size)
    for wanted in ([], [b"{}"], [b'{"a":1}', b"{}"], [b'{"a":1}', b'{"b":"],"}', b"{}"]):
        content = b"[\n" + b",\n".join(wanted) + (b"\n]\n" if wanted else b"]\n")
        assert streamed(tmp_path / "rows.json", content) == wanted


OTHERS = {
    "one line": "[{}]",
    "cut": "[\n{},\n",
    "no line end": "[\n{}\n]",
    "more behind": "[\n{}\n]\n\n",
    "empty": "",
}


@pytest.mark.parametrize("layout", OTHERS)
def test_another_layout_is_not_streamed(layout: str, tmp_path: Path) -> None:
    with pytest.raises(OtherLayout):
        streamed(tmp_path / "rows.json", OTHERS[layout].encode())


def test_records_of_an_array_keep_their_bytes() -> None:
    wanted = [b'{ "a" : 1.10e5 }', b'{"b":"\xff,]"}', b'{"c":[{},[' + b"1" * 5000 + b"]]}"]
    text = b" [ %s,%s\t,\r\n%s ] " % tuple(wanted)
    assert list(in_array(text.decode("utf-8", "surrogateescape"))) == wanted
    assert list(in_array(" [ ] ")) == []


@pytest.mark.parametrize(
    "text, sound, words",
    [
        ("", 0, "not a JSON array"),
        ("{}", 0, "not a JSON array"),
        ("[", 0, "the file ends too early"),
        ("[{}", 1, "the file ends too early"),
        ("[{},", 1, "the file ends too early"),
        ("[{},]", 1, "a comma before the end of the array"),
        ("[,{}]", 0, "not a JSON object"),
        ("[{} {}]", 1, "a comma is missing"),
        ("[{}, 5]", 1, "not a JSON object"),
        ("[{}, {]", 1, "Expecting"),
        ('[{}, {"a":NaN}]', 1, "NaN is not JSON"),
        ("[{}] {}", 1, "text after the end of the array"),
    ],
)
def test_damage_is_found_behind_the_sound_records(text: str, sound: int, words: str) -> None:
    found = in_array(text)
    for _ in range(sound):
        assert next(found) == b"{}"
    with pytest.raises(ValueError, match=words):
        next(found)


def test_number_of_any_length_is_read_however_its_record_is_written() -> None:
    decode = record_decoder([Column("a", "numeric", Kind.NUMERIC, False)])
    digits = b"1" * 5000
    for text in (b'{"a":%s}', b'{ "a": %s }'):
        assert bytes(decode(text % digits).c0) == digits
