"""The export bundle on disk: JSON files and a SHA256 manifest."""
