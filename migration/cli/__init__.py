"""The command line: options and the settings from them, how a run ends, the terminal, and the dry run."""
