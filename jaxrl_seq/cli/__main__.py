"""`python -m jaxrl_seq.cli` is `jaxrl-seq`."""

import sys

from jaxrl_seq.cli import main

if __name__ == "__main__":
    sys.exit(main())
