"""One file a paper's claims; see README.md for the measured table."""
