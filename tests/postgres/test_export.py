"""Phase 1: whose rows an export holds, in which form, from which moment, and what a failing one leaves behind."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import json
import os
import stat
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List

import psycopg2
import pytest

import config
from demo import sample
from demo.postgres import temp_postgres
from export_from_postgres import export
from migration.bundle.manifest import files_of
from migration.bundle.reading import open_bundle
from migration.errors import ExitCode, MigrationError
from migration.model import Table, child_of, owned_by, shared
from migration.postgres import connecting
from migration.settings import Settings
from support.bundles import during, table_files
from support.migrations import WHOLE, settings_of
from support.places import ANNA, BRUNO, CARLA, Place, contents, extended_schema
from support.servers import Database, Server, connections_become

FILES = {
    "user_data.json",
    "clients.json",
    "birth_data.json",
    "charts.json",
    "chart_interpretations.json",
    "interpretations.json",
    "aspect_patterns.json",
    "transit_events.json",
    "session_notes.json",
    "location_cache.json",
    "manifest.json",
}

# Whose rows are whose, said again and apart from the code under test.
OWNED = {
    "clients": "user_id = %(user)s",
    "birth_data": "client_id IN (SELECT id FROM clients WHERE user_id = %(user)s)",
    "charts": "user_id = %(user)s",
    "chart_interpretations": "chart_id IN (SELECT id FROM charts WHERE user_id = %(user)s)",
    "interpretations": "(user_id = %(user)s OR user_id IS NULL)",
    "aspect_patterns": "chart_id IN (SELECT id FROM charts WHERE user_id = %(user)s)",
    "transit_events": "chart_id IN (SELECT id FROM charts WHERE user_id = %(user)s)",
    "session_notes": "user_id = %(user)s",
    "location_cache": "true",
}


def read(folder: Path, table: str) -> List[Dict[str, Any]]:
    return json.loads((folder / (table + ".json")).read_text(encoding="utf-8"))


def manifest(folder: Path) -> Dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def ids(database: Database, table: str, condition: str, user: str) -> List[str]:
    sql = "SELECT id::text FROM %s WHERE %s ORDER BY id" % (table, condition)
    return [row[0] for row in database.rows(sql.replace("%(user)s", "'%s'" % user))]


def user_id(database: Database, email: str) -> str:
    return str(database.rows("SELECT id::text FROM users WHERE email = %s", email)[0][0])


# Whose rows


@pytest.mark.parametrize("email", [ANNA, BRUNO, CARLA, "dora@example.com"])
def test_export_holds_the_users_rows_and_no_others(
    sample_database: Database, place: Place, email: str
) -> None:
    export(settings_of(sample_database.url, place, email))
    user = user_id(sample_database, email)
    everything = b"".join(contents(place.data).values()).decode("utf-8")
    for table, condition in OWNED.items():
        assert [row["id"] for row in read(place.data, table)] == ids(
            sample_database, table, condition, user
        ), table
        for other in ids(sample_database, table, "NOT coalesce((%s), false)" % condition, user):
            assert other not in everything, table
    for other in ids(sample_database, "users", "id <> %(user)s", user):
        assert other not in everything
    assert email in everything
    assert not [other for other in (ANNA, BRUNO, CARLA) if other != email and other in everything]


def test_rows_for_everybody_are_included(sample_database: Database, place: Place) -> None:
    export(settings_of(sample_database.url, place))
    anna = user_id(sample_database, ANNA)
    owners = [row["user_id"] for row in read(place.data, "interpretations")]
    assert owners.count(None) == 24
    assert owners.count(anna) == 6
    assert len(owners) == 30
    assert len(read(place.data, "location_cache")) == 6


def test_user_data_holds_account_and_preferences(sample_database: Database, place: Place) -> None:
    export(settings_of(sample_database.url, place))
    user_data = json.loads((place.data / "user_data.json").read_text(encoding="utf-8"))
    assert list(user_data) == ["user", "preferences"]
    assert user_data["user"]["email"] == ANNA
    assert user_data["preferences"]["user_id"] == user_data["user"]["id"]
    assert manifest(place.data)["row_counts"]["user_preferences"] == 1


def test_user_without_preferences_has_null_there(sample_database: Database, place: Place) -> None:
    export(settings_of(sample_database.url, place, CARLA))
    assert json.loads((place.data / "user_data.json").read_text(encoding="utf-8"))["preferences"] is None
    assert manifest(place.data)["row_counts"]["user_preferences"] == 0


# Form


def test_records_are_in_key_order_one_a_line_with_the_source_columns(
    sample_database: Database, place: Place
) -> None:
    export(settings_of(sample_database.url, place))
    for table in OWNED:
        lines = (place.data / (table + ".json")).read_text(encoding="utf-8").split("\n")
        assert lines[0] == "[", table
        assert lines[-2:] == ["]", ""], table
        records = [json.loads(line.rstrip(",")) for line in lines[1:-2]]
        assert all(line.endswith(",") for line in lines[1:-3])
        keys = [uuid.UUID(record["id"]).bytes for record in records]
        assert keys == sorted(keys), table
        columns = sample_database.rows(
            "SELECT column_name::text FROM information_schema.columns WHERE table_name = %s ORDER BY ordinal_position",
            table,
        )
        for record in records:
            extra = set(record) - {name for (name,) in columns}
            assert [key for key in record if key not in extra] == [name for (name,) in columns]
            assert extra <= {"$json_null"}
    assert "user_id" in read(place.data, "clients")[0]


def test_manifest_says_what_is_there(sample_database: Database, place: Place) -> None:
    export(settings_of(sample_database.url, place))
    said = manifest(place.data)
    files = table_files(place.data)
    assert said["user_email"] == ANNA
    assert said["user_id"] == user_id(sample_database, ANNA)
    assert said["checksums"] == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert said["sizes"] == {name: len(data) for name, data in files.items()}
    for table in OWNED:
        assert said["row_counts"][table] == len(read(place.data, table))
    assert said["orphans_skipped"] == {}


def test_table_without_rows_is_an_empty_array(sample_database: Database, place: Place) -> None:
    export(settings_of(sample_database.url, place, "dora@example.com"))
    assert read(place.data, "clients") == []


@pytest.fixture(scope="module")
def other_server() -> Iterator[Database]:
    """The sample on the system's PostgreSQL, which is another version and sorts text as people do."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    if not found:
        pytest.skip("there is no PostgreSQL on this system besides the embedded one")
    with temp_postgres(bindir=found[-1]) as url:
        with contextlib.closing(psycopg2.connect(url)) as connection:
            sample.create_schema(connection)
            sample.fill(connection)
        yield Database(url)


def test_two_versions_of_postgresql_give_identical_files(
    sample_database: Database, other_server: Database, tmp_path: Path
) -> None:
    here, there = Place(tmp_path / "1"), Place(tmp_path / "2")
    export(settings_of(sample_database.url, here))
    export(settings_of(other_server.url, there))
    assert table_files(here.data) == table_files(there.data)


def test_text_keys_are_ordered_by_bytes(other_server: Database, place: Place, tmp_path: Path) -> None:
    other_server.execute(
        'CREATE TABLE labels (id text COLLATE "und-x-icu" PRIMARY KEY, user_id uuid REFERENCES users)'
    )
    words = ["a", "B", "c", "D", "ä", "Z", "_"]
    for word in words:
        other_server.execute("INSERT INTO labels SELECT %s, id FROM users WHERE email = %s", word, ANNA)
    assert [row[0] for row in other_server.rows("SELECT id FROM labels ORDER BY id")] != sorted(words)
    schema = extended_schema(tmp_path, "CREATE TABLE labels (id TEXT PRIMARY KEY);")
    tables = (*config.TABLES, Table("labels", owned_by("user_id")))
    export(settings_of(other_server.url, place, tables=tables, schema_path=schema))
    assert [row["id"] for row in read(place.data, "labels")] == sorted(words)
    other_server.execute("DROP TABLE labels")


def test_sql_null_and_json_null_stay_apart(database: Database, place: Place) -> None:
    anna = user_id(database, ANNA)
    chart_ids = ids(database, "charts", OWNED["charts"], anna)
    database.execute("UPDATE charts SET calculation_params = NULL")
    database.execute("UPDATE charts SET calculation_params = 'null' WHERE id = %s", chart_ids[0])
    database.execute("UPDATE user_preferences SET aspect_orbs = 'null', displayed_points = NULL")
    export(settings_of(database.url, place))
    first, *others = read(place.data, "charts")
    assert first["calculation_params"] is None
    assert first["$json_null"] == ["calculation_params"]
    assert all(row["calculation_params"] is None and "$json_null" not in row for row in others)
    preferences = json.loads((place.data / "user_data.json").read_text(encoding="utf-8"))["preferences"]
    assert preferences["$json_null"] == ["aspect_orbs"]


def test_types_of_other_deployments_are_exported(database: Database, place: Place) -> None:
    database.execute(
        """
        CREATE EXTENSION citext; CREATE EXTENSION hstore;
        CREATE TYPE mood AS ENUM ('calm', 'tense'); CREATE DOMAIN stars AS int CHECK (VALUE > 0);
        CREATE DOMAIN tag AS text; CREATE TYPE pair AS (a int, b text);
        ALTER TABLE clients ADD mood mood DEFAULT 'tense', ADD stars stars DEFAULT 3, ADD tag tag DEFAULT 'x y',
            ADD handle citext DEFAULT 'MiXed', ADD tags text[] DEFAULT '{a,"b, c",NULL}',
            ADD grid int[] DEFAULT '{{1,2},{3,4}}', ADD pair pair DEFAULT (1, 'q"'), ADD more hstore DEFAULT 'k=>v',
            ADD tagged tag[] DEFAULT '{z}'
        """
    )
    added = ("mood", "stars", "tag", "handle", "tags", "grid", "pair", "more", "tagged")
    tables = (Table("clients", owned_by("user_id"), dropped=added), *WHOLE[1:])
    export(settings_of(database.url, place, tables=tables))
    row = read(place.data, "clients")[0]
    assert {name: row[name] for name in added} == {
        "mood": "tense",
        "stars": 3,
        "tag": "x y",
        "handle": "MiXed",
        "tags": ["a", "b, c", None],
        "grid": [[1, 2], [3, 4]],
        "pair": {"a": 1, "b": 'q"'},
        "more": {"k": "v"},
        "tagged": ["z"],
    }


# Always the same bytes


def test_two_exports_are_identical(sample_database: Database, tmp_path: Path) -> None:
    first, second = Place(tmp_path / "1"), Place(tmp_path / "2")
    export(settings_of(sample_database.url, first))
    export(settings_of(sample_database.url, second))
    assert table_files(first.data) == table_files(second.data)


HOSTILE = {
    "DateStyle": "'SQL, DMY'",
    "IntervalStyle": "sql_standard",
    "TimeZone": "'Asia/Kathmandu'",
    "bytea_output": "escape",
    "extra_float_digits": "-3",
    "client_encoding": "LATIN1",
    "search_path": "decoy, pg_catalog, public",
    "default_transaction_isolation": "'read uncommitted'",
    "default_transaction_read_only": "off",
    "standard_conforming_strings": "off",
    "quote_all_identifiers": "on",
    "xmlbinary": "hex",
    "enable_seqscan": "off",
    "enable_sort": "off",
    "array_nulls": "off",
    "synchronize_seqscans": "on",
}


@pytest.fixture()
def varied(database: Database) -> Iterator[Database]:
    """The sample with a column of each type whose text depends on settings, and a read-only role."""
    role = "reader_" + database.url.split("/test_")[1].split("?")[0]
    database.execute(
        """
        ALTER TABLE clients ADD span interval DEFAULT '1 year 2 mons -3 days 04:05:06.7',
            ADD moment timestamptz DEFAULT '2025-06-01 12:00:00+02', ADD ratio float8 DEFAULT 0.1::float8 + 0.2,
            ADD small float4 DEFAULT 0.1::float4 * 3, ADD raw bytea DEFAULT '\\x00ff41',
            ADD clock timetz DEFAULT '10:00:00+05:45',
            ADD days daterange DEFAULT '[2025-01-02,2025-02-03)', ADD moments timestamptz[]
            DEFAULT ARRAY['2025-06-01 12:00:00+02'::timestamptz];
        """
    )
    database.execute("CREATE ROLE %s LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO %s" % (role, role))
    yield Database(database.url.replace("postgres@", role + "@"))
    database.execute("DROP OWNED BY %s; DROP ROLE %s" % (role, role))


VARIED = (
    Table(
        "clients",
        owned_by("user_id"),
        dropped=("span", "moment", "ratio", "small", "raw", "clock", "days", "moments"),
    ),
    *WHOLE[1:],
)


def test_settings_of_server_role_and_environment_change_no_byte(
    database: Database, varied: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, by_role, by_environment = Place(tmp_path / "1"), Place(tmp_path / "2"), Place(tmp_path / "3")
    export(settings_of(varied.url, plain, tables=VARIED))
    reader = varied.url.split("//")[1].split("@")[0]
    name = varied.url.split("@/")[1].split("?")[0]
    database.execute("CREATE SCHEMA decoy; GRANT USAGE ON SCHEMA decoy TO PUBLIC")
    for table in (*OWNED, "users", "user_preferences"):
        database.execute("CREATE TABLE decoy.%s (LIKE public.%s)" % (table, table))
    database.execute(
        "CREATE FUNCTION decoy.row_to_json(public.clients) RETURNS json LANGUAGE sql AS $$ SELECT '{}'::json $$;"
        "CREATE FUNCTION decoy.never(uuid, uuid) RETURNS boolean LANGUAGE sql AS $$ SELECT false $$;"
        "CREATE OPERATOR decoy.= (LEFTARG = uuid, RIGHTARG = uuid, PROCEDURE = decoy.never);"
        "CREATE FUNCTION decoy.lower(text) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$"
    )
    tables = [table.name for table in config.TABLES]
    excluded = tuple("decoy." + table for table in tables)
    for number, (setting, value) in enumerate(HOSTILE.items()):
        whom = "DATABASE " + name if number % 2 else "ROLE %s IN DATABASE %s" % (reader, name)
        database.execute("ALTER %s SET %s = %s" % (whom, setting, value))
    assert varied.rows("SHOW IntervalStyle") == [("sql_standard",)]
    export(settings_of(varied.url, by_role, tables=VARIED, excluded_tables=excluded))
    assert table_files(by_role.data) == table_files(plain.data)

    database.execute(
        "ALTER DATABASE %s RESET ALL; ALTER ROLE %s IN DATABASE %s RESET ALL" % (name, reader, name)
    )
    for variable, value in {
        "PGOPTIONS": "-c IntervalStyle=postgres_verbose -c bytea_output=escape -c extra_float_digits=0 -c search_path=decoy",
        "PGDATESTYLE": "German",
        "PGTZ": "America/New_York",
        "PGCLIENTENCODING": "SQL_ASCII",
        "TZ": "Pacific/Apia",
    }.items():
        monkeypatch.setenv(variable, value)
    export(settings_of(varied.url, by_environment, tables=VARIED, excluded_tables=excluded))
    assert table_files(by_environment.data) == table_files(plain.data)


def test_timeouts_of_the_database_do_not_stop_a_long_export(database: Database, place: Place) -> None:
    database.execute("UPDATE location_cache SET timezone = 'x'")
    database.execute("ALTER TABLE location_cache ALTER timezone TYPE text")
    database.execute(
        "UPDATE location_cache SET timezone = repeat('day \" ', 6000000) WHERE city_name = 'Suva'"
    )
    name = database.url.split("@/")[1].split("?")[0]
    timeouts = "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"
    database.execute("".join("ALTER DATABASE %s SET %s = '60ms';" % (name, each) for each in timeouts))
    with pytest.raises(psycopg2.errors.QueryCanceled):
        database.rows("SELECT length(row_to_json(t)::text) FROM location_cache t")
    export(settings_of(database.url, place))
    assert len(read(place.data, "location_cache")) == 6


# One moment


def test_changes_made_during_the_export_do_not_appear(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, meanwhile, after = (Place(tmp_path / name) for name in ("before", "meanwhile", "after"))
    export(settings_of(database.url, before))
    anna, bruno = user_id(database, ANNA), user_id(database, BRUNO)
    clients = ids(database, "clients", OWNED["clients"], anna)

    def write() -> None:
        database.execute("DELETE FROM clients WHERE id = %s", clients[0])
        database.execute("UPDATE clients SET user_id = %s WHERE id = %s", bruno, clients[1])
        database.execute("UPDATE charts SET chart_name = 'changed'")
        for table in ("birth_data", "session_notes"):
            columns = [
                name
                for (name,) in database.rows(
                    "SELECT column_name::text FROM information_schema.columns WHERE table_name = %s AND column_name NOT IN ('id')",
                    table,
                )
            ]
            database.execute(
                "INSERT INTO {0} (id, {1}) SELECT md5(random()::text)::uuid, {1} FROM {0}".format(
                    table, ", ".join(columns)
                )
            )

    acted = during("clients", write, monkeypatch)
    export(settings_of(database.url, meanwhile))
    assert acted
    assert table_files(meanwhile.data) == table_files(before.data)
    assert manifest(meanwhile.data)["row_counts"] == manifest(before.data)["row_counts"]
    # the moved client's charts and notes are now orphans: look without them
    export(settings_of(database.url, after, skip_orphans=True))
    assert clients[0] not in (after.data / "clients.json").read_text(encoding="utf-8")


def test_transaction_is_one_read_only_snapshot(database: Database, place: Place) -> None:
    with connecting.snapshot(settings_of(database.url, place)) as db:
        assert db.value("SHOW transaction_read_only") == "on"
        assert db.value("SHOW transaction_isolation") == "repeatable read"
    with pytest.raises(MigrationError, match="read-only transaction") as caught, connecting.snapshot(
        settings_of(database.url, place)
    ) as db:
        db.rows("DELETE FROM public.clients RETURNING id")
    assert caught.value.exit_code == ExitCode.SOURCE
    assert database.rows("SELECT count(*) > 0 FROM clients") == [(True,)]


def test_shared_snapshot_shows_its_moment_and_ends_with_its_holder(database: Database, place: Place) -> None:
    settings = settings_of(database.url, place)
    with connecting.snapshot(settings) as holder:
        shared = holder.share()
        before = holder.value("SELECT count(*) FROM public.clients")
        database.execute("DELETE FROM clients")
        with connecting.snapshot(settings, shared) as db:
            assert db.value("SELECT count(*) FROM public.clients") == before > 0
            assert db.value("SHOW transaction_read_only") == "on"
    assert connections_become(0, database)
    gone = pytest.raises(MigrationError, match="the shared snapshot is gone")
    with gone as refused, connecting.snapshot(settings, shared):
        pass
    assert refused.value.exit_code == ExitCode.SOURCE


# On disk


def test_bundle_is_eleven_files_for_its_owner_alone(sample_database: Database, place: Place) -> None:
    old = os.umask(0)
    try:
        export(settings_of(sample_database.url, place))
    finally:
        os.umask(old)
    assert {path.name for path in place.data.iterdir()} == FILES
    assert stat.S_IMODE(place.data.stat().st_mode) == 0o700
    for name in FILES:
        assert stat.S_IMODE((place.data / name).stat().st_mode) == 0o600, name


def test_open_folder_of_before_is_closed_to_others(sample_database: Database, place: Place) -> None:
    place.data.mkdir(mode=0o755)
    place.data.chmod(0o777)
    export(settings_of(sample_database.url, place))
    assert stat.S_IMODE(place.data.stat().st_mode) == 0o700


@pytest.mark.parametrize("table", ["clients", "session_notes"])
def test_lost_connection_leaves_the_old_bundle(
    database: Database, place: Place, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    export(settings_of(database.url, place, CARLA))
    old = contents(place.data)
    acted = during(
        table,
        lambda: database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'theprogram_migration' AND datname = current_database()"
        ),
        monkeypatch,
    )
    with pytest.raises(MigrationError) as caught:
        export(settings_of(database.url, place))
    assert acted
    assert caught.value.exit_code == ExitCode.SOURCE
    assert "lost the connection" in caught.value.message
    assert contents(place.data) == old
    assert sorted(path.name for path in place.data.iterdir()) == sorted(FILES)


def test_full_disk_leaves_the_old_bundle(
    sample_database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(settings_of(sample_database.url, place, CARLA))
    old = contents(place.data)

    def full() -> None:
        raise OSError(28, "No space left on device")

    acted = during("charts", full, monkeypatch)
    with pytest.raises(MigrationError, match="No space left") as caught:
        export(settings_of(sample_database.url, place))
    assert acted
    assert caught.value.exit_code == ExitCode.BUNDLE
    assert contents(place.data) == old


def test_staging_folder_of_a_killed_run_is_removed(sample_database: Database, place: Place) -> None:
    (place.data / ".staging" / "deeper").mkdir(parents=True)
    (place.data / ".staging" / "clients.json").write_bytes(b"[\n")
    export(settings_of(sample_database.url, place))
    assert {path.name for path in place.data.iterdir()} == FILES


@pytest.mark.parametrize("moved", range(12))
def test_publication_that_was_killed_is_ended_by_the_next_run(
    sample_database: Database, tmp_path: Path, moved: int
) -> None:
    old, new = Place(tmp_path / "old"), Place(tmp_path / "new")
    export(settings_of(sample_database.url, old, CARLA))
    export(settings_of(sample_database.url, new, BRUNO))
    expected = contents(new.data)
    # the state that a kill leaves after this many files
    (old.data / ".complete").mkdir()
    for number, name in enumerate(sorted(FILES, key=lambda name: name == "manifest.json")):
        where = old.data if number < moved else old.data / ".complete"
        os.replace(str(new.data / name), str(where / name))
    with open_bundle(old.data, files_of(WHOLE)) as read_back:
        assert read_back.manifest.user_email == BRUNO
    assert contents(old.data) == expected


# Refusals


def test_row_level_security_that_hides_rows_stops_the_export(
    database: Database, varied: Database, place: Place
) -> None:
    database.execute(
        "ALTER TABLE session_notes ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY those ON session_notes FOR SELECT USING (note_content IS NOT NULL)"
    )
    with pytest.raises(MigrationError, match="row-level security") as caught:
        export(settings_of(varied.url, place, tables=VARIED))
    assert caught.value.exit_code == ExitCode.SOURCE
    assert "session_notes" in caught.value.message
    assert not (place.data / "manifest.json").exists()


def test_select_is_all_the_permission_it_takes(varied: Database, place: Place) -> None:
    assert varied.rows("SELECT has_table_privilege('clients', 'UPDATE')") == [(False,)]
    export(settings_of(varied.url, place, tables=VARIED))
    assert manifest(place.data)["row_counts"]["clients"] == 12


def without_unique(database: Database, table: str) -> None:
    constraints = "SELECT conname::text FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'u'"
    for (name,) in database.rows(constraints, table):
        database.execute("ALTER TABLE %s DROP CONSTRAINT %s" % (table, name))
    indexes = (
        "SELECT indexrelid::regclass::text FROM pg_index"
        " WHERE indrelid = %s::regclass AND indisunique AND NOT indisprimary"
    )
    for (name,) in database.rows(indexes, table):
        database.execute("DROP INDEX " + name)


def test_two_users_of_one_address_are_refused(database: Database, place: Place) -> None:
    without_unique(database, "users")
    database.execute("UPDATE users SET email = %s WHERE email = %s", ANNA, BRUNO)
    with pytest.raises(MigrationError, match="2 users are called") as caught:
        export(settings_of(database.url, place))
    assert caught.value.exit_code == ExitCode.SOURCE


def test_two_rows_of_preferences_are_refused(database: Database, place: Place) -> None:
    without_unique(database, "user_preferences")
    database.execute(
        "CREATE TEMP TABLE doubled AS SELECT * FROM user_preferences; UPDATE doubled SET id = md5(random()::text)::uuid;"
        "INSERT INTO user_preferences SELECT * FROM doubled"
    )
    with pytest.raises(MigrationError, match="the user has 2 rows in user_preferences") as caught:
        export(settings_of(database.url, place))
    assert caught.value.exit_code == ExitCode.SOURCE


def with_folders(database: Database, place: Place) -> Settings:
    """Sheets lie in folders, which they name by another column than the primary key."""
    database.execute(
        "CREATE TABLE folders (id int PRIMARY KEY, code int UNIQUE, user_id uuid REFERENCES users);"
        "CREATE TABLE sheets (id int PRIMARY KEY, folder int REFERENCES folders (code))"
    )
    schema = extended_schema(
        place.folder,
        "CREATE TABLE folders (id INTEGER PRIMARY KEY, code INTEGER UNIQUE);"
        "CREATE TABLE sheets (id INTEGER PRIMARY KEY, folder INTEGER REFERENCES folders (code));",
    )
    tables = (
        *config.TABLES,
        Table("folders", owned_by("user_id")),
        Table("sheets", child_of("folders", "folder")),
    )
    return settings_of(database.url, place, schema_path=schema, tables=tables)


def test_rows_that_name_their_parent_by_another_key_are_exported(database: Database, place: Place) -> None:
    settings = with_folders(database, place)
    database.execute("INSERT INTO folders SELECT 1, 7, id FROM users WHERE email = %s", ANNA)
    database.execute("INSERT INTO folders SELECT 7, 8, id FROM users WHERE email = %s", BRUNO)
    database.execute("INSERT INTO sheets VALUES (1, 7), (2, 8)")
    export(settings)
    assert [sheet["id"] for sheet in read(settings.data_dir, "sheets")] == [1]


def test_orphan_is_found_beside_a_parent_whose_key_is_null(database: Database, place: Place) -> None:
    settings = with_folders(database, place)
    settings = dataclasses.replace(settings, tables=(*settings.tables[:-1], Table("sheets", shared())))
    database.execute("INSERT INTO folders SELECT 1, NULL, id FROM users WHERE email = %s", ANNA)
    database.execute("INSERT INTO folders SELECT 2, 8, id FROM users WHERE email = %s", BRUNO)
    database.execute("INSERT INTO sheets VALUES (2, 8)")
    with pytest.raises(MigrationError, match="refer to rows that are not exported"):
        export(settings)


def test_text_that_is_not_utf8_in_a_database_without_encoding_is_refused(
    server: Server, place: Place
) -> None:
    with server.new_database(
        "TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
    ) as database:
        with contextlib.closing(psycopg2.connect(database.url)) as connection:
            connection.set_client_encoding("UTF8")
            sample.create_schema(connection)
            sample.fill(connection)
            connection.commit()
        settings = settings_of(database.url, place)
        export(settings)
        before = contents(place.data)
        database.execute(r"UPDATE clients SET first_name = E'\xff'")
        with pytest.raises(MigrationError, match="UTF-?8") as caught:
            export(settings)
        assert caught.value.exit_code == ExitCode.SOURCE
        assert contents(place.data) == before
