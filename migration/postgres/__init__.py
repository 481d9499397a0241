"""PostgreSQL: connections and snapshots, its catalog, whose rows they are, and rows as JSON text."""
