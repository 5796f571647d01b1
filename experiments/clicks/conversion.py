"""From raw rows to columns of ids, once: a folder that training reads, whatever happens on the way.

    1  stage    the raw files are read, and their rows kept in parts                              (`staging`)
    2  count    every part: how often each value occurs in the training rows                      (`vocabulary`)
    3  merge    the counts: which values get ids
    4  write    every part: ids, at the places of its rows in the columns

    folder/meta.json, train/, valid/, test/    the columns, see `columns`
    folder/vocabulary/C1.npy ...               the value of each id from 2 on, as 32 bits, see `vocabulary`
    folder/malformed.tsv                       file, line, reason and bytes of every line that is no row
    folder.staging/                            beside it, while the conversion is under way

The folder appears in one move, complete. A killed conversion goes on at the next call: what is whole in the staging
folder is kept, what is not is done again, and the finished folder is the same, byte for byte. Memory does not grow with
the rows, but for one byte per row that says which part it is in, a permutation for protocol x4 (4 bytes per row, for a
while), and the vocabulary.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.experiments.clicks import splitting
from sparseopt.experiments.clicks.columns import LABEL, Columns, ColumnsWriter, Field
from sparseopt.experiments.clicks.layout import META
from sparseopt.experiments.clicks.lines import FIELDS, NUMBERS
from sparseopt.experiments.clicks.ownership import MARK, flush, keep_if_same, owned, remove, require_room, tidy
from sparseopt.experiments.clicks.request import Options, checked, identity, named, reopened
from sparseopt.experiments.clicks.splitting import PARTS
from sparseopt.experiments.clicks.staging import ROWS, WORKERS, Part, Staged, put_json, read_part, stage
from sparseopt.experiments.clicks.vocabulary import (
    FieldIds,
    HashIds,
    codes,
    count_run,
    field_ids,
    merged,
    missing,
    values_of,
    write_array,
)
from sparseopt.nn.wholefile import replacing
from sparseopt.progress import shown

__all__ = ["convert"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def convert(
    sources: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    protocol: str = "files",
    min_count: int = 10,
    hash_bins: int | None = None,
    numbers: str = "buckets",
    shares: Sequence[float] | None = None,
    progress: bool | None = False,
    rows: int = ROWS,
) -> Columns:
    """The columns of raw rows in `folder`: converted now, or opened if that was done before.

    Parameters
    ----------
    sources : path or mapping of str to path
        The file that a protocol splits, or the files of the parts "train", "valid" and "test" for protocol "files".
    folder : path
        What to create, or to go on with.
    protocol : str
        "files", "time", "x1" or "x4", see `splitting`.
    min_count : int
        In how many training rows a value needs to occur to get an id.
    hash_bins : int, optional
        Ids are hashes into so many bins per field instead, and `min_count` has no meaning.
    numbers : str
        "buckets": I1 ... I13 are fields of ids. "values": they are numbers, log(1 + max(v, 0)), a missing one 0.
    shares : sequence of float, optional
        For protocol "time": of training, validation and test rows, in this order in time. Without it, DLRM's days.
    progress : bool, optional
        Show bars; None: after two seconds on a terminal.
    rows : int
        Of a staged part, about; the result does not depend on it.

    Raises
    ------
    ValueError
        When a file is damaged or is no file of such rows, or `folder` holds something else.
    OSError
        When the disk is full; the next call goes on.
    """
    options = checked(protocol, min_count, hash_bins, numbers, shares)
    files = named(sources, protocol)
    folder = Path(os.path.abspath(folder))
    staging = folder.with_name(f"{folder.name}.staging")
    try:
        if not (folder / META).is_file():
            require_room(folder)
            with owned(staging):
                if not (folder / META).is_file():  # another process may have been here first
                    made = _convert(files, staging, options, progress, rows)
                    flush(made)
                    os.rename(made, folder)
        columns = reopened(folder, files, options)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(
            f"{folder} cannot be finished ({os.strerror(error.errno or 0)}): make room and convert again, it goes on "
            "where it stopped."
        ) from error
    remove(staging)
    return columns


def _convert(sources: Mapping[str, Path], staging: Path, options: Options, progress: bool | None, rows: int) -> Path:
    """The finished columns, in a folder below `staging`."""
    before = {part: identity(path) for part, path in sources.items()}
    keep_if_same(staging / MARK, [[part, str(sources[part].resolve()), before[part]] for part in sources], staging)
    staged = {part: stage(path, part, staging, progress, rows) for part, path in sources.items()}
    for part, path in sources.items():
        if identity(path) != before[part]:
            raise ValueError(f"{path} was changed while it was read: convert again.")
    parts = [each for file in staged.values() for each in file.parts]
    own = staging / "options"
    own.mkdir(exist_ok=True)
    keep_if_same(own / "options.json", asdict(options), own)
    folder = own / "columns"
    if (folder / META).is_file():  # killed before the move
        tidy(folder)
        return folder
    places = _Places(_split(staged, options), parts)
    ids = _ids(parts, places, own, options, progress)
    fields = [Field(name, ids[name].size) for name in ids]
    fields += [Field(name) for name in NUMBERS if name not in ids]
    clicks = dict.fromkeys(places.rows, 0)
    writer = ColumnsWriter(folder, places.rows, fields)
    with ThreadPoolExecutor(WORKERS) as pool:
        for number in shown(range(len(parts)), progress, len(parts)):
            for part, start, columns in _written(parts[number], places, number, ids, pool):
                writer.write(part, start, columns)
                clicks[part] += int(columns[LABEL].sum())
    for field, each in ids.items():
        if isinstance(each, FieldIds):
            (folder / "vocabulary").mkdir(exist_ok=True)
            shutil.copyfile(own / "vocabulary" / f"{field}.npy", folder / "vocabulary" / f"{field}.npy")
    _malformed(staged, folder / "malformed.tsv")
    tidy(folder)
    about = {part: {"name": sources[part].name, **before[part], **staged[part].about} for part in sources}
    writer.finish({"conversion": {"options": asdict(options), "sources": about, "clicks": clicks}})
    tidy(folder)
    return folder


# -- which row goes where ----------------------------------------------------------------------------------------------


def _split(staged: Mapping[str, Staged], options: Options) -> NDArray[np.uint8]:
    """The part of each row of all files, as a place in `PARTS`."""
    total = sum(file.rows for file in staged.values())
    if options.protocol == "files":
        return np.repeat(np.array([PARTS.index(part) for part in staged], np.uint8), [f.rows for f in staged.values()])
    if options.protocol == "x1":
        return splitting.x1(total)
    if options.protocol == "time":
        return splitting.by_shares(total, options.shares) if options.shares else splitting.by_time(total)
    labels = [read_part(part, ("label",))["label"] for file in staged.values() for part in file.parts]
    return splitting.x4(np.concatenate(labels))


class _Places:
    """Where the rows of staged parts go: `rows` of each part, and per staged part which rows go where."""

    def __init__(self, part_of: NDArray[np.uint8], parts: Sequence[Part]) -> None:
        sizes = np.bincount(part_of, minlength=len(PARTS))
        self.rows = {part: int(size) for part, size in zip(PARTS, sizes, strict=True) if size}
        self._part_of = part_of
        self._first = np.concatenate([[0], np.cumsum([part.rows for part in parts])])
        counts = [np.bincount(self._of(i), minlength=len(PARTS)) for i in range(len(parts))]
        self._starts = np.concatenate([[[0] * len(PARTS)], np.cumsum(counts, 0)])

    def _of(self, number: int) -> NDArray[np.uint8]:
        return self._part_of[self._first[number] : self._first[number + 1]]

    def mask(self, number: int, part: str) -> NDArray[np.bool_]:
        return self._of(number) == PARTS.index(part)

    def start(self, number: int, part: str) -> int:
        return int(self._starts[number, PARTS.index(part)])


# -- ids ---------------------------------------------------------------------------------------------------------------


def _ids(
    parts: Sequence[Part], places: _Places, staging: Path, options: Options, progress: bool | None
) -> dict[str, FieldIds | HashIds]:
    """The ids of every field that has some."""
    if options.hash_bins:
        return {field: HashIds(FIELDS.index(field), options.hash_bins) for field in options.fields}
    kept, done = staging / "vocabulary", staging / "vocabulary.json"
    if not done.is_file():
        numbers = [i for i in range(len(parts)) if places.mask(i, "train").any()]
        with ThreadPoolExecutor(WORKERS) as pool:
            made = pool.map(lambda i: _run(parts, places, i, staging, options), numbers)
            runs = list(shown(made, progress, len(numbers)))
        kept.mkdir(exist_ok=True)
        for field in shown(options.fields, progress, len(options.fields)):
            if (kept / f"{field}.npy").is_file():
                continue
            with replacing(kept / f"{field}.npy") as file:
                write_array(file, field_ids(*merged(runs, field, options.min_count or 1)).by_id())
        put_json(done, list(options.fields))
        for run in runs:
            run.unlink()
    return {field: field_ids(np.load(kept / f"{field}.npy")) for field in options.fields}


def _run(parts: Sequence[Part], places: _Places, number: int, staging: Path, options: Options) -> Path:
    """The run of the training rows of a staged part."""
    path = staging / f"run-{number:05d}.npy"
    if not path.is_file():
        mine = places.mask(number, "train")
        columns = read_part(parts[number], (*options.fields, "missing"))
        if not mine.all():
            columns = {name: column[mine] for name, column in columns.items()}
        count_run(columns, options.fields, path)
    return path


def _written(
    part: Part,
    places: _Places,
    number: int,
    ids: Mapping[str, FieldIds | HashIds],
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[str, int, dict[str, NDArray[Any]]]]:
    """What the rows of a staged part become, for each part that some of them belong to: where it starts, columns."""
    columns = read_part(part, (LABEL, *FIELDS, "missing"))

    def column(name: str) -> NDArray[Any]:
        if name in ids:
            return ids[name].of(codes(name, columns[name]), missing(name, columns["missing"]))
        return columns[name] if name == LABEL else values_of(columns[name])

    names = (LABEL, *ids, *(name for name in NUMBERS if name not in ids))
    made = dict(zip(names, pool.map(column, names), strict=True))
    for name in places.rows:
        mine = places.mask(number, name)
        if mine.any():
            yield name, places.start(number, name), made if mine.all() else {k: v[mine] for k, v in made.items()}


def _malformed(staged: Mapping[str, Staged], path: Path) -> None:
    with replacing(path) as file:
        file.write(b"file\tline\treason\tbytes\n")
        for each in staged.values():
            for part in each.parts:
                if part.malformed:
                    file.write(part.path.with_suffix(".tsv").read_bytes())
