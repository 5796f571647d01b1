"""One module per statement of the paper: the statement as text, and a check of it that runs.

Lemmas and theorems of *SequentialAttention++ for Block Sparsification* (Yasuda, Axiotis, Fu, Bateni, Mirrokni,
arXiv 2402.17902), and extensions of them, are tried on random and on adversarial instances, with the public names of
sparseopt only: what is checked is the theorem and the software at once.

    run                 checks, by name and size, with a seed          write_report    one HTML page with figures
    STATEMENTS          what there is to check                         write_evidence  evidence.json

Every module here that defines `STATEMENT` is one; see `sparseopt.proofs_checks.evidence` for what a check returns.
"""

from __future__ import annotations

from sparseopt.proofs_checks.evidence import SIZES, Evidence, Finding, Statement, Verdict
from sparseopt.proofs_checks.running import STATEMENTS, run, statement, write_evidence

__all__ = [
    "SIZES",
    "STATEMENTS",
    "Evidence",
    "Finding",
    "Statement",
    "Verdict",
    "run",
    "statement",
    "write_evidence",
]
