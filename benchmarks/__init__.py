"""Measurements of the suite beside other tools; see README.md here. Run with ``python -m benchmarks``."""
