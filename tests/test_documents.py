"""What README and mapping say is what the programs do: options, messages, exit codes, files, columns."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable
from urllib.parse import quote

import pytest

import config
from migration import lock, model
from migration.bundle.manifest import MANIFEST, Manifest
from migration.cli.options import EXIT_CODES
from migration.errors import BundleError, ExitCode
from migration.well_formed import require_well_formed
from support.places import ANNA, BRUNO, SCHEMA, SUITE, Place
from support.runs import IMPATIENT, Result, Run
from support.servers import Database, Guarded, Server

README = (SUITE / "README.md").read_text(encoding="utf-8")
CLUSTER = (SUITE / "CLUSTER.md").read_text(encoding="utf-8")
MAPPING = (SUITE / "schema_design" / "migration_mapping.md").read_text(encoding="utf-8")
TROUBLESHOOTING = (SUITE / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ARCHITECTURE = (SUITE / "ARCHITECTURE.md").read_text(encoding="utf-8")
DOCUMENTS = (
    "README.md",
    "ARCHITECTURE.md",
    "CLUSTER.md",
    "CHANGELOG.md",
    "docs/decisions.md",
    "docs/other-applications.md",
    "docs/troubleshooting.md",
    "schema_design/migration_mapping.md",
)
SCRIPTS = (
    "discover.py",  # first: its --user is another
    "migrate.py",
    "migrate_all_users.py",
    "export_from_postgres.py",
    "import_to_sqlite.py",
    "validate_migration.py",
)


def section(text: str, title: str) -> str:
    """The text under a heading, up to the next heading of the same depth or above."""
    heading = re.search(r"^(#+) %s\n" % re.escape(title), text, re.M)
    assert heading, "no section %r" % title
    rest = text[heading.end() :]
    after = re.search(r"^#{2,%d} " % len(heading[1]), rest, re.M)
    return rest[: after.start()] if after else rest


def cells(text: str) -> list[list[str]]:
    """The rows of the tables in a text, without their heads."""
    rows = []
    lines = text.splitlines()
    for above, line in zip([""] + lines, lines):
        if line.startswith("|") and not line.startswith("|--") and above.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# Options and environment


class Option:
    """One option of a parser's help: its environment variables and its default as the help words it."""

    def __init__(self, text: str) -> None:
        self.name = text.split()[0].rstrip(",")
        inside = " ".join(re.findall(r"\(([^()]*)\)", text))
        self.variables: list[str] = []
        for word in re.findall(r"(?<![\w.])[A-Z]*_[A-Z_]+\b", inside):
            self.variables.append("POSTGRES" + word if word.startswith("_") else word)
        default = re.search(r"default: (.*)", inside)
        self.default = default[1] if default else None


def help_of(script: str) -> dict[str, Option]:
    done = subprocess.run(
        [sys.executable, str(SUITE / script), "--help"],
        capture_output=True,
        env={**os.environ, "COLUMNS": "1000"},
    )
    body = done.stdout.decode("utf-8").partition("\n\nexit codes:\n")[0]
    found = [Option(line) for line in re.findall(r"^  (-.*)$", body, re.M)]
    return {option.name: option for option in found if option.name != "-h"}


@pytest.fixture(scope="module")
def helps() -> dict[str, dict[str, Option]]:
    return {script: help_of(script) for script in SCRIPTS}


COMMANDS = [
    (match[1], match[2].split("  #")[0].split("`")[0].strip())
    for match in re.finditer(r"python (\w+\.py)([^\n`]*)", README + CLUSTER)
]


@pytest.mark.parametrize(("script", "words"), COMMANDS)
def test_command_in_readme_has_these_options(
    script: str, words: str, helps: dict[str, dict[str, Option]]
) -> None:
    used = [word for word in shlex.split(words) if word.startswith("--")]
    assert [name for name in used if name not in helps[script]] == []


def test_readme_shows_each_script() -> None:
    assert {script for script, _ in COMMANDS} == set(SCRIPTS)


def test_configuration_table_has_each_option_with_a_variable_as_the_help_says_it(
    helps: dict[str, dict[str, Option]],
) -> None:
    known: dict[str, Option] = {}
    for options in helps.values():
        known.update(options)
    shown: dict[str, tuple[list[str], str]] = {}
    for names, environment, default in cells(section(README, "Configuration")):
        for name in code(names):
            shown[name.split()[0]] = (code(environment), default.replace("`", ""))
    assert set(shown) >= {name for name, option in known.items() if option.variables}
    for name, option in ((name, known[name]) for name in shown):
        assert sorted(shown[name][0]) == sorted(option.variables), name
        if option.default is not None:
            assert option.default in shown[name][1], name
    for value in (
        config.POSTGRES_HOST,
        config.POSTGRES_PORT,
        config.POSTGRES_DB,
        config.POSTGRES_USER,
        config.LOG_LEVEL,
    ):
        assert value in " ".join(default for _, default in shown.values())


def test_variables_are_those_of_the_example_file() -> None:
    example = (SUITE / ".env.example").read_text(encoding="utf-8")
    named = {variable for row in cells(section(README, "Configuration")) for variable in code(row[1])}
    assert named == set(re.findall(r"^#?([A-Z_]+)=", example, re.M))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake (\w+)`", README))))
def test_make_target_in_readme_is_there(target: str) -> None:
    assert re.search(r"^%s:" % target, (SUITE / "Makefile").read_text(encoding="utf-8"), re.M)


def test_readme_names_each_dependency() -> None:
    development = section(README, "Development")
    for file in (
        "requirements.txt",
        "requirements-cluster.txt",
        "requirements-discover.txt",
        "requirements-dev.txt",
    ):
        for name in re.findall(r"^([a-z][\w-]*)", (SUITE / file).read_text(encoding="utf-8"), re.M):
            assert "`%s`" % name in development, name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_inside_the_suite_lead_somewhere(document: str) -> None:
    path = SUITE / document
    for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), link


def test_each_file_that_the_architecture_names_is_there() -> None:
    named = re.findall(r"`([\w./-]+(?:\.\w+|/))`", ARCHITECTURE)
    assert len(named) > 20
    assert [name for name in named if not (SUITE / name).exists()] == []


# Other applications


def test_output_of_another_application_in_readme_is_the_demo_s() -> None:
    shown = re.search(r"```console\n(.*?)```", section(README, "Your own application"), re.S)
    assert shown
    done = subprocess.run(
        [sys.executable, "-m", "demo.reader"], cwd=str(SUITE), stdout=subprocess.PIPE, check=False
    )
    output = done.stdout.decode("utf-8")
    assert done.returncode == 0, output
    assert [line for line in shown[1].splitlines() if line not in output.splitlines()] == []


def test_vocabulary_in_the_documentation_is_well_formed() -> None:
    text = (SUITE / "docs" / "other-applications.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {**vars(model)}
    tables: list[Any] = []
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        for statement in ast.parse(block).body:
            if isinstance(statement, ast.Expr):
                tables.append(eval(compile(ast.Expression(statement.value), "", "eval"), names))
            else:
                exec(compile(ast.Module([statement], []), "", "exec"), names)
    assert {part.way for table in tables for part in table.ownership.parts} == set(model.Way)
    root = next(table for table in tables if table.ownership.is_root)
    for table in tables:
        if table is not root and table.ownership.way is not model.Way.UNDECIDED:
            require_well_formed((root, table), names["ROOT"])
    assert {reference.leaving for reference in names["REFERENCES"]} == {None, "cut"}


# Exit codes and files


def test_exit_code_table_is_the_programs() -> None:
    shown = {int(number): meaning for number, meaning in cells(section(README, "Exit codes"))}
    assert set(shown) == {int(exit_code) for exit_code in ExitCode}
    assert shown == {
        int(number): meaning for number, meaning in re.findall(r"^  (\d+) +(.+)$", EXIT_CODES, re.M)
    }


def test_bundle_files_are_all_listed() -> None:
    output = section(README, "Output")
    names = sorted({MANIFEST, *(table.file for table in config.TABLES)})
    assert len(names) == 11  # README: eleven files
    assert [name for name in names if "`%s`" % name not in output] == []


def test_report_keys_of_the_specification_are_listed() -> None:
    """The rest is the JSON Schema's, which tests/validation/test_validation.py holds reports against."""
    named = code(section(README, "Output"))
    for key in ("validation_results", "errors", "warnings", "overall_status"):
        assert key in named


def test_manifest_keys_are_all_listed() -> None:
    listed = [key for row in cells(section(MAPPING, "Bundle")) for key in code(row[0])]
    assert listed == [field.name for field in dataclasses.fields(Manifest)]


# The mapping


def test_each_source_column_is_mapped_with_its_types(sample_database: Database) -> None:
    target = sqlite3.connect(":memory:")
    target.executescript(Path(SCHEMA).read_text(encoding="utf-8"))
    tables = {
        match[1]: match[2]
        for match in re.finditer(r"^### `(\w+)`[^\n]*\n(.*?)(?=^#|\Z)", MAPPING, re.M | re.S)
    }
    source: dict[str, dict[str, tuple[str, bool]]] = {}
    for table, column, kind, not_null in sample_database.rows(
        "SELECT i.table_name, i.column_name, format_type(a.atttypid, a.atttypmod), a.attnotnull"
        " FROM information_schema.columns i JOIN pg_attribute a"
        " ON a.attrelid = i.table_name::regclass AND a.attname = i.column_name WHERE i.table_schema = 'public'"
    ):
        shown = kind.replace("character varying", "varchar").replace(" without time zone", "")
        source.setdefault(table, {})[column] = (shown, not_null)
    assert set(tables) == set(source)
    for declared in config.TABLES:
        name = declared.target
        places = {
            row[1]: "`%s`%s" % (row[2], " NOT NULL" if row[3] else "")
            for row in target.execute("PRAGMA table_info(%s)" % name)
        }
        rows = {code(row[0])[0]: row for row in cells(tables[declared.name])}
        assert set(rows) == set(source[declared.name]), declared.name
        for column, (kind, not_null) in source[declared.name].items():
            _, source_type, place, target_type, transformation = rows[column]
            assert source_type == "`%s`%s" % (kind, " NOT NULL" if not_null else ""), column
            if column in places and not (declared.becomes and column == "id"):
                assert (place, target_type) == ("`%s`" % column, places[column]), column
            else:
                assert column in (*declared.all_dropped, config.ROOT.key)
                assert (place, target_type) == ("–", "–"), column
                assert transformation.startswith("dropped") and ".json`" in transformation, column
    target.close()


# A role that may only read


def test_the_three_grants_are_enough(server: Server, database: Database, run: Run) -> None:
    grants = re.findall(r"^GRANT .*;$", section(README, "Configuration"), re.M)
    assert [grant.split()[1] for grant in grants] == ["CONNECT", "USAGE", "SELECT"]
    name = database.rows("SELECT current_database()")[0][0]
    server.execute("REVOKE CONNECT ON DATABASE %s FROM PUBLIC" % name)
    server.execute("CREATE ROLE migration_reader LOGIN")
    try:
        for grant in grants:
            database.execute(grant.replace("theprogram_db", name))
        url = re.sub(r"//[^@/]*@?", "//migration_reader@", database.url, count=1)
        run("migrate.py", "--user-email", ANNA, "--postgres-url", url, code=0)
    finally:
        database.execute("DROP OWNED BY migration_reader")
        server.execute("DROP ROLE migration_reader")


# Troubleshooting: every message quoted is one that the program prints


@pytest.fixture(scope="module")
def migrated(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a migrated user, for copies."""
    folder = tmp_path_factory.mktemp("migrated")
    options = ("--data-dir", folder / "data", "--sqlite-path", folder / "app.db", "--schema-path", SCHEMA)
    url = server.database_url("sample_template")
    words = ["--user-email", ANNA, "--postgres-url", url, "--skip-validation", *map(str, options)]
    done = subprocess.run([sys.executable, str(SUITE / "migrate.py"), *words], capture_output=True)
    assert done.returncode == 0, done.stderr
    return folder


class Scene:
    """What a situation needs, made when it is asked for."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.request = request
        self.run: Run = request.getfixturevalue("run")
        self.place: Place = request.getfixturevalue("place")

    @property
    def shared(self) -> str:
        return str(self.request.getfixturevalue("sample_database").url)

    @property
    def database(self) -> Database:
        own: Database = self.request.getfixturevalue("database")
        return own

    def permissions_count(self) -> None:
        """Skip where root cannot be kept from writing."""
        self.request.getfixturevalue("permissions_count")

    def migrated(self) -> None:
        folder: Path = self.request.getfixturevalue("migrated")
        shutil.copytree(str(folder / "data"), str(self.place.data))
        shutil.copyfile(str(folder / "app.db"), str(self.place.app))

    def export(self, url: str, *options: object) -> Result:
        words = ("--user-email", ANNA, "--postgres-url", url, *options)
        return self.run("export_from_postgres.py", *words)

    def changed_source(self, *statements: str) -> Result:
        own = self.database
        for statement in statements:
            own.execute(statement)
        return self.export(own.url)

    def changed_target(self, statement: str) -> Result:
        self.migrated()
        with contextlib.closing(sqlite3.connect(str(self.place.app))) as connection:
            connection.execute(statement)
            connection.commit()
        return self.run("validate_migration.py", "--offline")


def wrong_password(scene: Scene) -> Result:
    guarded: Guarded = scene.request.getfixturevalue("guarded")
    return scene.export(guarded.url("wrong"))


def no_permission(scene: Scene) -> Result:
    own = scene.database
    role = "reader_%d" % os.getpid()
    own.execute("CREATE ROLE %s LOGIN" % role)
    own.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO %s" % role)
    own.execute("REVOKE SELECT ON charts FROM %s" % role)
    try:
        return scene.export(re.sub(r"//[^@/]*@?", "//%s@" % role, own.url, count=1))
    finally:
        own.execute("DROP OWNED BY %s" % role)
        own.execute("DROP ROLE %s" % role)


def orphans(scene: Scene) -> Result:
    theirs = "(SELECT id FROM clients WHERE user_id = (SELECT id FROM users WHERE email = '%s') LIMIT 1)"
    mine = "(SELECT id FROM charts WHERE user_id = (SELECT id FROM users WHERE email = '%s') LIMIT 1)"
    return scene.changed_source("UPDATE charts SET client_id = %s WHERE id = %s" % (theirs % BRUNO, mine % ANNA))  # fmt: skip


def too_many_digits(scene: Scene) -> Result:
    own = scene.database
    own.execute("ALTER TABLE transit_events ALTER orb TYPE numeric")
    own.execute("UPDATE transit_events SET orb = 1.2345678901234567890123")
    assert scene.export(own.url).code == 0
    return scene.run("import_to_sqlite.py")


def damaged_file(scene: Scene) -> Result:
    scene.migrated()
    file = scene.place.data / "clients.json"
    file.write_bytes(file.read_bytes().replace(b"T", b"t", 1))
    return scene.run("import_to_sqlite.py")


def other_user(scene: Scene) -> Result:
    scene.migrated()
    return scene.run("import_to_sqlite.py", "--user-email", BRUNO)


def open_elsewhere(scene: Scene) -> Result:
    scene.migrated()
    with contextlib.closing(sqlite3.connect(str(scene.place.app))) as connection:
        connection.execute("BEGIN IMMEDIATE")
        return scene.run("import_to_sqlite.py", values=IMPATIENT)


def two_runs(scene: Scene) -> Result:
    scene.migrated()
    with lock.held(scene.place.data / ".lock", "the data folder", BundleError):
        return scene.run("import_to_sqlite.py")


def changed_since(scene: Scene) -> Result:
    scene.migrated()
    own = scene.database
    own.execute("DELETE FROM session_notes")
    return scene.run("validate_migration.py", "--postgres-url", own.url)


def another_users_row(scene: Scene) -> Result:
    ((row,),) = scene.database.rows(
        "SELECT min(c.id::text) FROM clients c JOIN users u ON u.id = user_id WHERE u.email = %s", BRUNO
    )
    scene.changed_target("INSERT INTO clients (id) VALUES ('%s')" % row)
    return scene.run("validate_migration.py", "--postgres-url", scene.shared)


def dangling(scene: Scene) -> Result:
    return scene.changed_target("DELETE FROM clients WHERE id = (SELECT client_id FROM birth_data LIMIT 1)")


def nowhere(scene: Scene) -> str:
    return "postgresql://theprogram@/theprogram_db?host=" + quote(str(scene.place.folder))


def read_only(scene: Scene) -> Result:
    scene.migrated()
    scene.permissions_count()
    scene.place.app.chmod(0o400)
    return scene.run("import_to_sqlite.py", ordinary=True)


def without_packages() -> Result:
    done = subprocess.run([sys.executable, "-S", str(SUITE / "migrate.py")], capture_output=True, text=True)
    return Result(done.returncode, done.stdout, done.stderr)


SITUATIONS: dict[str, Callable[[Scene], Result]] = {
    "user not found: …": lambda s: s.run(
        "export_from_postgres.py", "--user-email", "a@b", "--postgres-url", s.shared
    ),
    "cannot connect to PostgreSQL at …: nothing listens there": lambda s: s.export(nowhere(s)),
    "cannot connect to PostgreSQL at …: wrong user or password": wrong_password,
    'cannot connect to PostgreSQL at …: database "…" does not exist': lambda s: s.export(
        s.request.getfixturevalue("server").database_url("none")
    ),
    "no permission to read …": no_permission,
    "PostgreSQL has no table … in schema …": lambda s: s.changed_source("DROP TABLE location_cache"),
    "users' data that config does not account for: table …": lambda s: s.changed_source(
        "CREATE TABLE login_sessions (id int PRIMARY KEY, user_id uuid REFERENCES users)"
    ),
    "tables that config does not account for: …": lambda s: s.changed_source(
        "CREATE TABLE planets (id int PRIMARY KEY)"
    ),
    "rows that are not exported refer to rows of the user: …": lambda s: s.changed_source(
        "UPDATE charts SET client_id = (SELECT c.id FROM clients c JOIN users u ON u.id = c.user_id"
        " WHERE u.email = '%s' LIMIT 1) WHERE user_id = (SELECT id FROM users WHERE email = '%s')"
        % (ANNA, BRUNO)
    ),
    "cannot keep … (…): …": lambda s: s.changed_source(
        "ALTER TABLE clients ALTER notes TYPE oid USING lo_from_bytea(0, 'a picture')"
    ),
    "SQLite has no place for …": lambda s: s.changed_source("ALTER TABLE clients ADD nickname text"),
    "rows of the user refer to rows that are not exported: …": orphans,
    "… column …: SQLite cannot hold this value as it is: …": too_many_digits,
    "… not installed": lambda s: without_packages(),
    "schema file not found: …": lambda s: s.export(s.shared, "--schema-path", s.place.folder / "none.sql"),
    "no export bundle: …": lambda s: s.run("import_to_sqlite.py"),
    "… does not match its SHA256 checksum in the manifest": damaged_file,
    "the bundle in … belongs to …, not to …": other_user,
    "… is open in another program (database is locked)": open_elsewhere,
    "… is in use by another migration (process …)": two_runs,
    "… cannot be written: permission denied": read_only,
    "Difference: …": lambda s: s.changed_target("UPDATE session_notes SET note_content = 'x'"),
    "Row count mismatch in …: PG=…, SQLite=…": lambda s: s.changed_target("DELETE FROM session_notes"),
    "Foreign key violation: (…, …, …, …)": dangling,
    "Source has changed since the export of …: …": changed_since,
    "Isolation: …": another_users_row,
}

# Their text is in the source; other tests fill disks, wait for locks and change tables meanwhile.
IN_SOURCE = {
    "no space left for …": ("sqlite/errors.py", "no space left for %s"),
    "table … is locked, and was not free within …: …": (
        "postgres/explanations.py",
        "table %s is locked, and was not free within %s: %s",
    ),
    "the ledger … is damaged: …": ("fleet/sealed.py", "the ledger %s is damaged: %s"),
    "PostgreSQL at … has not answered for …": (
        "postgres/waits.py",
        "PostgreSQL at %s has not answered for %s",
    ),
    "stopped, as … waits to change table …": (
        "postgres/snapshot.py",
        "stopped, as %s waits to change table %s",
    ),
    "changed in PostgreSQL while it was read: table …": (
        "postgres/snapshot.py",
        "changed in PostgreSQL while it was read: table %s",
    ),
}

QUOTED = [code(row[0])[0] for row in cells(TROUBLESHOOTING)]


def test_each_quoted_message_is_tried() -> None:
    assert sorted(QUOTED) == sorted([*SITUATIONS, *IN_SOURCE])


# Of what each code stands for. Disks that are full or read-only, the report and backups: tests/test_disk_full.py; the
# output folder of many users: tests/fleet/test_all_users_places.py.
EXIT_CODES_OF = {
    "user not found: …": 3,
    "no permission to read …": 3,
    "schema file not found: …": 2,
    "no export bundle: …": 4,
    "… does not match its SHA256 checksum in the manifest": 4,
    "the bundle in … belongs to …, not to …": 4,
    "… is in use by another migration (process …)": 4,
    "… is open in another program (database is locked)": 5,
    "… cannot be written: permission denied": 5,
    "Difference: …": 1,
    "… not installed": 70,
}


@pytest.mark.parametrize("message", SITUATIONS)
def test_quoted_message_is_printed(message: str, request: pytest.FixtureRequest) -> None:
    done = SITUATIONS[message](Scene(request))
    pattern = ".+".join(re.escape(part) for part in message.split("…"))
    assert done.code == EXIT_CODES_OF.get(message, done.code) != 0
    assert re.search(r"^(error: |\d\d:\d\d:\d\d ERROR +)" + pattern, done.err, re.M), done.err


@pytest.mark.parametrize("message", IN_SOURCE)
def test_quoted_message_is_in_the_source(message: str) -> None:
    file, text = IN_SOURCE[message]
    assert text.replace("%s", "…") == message
    assert '"%s' % text in (SUITE / "migration" / file).read_text(encoding="utf-8")
