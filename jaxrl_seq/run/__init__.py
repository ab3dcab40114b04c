"""The host side of a run: the only place with files, clocks, signals and threads."""
