-- A small reader of feeds, as an example of another application. Its people: vera reads much, oskar little, iris nothing yet.
CREATE TYPE reading AS ENUM ('new', 'open', 'finished');

CREATE TABLE readers (
    id serial PRIMARY KEY,
    login text NOT NULL UNIQUE,
    secret text,
    is_editor boolean NOT NULL DEFAULT false,
    page_size int NOT NULL DEFAULT 50 CHECK (page_size BETWEEN 10 AND 500),
    joined_at timestamptz NOT NULL
);
CREATE TABLE shelves (
    id serial PRIMARY KEY,
    reader_id int NOT NULL REFERENCES readers ON DELETE CASCADE,
    name text NOT NULL CHECK (name <> ''),
    UNIQUE (reader_id, name)
);
-- One picture for all who read a site
CREATE TABLE logos (
    id bigserial PRIMARY KEY,
    sha1 bytea NOT NULL UNIQUE,
    picture bytea NOT NULL
);
CREATE TABLE sites (
    id bigserial PRIMARY KEY,
    reader_id int NOT NULL REFERENCES readers ON DELETE CASCADE,
    shelf_id int NOT NULL REFERENCES shelves ON DELETE CASCADE,
    logo_id bigint REFERENCES logos ON DELETE SET NULL,
    title text NOT NULL,
    address text NOT NULL,
    posts_a_week double precision,
    fetched_at timestamptz,
    UNIQUE (reader_id, address)
);
CREATE TABLE posts (
    id bigserial PRIMARY KEY,
    site_id bigint NOT NULL REFERENCES sites ON DELETE CASCADE,
    link text NOT NULL,
    headline text NOT NULL,
    body text,
    state reading NOT NULL DEFAULT 'new',
    words text[] NOT NULL DEFAULT '{}',
    found tsvector,
    written_at timestamptz NOT NULL,
    minutes int GENERATED ALWAYS AS (1 + length(body) / 1200) STORED,
    UNIQUE (site_id, link)
);
CREATE INDEX posts_found ON posts USING gin (found);
CREATE INDEX posts_unread ON posts (site_id, written_at DESC) WHERE state = 'new';
CREATE TABLE marks (
    post_id bigint NOT NULL REFERENCES posts ON DELETE CASCADE,
    color text NOT NULL,
    note text,
    PRIMARY KEY (post_id, color)
);
CREATE TABLE devices (
    token bytea PRIMARY KEY,
    reader_id int NOT NULL REFERENCES readers ON DELETE CASCADE,
    address inet,
    settings jsonb NOT NULL DEFAULT '{}'
);
-- No key: two visits in one second are two equal rows
CREATE TABLE visits (
    reader_id int REFERENCES readers ON DELETE CASCADE,
    happened_at timestamptz NOT NULL,
    page text NOT NULL
);
CREATE TABLE releases (version text PRIMARY KEY);

INSERT INTO readers (login, secret, is_editor, joined_at) VALUES
    ('vera', 'not-a-hash-1', true, '2024-05-01 08:00+00'),
    ('oskar', 'not-a-hash-2', false, '2025-01-15 12:30:45.25+00'),
    ('iris', NULL, false, '2026-02-01 00:00+00');
INSERT INTO shelves (reader_id, name) VALUES (1, 'Mornings'), (1, 'Later'), (2, 'Mornings');
INSERT INTO logos (sha1, picture)
    SELECT decode(md5('logo ' || n), 'hex'), decode(repeat(md5(n::text), 4), 'hex') FROM generate_series(1, 5) n;
INSERT INTO sites (reader_id, shelf_id, logo_id, title, address, posts_a_week, fetched_at)
    SELECT CASE WHEN n <= 6 THEN 1 ELSE 2 END, CASE WHEN n <= 6 THEN 1 + n % 2 ELSE 3 END, CASE WHEN n <> 4 THEN 1 + n % 4 END,
           'Gazette № ' || n, 'https://gazette' || n || '.example.com/feed', n / 7.0, '2026-03-01 06:00+00'::timestamptz - n * interval '1 hour'
    FROM generate_series(1, 8) n;
INSERT INTO posts (site_id, link, headline, body, state, words, found, written_at)
    SELECT s.id, s.address || '/' || n, 'Headline ' || n || ' of ' || s.title, repeat('Sentence after sentence. ', n * 20),
           (enum_range(NULL::reading))[1 + n % 3], CASE WHEN n % 2 = 0 THEN ARRAY['tea, black', 'a "quote"'] ELSE '{}' END,
           to_tsvector('simple', 'headline ' || n), '2026-01-01 07:00+00'::timestamptz + n * interval '9 hours'
    FROM sites s, generate_series(1, 25) n ORDER BY s.id, n;
INSERT INTO marks SELECT id, 'yellow', 'read again' FROM posts WHERE id % 10 = 0;
INSERT INTO marks SELECT id, 'green', NULL FROM posts WHERE id % 20 = 0;
INSERT INTO devices VALUES
    ('\x00a1', 1, '192.0.2.7', '{"dark": true, "scale": 1.10}'), ('\x00a2', 1, '2001:db8::1/64', '{}'), ('\xff', 2, NULL, '{}');
INSERT INTO visits SELECT 1 + n / 6, '2026-03-01 08:00+00', '/today' FROM generate_series(1, 9) n;
INSERT INTO releases VALUES ('1.4'), ('1.5');
