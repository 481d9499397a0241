"""Any other application: its tables classed, and config.py and the SQLite schema written from PostgreSQL's catalog."""
