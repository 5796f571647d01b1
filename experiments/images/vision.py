"""torchvision beside any build of torch.

PyPI's torchvision carries compiled operators for the GPU builds of torch. Beside a CPU build their library does not
load, and `import torchvision` ends in "operator torchvision::nms does not exist": torchvision describes the shapes of
its operators while it is imported, whether or not they are there. Networks for classification, transforms and data
sets use none of them. So `import_torchvision` declares the missing names, without code behind them, and imports again.

What then does not work is what needs the operators: `torchvision.ops` (nms, roi_align, deform_conv2d, ...) and with it
the networks for detection, which say so when called. Where torchvision imports by itself nothing is changed.

Lightning and transformers import torchvision themselves, and fail in the same way: see `prepare_torchvision`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from types import ModuleType

__all__ = ["import_torchvision", "prepare_torchvision"]

_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_SCHEMAS = {"nms": _BOXES, "qnms": _BOXES}  # what torchvision 0.19 to 0.29 describes without asking if it is there
_DECLARED: list[object] = []  # a library that is garbage takes its operators along


def import_torchvision() -> ModuleType:
    """The package torchvision.

    Raises
    ------
    ImportError
        When it is not installed, or belongs to another release of torch.
    """
    if importlib.util.find_spec("torchvision") is None:
        raise ImportError("torchvision is not installed, and images need it: pip install 'sparseopt[vision]'.")
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        reason = error
    if "operator torchvision::" in str(reason) and not _DECLARED:
        _declare()
        _forget()
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            reason = error
    import torch

    raise ImportError(
        f"torchvision {importlib.metadata.version('torchvision')} cannot be imported beside torch {torch.__version__} "
        f"({reason}): install the torchvision that belongs to this torch."
    ) from reason


def prepare_torchvision() -> bool:
    """Import torchvision if it is installed, so that packages which import it in passing can.

    Lightning (through torchmetrics) and transformers import torchvision wherever it is installed. Beside a CPU build of
    torch that is their end, unless this was called before.

    Returns
    -------
    bool
        Whether torchvision is there.
    """
    if importlib.util.find_spec("torchvision") is None:
        return False
    import_torchvision()
    return True


def _declare() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _SCHEMAS.items():
        try:
            library.define(name + schema)
        except RuntimeError:  # it exists: only another one is missing
            continue
    _DECLARED.append(library)


def _forget() -> None:
    """A failed import leaves its submodules behind, and a second one would take them for complete."""
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
