"""What the phases share, in rooms by concern. Imports neither config nor, but for the fleet, the scripts."""
