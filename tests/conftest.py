"""What holds for every test: nothing reaches it from outside. What tests use is in ``support``."""

from __future__ import annotations

import os
from typing import Iterator

import pytest

from migration.sqlite import connecting

pytest.register_assert_rewrite("support")
pytest_plugins = [
    "support.bundles",
    "support.fleet",
    "support.memory",
    "support.migrations",
    "support.mounts",
    "support.cases",
    "support.ownership",
    "support.places",
    "support.runs",
    "support.servers",
    "support.sqlite_files",
]

# What could reach a run from outside: each test says all that it depends on.
AMBIENT = [
    "POSTGRES_URL",
    "POSTGRES_HOST",
    "POSTGRES_PORT",
    "POSTGRES_DB",
    "POSTGRES_USER",
    "POSTGRES_PASSWORD",
    "MIGRATION_USER_EMAIL",
    "SQLITE_PATH",
    "SCHEMA_PATH",
    "MIGRATION_DATA_DIR",
    "BACKUP_DIR",
    "LOG_FILE",
    "LOG_LEVEL",
    "PGHOST",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGPASSWORD",
    "PGSERVICE",
    "PGPASSFILE",
    "PGOPTIONS",
]


@pytest.fixture(autouse=True)
def _no_ambient_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AMBIENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Processes that the tests start keep what they compile, outside the tree: the next one starts quicker."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        patch.setenv("PYTHONPYCACHEPREFIX", str(folder / "compiled"))
        yield


@pytest.fixture()
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls in this process give up soon where another program has the database."""
    monkeypatch.setattr(connecting, "BUSY_SECONDS", 0.05)
