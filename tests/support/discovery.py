"""Schemas of databases, made without a configuration."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Iterator

import config
from migration.postgres.connecting import snapshot
from migration.postgres.snapshot import Snapshot
from support.migrations import settings_of
from support.places import Place
from support.servers import Database


@contextlib.contextmanager
def reading(database: Database) -> Iterator[Snapshot]:
    """A snapshot of a database of any application."""
    settings = settings_of(database.url, Place(Path("/nowhere")), tables=(), root=config.ROOT)
    with snapshot(settings) as db:
        yield db
