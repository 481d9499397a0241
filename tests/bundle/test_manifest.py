"""The manifest alone: what is written is read back, and each thing that is wrong is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Dict

import pytest

from migration.bundle.manifest import MANIFEST, Manifest, as_json, read_manifest
from migration.errors import BundleError
from migration.model import Column, Kind

FULL = Manifest(
    "2025-01-01T00:00:00Z",
    "anna@example.com",
    "1",
    row_counts={"clients": 2},
    checksums={"clients.json": "0a" * 32},
    columns={"clients": (Column("id", "uuid", Kind.UUID, True), Column("name", "text", Kind.TEXT, False))},
    keys={"clients": ("id",), "log": ()},
    owners={"clients": ["anna"]},
)


def test_manifest_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(as_json(FULL))
    assert read_manifest(tmp_path) == FULL
    assert as_json(read_manifest(tmp_path)) == as_json(FULL)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"user_id": 1}, "$.user_id"),
        ({"user_email": 1}, "$.user_email"),
        ({"row_counts": {"clients": 1.0}}, "row_counts of clients is 1.0, not a whole number"),
        ({"row_counts": {"clients": True}}, "row_counts of clients is true"),
        ({"row_counts": {"clients": -1}}, "row count of clients"),
        ({"checksums": {"clients.json": "0" * 63}}, "checksum of 'clients.json'"),
        ({"checksums": {"clients.json": "0" * 64 + "\n"}}, "checksum of 'clients.json'"),
        ({"row_counts": ["clients"]}, "$.row_counts"),
        ({"sizes": {"clients.json": "1"}}, 'sizes of clients.json is "1"'),
        ({"owners": {"clients": "anna"}}, "$.owners"),
        ({"columns": {"clients": [{"name": "id"}]}}, "missing required field `type` - at `$.columns"),
        (
            {"columns": {"clients": [FULL.columns["clients"][0]] * 2}},
            "a column of clients stands there twice",
        ),
        ({"keys": {"clients": ["other"]}}, "the key of clients is none of its columns"),
        ({"format_version": 2, "keys": 5}, "format version 2; this program reads 1"),
        ({"source": "\ud800"}, "surrogate"),
        ({"unknown": "\ud800 "}, ""),
        ({"unknown": float("nan")}, ""),
    ],
)
def test_what_is_wrong_is_named(changes: Dict[str, Any], words: str, tmp_path: Path) -> None:
    content = {**json.loads(as_json(FULL)), **changes}
    (tmp_path / MANIFEST).write_text(json.dumps(content, default=vars), encoding="utf-8")
    with pytest.raises(BundleError) as caught:
        read_manifest(tmp_path)
    assert "manifest.json is damaged: " in caught.value.message and words in caught.value.message


@pytest.mark.parametrize("name", ["source", "server_version", "snapshot"])
def test_what_another_exporter_means_by_our_words_is_passed_over(name: str, tmp_path: Path) -> None:
    content = {**json.loads(as_json(FULL)), name: {"host": "db", "port": 5432}}
    (tmp_path / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    assert read_manifest(tmp_path) == dataclasses.replace(FULL, **{name: ""})


@pytest.mark.parametrize("name", ["export_timestamp", "user_email", "user_id", "row_counts", "checksums"])
def test_missing_member_is_named(name: str, tmp_path: Path) -> None:
    content = json.loads(as_json(FULL))
    del content[name]
    (tmp_path / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BundleError, match="manifest.json is damaged: .*`%s`" % name):
        read_manifest(tmp_path)
