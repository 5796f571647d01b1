"""Pictures of a collection of runs (needs matplotlib).

    tradeoff    metric against sparsity, a panel for each size of blocks; below, the paper's
    schedule    phases and sparsity of AC/DC and SequentialAttention++, the paper's and ours (its Figure 2)
    training    training accuracy, or the loss where none was recorded, over each method's phases (its Figure 3)
    exponent    metric by the exponent c of the sparsify phase, ours and the paper's (its Table 4)

Ours and the paper's have axes of their own, since levels are not comparable. What was not run says so. Colours are
those of Okabe and Ito; markers and dashes differ as well.
"""

from __future__ import annotations

from pathlib import Path

from sparseopt.experiments.tables.cells import family_of, grouped, metric_of
from sparseopt.experiments.tables.courses import schedule, training
from sparseopt.experiments.tables.exponents import exponent
from sparseopt.experiments.tables.published import paper
from sparseopt.experiments.tables.runs import Collection
from sparseopt.experiments.tables.tradeoffs import tradeoff

__all__ = ["draw"]


def draw(collection: Collection, kind: str, folder: Path) -> list[Path]:
    """Write the pictures of one kind.

    Parameters
    ----------
    collection : Collection
        See `sparseopt.experiments.tables.collect`.
    kind : {"criteo", "imagenet", "cifar"}
        Which of the runs.
    folder : Path
        Made if it is not there.

    Returns
    -------
    list of Path
        The files; that of the exponent only if the paper has a table of it, or a run another than the paper's 4.
    """
    from matplotlib.figure import Figure

    data, metric, tables = grouped(collection, kind), metric_of(kind), paper(kind)
    makers = {"tradeoff": (tradeoff, tables[0]), "schedule": (schedule, tables[0]), "training": (training, tables[0])}
    if any(family_of(row) == "exponent" for row in tables[-1].rows(data)):
        makers["exponent"] = (exponent, tables[-1])
    folder.mkdir(exist_ok=True)
    files = []
    for name, (make, table) in makers.items():
        figure = Figure(layout="constrained")
        make(figure, data, table, metric)
        files.append(folder / f"{name}.png")
        figure.savefig(files[-1], dpi=130)
    return files
