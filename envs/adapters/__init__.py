"""Environments of other libraries (`<library>.py`) and ours for other libraries (`to_<library>.py`), one file each,
imported only when asked for."""
