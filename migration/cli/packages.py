"""Check before any work that the system is one of ours, and that the required packages are installed and can be loaded."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import List, Optional

from migration.errors import MigrationError, ResourceError

# what Python imports → the file that installs it
MODULES = {
    "psycopg2": "requirements.txt",
    "msgspec": "requirements.txt",
    "dotenv": "requirements.txt",
    "jinja2": "requirements.txt",
    "rich": "requirements.txt",
    "dask": "requirements-cluster.txt",
    "distributed": "requirements-cluster.txt",
    "sqlglot": "requirements-discover.txt",
}
FOR_ALL = tuple(name for name, file in MODULES.items() if file == "requirements.txt")
FOR_DISCOVERY = ("sqlglot",)
FOR_MANY = tuple(name for name, file in MODULES.items() if file == "requirements-cluster.txt")
COMPILED = ("psycopg2", "msgspec")  # may be installed but built for another system


def require(names: "tuple[str, ...]" = FOR_ALL) -> None:
    """Raises ResourceError if a package is not installed or cannot be loaded, and on Windows."""
    if os.name != "posix":
        raise ResourceError(
            "this program runs on Linux and other Unix systems, not here: its locks, syncs and private files are theirs",
            "on Windows, run it in the Windows Subsystem for Linux (WSL)",
        )
    absent = [name for name in names if not _is_there(name)]
    if absent:
        raise _not_installed(absent)
    for name in COMPILED:
        if name in names:
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise lacking(error) or _broken(name, error) from error


def lacking(error: BaseException) -> Optional[MigrationError]:
    """A ResourceError if ``error`` means that one of the packages is missing or broken; else None."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    if name not in MODULES:
        return None
    return _not_installed([name]) if isinstance(error, ModuleNotFoundError) else _broken(name, error)


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # taken out of sys.modules
        return False


def _not_installed(names: List[str]) -> MigrationError:
    return ResourceError(
        "%s %s not installed" % (", ".join(names), "is" if len(names) == 1 else "are"),
        "pip install -r %s (for the Python that runs this: %s)" % (MODULES[names[0]], sys.executable),
    )


def _broken(name: str, error: BaseException) -> MigrationError:
    return ResourceError(
        "%s cannot be loaded: %s" % (name, error),
        "pip install --force-reinstall -r %s (for the Python that runs this: %s)"
        % (MODULES[name], sys.executable),
    )
