"""Settings of a run: from options, else the environment, else the ``.env`` file, else config.py."""

from __future__ import annotations

import argparse
import io
import os
import re
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from migration.cli.log import log
from migration.errors import MigrationError, UsageError
from migration.model import require_tuple, root
from migration.settings import Settings
from migration.well_formed import require_distinct, require_well_formed

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


SUITE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Config:
    """A config.py that has been loaded: its names, and its file."""

    path: Path
    names: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        """Raises UsageError where config.py does not say what belongs to whom; all else has a default."""
        if name in self.names:
            return self.names[name]
        if name in _DEFAULTS:
            return _DEFAULTS[name]
        old = {"USER", "PREFERENCES"} & set(self.names)
        missing = [each for each in _NEEDED if each not in self.names]
        raise UsageError(
            "%s has no %s" % (_shown(self.path), ", ".join(missing)), _OLD_FORM if old else _WHAT_IT_HOLDS
        )

    def path_of(self, name: str) -> str:
        """A path counts from the folder of its config.py; "" where there is none."""
        given = str(getattr(self, name) or "")
        return str(self.path.parent / given) if given and not given.startswith("~") else given


# Paths count from the folder of config.py. Of PostgreSQL's, what is None is libpq's to know.
_DEFAULTS: Mapping[str, Any] = {
    "POSTGRES_HOST": None,
    "POSTGRES_PORT": None,
    "POSTGRES_DB": None,
    "POSTGRES_USER": None,
    "POSTGRES_PASSWORD": "",
    "POSTGRES_SCHEMA": "public",
    "SQLITE_PATH": "app.db",
    "SCHEMA_PATH": "sqlite_schema.sql",
    "DATA_DIR": "migration_data",
    "BACKUP_DIR": "backups",
    "LOG_FILE": None,
    "LOG_LEVEL": "INFO",
    "DEFAULT_USER_EMAIL": "",
    "APPLICATION": Settings.application,
    "UNRELATED_TABLES": None,
    "REFERENCES": (),
    "LEAVING": "stop",
}


def find(arguments: argparse.Namespace) -> None:
    """Load the config.py that a run uses and its ``.env`` file, as ``arguments.config`` and ``arguments.environment``.

    That is --config's, else MIGRATION_CONFIG's (of the environment or of the suite's ``.env``), else the suite's own.
    Where ``arguments.needs_config`` is False, only --config's. Raises UsageError.
    """
    given, needed = getattr(arguments, "config", None), getattr(arguments, "needs_config", True)
    if given == "":
        raise UsageError("--config is empty")
    ours = environment(SUITE)
    given = given or (ours.get("MIGRATION_CONFIG") if needed else None)
    path = (expanded(given) if given else SUITE / "config.py").absolute()
    arguments.config = load(path) if given or needed else Config(path, {})
    arguments.environment = ours if path.parent == SUITE else environment(path.parent)


def foreign(path: Path) -> Optional[str]:
    """The path of a config.py that is not the suite's own."""
    return None if path == SUITE / "config.py" else str(path)


def load(path: Path) -> Config:
    """Run a config.py. Raises UsageError with its line where it fails."""
    try:
        code = compile(path.read_bytes(), str(path), "exec")
        names: Dict[str, Any] = {"__file__": str(path), "__name__": "config"}
        exec(code, names)
    except OSError as error:
        raise UsageError(
            "cannot read %s: %s" % (path, error.strerror),
            "name a config.py with --config or MIGRATION_CONFIG",
        ) from error
    except MigrationError:  # what a constructor of migration.model refuses says enough
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, SyntaxError) and error.filename == str(path):
            line = error.lineno
        else:
            lines = [
                at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == str(path)
            ]
            line = lines[-1] if lines else None
        place = "%s, line %d" % (_shown(path), line) if line else _shown(path)
        raise UsageError(
            "%s: %s: %s" % (place, type(error).__name__, error),
            _OLD_FORM if _OLD_NAMES.search(str(error)) else "correct it",
        ) from error
    return Config(path, names)


def _shown(path: Path) -> str:
    return foreign(path) or "config.py"


_NEEDED = ("EXCLUDED_TABLES", "ROOT", "TABLES")
_WHAT_IT_HOLDS = (
    'write ROOT = root(…), as in ROOT = root("users", key="id", named_by="email"), TABLES = (Table("users", the_root()), …)'
    " and EXCLUDED_TABLES = (); discover.py writes one, docs/other-applications.md explains it"
)
_OLD_NAMES = re.compile(r"migration\.tables|Singleton")
_OLD_FORM = (
    "this config.py is of an earlier form: write ROOT = root(…), and USER and PREFERENCES as the first entries of TABLES,"
    ' Table("users", the_root(), becomes=row_one("app_config", member="user"), …); the config.py that this version'
    " came with shows it"
)


@dataclass(frozen=True)
class _Lookup:
    """Option, then environment, then ``.env``, then config.py."""

    arguments: argparse.Namespace
    environment: Mapping[str, str]
    config: Config

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> _Lookup:
        return cls(arguments, arguments.environment, arguments.config)

    def given(self, option: str, variable: str) -> Optional[str]:
        """The option, else the variable. Raises UsageError for an empty option."""
        value = getattr(self.arguments, option, None)
        if value == "":
            raise UsageError("--%s is empty" % option.replace("_", "-"))
        return value or self.environment.get(variable) or None

    def utf8(self, option: str, variable: str) -> Optional[str]:
        """Like ``given``, for values sent to PostgreSQL. Paths may be any bytes. Raises UsageError."""
        value = self.given(option, variable)
        try:
            (value or "").encode("utf-8")
        except UnicodeEncodeError:
            raise UsageError("--%s or %s is not UTF-8" % (option.replace("_", "-"), variable)) from None
        return value

    def path(self, option: str, variable: str, default: str) -> Path:
        """The path. A script without the option does not use it, so its variable is ignored."""
        given = self.given(option, variable) if option in self.arguments else None
        return expanded(given or self.config.path_of(default))


def expanded(path: str) -> Path:
    """A path with ``~`` expanded. Raises UsageError if the home directory is unknown."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError("%s: %s" % (path, error)) from error


def environment(base_dir: Path) -> Dict[str, str]:
    """The environment merged over the ``.env`` file in ``base_dir``; values are not interpolated. Raises UsageError."""
    given = {name: value for name, value in os.environ.items() if not _is_of_kubernetes(name, value)}
    file = base_dir / ".env"
    if not file.is_file():
        return given
    from dotenv.parser import parse_stream

    try:
        lines = list(parse_stream(io.StringIO(file.read_bytes().decode("utf-8-sig"))))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "cannot read %s: %s" % (file, getattr(error, "strerror", None) or "not UTF-8")
        ) from error
    wrong = [line.original.line for line in lines if line.error]
    if wrong:
        raise UsageError(
            "%s, line %d is no NAME=value" % (file, wrong[0]),
            "correct the line; a quote that is opened needs its end",
        )
    found = {line.key: line.value for line in lines if line.key and line.value is not None}
    return {**found, **given}


def _is_of_kubernetes(name: str, value: str) -> bool:
    """Whether Kubernetes set the variable for a service called postgres, for example to tcp://10.96.0.10:5432.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    """
    return name == "POSTGRES_PORT" and re.match("(tcp|udp|sctp)://", value) is not None


def settings(arguments: argparse.Namespace, asks_postgres: bool = True) -> Settings:
    """Resolve the settings of one run. Call it in the body of ``run``. Raises UsageError.

    ``asks_postgres``: False if the run needs no PostgreSQL; its settings are then not read.
    """
    found = _Lookup.of(arguments)
    config = found.config
    postgres, fallback = _postgres(found) if asks_postgres else ({}, None)
    migrated = what_is_migrated(config)
    return Settings(
        postgres=postgres,
        fallback_password=fallback,
        postgres_schema=config.POSTGRES_SCHEMA,
        **_user(found),
        default_email=config.DEFAULT_USER_EMAIL or None,
        sqlite_path=found.path("sqlite_path", "SQLITE_PATH", "SQLITE_PATH"),
        schema_path=found.path("schema_path", "SCHEMA_PATH", "SCHEMA_PATH"),
        data_dir=found.path("data_dir", "MIGRATION_DATA_DIR", "DATA_DIR"),
        backup_dir=found.path("backup_dir", "BACKUP_DIR", "BACKUP_DIR"),
        application=_application(config),
        **migrated,
        backup=not getattr(arguments, "no_backup", False),
        skip_orphans=getattr(arguments, "orphans", "stop") == "skip",
        **{name: given for name, given in vars(arguments).items() if name in _OPTIONS and given is not None},
    )


def what_is_migrated(config: Config) -> Dict[str, Any]:
    """Settings that say whose data it is and which tables. Raises UsageError where config.py is not well formed."""
    require_tuple("EXCLUDED_TABLES", config.EXCLUDED_TABLES)
    unrelated = config.UNRELATED_TABLES
    require_tuple("UNRELATED_TABLES", unrelated)
    require_well_formed(config.TABLES, config.ROOT, config.REFERENCES, config.LEAVING)
    require_distinct(table.name for table in config.TABLES)
    return {
        "root": config.ROOT,
        "tables": tuple(config.TABLES),
        "references": tuple(config.REFERENCES),
        "leaving": config.LEAVING,
        "declares_leaving": "LEAVING" in config.names,
        "excluded_tables": tuple(config.EXCLUDED_TABLES),
        "unrelated_tables": tuple(unrelated or ()),
        "every_table": unrelated is not None,
    }


# Options that are settings of the same name; without the option, the setting's own default holds.
_OPTIONS = ("keep_backups", "offline", "against", "strict", "max_differences", "show_values", "json")


def _application(config: Config) -> str:
    name = config.APPLICATION
    if not isinstance(name, str) or not re.fullmatch("[A-Za-z0-9_-]{1,63}", name):
        raise UsageError(
            "config.APPLICATION is %r" % (name,),
            "write letters, digits, _ and -: backups are called after it",
        )
    return name


def _user(found: _Lookup) -> Dict[str, Any]:
    """Whose data, by name or by key: of an option, else of the environment. Raises UsageError."""
    if getattr(found.arguments, "user_email", None) is not None:
        return {"user_email": found.utf8("user_email", "")}
    if getattr(found.arguments, "user_id", None) is not None:
        return {"user_email": None, "user_id": found.utf8("user_id", "")}
    given = [name for name in _USER if found.environment.get(name)]
    if len(given) > 1:
        raise UsageError("%s are set" % " and ".join(given), "set one of them")
    value = found.utf8("", given[0]) if given else None
    return {"user_id": value, "user_email": None} if given == ["MIGRATION_USER_ID"] else {"user_email": value}


_USER = ("MIGRATION_USER_EMAIL", "MIGRATION_USER", "MIGRATION_USER_ID")


def source_settings(arguments: argparse.Namespace) -> Settings:
    """The settings of a run that asks PostgreSQL and knows no table yet. Raises UsageError."""
    postgres, fallback = _postgres(_Lookup.of(arguments))
    nowhere = Path()
    return Settings(
        postgres=postgres,
        fallback_password=fallback,
        postgres_schema="public",
        user_email=None,
        sqlite_path=nowhere,
        schema_path=nowhere,
        data_dir=nowhere,
        backup_dir=nowhere,
        root=root(""),
        tables=(),
        excluded_tables=(),
    )


# our name, libpq's parameter, libpq's variable
_POSTGRES = (
    ("POSTGRES_HOST", "host", "PGHOST"),
    ("POSTGRES_PORT", "port", "PGPORT"),
    ("POSTGRES_DB", "dbname", "PGDATABASE"),
    ("POSTGRES_USER", "user", "PGUSER"),
    ("POSTGRES_PASSWORD", "password", "PGPASSWORD"),
)


def _postgres(found: _Lookup) -> Tuple[Dict[str, str], Optional[str]]:
    """libpq's parameters, and config.py's password to use if libpq finds none of its own."""
    url = found.utf8("postgres_url", "POSTGRES_URL")
    named = {
        name: found.environment[variable]
        for variable, name, _ in _POSTGRES
        if found.environment.get(variable)
    }
    if url:
        return _over(named, url, found), None
    for variable, name, _ in _POSTGRES:
        _refuse_url(variable, named.get(name))
    if _is_of_kubernetes("POSTGRES_PORT", os.environ.get("POSTGRES_PORT", "")):
        log.warning("POSTGRES_PORT is what Kubernetes makes it for a service called postgres: it is not used")
    if "PGSERVICE" in os.environ:
        return named, None
    for variable, name, libpq in _POSTGRES:
        if name not in named and name != "password":
            if libpq in os.environ:
                named[name] = os.environ[libpq]
            elif getattr(found.config, variable) is not None:
                named[name] = str(getattr(found.config, variable))
    fallback = (
        None if "password" in named or "PGPASSWORD" in os.environ else str(found.config.POSTGRES_PASSWORD)
    )
    return named, fallback


def _over(named: Mapping[str, str], url: str, found: _Lookup) -> Dict[str, str]:
    """The URL's parameters. If the URL is in ``.env``, parts set in the environment replace its parts one by one."""
    from migration.cli import process_list
    from migration.postgres import parameters

    process_list.hide(url)
    given = parameters.parameters(url)
    from_file = not getattr(found.arguments, "postgres_url", None) and not os.environ.get("POSTGRES_URL")
    for variable, name, _ in _POSTGRES if from_file else ():
        part = os.environ.get(variable)
        if part and part != given.get(name) and not _is_of_kubernetes(variable, part):
            _refuse_url(variable, part)
            given[name] = part
            if name == "host":
                given.pop("hostaddr", None)
            log.warning(
                "%s in the environment takes the place of that part of POSTGRES_URL in .env", variable
            )
    if "password" in named and "password" not in given:
        given["password"] = named["password"]
    return given


def _refuse_url(variable: str, value: Optional[str]) -> None:
    if variable != "POSTGRES_PASSWORD" and "://" in (value or ""):
        raise UsageError("%s holds a URL" % variable, "put it in POSTGRES_URL")


def log_settings(arguments: argparse.Namespace) -> Tuple[str, Optional[Path]]:
    """The log's level and file. Raises UsageError."""
    found = _Lookup.of(arguments)
    if arguments.verbose:
        level = "DEBUG"
    elif arguments.quiet:
        level = "WARNING"
    else:
        level = str(found.environment.get("LOG_LEVEL") or found.config.LOG_LEVEL or "").upper()
    if level not in LEVELS:
        raise UsageError("LOG_LEVEL is %r" % level, "one of " + ", ".join(LEVELS))
    file = found.given("log_file", "LOG_FILE") or found.config.path_of("LOG_FILE")
    return level, expanded(file) if file else None
