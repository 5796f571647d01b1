"""`python -m sparseopt.proofs_checks` is the command `sparseopt check`."""

from __future__ import annotations

import sys

from sparseopt.proofs_checks.command import main

if __name__ == "__main__":
    sys.exit(main())
