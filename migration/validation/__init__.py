"""Phase 3: the database compared with the bundle and with PostgreSQL, the checks of the file alone, and the report."""
