"""The command `sparseopt`: `solve`, `select` or `certify` for a file, `verify`, `check`, `demo`, `regularizers`.

Every command prints lines of text, and refuses what it cannot do in one sentence on stderr.
"""

from __future__ import annotations

from sparseopt.cli.commands import main
from sparseopt.cli.saved import load_model

__all__ = ["load_model", "main"]
