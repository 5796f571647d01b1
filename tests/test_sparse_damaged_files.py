"""Damaged files of models, and files forged at random: one sentence, before any kernel runs, and never a crash."""

from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="loading models needs torch")
pytest.importorskip("safetensors", reason="loading models needs safetensors")

from hostile_cases import INPUT, check_refused, verdict, whole_file  # noqa: E402
from stored_models import Forger  # noqa: E402

from sparseopt.nn.sparse.files import load  # noqa: E402


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_file(tmp_path_factory.mktemp("whole"))


def test_the_whole_file_is_valid_and_the_forger_writes_it_as_it_is(whole: Path, tmp_path: Path) -> None:
    assert verdict(whole) is None
    Forger(whole).write(tmp_path / "m")
    assert verdict(tmp_path / "m") is None
    x = torch.randn(INPUT)
    assert torch.equal(load(tmp_path / "m")(x), load(whole)(x))


# ------------------------------------------------------------------------------------------------ damage


def test_a_file_that_is_truncated_anywhere_is_refused(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    for length in itertools.chain(range(0, begin, 7), range(begin - 3, len(data), 11), [len(data) - 1]):
        (tmp_path / "m").write_bytes(data[:length])
        check_refused(tmp_path / "m", "truncated, damaged or no file of safetensors")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_changed_byte_is_noticed(whole: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(whole.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    (tmp_path / "m").write_bytes(content)
    said = verdict(tmp_path / "m")
    # Blanks that JSON does not count, and the name of the format for other readers, carry nothing.
    assert said is not None or b'"format":"pt"' not in content or content[:8] == whole.read_bytes()[:8]
    assert said is not None or load(tmp_path / "m").state_dict().keys() == load(whole).state_dict().keys()


def raw(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    """A file with a header of any kind."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(*shape: Any, dtype: Any = "F32", at: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(at)}


EIGHT = bytes(8)
RAW: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": bytes(7),
    "a header of 2^63 bytes": raw({}, length=2**63),
    "a header of 2^64 - 1 bytes": raw({}, length=2**64 - 1),
    "a header of a terabyte": raw({}, length=2**40),
    "a header longer than the file": raw({}, EIGHT, length=11),
    "a header of no bytes": raw(b""),
    "no JSON": raw(b"hello"),
    "no UTF-8": raw(b'{"\xff": 1}'),
    "a list": raw([1]),
    "deep nesting": raw(b"[" * 200_000),
    "deep nesting of objects": raw(b'{"a":' * 200_000),
    "overlap": raw({"a": entry(2), "b": entry(2, at=(4, 12))}, bytes(12)),
    "the same place twice": raw({"a": entry(2), "b": entry(2)}, EIGHT),
    "a hole": raw({"a": entry(2, at=(4, 12))}, bytes(12)),
    "bytes at the end": raw({"a": entry(2)}, bytes(9)),
    "an end before the start": raw({"a": entry(2, at=(8, 0))}, EIGHT),
    "out of the file": raw({"a": entry(2, at=(0, 2**40))}, EIGHT),
    "a negative offset": raw({"a": entry(2, at=(-8, 0))}, EIGHT),
    "a negative shape": raw({"a": entry(-2)}, EIGHT),
    "a shape of half numbers": raw({"a": entry(2.5)}, EIGHT),
    "a shape of NaN": raw(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', EIGHT),
    "too large a shape": raw({"a": entry(3)}, EIGHT),
    "a huge shape": raw({"a": entry(2**40, 2**40)}, EIGHT),
    "a shape that wraps around": raw({"a": entry(2**32, 2**32, at=(0, 0))}),
    "an unknown dtype": raw({"a": entry(2, dtype="F99")}, EIGHT),
    "a dtype that torch has not": raw({"a": entry(16, dtype="F4")}, EIGHT),
    "another dtype": raw({"a": entry(2, dtype="F64")}, EIGHT),
    "metadata of numbers": raw({"__metadata__": {"sparseopt": 1}, "a": entry(2)}, EIGHT),
    "pickle": b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "a zip": b"PK\x03\x04" + bytes(100),
}


@pytest.mark.parametrize("name", RAW)
def test_a_file_that_is_no_safetensors_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(RAW[name])
    check_refused(tmp_path / "m", "truncated, damaged or no file of safetensors")


OTHERS: dict[str, tuple[bytes, str]] = {
    "no metadata": (raw({"a": entry(2)}, EIGHT), "sparseopt.nn.save did not write"),
    "other metadata": (raw({"__metadata__": {"format": "pt"}, "a": entry(2)}, EIGHT), "did not write"),
    "a name twice": (raw(b'{"a":%s,"a":%s}' % ((json.dumps(entry(2)).encode(),) * 2), EIGHT), "comes twice"),
    "truth values of 7": (
        raw({"__metadata__": {"sparseopt": "{}"}, "a": entry(8, dtype="BOOL")}, bytes([7] * 8)),
        "truth values",
    ),
    "an empty tensor of 2^62 rows": (
        raw({"__metadata__": {"sparseopt": "{}"}, "a": entry(2**62, 0, at=(0, 0))}),
        "a shape or truth values",
    ),
    "100 dimensions": (
        raw({"__metadata__": {"sparseopt": "{}"}, "a": entry(*[1] * 100, at=(0, 4))}, bytes(4)),
        "a shape or truth values",
    ),
    "no checksum": (raw({"__metadata__": {"sparseopt": "{}"}, "a": entry(2)}, EIGHT), "checksum"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_that_only_safetensors_would_take_is_refused(name: str, tmp_path: Path) -> None:
    content, words = OTHERS[name]
    (tmp_path / "m").write_bytes(content)
    check_refused(tmp_path / "m", words)


_NUMBERS = st.one_of(st.integers(-3, 40), st.sampled_from([2**31 - 1, 2**31, 2**40, 2**63, -(2**31)]))
_SCALARS = st.one_of(_NUMBERS, st.none(), st.booleans(), st.floats(), st.text(max_size=5), st.just([]), st.just({}))


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(leaf for key, each in inner for leaf in _leaves(each, (*path, key)))][0 if path else 1 :]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_a_forged_file_is_refused_or_loaded_and_never_crashes(whole: Path, tmp_path: Path, data: st.DataObject) -> None:
    file = Forger(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(["description", "text", "positions", "bytes", "header"]))
        if kind == "description":
            *home, key = data.draw(st.sampled_from(_leaves(file.description)))
            place = file.description
            for step in home:
                place = place[step]
            if data.draw(st.booleans()) or not isinstance(place, list):
                place[key] = data.draw(_SCALARS)
            else:
                place.pop(key)
        elif kind == "text":
            text = list(json.dumps(file.description))
            text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.sampled_from('0123456789-{}[]",:.e aftn'))
            try:
                file.description = json.loads("".join(text))
            except ValueError:
                file.write(tmp_path / "m", "".join(text))
                assert verdict(tmp_path / "m") is not None
                return
            assume(isinstance(file.description, dict))
        elif kind == "positions":
            name = data.draw(st.sampled_from(["fc.crow", "fc.col", "conv.crow", "conv.col"]))
            numbers = file.numbers(name)
            numbers[data.draw(st.integers(0, len(numbers) - 1))] = data.draw(st.integers(-(2**31), 2**31 - 1))
            file.put(name, numbers)
        elif kind == "bytes":
            content = file.tensors[data.draw(st.sampled_from(sorted(file.tensors)))]
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        else:
            header = file.header[data.draw(st.sampled_from(sorted(file.header)))]
            header["dtype"] = data.draw(st.sampled_from([header["dtype"], "I32", "F16", "BF16", "I8", "BOOL", "F64"]))
            header["shape"] = data.draw(st.lists(st.integers(0, 9), max_size=4)) or header["shape"]
    file.write(tmp_path / "m")
    verdict(tmp_path / "m")
