"""What an operator may change: where things are, who is migrated, and which tables.

Options and environment variables (also from a ``.env`` file beside this one) win over what stands here.
"""

from __future__ import annotations

from pathlib import Path

from migration.model import Table, child_of, owned_by, root, row_one, shared, the_root

BASE_DIR = Path(__file__).resolve().parent

# PostgreSQL. What is neither set in the environment nor by libpq's own means (PG* variables, service
# files) falls back to these; POSTGRES_PASSWORD only where ~/.pgpass has none.
POSTGRES_HOST = "localhost"
POSTGRES_PORT = "5432"
POSTGRES_DB = "theprogram_db"
POSTGRES_USER = "theprogram"
POSTGRES_PASSWORD = "theprogram"
POSTGRES_SCHEMA = "public"

# SQLite
SQLITE_PATH = BASE_DIR.parent / "app.db"
SCHEMA_PATH = BASE_DIR.parent / "schema_design" / "sqlite_schema.sql"
if not SCHEMA_PATH.exists():  # the suite stands alone, outside the application's tree
    SCHEMA_PATH = BASE_DIR / "schema_design" / "sqlite_schema.sql"

# The application's name, with which the names of its backups begin
APPLICATION = "theprogram"

# Folders
DATA_DIR = BASE_DIR / "migration_data"
BACKUP_DIR = BASE_DIR / "backups"
LOG_FILE = None  # for example BASE_DIR / "logs" / "migration.log"
LOG_LEVEL = "INFO"

# Who is migrated where neither --user-email nor MIGRATION_USER_EMAIL says so, e.g. "you@example.com".
DEFAULT_USER_EMAIL = ""

# Whose data it is: a row of this table, told apart by the key and called by the name on the command line.
ROOT = root("users", key="id", named_by="email")

COORDINATES = {"latitude": (-90.0, 90.0), "longitude": (-180.0, 180.0)}

# Every table of the user, parents before children. A new table needs one entry here and its CREATE TABLE
# in the SQLite schema; filters, order, conversions, counts and checks follow from these two.
# The user's own row and the preferences become row 1 of a table. The columns that are dropped have no place in a
# single-user database; the bundle's user_data.json keeps them.
TABLES = (
    Table(
        "users",
        the_root(),
        becomes=row_one("app_config", member="user"),
        dropped=(
            "email",
            "full_name",
            "business_name",
            "is_active",
            "is_verified",
            "is_superuser",
            "subscription_tier",
            "last_login",
        ),
    ),
    Table(
        "user_preferences",
        owned_by("user_id"),
        becomes=row_one("user_preferences", member="preferences"),
        json_types={"aspect_orbs": object, "displayed_points": object},
    ),
    Table("clients", owned_by("user_id")),
    Table("birth_data", child_of("clients", "client_id"), ranges=COORDINATES),
    Table("charts", owned_by("user_id"), json_types={"calculation_params": object, "chart_data": object}),
    Table("chart_interpretations", child_of("charts", "chart_id")),
    Table("interpretations", owned_by("user_id", or_shared=True)),
    Table("aspect_patterns", child_of("charts", "chart_id"), json_types={"planets_involved": list}),
    Table("transit_events", child_of("charts", "chart_id")),
    Table("session_notes", owned_by("user_id")),
    Table("location_cache", shared(), ranges=COORDINATES),
)

# Every other table of the database, by name ("schema.table" outside POSTGRES_SCHEMA, "schema.*" for a whole schema).
# What is in none of these three lists stops the export.
EXCLUDED_TABLES = ()  # the user's, left behind on purpose: "login_sessions"
UNRELATED_TABLES = ("alembic_version",)  # nobody's: no data of users
