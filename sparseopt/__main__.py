"""`python -m sparseopt` is the command `sparseopt`."""

from __future__ import annotations

import sys

from sparseopt.cli import main

if __name__ == "__main__":
    sys.exit(main())
