"""Files of sparseopt.nn are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="sparseopt.nn needs torch")

from resumable import leaves, trained, unequal  # noqa: E402

from sparseopt.nn import wholefile  # noqa: E402
from sparseopt.nn.wholefile import read_whole, write_whole  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


SMALL = {"tensor": torch.arange(5), "text": "x", "numbers": [1, 2.5, (True, None)]}


def accepted_damage(path: Path, read: Callable[[Path], Any], every: int = 1) -> list[str]:
    """The changes of a file that `read` does not refuse: a bit of every byte, every smaller length, something more."""
    accepted = []

    def attempt(what: str) -> None:
        try:
            read(path)
        except ValueError as error:
            if str(path) in str(error) and str(error).endswith("."):
                return
        accepted.append(what)

    data = path.read_bytes()
    with open(path, "r+b", buffering=0) as file:
        for i in range(0, len(data), every):
            os.pwrite(file.fileno(), bytes([data[i] ^ 1 << i % 8]), i)
            attempt(f"bit {i % 8} of byte {i}")
            os.pwrite(file.fileno(), data[i : i + 1], i)
    assert path.read_bytes() == data
    for length in range(len(data) - 1, -1, -every):
        os.truncate(path, length)
        attempt(f"{length} bytes of {len(data)}")
    for what, more in (("one byte more", data + b"\n"), ("twice", data + data)):
        path.write_bytes(more)
        attempt(what)
    return accepted


@pytest.mark.skipif(os.name != "posix", reason="single bytes are written with pwrite")
def test_every_change_of_a_file_is_noticed(tmp_path: Path) -> None:
    write_whole(tmp_path / "small.pt", SMALL)
    assert accepted_damage(tmp_path / "small.pt", read_whole) == []


@pytest.mark.skipif(os.name != "posix", reason="single bytes are written with pwrite")
def test_a_reader_without_a_checksum_is_found_out(tmp_path: Path) -> None:
    def read(path: Path) -> Any:
        try:
            return torch.load(path, weights_only=True)
        except Exception as error:
            raise ValueError(f"{path}: {type(error).__name__}.") from error

    write_whole(tmp_path / "small.pt", SMALL)
    assert len(accepted_damage(tmp_path / "small.pt", read, every=7)) > 20


@pytest.mark.parametrize("name", ["empty", "text", "plain torch.save", "pickle", "zip end only"])
def test_files_that_something_else_wrote_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.pt"
    if name == "plain torch.save":
        torch.save({"model": {}}, path)
    else:
        contents = {"empty": b"", "text": b"epoch 3\n" * 50, "pickle": b"\x80\x04N.", "zip end only": b"PK\x05\x06"}
        path.write_bytes(contents[name])
    run = trained(1)
    with pytest.raises(ValueError, match=r"foreign\.pt is no whole checkpoint: .* give another file\.$"):
        run.load(path)


def test_a_later_format_is_named_and_a_missing_file_stays_a_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(wholefile, "VERSION", 2)
        write_whole(tmp_path / "later.pt", SMALL)
    with pytest.raises(ValueError, match="has format 2, and this sparseopt reads format 1"):
        read_whole(tmp_path / "later.pt")
    with pytest.raises(FileNotFoundError):
        trained(1).load(tmp_path / "nowhere.pt")


def test_the_file_is_a_zip_archive_that_torch_reads_without_pickle(tmp_path: Path) -> None:
    run = trained()
    run.save(tmp_path / "run.pt")
    content = torch.load(tmp_path / "run.pt", weights_only=True)
    assert unequal(leaves(content["model"]), leaves(run.model.state_dict())) == []
    assert content["sparsifier"] == run.sparsifier.state_dict()


def system_calls(monkeypatch: pytest.MonkeyPatch, write: Callable[[], None], folder: Path) -> list[str]:
    """What `write` asks of the disk, in order."""
    calls: list[str] = []
    fsync, replace, digesting = os.fsync, os.replace, wholefile._Digesting.put

    def on_fsync(descriptor: int) -> None:
        calls.append("flush folder" if os.path.samestat(os.fstat(descriptor), os.stat(folder)) else "flush file")
        fsync(descriptor)

    def on_replace(source: Any, target: Any) -> None:
        calls.append("replace")
        replace(source, target)

    def on_write(self: Any, data: Any) -> None:
        if calls[-1:] != ["write"]:
            calls.append("write")
        digesting(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", on_fsync)
        patch.setattr(os, "replace", on_replace)
        patch.setattr(wholefile._Digesting, "put", on_write)
        write()
    return calls


@pytest.mark.skipif(os.name != "posix", reason="folders cannot be flushed here")
def test_contents_reach_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = system_calls(monkeypatch, lambda: write_whole(tmp_path / "x.pt", SMALL), tmp_path)
    assert calls == ["write", "flush file", "replace", "flush folder"]


def failures(path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let one call after the other of a save fail, as a full disk would; yields after each."""
    content = {"new": torch.ones(3), **SMALL}
    counted: list[str] = []

    def failing(owner: Any, name: str, at: int) -> Callable[..., Any]:
        true = getattr(owner, name)

        def call(*arguments: Any) -> Any:
            counted.append(name)
            if len(counted) == at:
                raise error
            return true(*arguments)

        return call

    def save(to: Path, at: int) -> None:
        counted.clear()
        with monkeypatch.context() as patch:
            for owner, name in ((wholefile._Digesting, "put"), (os, "replace")):
                patch.setattr(owner, name, failing(owner, name, at))
            write_whole(to, content)

    save(path.with_name("elsewhere"), 0)
    os.unlink(path.with_name("elsewhere"))
    for at, name in enumerate(list(counted), 1):
        with pytest.raises(type(error)):
            save(path, at)
        yield name


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.pt"
    write_whole(path, SMALL)
    old, tried = path.read_bytes(), []
    for name in failures(path, error, monkeypatch):
        tried.append(name)
        assert path.read_bytes() == old
        assert os.listdir(tmp_path) == ["x.pt"]
    assert tried.count("put") > 10
    assert tried[-1] == "replace"


def test_what_a_killed_run_left_is_overwritten_and_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.pt.tmp").write_bytes(b"half a file" * 10_000)
    (tmp_path / "latest.pt").symlink_to("real.pt")
    write_whole(tmp_path / "latest.pt", SMALL)
    assert sorted(os.listdir(tmp_path)) == ["latest.pt", "real.pt"]
    assert (tmp_path / "latest.pt").is_symlink()
    assert read_whole(tmp_path / "latest.pt")["text"] == "x"


def waits_for_another_writer(path: Path) -> bool:
    other = wholefile._claim(path.with_name(path.name + ".tmp"))
    other.write(b"half")
    other.flush()
    writer = threading.Thread(target=write_whole, args=(path, SMALL))
    writer.start()
    writer.join(0.15)
    waited = writer.is_alive()
    other.close()
    writer.join(10.0)
    assert not writer.is_alive()
    return waited


@pytest.mark.skipif(os.name != "posix", reason="files cannot be locked here")
def test_writers_of_one_path_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert waits_for_another_writer(tmp_path / "x.pt")
    assert read_whole(tmp_path / "x.pt")["text"] == "x"
    monkeypatch.setattr(wholefile.fcntl, "flock", lambda *_: None)
    assert not waits_for_another_writer(tmp_path / "x.pt")


def test_many_writers_and_a_reader_meet_whole_files_only(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    write_whole(path, {"writer": 0, "data": torch.zeros(100)})
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for _ in range(8):
                write_whole(path, {"writer": number, "data": torch.full((100,), float(number))})
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(i,)) for i in range(1, 5)]
    for each in writers:
        each.start()
    while any(each.is_alive() for each in writers):
        content = read_whole(path)
        assert bool((content["data"] == content["writer"]).all())
    assert errors == []
    assert os.listdir(tmp_path) == ["x.pt"]
