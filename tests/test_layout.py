"""The layers of the scripts, which are single files and so beyond import-linter; see pyproject.toml for the rest."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PHASES = ("export_from_postgres", "import_to_sqlite", "validate_migration")
OURS = {path.stem for path in ROOT.glob("*.py")} | {"migration", "demo", "benchmarks"}

ALLOWED = {
    "config": {"migration"},
    **{phase: {"migration"} for phase in PHASES},
    "migrate": {"migration", *PHASES},
    "migrate_all_users": {"migration"},
    "discover": {"migration"},
}


@pytest.mark.parametrize("script", ALLOWED)
def test_script_imports_lower_layers_only(script: str) -> None:
    assert imported_by(ROOT / f"{script}.py") & OURS <= ALLOWED[script]


@pytest.mark.parametrize("module", sorted(ROOT.glob("migration/**/*.py")), ids=str)
def test_migration_imports_nothing_above_it(module: Path) -> None:
    above = {"migrate"} if module.parent.name == "fleet" else set()  # it runs the phases, for each user
    assert imported_by(module) & OURS <= {"migration", *above}


def imported_by(path: Path) -> set[str]:
    """Return the top-level names of all imports in a file, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            names.add(node.module.split(".")[0])
    return names
