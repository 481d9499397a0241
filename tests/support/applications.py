"""Other applications: databases of other shapes than the sample, with data of three roots each."""

from __future__ import annotations

# Serial ids; rows that name their owner and rows that hang on parents; a table with one row a member, whose key is the
# member; covers that are nobody's and come along; a log without a key; a table that is nobody's.
LENDING = """
CREATE TYPE shelf AS ENUM ('fiction', 'science', 'other');
CREATE TABLE settings_of_all (version int NOT NULL);
CREATE TABLE members (id serial PRIMARY KEY, username text NOT NULL UNIQUE, pin text, joined timestamptz DEFAULT now());
CREATE TABLE lists (id serial PRIMARY KEY, member_id int NOT NULL REFERENCES members ON DELETE CASCADE,
    title text NOT NULL, UNIQUE (member_id, title));
CREATE TABLE covers (id bigserial PRIMARY KEY, sha text NOT NULL UNIQUE, image bytea NOT NULL);
CREATE TABLE books (id bigserial PRIMARY KEY, member_id int NOT NULL REFERENCES members ON DELETE CASCADE,
    list_id int NOT NULL REFERENCES lists ON DELETE CASCADE, title text NOT NULL, kept shelf DEFAULT 'other', price numeric);
CREATE TABLE book_covers (book_id bigint NOT NULL REFERENCES books ON DELETE CASCADE,
    cover_id bigint NOT NULL REFERENCES covers, PRIMARY KEY (book_id, cover_id));
CREATE TABLE notes (id bigserial PRIMARY KEY, member_id int NOT NULL REFERENCES members ON DELETE CASCADE,
    book_id bigint NOT NULL REFERENCES books ON DELETE CASCADE, words text, tags text[] DEFAULT '{}', at timestamptz DEFAULT now());
CREATE TABLE preferences (member_id int PRIMARY KEY REFERENCES members ON DELETE CASCADE, options jsonb NOT NULL DEFAULT '{}');
CREATE TABLE visits (member_id int REFERENCES members ON DELETE SET NULL, at date NOT NULL, what text);
INSERT INTO settings_of_all VALUES (7);
INSERT INTO members (username, pin) VALUES ('mia', '1'), ('noa', '2'), ('oda', NULL);
INSERT INTO lists (member_id, title) SELECT m, 'list ' || i FROM unnest('{1,1,2}'::int[]) WITH ORDINALITY u (m, i);
INSERT INTO covers (sha, image) SELECT md5(g::text), decode(md5(g::text), 'hex') FROM generate_series(1, 5) g;
INSERT INTO books (member_id, list_id, title, price) SELECT CASE WHEN g < 9 THEN 1 ELSE 2 END,
    CASE WHEN g < 9 THEN 1 + g % 2 ELSE 3 END, 'book ' || g, g / 4.0 FROM generate_series(1, 12) g;
INSERT INTO book_covers SELECT g, 1 + g % 3 FROM generate_series(1, 8) g UNION ALL SELECT g, 4 FROM generate_series(9, 12) g;
INSERT INTO notes (member_id, book_id, words) SELECT b.member_id, b.id, 'note ' || i FROM books b, generate_series(1, 3) i;
INSERT INTO preferences VALUES (1, '{"k": 1.10}'), (2, '{}');
INSERT INTO visits SELECT CASE g % 3 WHEN 0 THEN NULL ELSE g % 3 END, '2026-01-01', 'in' FROM generate_series(1, 9) g;
"""

# Names as an ORM makes them; text ids; join tables without a primary key; composite keys; a tree; a cycle between two
# tables; plots that others have made, and helpers in others' plots; a view.
GARDENS = """
CREATE TABLE "Gardener" (id text PRIMARY KEY, email text UNIQUE, "planId" text);
CREATE TABLE "Plan" (id text PRIMARY KEY, "gardenerId" text NOT NULL UNIQUE REFERENCES "Gardener" ON DELETE CASCADE, paid boolean);
ALTER TABLE "Gardener" ADD FOREIGN KEY ("planId") REFERENCES "Plan" ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE "Plot" (id serial PRIMARY KEY, name text NOT NULL, "ownerId" text NOT NULL REFERENCES "Gardener",
    "parentId" int REFERENCES "Plot", "madeById" text REFERENCES "Gardener");
CREATE TABLE "PlotHelper" ("gardenerId" text NOT NULL REFERENCES "Gardener", "plotId" int NOT NULL REFERENCES "Plot",
    PRIMARY KEY ("gardenerId", "plotId"));
CREATE TABLE "Plant" (id serial PRIMARY KEY, "order" int, "plotId" int NOT NULL REFERENCES "Plot");
CREATE TABLE "Label" (id serial PRIMARY KEY, "group" text NOT NULL, "ownerId" text NOT NULL REFERENCES "Gardener");
CREATE TABLE "_LabelToPlant" ("A" int NOT NULL REFERENCES "Label", "B" int NOT NULL REFERENCES "Plant");
CREATE UNIQUE INDEX ON "_LabelToPlant" ("A", "B");
CREATE TABLE "Season" ("plantId" int NOT NULL REFERENCES "Plant", year int NOT NULL, PRIMARY KEY ("plantId", year));
CREATE TABLE "Harvest" ("plantId" int NOT NULL, year int NOT NULL, part int NOT NULL, grams numeric,
    PRIMARY KEY ("plantId", year, part), FOREIGN KEY ("plantId", year) REFERENCES "Season");
CREATE TABLE "_migrations" (id varchar(36) PRIMARY KEY);
CREATE VIEW "PlantCount" AS SELECT "plotId", count(*) FROM "Plant" GROUP BY 1;
INSERT INTO "Gardener" VALUES ('g1', 'pia@example.com', 'p1'), ('g2', 'rob@example.com', NULL), ('g3', 'sam@example.com', 'p3');
INSERT INTO "Plan" VALUES ('p1', 'g1', true), ('p3', 'g3', false);
INSERT INTO "Plot" (name, "ownerId", "parentId", "madeById") VALUES ('all', 'g1', NULL, 'g1'), ('bed', 'g1', 1, 'g2'), ('pot', 'g2', NULL, NULL);
INSERT INTO "PlotHelper" VALUES ('g2', 1), ('g3', 3);
INSERT INTO "Plant" ("order", "plotId") SELECT g, 1 + g % 3 FROM generate_series(1, 12) g;
INSERT INTO "Label" ("group", "ownerId") SELECT 'l' || g, 'g' || 1 + g % 2 FROM generate_series(1, 4) g;
INSERT INTO "_LabelToPlant" SELECT l.id, p.id FROM "Label" l, "Plant" p JOIN "Plot" o ON o.id = p."plotId" WHERE o."ownerId" = l."ownerId";
INSERT INTO "Season" SELECT id, y FROM "Plant", generate_series(2024, 2025) y;
INSERT INTO "Harvest" SELECT "plantId", year, p, p * 10 FROM "Season", generate_series(1, 2) p;
INSERT INTO "_migrations" VALUES ('1');
"""
