"""What the three phases share: one noun per module. Imports neither the scripts nor config."""
