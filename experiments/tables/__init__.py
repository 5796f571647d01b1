"""The paper's tables and figures, ours beside the paper's, from finished runs: the command `sparseopt table`.

    runs, compact       what a folder of runs holds, and the same as one JSON file
    cells, published    which cell a run belongs to, and what the paper has there
    estimates           means, standard errors, differences on the same seeds
    comparing           SequentialAttention++ against the others
    report, text        what is said, as paragraphs and grids; these as plain text or Markdown
    pictures            trade-off, schedule, training, exponent

Nothing is filled in: a cell without a run says "not run".
"""

from __future__ import annotations

from sparseopt.experiments.tables.compact import collect, write
from sparseopt.experiments.tables.report import document
from sparseopt.experiments.tables.runs import Collection, Run
from sparseopt.experiments.tables.text import as_markdown, as_text

__all__ = ["Collection", "Run", "as_markdown", "as_text", "collect", "document", "write"]
