"""Networks for images by name.

    "resnet20"      the CIFAR network of `sparseopt.experiments.networks`
    "resnet50"      torchvision's, or without torchvision the same network of `sparseopt.experiments.networks`
    "vit_b_16"      any classification network of torchvision
    "timm:NAME"     any network of timm

Nothing is downloaded: weights come from files, see `image_model`.
"""

from __future__ import annotations

import difflib
import importlib.util
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseopt.experiments.images.vision import import_torchvision, prepare_torchvision
from sparseopt.experiments.networks import resnet20, resnet50

__all__ = ["image_model", "load_weights", "read_weights"]

_PREFIXES = ("module.", "_orig_mod.")  # DistributedDataParallel and torch.compile wrap networks
_STATES = ("state_dict", "model")  # where checkpoints keep weights
# Their second outputs in training are for a loss of their own; weights of those parts are not read.
_WITHOUT_SECOND_OUTPUTS = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}


def image_model(
    name: str = "resnet50", classes: int = 1000, *, weights: str | Path | None = None, pretrained: bool = False
) -> nn.Module:
    """A network from images (n, 3, height, width) to logits (n, classes).

    Parameters
    ----------
    name : str
        See above.
    classes : int
        Outputs.
    weights : path, optional
        A file of safetensors, or of torch in which nothing but tensors and plain data is read. Where it was trained for
        another number of classes, the last layer is a fresh one and all else is read.
    pretrained : bool
        Without `weights`: take the file of torchvision's default weights from the folder where torch.hub keeps files;
        it has to be there already.

    Raises
    ------
    ValueError
        When no network has the name, or the weights belong to another network.
    FileNotFoundError
        When there is no such file.
    ImportError
        When the network is in a package that is not installed.

    Examples
    --------
    >>> image_model("resnet20", 10)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    if classes < 1:
        raise ValueError(f"classes is {classes}: give at least 1.")
    model = _fresh(name, classes)
    if weights is None and pretrained:
        weights = _hub_file(name)
    if weights is not None:
        load_weights(model, Path(weights), classes, _WITHOUT_SECOND_OUTPUTS.get(name, ()))
    return model


def load_weights(model: nn.Module, file: Path, classes: int, unread: Sequence[str] = ()) -> None:
    """Read weights into a network, all but the last layer if that has another number of classes.

    Parameters
    ----------
    model : Module
        With `classes` outputs.
    file : Path
    classes : int
    unread : sequence of str
        Beginnings of names that are passed over.
    """
    own = model.state_dict()
    state = {key: tensor for key, tensor in read_weights(file).items() if not key.startswith(tuple(unread))}
    wrong = [key for key in own if key in state and own[key].shape != state[key].shape]
    last = {key.rpartition(".")[0] for key in wrong}
    # One layer is off in its first axis alone, and there by the number of classes.
    if len(last) == 1 and all(
        own[key].shape[1:] == state[key].shape[1:] and len(own[key]) == classes for key in wrong if own[key].ndim
    ):
        state |= {key: own[key] for key in wrong}
    elif wrong:
        key = wrong[0]
        raise ValueError(
            f"{file} has {key} of shape {tuple(state[key].shape)}, and the network {tuple(own[key].shape)}: "
            "give weights of this network."
        )
    # Files from before torch 0.4.1 lack the counters of batches, which count for nothing.
    missing = [key for key in own if key not in state and not key.endswith(".num_batches_tracked")]
    unknown = [key for key in state if key not in own]
    if missing or unknown:
        lacking = f"lacks {len(missing)} tensors ({missing[0]} ...)" if missing else ""
        beyond = f"has {len(unknown)} that the network lacks ({unknown[0]} ...)" if unknown else ""
        raise ValueError(f"{file} {' and '.join(filter(None, (lacking, beyond)))}: give weights of this network.")
    model.load_state_dict(own | state)


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU: of safetensors, or of torch, alone or inside a checkpoint."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}: give weights that lie here, nothing is downloaded.")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file} is no file of torch, or holds more than tensors and plain data and could run "
            "code when read: give a state dict that torch.save wrote."
        ) from error
    except Exception as error:  # safetensors and the readers of archives have errors of their own
        raise ValueError(
            f"{file} cannot be read as weights ({str(error).splitlines()[0]}): repair the file."
        ) from error
    for inside in _STATES:
        if isinstance(state, Mapping) and isinstance(state.get(inside), Mapping):
            state = state[inside]
    if not isinstance(state, Mapping) or not any(isinstance(each, Tensor) for each in state.values()):
        raise ValueError(f"{file} holds no tensors by name: give a state dict, or a checkpoint with one.")
    return {_bare(str(key)): tensor for key, tensor in state.items() if isinstance(tensor, Tensor)}


def _bare(key: str) -> str:
    while key.startswith(_PREFIXES):
        key = key.partition(".")[2]
    return key


def _fresh(name: str, classes: int) -> nn.Module:
    package, _, inner = name.rpartition(":")
    if package == "timm":
        return _from_timm(inner, classes)
    if package:
        raise ValueError(
            f"model {name!r} names a package that is not known here: give a name of torchvision, or timm:NAME."
        )
    if name == "resnet20":
        return resnet20(classes)
    if name == "resnet50" and importlib.util.find_spec("torchvision") is None:
        return resnet50(classes)
    models = import_torchvision().models
    known = models.list_models(module=models)  # those for classification, not for detection or video
    if name not in known:
        raise ValueError(f"no model has the name {name!r}{_meant(name, ['resnet20', *known])}")
    options: dict[str, Any] = {}
    if name in _WITHOUT_SECOND_OUTPUTS:
        options = {"aux_logits": False, "init_weights": True}
    model: nn.Module = models.get_model(name, weights=None, num_classes=classes, **options)
    return model


def _from_timm(name: str, classes: int) -> nn.Module:
    if importlib.util.find_spec("timm") is None:
        raise ImportError(f"timm is not installed, and the model timm:{name} needs it: pip install timm.")
    prepare_torchvision()
    import timm

    if name.partition(".")[0] not in timm.list_models():  # a tag of weights may follow the name
        raise ValueError(f"timm has no model {name!r}{_meant(name, timm.list_models())}")
    model: nn.Module = timm.create_model(name.partition(".")[0], pretrained=False, num_classes=classes)
    return model


def _meant(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    return f": did you mean {', '.join(close)}?" if close else f": there are {', '.join(known[:5])} ... ({len(known)})."


def _hub_file(name: str) -> Path:
    """Where torch.hub would keep torchvision's default weights of a network."""
    if ":" in name or name == "resnet20":
        raise ValueError(
            f"pretrained is true, and {name} has no weights that are known here: give a file by weights=PATH."
        )
    url = import_torchvision().models.get_model_weights(name).DEFAULT.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.is_file():
        raise FileNotFoundError(
            f"pretrained is true, and there is no file {file}: put {url} there, or give weights=PATH."
        )
    return file
