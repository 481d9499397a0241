"""The bundle does not depend on the server's version: the embedded server against the system's and those fetched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import List

import psycopg2
import pytest

import fetch_servers
from demo import sample
from demo.postgres import find_bindir, temp_postgres
from support.places import BRUNO, Place
from support.runs import Run
from support.servers import Database


def other_servers() -> List[Path]:
    """The system's server binaries and those of ``fetch_servers.py``, but for those that the tests run on anyway."""
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin")), *fetch_servers.cached().values()]
    own = find_bindir().resolve()
    there = [path for path in found if (path / "initdb").exists() and path.resolve() != own]
    return list({path.parent.name.partition(".")[0]: path for path in there}.values())  # one a major version


@pytest.mark.parametrize("bindir", other_servers(), ids=lambda path: path.parent.name)
def test_another_server_version_gives_the_same_files(
    bindir: Path, sample_database: Database, place: Place, run: Run
) -> None:
    here, there = place.folder / "here", place.folder / "there"
    with temp_postgres(bindir=bindir) as url:
        connection = psycopg2.connect(url)
        sample.create_schema(connection)
        sample.fill(connection)
        connection.close()
        for folder, server in ((here, sample_database.url), (there, url)):
            done = run(
                "export_from_postgres.py",
                "--user-email",
                BRUNO,
                "--postgres-url",
                server,
                "--data-dir",
                folder,
            )
            assert done.code == 0, done.err
    names = sorted(name for name in os.listdir(str(here)) if name != "manifest.json")
    assert len(names) == 10
    for name in names:
        assert (here / name).read_bytes() == (there / name).read_bytes(), name
