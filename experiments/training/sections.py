"""The sections of a recipe but for pruning: data, model, training, hardware, output."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from sparseopt.experiments.training.fields import (
    Count,
    Items,
    Natural,
    NonNegative,
    OpenShare,
    Positive,
    Share,
    Text,
    Truth,
    plain,
)

__all__ = ["ClickData", "Hardware", "ImageData", "Model", "Output", "Section", "Training"]


class Section(BaseModel):
    """What the sections have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False, hide_input_in_errors=True)


class ClickData(Section):
    """Rows of Criteo's format, see `sparseopt.experiments.clicks`.

    Parameters
    ----------
    path : a folder of raw files, the one raw file that a protocol splits, or a converted data set.
    protocol : "files" takes the files as they are; "x1", "x4" and "time" split one file.
    train, valid, test : names of files in the folder.
    min_count : values that are rarer share one id.
    hash_bins : fold the values of each field into so many ids instead.
    numbers : fields of numbers become "buckets" with ids, or stay "values".
    cache : where converted data lie; null leaves it to the command.
    holdout : train without this last share of the rows and take them for validation.
    """

    path: Text
    protocol: Literal["files", "x1", "x4", "time"] = "files"
    train: Text | None = "train.tsv.gz"
    valid: Text | None = "valid.tsv.gz"
    test: Text | None = None
    min_count: Count = 10
    hash_bins: Count | None = None
    numbers: Literal["buckets", "values"] = "buckets"
    cache: Text | None = None
    holdout: Share = 0.0


class ImageData(Section):
    """Images, see `sparseopt.experiments.images`.

    Parameters
    ----------
    path : the folder.
    kind : "folder" for DIR/{train,val}/<class>/*, or "cifar".
    size, resize : of the image that the network sees, and of the one that it is cut from in validation.
    preset, erasing : how training images are varied, and the probability that a rectangle of one is erased.
    workers : processes that read.
    classes : how many; null counts them.
    test : for "cifar" in the folder cifar10: which encoding of the test images is for validation.
    cache : where decoded images are kept; null leaves it to the command.
    holdout : train without this share of the images and take them for validation.
    """

    path: Text
    kind: Literal["folder", "cifar"] = "folder"
    size: Count = 224
    resize: Count = 256
    preset: Literal["none", "basic", "trivial"] = "basic"
    erasing: Share = 0.0
    workers: Natural = 4
    classes: Count | None = None
    test: Literal["lossless", "jpeg"] = "lossless"
    cache: Text | None = None
    holdout: Share = 0.0


class Model(Section):
    """The network.

    Parameters
    ----------
    name : "click", or one of images such as "resnet50" or "resnet20".
    embedding, spread, hidden, dropout : of "click"; spread is the standard deviation of fresh embeddings.
    pretrained, weights : start from weights known to the package, or from those in a file.
    """

    name: Text = "click"
    embedding: Count = 10
    spread: Positive = 1.0
    hidden: Annotated[tuple[Count, ...], Items] = (400, 400, 400)
    dropout: Share = 0.0
    pretrained: Truth = False
    weights: Text | None = None


class Training(Section):
    """How long, in which steps, from which random numbers.

    Parameters
    ----------
    epochs, steps : the length, in one of the two.
    batch : examples per step of the optimizer, of all devices together.
    accumulate : parts of a batch whose gradients are added.
    lr, final_lr, decay, warmup : the learning rate goes from `lr` to `final_lr`, after `warmup` epochs from 0 to `lr`.
    embedding_weight_decay : null means `weight_decay`.
    ema : decay of an average of the weights; null takes none.
    clip : largest norm of a gradient.
    recalibrate : batches from which the statistics of batch norms are taken anew at the end.
    """

    epochs: Positive | None = None
    steps: Count | None = None
    batch: Count
    accumulate: Count = 1
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: Positive
    final_lr: NonNegative = 0.0
    decay: Literal["exponential", "cosine", "constant"] = "constant"
    warmup: NonNegative = 0.0
    weight_decay: NonNegative = 0.0
    embedding_weight_decay: NonNegative | None = None
    momentum: Share = 0.9
    nesterov: Truth = False
    label_smoothing: Share = 0.0
    ema: OpenShare | None = None
    clip: Positive | None = None
    seed: Natural = 0
    deterministic: Truth = True
    recalibrate: Natural = 0

    @model_validator(mode="after")
    def _consistent(self) -> Training:
        if (self.epochs is None) == (self.steps is None):
            both = "are both missing" if self.epochs is None else f"are {self.epochs:g} and {self.steps}"
            raise ValueError(f"training.epochs and training.steps {both}: give one of them, and null for the other.")
        if self.batch % self.accumulate:
            raise ValueError(
                f"training.batch is {self.batch} and training.accumulate {self.accumulate}, which does not divide it."
            )
        if self.decay == "exponential" and self.final_lr == 0.0:
            raise ValueError("training.decay is exponential and never reaches 0: set training.final_lr above 0.")
        if self.epochs is not None and self.warmup >= self.epochs:
            raise ValueError(f"training.warmup is {self.warmup:g} epochs of {self.epochs:g}: leave some for the rest.")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0.0):
            raise ValueError("training.nesterov is true, which needs training.optimizer sgd and a momentum above 0.")
        return self


def _devices(value: Any) -> Any:
    number = plain(value)
    if number != "auto" and not (type(number) is int and 1 <= number < 2**31):
        raise ValueError("must be a whole number of at least 1, or auto")
    return number


def _tensorboard(value: Any) -> Any:
    if value != "auto" and not isinstance(value, bool):
        raise ValueError("must be true, false or auto")
    return value


class Hardware(Section):
    """What it runs on; words of Lightning Fabric."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: Annotated[int | str, BeforeValidator(_devices)] = 1
    nodes: Count = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"] = "32-true"
    compile: Truth = False
    channels_last: Truth = False
    threads: Count | None = None


class Output(Section):
    """What is written.

    Parameters
    ----------
    folder : where the folders of runs are made.
    checkpoint_minutes, checkpoint_steps : how often; null never, but for the end.
    evaluate_steps : null after every epoch.
    compress, plots : what is made of the trained network at the end.
    tensorboard : "auto" if it is installed.
    """

    folder: Text = "runs"
    checkpoint_minutes: Positive | None = None
    checkpoint_steps: Count | None = 100
    evaluate_steps: Count | None = None
    log_steps: Count = 10
    compress: Truth = True
    plots: Truth = True
    tensorboard: Annotated[bool | str, BeforeValidator(_tensorboard)] = "auto"
