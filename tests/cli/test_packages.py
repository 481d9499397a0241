"""A package that is missing is said in words, with what to install, before anything is touched."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Dict

import pytest

from migration.cli import packages
from migration.errors import MigrationError
from support.places import SCHEMA, SUITE, Place
from support.servers import Database
from support.sqlite_files import make_old_database

SCRIPTS = (
    "migrate.py",
    "export_from_postgres.py",
    "import_to_sqlite.py",
    "validate_migration.py",
    "migrate_all_users.py",
)


def start(*words: object, without_site: bool = True, env: Dict[str, str] = {}) -> subprocess.CompletedProcess:  # noqa: B006
    return subprocess.run(
        [sys.executable, *(["-S"] if without_site else []), *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=60,
    )


@pytest.fixture()
def installed(place: Place) -> Path:
    """A folder with all that is installed here, to take something out of."""
    folder = place.folder / "installed"
    folder.mkdir()
    for path in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for package in Path(path).iterdir():
            (folder / package.name).symlink_to(package)
    return folder


def migrate(place: Place, installed: Path, *options: str) -> subprocess.CompletedProcess:
    places = ("--data-dir", place.data, "--sqlite-path", place.app, "--backup-dir", place.backups)
    words = (SUITE / "migrate.py", *places, "--schema-path", SCHEMA, *options)
    return start(*words, env={"PYTHONPATH": str(installed)})


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_without_packages_says_what_to_install(script: str) -> None:
    done = start(SUITE / script, *(["--output-dir", "x"] if script == "migrate_all_users.py" else []))
    assert done.returncode == 70
    assert done.stderr.startswith(
        "error: psycopg2, msgspec, dotenv, jinja2, rich are not installed\ntry: pip "
    )
    assert "pip install -r requirements.txt" in done.stderr
    assert sys.executable in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("package", packages.FOR_ALL)
def test_one_missing_package_is_said_before_the_database_is_replaced(
    bundle: Path, place: Place, installed: Path, package: str
) -> None:
    (installed / package).unlink()
    old = make_old_database(place.app)
    done = migrate(place, installed, "--skip-export", "--offline")
    assert done.returncode == 70
    assert done.stderr.startswith(
        "error: %s is not installed\ntry: pip install -r requirements.txt" % package
    )
    assert place.app.read_bytes() == old


def test_discovery_says_that_it_needs_sqlglot(place: Place, installed: Path) -> None:
    (installed / "sqlglot").unlink()
    words = (SUITE / "discover.py", "--root", "users", "--output", place.folder / "made")
    done = start(*words, env={"PYTHONPATH": str(installed)})
    assert done.returncode == 70
    assert done.stderr.startswith(
        "error: sqlglot is not installed\ntry: pip install -r requirements-discover.txt"
    )
    assert not (place.folder / "made").exists()


@pytest.mark.parametrize("package", packages.COMPILED)
def test_package_of_another_system_is_said(bundle: Path, place: Place, installed: Path, package: str) -> None:
    (installed / package).unlink()
    (installed / package).mkdir()
    (installed / package / "__init__.py").write_text("raise ImportError('wrong ELF class', name=__name__)")
    done = migrate(place, installed, "--skip-export", "--offline")
    assert done.returncode == 70
    assert done.stderr.startswith(
        "error: %s cannot be loaded: wrong ELF class\ntry: pip install --force" % package
    )


def test_backup_is_restored_without_the_driver_of_postgres(place: Place, installed: Path) -> None:
    (installed / "psycopg2").unlink()
    place.backups.mkdir()
    make_old_database(place.backups / "theprogram_backup_20250101_000000.db")
    assert migrate(place, installed, "--restore").returncode == 0
    assert place.app.exists()


def test_nothing_else_is_taken_for_a_missing_package(sample_database: Database) -> None:
    assert packages.lacking(ModuleNotFoundError("no", name="somebody_elses")) is None
    assert packages.lacking(ValueError()) is None
    for missing in (ModuleNotFoundError("no", name="jinja2"), ImportError("no", name="msgspec._core")):
        error = packages.lacking(missing)
        assert error is not None and error.exit_code == 70


def test_a_system_without_unix_locks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.os, "name", "nt")
    with pytest.raises(MigrationError, match="runs on Linux") as refused:
        packages.require(())
    assert refused.value.exit_code == 70
    monkeypatch.undo()
