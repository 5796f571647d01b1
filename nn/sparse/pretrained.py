"""Compressed models of transformers, in the folders that its `save_pretrained` makes.

    config.json, generation_config.json     by transformers itself
    sparse_model.safetensors                by `save`, without the architecture, which is in the config

The weights have a name of their own, so that `from_pretrained` does not take them for dense ones. The model is built on
the device "meta" from the config, so a dense one never needs memory. Only classes that transformers itself registers
for the kind of config are built, and no code from the folder is run.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseopt.nn.sparse.files import read, write
from sparseopt.nn.sparse.literals import brief

__all__ = ["WEIGHTS", "load_pretrained", "save_pretrained"]

WEIGHTS = "sparse_model.safetensors"


def save_pretrained(model: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Write a model of transformers to a folder, which is made if need be.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Or another model whose `config` has a `save_pretrained`.
    folder : path

    Raises
    ------
    TypeError
        When the model has no such config; `save` writes any model.
    """
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "save_pretrained"):
        raise TypeError(f"{type(model).__name__} has no config of transformers to save: use sparseopt.nn.save instead.")
    os.makedirs(folder, exist_ok=True)
    config = copy.deepcopy(config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    generation: Any = getattr(model, "generation_config", None)
    if generation is not None:
        generation.save_pretrained(folder)
    write(model, Path(folder) / WEIGHTS, with_architecture=False)


def load_pretrained(folder: str | os.PathLike[str], model_class: Any = None, device: torch.device | str = "cpu") -> Any:
    """The model in a folder of `save_pretrained`, in eval mode.

    Parameters
    ----------
    folder : path
    model_class : class, optional
        A class of models that takes a config. Left out, it is the class of transformers that was saved.
    device : device
        Where the model goes.

    Raises
    ------
    ImportError
        When transformers is not installed.
    FileNotFoundError
        When the folder holds no config, or no weights.
    ValueError
        When transformers has no class of the saved name, or the weights do not fit to the config; see `load`.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError("load_pretrained needs transformers: pip install 'sparseopt[integrations]'.") from error
    where = Path(folder)
    if not (where / "config.json").is_file():  # transformers would look for such a name elsewhere
        raise FileNotFoundError(f"{where} holds no config.json: give a folder of save_pretrained.")
    try:
        if model_class is None:
            config = transformers.AutoConfig.from_pretrained(where, trust_remote_code=False)
            model_class = _class_of(config)
        else:
            config = model_class.config_class.from_pretrained(where)
        with torch.device("meta"):
            model = model_class(config)
    except Exception as error:
        raise ValueError(f"{where} holds no config that a model can be built from ({brief(error)}).") from error
    try:
        model = read(where / WEIGHTS, model)
        left = next(_on_meta(model), None)
        if left is not None:
            raise ValueError(f"{left!r} is neither parameter nor buffer: build the model, and load(file, model=model).")
    except ValueError as error:
        raise ValueError(f"{where / WEIGHTS} cannot be loaded: {error}") from error
    if (where / "generation_config.json").is_file() and hasattr(model, "generation_config"):
        model.generation_config = transformers.GenerationConfig.from_pretrained(where)
    return model.to(device)


def _class_of(config: Any) -> Any:
    """The class that the config names, among those that transformers offers for such configs."""
    from transformers.models.auto import modeling_auto

    wanted = (config.architectures or [""])[0]
    for name in dir(modeling_auto):
        if name.startswith("MODEL_") and name.endswith("_MAPPING"):
            found = getattr(modeling_auto, name).get(type(config), ())
            for each in found if isinstance(found, tuple) else (found,):
                if each.__name__ == wanted:
                    return each
    raise ValueError(f"transformers has no model {wanted!r:.60} for a {type(config).__name__}: pass model_class=...")


def _on_meta(model: nn.Module) -> Iterator[str]:
    """Tensors that the model keeps otherwise, without data."""
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and value.is_meta:
                yield f"{name}.{key}" if name else key
