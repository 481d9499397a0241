-- Single-user SQLite schema. Safe to run again: every statement leaves what exists alone.
-- Timestamps are ISO 8601 text in UTC, with a T, in defaults and triggers as in migrated rows: they sort as one.
-- Booleans are 0 or 1, JSON is text.

PRAGMA journal_mode = WAL;
PRAGMA foreign_keys = ON;

CREATE TABLE IF NOT EXISTS app_config (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    password_hash TEXT,
    app_version TEXT NOT NULL DEFAULT '1.0.0',
    database_version INTEGER NOT NULL DEFAULT 1,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now'))
);

CREATE TABLE IF NOT EXISTS user_preferences (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    default_house_system TEXT NOT NULL DEFAULT 'placidus',
    default_ayanamsa TEXT NOT NULL DEFAULT 'lahiri',
    default_zodiac TEXT NOT NULL DEFAULT 'tropical',
    aspect_orbs TEXT,
    color_scheme TEXT NOT NULL DEFAULT 'light',
    displayed_points TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now'))
);

CREATE TABLE IF NOT EXISTS clients (
    id TEXT PRIMARY KEY NOT NULL,
    first_name TEXT,
    last_name TEXT,
    email TEXT,
    phone TEXT,
    notes TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now'))
);

CREATE TABLE IF NOT EXISTS birth_data (
    id TEXT PRIMARY KEY NOT NULL,
    client_id TEXT NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    birth_date TEXT NOT NULL,
    birth_time TEXT,
    time_unknown INTEGER NOT NULL DEFAULT 0,
    latitude REAL NOT NULL,
    longitude REAL NOT NULL,
    timezone TEXT NOT NULL,
    utc_offset INTEGER,  -- minutes
    city TEXT,
    state_province TEXT,
    country TEXT,
    rodden_rating TEXT,
    gender TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now'))
);

CREATE TABLE IF NOT EXISTS charts (
    id TEXT PRIMARY KEY NOT NULL,
    client_id TEXT REFERENCES clients (id) ON DELETE CASCADE,
    birth_data_id TEXT NOT NULL REFERENCES birth_data (id) ON DELETE CASCADE,
    chart_name TEXT,
    chart_type TEXT NOT NULL,
    astro_system TEXT NOT NULL,
    house_system TEXT,
    ayanamsa TEXT,
    zodiac_type TEXT NOT NULL DEFAULT 'tropical',
    calculation_params TEXT,
    chart_data TEXT NOT NULL,
    last_viewed TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now'))
);

CREATE TABLE IF NOT EXISTS chart_interpretations (
    id TEXT PRIMARY KEY NOT NULL,
    chart_id TEXT NOT NULL REFERENCES charts (id) ON DELETE CASCADE,
    element_type TEXT NOT NULL,
    element_key TEXT NOT NULL,
    ai_description TEXT NOT NULL,
    ai_model TEXT,
    ai_prompt_version TEXT,
    version INTEGER NOT NULL DEFAULT 1,
    is_approved TEXT DEFAULT 'pending',
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now'))
);

CREATE TABLE IF NOT EXISTS interpretations (
    id TEXT PRIMARY KEY NOT NULL,
    interpretation_type TEXT NOT NULL,
    key_identifier TEXT NOT NULL,
    tradition TEXT,
    text_content TEXT NOT NULL,
    source TEXT,
    is_user_custom INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now'))
);

CREATE TABLE IF NOT EXISTS aspect_patterns (
    id TEXT PRIMARY KEY NOT NULL,
    chart_id TEXT NOT NULL REFERENCES charts (id) ON DELETE CASCADE,
    pattern_type TEXT NOT NULL,
    planets_involved TEXT NOT NULL,  -- JSON list
    description TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now'))
);

CREATE TABLE IF NOT EXISTS transit_events (
    id TEXT PRIMARY KEY NOT NULL,
    chart_id TEXT NOT NULL REFERENCES charts (id) ON DELETE CASCADE,
    event_date TEXT NOT NULL,
    transiting_planet TEXT NOT NULL,
    natal_planet TEXT NOT NULL,
    aspect_type TEXT NOT NULL,
    orb REAL,
    is_applying INTEGER,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now'))
);

CREATE TABLE IF NOT EXISTS session_notes (
    id TEXT PRIMARY KEY NOT NULL,
    client_id TEXT NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    note_date TEXT NOT NULL,
    note_content TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now'))
);

CREATE TABLE IF NOT EXISTS location_cache (
    id TEXT PRIMARY KEY NOT NULL,
    city_name TEXT NOT NULL,
    state_province TEXT,
    country TEXT NOT NULL,
    latitude REAL NOT NULL,
    longitude REAL NOT NULL,
    timezone TEXT NOT NULL,
    geonames_id INTEGER UNIQUE,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now'))
);

CREATE INDEX IF NOT EXISTS idx_clients_last_name ON clients (last_name);
CREATE INDEX IF NOT EXISTS idx_clients_created_at ON clients (created_at);
CREATE INDEX IF NOT EXISTS idx_birth_data_client_id ON birth_data (client_id);
CREATE INDEX IF NOT EXISTS idx_birth_data_birth_date ON birth_data (birth_date);
CREATE INDEX IF NOT EXISTS idx_charts_client_id ON charts (client_id);
CREATE INDEX IF NOT EXISTS idx_charts_birth_data_id ON charts (birth_data_id);
CREATE INDEX IF NOT EXISTS idx_charts_chart_type ON charts (chart_type);
CREATE INDEX IF NOT EXISTS idx_charts_created_at ON charts (created_at);
CREATE INDEX IF NOT EXISTS idx_chart_interpretations_chart_id ON chart_interpretations (chart_id);
CREATE INDEX IF NOT EXISTS idx_chart_interpretations_element_type ON chart_interpretations (element_type);
CREATE INDEX IF NOT EXISTS idx_chart_interpretations_element
    ON chart_interpretations (chart_id, element_type, element_key);
CREATE INDEX IF NOT EXISTS idx_interpretations_interpretation_type ON interpretations (interpretation_type);
CREATE INDEX IF NOT EXISTS idx_interpretations_key_identifier ON interpretations (key_identifier);
CREATE INDEX IF NOT EXISTS idx_interpretations_type_key
    ON interpretations (interpretation_type, key_identifier);
CREATE INDEX IF NOT EXISTS idx_aspect_patterns_chart_id ON aspect_patterns (chart_id);
CREATE INDEX IF NOT EXISTS idx_aspect_patterns_pattern_type ON aspect_patterns (pattern_type);
CREATE INDEX IF NOT EXISTS idx_transit_events_chart_id ON transit_events (chart_id);
CREATE INDEX IF NOT EXISTS idx_transit_events_event_date ON transit_events (event_date);
CREATE INDEX IF NOT EXISTS idx_transit_events_chart_date ON transit_events (chart_id, event_date);
CREATE INDEX IF NOT EXISTS idx_session_notes_client_id ON session_notes (client_id);
CREATE INDEX IF NOT EXISTS idx_session_notes_note_date ON session_notes (note_date);
CREATE INDEX IF NOT EXISTS idx_location_cache_city_country ON location_cache (city_name, country);
CREATE INDEX IF NOT EXISTS idx_location_cache_geonames_id ON location_cache (geonames_id);

CREATE TRIGGER IF NOT EXISTS app_config_updated_at AFTER UPDATE ON app_config
BEGIN
    UPDATE app_config SET updated_at = strftime('%Y-%m-%dT%H:%M:%S', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER IF NOT EXISTS user_preferences_updated_at AFTER UPDATE ON user_preferences
BEGIN
    UPDATE user_preferences SET updated_at = strftime('%Y-%m-%dT%H:%M:%S', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER IF NOT EXISTS clients_updated_at AFTER UPDATE ON clients
BEGIN
    UPDATE clients SET updated_at = strftime('%Y-%m-%dT%H:%M:%S', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER IF NOT EXISTS birth_data_updated_at AFTER UPDATE ON birth_data
BEGIN
    UPDATE birth_data SET updated_at = strftime('%Y-%m-%dT%H:%M:%S', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER IF NOT EXISTS charts_updated_at AFTER UPDATE ON charts
BEGIN
    UPDATE charts SET updated_at = strftime('%Y-%m-%dT%H:%M:%S', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER IF NOT EXISTS chart_interpretations_updated_at AFTER UPDATE ON chart_interpretations
BEGIN
    UPDATE chart_interpretations SET updated_at = strftime('%Y-%m-%dT%H:%M:%S', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER IF NOT EXISTS interpretations_updated_at AFTER UPDATE ON interpretations
BEGIN
    UPDATE interpretations SET updated_at = strftime('%Y-%m-%dT%H:%M:%S', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER IF NOT EXISTS aspect_patterns_updated_at AFTER UPDATE ON aspect_patterns
BEGIN
    UPDATE aspect_patterns SET updated_at = strftime('%Y-%m-%dT%H:%M:%S', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER IF NOT EXISTS transit_events_updated_at AFTER UPDATE ON transit_events
BEGIN
    UPDATE transit_events SET updated_at = strftime('%Y-%m-%dT%H:%M:%S', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER IF NOT EXISTS session_notes_updated_at AFTER UPDATE ON session_notes
BEGIN
    UPDATE session_notes SET updated_at = strftime('%Y-%m-%dT%H:%M:%S', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER IF NOT EXISTS location_cache_updated_at AFTER UPDATE ON location_cache
BEGIN
    UPDATE location_cache SET updated_at = strftime('%Y-%m-%dT%H:%M:%S', 'now') WHERE id = NEW.id;
END;

-- Counted by subqueries: joining both tables would multiply the two counts.
CREATE VIEW IF NOT EXISTS client_summary AS
SELECT
    clients.id,
    clients.first_name,
    clients.last_name,
    clients.email,
    clients.phone,
    clients.notes,
    clients.created_at,
    clients.updated_at,
    (SELECT count(*) FROM birth_data WHERE birth_data.client_id = clients.id) AS birth_data_count,
    (SELECT count(*) FROM charts WHERE charts.client_id = clients.id) AS chart_count
FROM clients;

-- A chart need not have a client, so the client is an outer join.
CREATE VIEW IF NOT EXISTS recent_charts AS
SELECT
    charts.id,
    charts.chart_name,
    charts.chart_type,
    charts.astro_system,
    charts.created_at,
    charts.last_viewed,
    nullif(trim(coalesce(clients.first_name, '') || ' ' || coalesce(clients.last_name, '')), '') AS client_name,
    birth_data.birth_date,
    birth_data.city
FROM charts
LEFT JOIN clients ON clients.id = charts.client_id
JOIN birth_data ON birth_data.id = charts.birth_data_id
ORDER BY charts.created_at DESC;

INSERT OR IGNORE INTO app_config (id) VALUES (1);
INSERT OR IGNORE INTO user_preferences (id) VALUES (1);
