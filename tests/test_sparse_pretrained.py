"""Folders of transformers: the config is the library's, the weights are ours, and what is loaded is what was saved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="saving models needs torch")
transformers = pytest.importorskip("transformers", reason="these folders are those of transformers")
pytest.importorskip("safetensors", reason="saving models needs safetensors")

from stored_models import Forger, sparse  # noqa: E402
from torch import nn  # noqa: E402

from sparseopt.nn.sparse import pretrained  # noqa: E402
from sparseopt.nn.sparse.files import load, save  # noqa: E402
from sparseopt.nn.sparse.layers import BlockSparseLinear  # noqa: E402
from sparseopt.nn.sparse.pretrained import WEIGHTS, load_pretrained, save_pretrained  # noqa: E402

SMALL = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SMALL |= {"max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def bert() -> nn.Module:
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL))


def masked() -> nn.Module:
    """Its decoder is its embedding."""
    return transformers.BertForMaskedLM(transformers.BertConfig(**SMALL))


def llama() -> nn.Module:
    """Rotary positions are buffers that no state dict holds."""
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL))


@pytest.fixture(autouse=True)
def _quiet(one_thread: None) -> None:
    """Equal bits need equal threads."""


def made(make: Any) -> nn.Module:
    torch.manual_seed(0)
    model = make()
    for layer in model.base_model.modules():
        if type(layer) is nn.ModuleList:
            sparse(layer)
    return model.eval()


def logits(model: nn.Module) -> Any:
    with torch.no_grad():
        return model(torch.tensor([[1, 5, 7, 2], [1, 9, 31, 2]])).logits


def check_same(again: nn.Module, model: nn.Module) -> None:
    assert type(again) is type(model)
    assert not any(module.training for module in again.modules())
    assert list(again.state_dict()) == list(model.state_dict())
    assert torch.equal(logits(again), logits(model))
    assert again.config.hidden_size == model.config.hidden_size
    assert sum(isinstance(module, BlockSparseLinear) for module in again.modules()) > 3
    tied = [
        m.get_input_embeddings().weight is getattr(m.get_output_embeddings(), "weight", None) for m in (again, model)
    ]
    assert tied[0] == tied[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", [bert, masked, llama])
def test_round_trip(make: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    model = made(make).to(dtype)
    save_pretrained(model, tmp_path / "folder")
    assert {"config.json", WEIGHTS} <= {file.name for file in (tmp_path / "folder").iterdir()}
    assert json.loads((tmp_path / "folder" / "config.json").read_text())["architectures"] == [type(model).__name__]
    check_same(load_pretrained(tmp_path / "folder"), model)
    check_same(load_pretrained(tmp_path / "folder", type(model)), model)
    check_same(load(tmp_path / "folder" / WEIGHTS, make().to(dtype)), model)


def test_the_tied_decoder_is_saved_once_and_stays_tied(tmp_path: Path) -> None:
    model = made(masked)
    save_pretrained(model, tmp_path)
    tied = Forger(tmp_path / WEIGHTS).description["tied"]
    assert tied["cls.predictions.decoder.weight"] == "bert.embeddings.word_embeddings.weight"
    again = load_pretrained(tmp_path)
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight


def test_settings_of_generation_are_kept(tmp_path: Path) -> None:
    model = made(llama)
    model.generation_config.max_new_tokens = 3
    save_pretrained(model, tmp_path)
    again = load_pretrained(tmp_path)
    words = torch.tensor([[1, 5, 7]])
    assert again.generation_config.max_new_tokens == 3
    assert torch.equal(again.generate(words, do_sample=False), model.generate(words, do_sample=False))


def test_a_process_that_only_has_transformers_computes_the_same_bits(tmp_path: Path) -> None:
    model = made(bert)
    save_pretrained(model, tmp_path)
    code = (
        "from sparseopt.experiments.images.vision import prepare_torchvision; prepare_torchvision()\n"
        "import sys, torch; from sparseopt.nn.sparse.pretrained import load_pretrained; torch.set_num_threads(1)\n"
        "x = torch.tensor([[1, 5, 7, 2], [1, 9, 31, 2]])\n"
        "torch.save(load_pretrained('.')(x).logits.detach(), 'logits')"
    )
    elsewhere = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.load(tmp_path / "logits", weights_only=True), logits(model))


def refused(folder: Path, words: str, model_class: Any = None) -> None:
    with pytest.raises(ValueError, match=words) as refusal:
        load_pretrained(folder, model_class)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith(str(folder))


def edited(folder: Path, **changed: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))


@pytest.mark.parametrize("name", [["system"], ["PreTrainedModel"], ["LlamaForCausalLM"], [], None])
def test_a_class_that_transformers_does_not_offer_for_the_config_is_refused(name: Any, tmp_path: Path) -> None:
    save_pretrained(made(bert), tmp_path)
    edited(tmp_path, architectures=name)
    refused(tmp_path, "transformers has no model")


def test_another_config_is_refused(tmp_path: Path) -> None:
    save_pretrained(made(bert), tmp_path)
    edited(tmp_path, vocab_size=33)
    refused(tmp_path, "in the model: convert the model first")
    edited(tmp_path, vocab_size=2**40)  # terabytes, if they were allocated
    refused(tmp_path, "in the model: convert the model first")
    edited(tmp_path, vocab_size=32, num_hidden_layers=3)
    refused(tmp_path, "which the model needs")
    edited(tmp_path, num_hidden_layers=1)
    refused(tmp_path, "where the model has NoneType")


def test_another_class_is_refused(tmp_path: Path) -> None:
    save_pretrained(made(bert), tmp_path)
    refused(tmp_path, "which the model needs", transformers.BertForMaskedLM)


def test_weights_that_are_damaged_are_refused(tmp_path: Path) -> None:
    save_pretrained(made(bert), tmp_path)
    content = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(content[:-1])
    refused(tmp_path, "truncated")


def test_no_code_in_the_folder_is_run(tmp_path: Path) -> None:
    save_pretrained(made(bert), tmp_path)
    (tmp_path / "own.py").write_text("import pathlib\npathlib.Path(__file__).with_name('fired').mkdir()\n")
    both = {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Model"}
    edited(tmp_path, auto_map=both)
    check_same(load_pretrained(tmp_path), made(bert))
    edited(tmp_path, model_type="own")
    refused(tmp_path, "custom code")
    assert not (tmp_path / "fired").exists()


def test_a_tensor_that_nobody_registered_is_not_left_without_data(tmp_path: Path) -> None:
    class Own(transformers.BertForSequenceClassification):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.plain = torch.ones(2)

    save_pretrained(made(bert), tmp_path)
    refused(tmp_path, "'plain' is neither parameter nor buffer", Own)
    again = load(tmp_path / WEIGHTS, Own(transformers.BertConfig(**SMALL)))
    assert torch.equal(logits(again), logits(made(bert)))


def test_a_folder_without_a_config_is_not_looked_for_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        load_pretrained(tmp_path / "bert-base-uncased")


def test_models_without_a_config_are_sent_to_save(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"use sparseopt\.nn\.save"):
        save_pretrained(nn.Linear(2, 2), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_transformers_a_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'sparseopt\[integrations\]'"):
        load_pretrained(tmp_path)


def test_loaders_that_take_any_class_or_leave_data_out_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pretrained, "_class_of", lambda config: transformers.BertForSequenceClassification)
        with pytest.raises(pytest.fail.Exception):
            test_a_class_that_transformers_does_not_offer_for_the_config_is_refused(["system"], tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(pretrained, "_on_meta", lambda model: iter(()))
        with pytest.raises(pytest.fail.Exception):
            test_a_tensor_that_nobody_registered_is_not_left_without_data(tmp_path / "b")


def test_from_pretrained_does_not_take_the_weights_for_dense_ones(tmp_path: Path) -> None:
    save_pretrained(made(bert), tmp_path)
    with pytest.raises(OSError, match=r"model\.safetensors"):
        transformers.BertForSequenceClassification.from_pretrained(tmp_path)


def test_saving_leaves_the_config_as_it_was(tmp_path: Path) -> None:
    model = made(bert)
    before = model.config.to_dict()
    save_pretrained(model, tmp_path)
    assert model.config.to_dict() == before
    save(model, tmp_path / "m")
    with pytest.raises(ValueError, match=r"load\(path, model=...\)"):
        load(tmp_path / "m")
