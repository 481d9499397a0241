"""Anna's bundle, and edits of bundles as an attacker, an older version or a slip makes them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

from migration.bundle.writing import Sink, Writer
from support.places import Place, contents


@pytest.fixture()
def bundle(annas_run: Place, place: Place) -> Path:
    """A copy of Anna's bundle in the test's data folder."""
    shutil.copytree(str(annas_run.data), str(place.data))
    (place.data / "validation_report.json").unlink()
    (place.data / "validation_report.html").unlink()
    return place.data


@pytest.fixture()
def migrated(annas_run: Place, bundle: Path, place: Place) -> Place:
    """Copies of Anna's bundle and database in the test's folder."""
    shutil.copyfile(str(annas_run.app), str(place.app))
    return place


FIVE_KEYS = ("export_timestamp", "user_email", "user_id", "row_counts", "checksums")


def edit_manifest(data: Path, change: Callable[[Any], object]) -> None:
    path = data / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def rewrite(data: Path, name: str, content: "str | bytes", rows: "int | None" = None) -> None:
    """Change a file of a bundle as somebody does who knows of checksums, sizes and counts."""
    written = content.encode("utf-8") if isinstance(content, str) else content
    (data / name).write_bytes(written)

    def account(manifest: Any) -> None:
        manifest["checksums"][name] = hashlib.sha256(written).hexdigest()
        manifest.setdefault("sizes", {})[name] = len(written)
        if rows is not None:
            manifest["row_counts"][name[: -len(".json")]] = rows

    edit_manifest(data, account)


def array(rows: "list[dict[str, Any]]") -> bytes:
    """A table's file as the export lays it out."""
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=float) for row in rows]
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode("utf-8")


def forget_types(data: Path) -> None:
    """Leave the manifest the five keys that every bundle has."""

    def forget(manifest: Any) -> None:
        for key in set(manifest) - set(FIVE_KEYS):
            del manifest[key]

    edit_manifest(data, forget)


def table_files(folder: Path) -> Dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if name != "manifest.json"}


def during(table: str, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> List[int]:
    """Have ``act`` run once, when the first record of a table arrives; the list tells whether it did."""
    acted: List[int] = []
    chosen: List[Sink] = []
    open_table, write = Writer.table, Sink.write

    @contextlib.contextmanager
    def noted(writer: Writer, name: str, *others: Any) -> Iterator[Sink]:
        with open_table(writer, name, *others) as sink:
            if name == table:
                chosen.append(sink)
            yield sink

    def interrupted(sink: Sink, line: bytes) -> None:
        if not acted and sink in chosen:
            acted.append(1)
            act()
        write(sink, line)

    monkeypatch.setattr(Writer, "table", noted)
    monkeypatch.setattr(Sink, "write", interrupted)
    return acted
