"""`python -m cycnn` is the command `cycnn`."""

import sys

from cycnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
