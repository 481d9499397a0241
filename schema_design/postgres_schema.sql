-- The multi-user source schema, for the demo and the tests; a real source brings its own.
-- Runs on PostgreSQL 12 and newer: ids have no default, because gen_random_uuid() without an extension
-- is there from version 13 on. Timestamps are written in UTC.

CREATE TABLE IF NOT EXISTS users (
    id uuid PRIMARY KEY,
    email varchar(255) NOT NULL UNIQUE,
    password_hash varchar(255) NOT NULL,
    full_name varchar(255),
    business_name varchar(255),
    is_active boolean NOT NULL,
    is_verified boolean NOT NULL,
    is_superuser boolean NOT NULL,
    subscription_tier varchar(50) NOT NULL,
    last_login timestamp,
    created_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    updated_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

CREATE TABLE IF NOT EXISTS user_preferences (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL UNIQUE REFERENCES users (id) ON DELETE CASCADE,
    default_house_system varchar(50) NOT NULL,
    default_ayanamsa varchar(50) NOT NULL,
    default_zodiac varchar(50) NOT NULL,
    aspect_orbs jsonb,
    color_scheme varchar(50) NOT NULL,
    displayed_points jsonb,
    updated_at timestamp
);

CREATE TABLE IF NOT EXISTS clients (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    first_name varchar(100),
    last_name varchar(100),
    email varchar(255),
    phone varchar(50),
    notes text,
    created_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    updated_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

CREATE TABLE IF NOT EXISTS birth_data (
    id uuid PRIMARY KEY,
    client_id uuid NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    birth_date date NOT NULL,
    birth_time time,
    time_unknown boolean NOT NULL,
    latitude numeric(10, 7) NOT NULL,
    longitude numeric(10, 7) NOT NULL,
    timezone varchar(100) NOT NULL,
    utc_offset integer,  -- minutes
    city varchar(255),
    state_province varchar(255),
    country varchar(100),
    rodden_rating varchar(2),
    gender varchar(20),
    created_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    updated_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

CREATE TABLE IF NOT EXISTS charts (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    client_id uuid REFERENCES clients (id) ON DELETE CASCADE,
    birth_data_id uuid NOT NULL REFERENCES birth_data (id) ON DELETE CASCADE,
    chart_name varchar(255),
    chart_type varchar(50) NOT NULL,
    astro_system varchar(50) NOT NULL,
    house_system varchar(50),
    ayanamsa varchar(50),
    zodiac_type varchar(50) NOT NULL,
    calculation_params jsonb,
    chart_data jsonb NOT NULL,
    last_viewed timestamp,
    created_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    updated_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

CREATE TABLE IF NOT EXISTS chart_interpretations (
    id uuid PRIMARY KEY,
    chart_id uuid NOT NULL REFERENCES charts (id) ON DELETE CASCADE,
    element_type varchar(50) NOT NULL,
    element_key varchar(255) NOT NULL,
    ai_description text NOT NULL,
    ai_model varchar(100),
    ai_prompt_version varchar(50),
    version integer NOT NULL,
    is_approved varchar(20),
    created_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    updated_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

CREATE TABLE IF NOT EXISTS interpretations (
    id uuid PRIMARY KEY,
    user_id uuid REFERENCES users (id) ON DELETE CASCADE,  -- NULL: a default for everybody
    interpretation_type varchar(100) NOT NULL,
    key_identifier varchar(255) NOT NULL,
    tradition varchar(50),
    text_content text NOT NULL,
    source varchar(255),
    is_user_custom boolean NOT NULL,
    created_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    updated_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

CREATE TABLE IF NOT EXISTS aspect_patterns (
    id uuid PRIMARY KEY,
    chart_id uuid NOT NULL REFERENCES charts (id) ON DELETE CASCADE,
    pattern_type varchar(50) NOT NULL,
    planets_involved jsonb NOT NULL,  -- a list
    description text,
    created_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    updated_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

CREATE TABLE IF NOT EXISTS transit_events (
    id uuid PRIMARY KEY,
    chart_id uuid NOT NULL REFERENCES charts (id) ON DELETE CASCADE,
    event_date timestamp NOT NULL,
    transiting_planet varchar(50) NOT NULL,
    natal_planet varchar(50) NOT NULL,
    aspect_type varchar(50) NOT NULL,
    orb numeric(5, 2),
    is_applying boolean,
    created_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    updated_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

CREATE TABLE IF NOT EXISTS session_notes (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    client_id uuid NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    note_date date NOT NULL,
    note_content text,
    created_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    updated_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

CREATE TABLE IF NOT EXISTS location_cache (
    id uuid PRIMARY KEY,
    city_name varchar(255) NOT NULL,
    state_province varchar(255),
    country varchar(100) NOT NULL,
    latitude numeric(10, 7) NOT NULL,
    longitude numeric(10, 7) NOT NULL,
    timezone varchar(100) NOT NULL,
    geonames_id integer UNIQUE,
    created_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    updated_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

-- PostgreSQL indexes primary keys and UNIQUE columns by itself, foreign keys not.
CREATE INDEX IF NOT EXISTS ix_clients_user_id ON clients (user_id);
CREATE INDEX IF NOT EXISTS ix_birth_data_client_id ON birth_data (client_id);
CREATE INDEX IF NOT EXISTS ix_charts_user_id ON charts (user_id);
CREATE INDEX IF NOT EXISTS ix_charts_client_id ON charts (client_id);
CREATE INDEX IF NOT EXISTS ix_charts_birth_data_id ON charts (birth_data_id);
CREATE INDEX IF NOT EXISTS ix_chart_interpretations_chart_id ON chart_interpretations (chart_id);
CREATE INDEX IF NOT EXISTS ix_interpretations_user_id ON interpretations (user_id);
CREATE INDEX IF NOT EXISTS ix_aspect_patterns_chart_id ON aspect_patterns (chart_id);
CREATE INDEX IF NOT EXISTS ix_transit_events_chart_id ON transit_events (chart_id);
CREATE INDEX IF NOT EXISTS ix_session_notes_user_id ON session_notes (user_id);
CREATE INDEX IF NOT EXISTS ix_session_notes_client_id ON session_notes (client_id);
