"""SQLite: the schema file, the mapping of columns, loading, and files that are published, backed up and restored."""
