"""Compiled kernels with a disk cache that is never stale.

Numba stores a compiled kernel under a stamp of the one file that holds it, so a kernel that inlines `LogSum.prox` would
keep the old formula after `regularizers.py` was edited. `kernel` stamps every kernel with the SHA-256 of all sources it
may inline: the files of the package that define compiled code (a constant that a kernel uses belongs into such a file)
and, in a process that defines regularizers of its own, their files too. Such a process keeps its kernels under a name
of their own, so it does not evict the package's.

The cache lies beside the sources, or where Numba's `NUMBA_CACHE_DIR` says. Kernels are compiled per combination of
argument types: one for dense float64 with `L2`, another for CSC with `MCP`, and so on, each once per machine.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

import numba
from llvmlite.binding import parse_assembly, parse_bitcode
from numba.core.caching import IndexDataCacheFile
from numba.core.ccallback import CFunc

__all__ = ["brief_kernel", "c_function", "depends_on", "kernel", "lean_kernel", "vectorized_kernel"]

_njit: Any = numba.njit  # whose types do not know all options
_PACKAGE = Path(__file__).parent
_COMPILED = (b"numba", b"sparseopt.jit", b"sparseopt.structs", b"sparseopt.scalar", b"regularizers._define")
_package_sources = sorted(_PACKAGE.rglob("*.py"))
_user_sources: set[Path] = set()
_process = ""  # names this process once a class of `__main__` takes part
_kernels: list[Any] = []


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` to machine code, cached on disk and fresh whenever a source it uses has changed."""
    return _register(_njit(cache=True, error_model="numpy", nogil=True)(function))


def lean_kernel(function: Callable[..., Any]) -> Any:
    """A `kernel` that neither creates nor returns arrays, so it does not count references to those it is given.

    Counting them takes as long as a step in a small block does. Numba refuses to compile one that does either.
    """
    return _register(_njit(cache=True, error_model="numpy", nogil=True, _nrt=False)(function))


def brief_kernel(function: Callable[..., Any]) -> Any:
    """A `lean_kernel` of some microseconds that keeps the interpreter's lock, for which it might have to wait."""
    return _register(_njit(cache=True, error_model="numpy", nogil=False, _nrt=False)(function))


def vectorized_kernel(function: Callable[..., Any]) -> Any:
    """A small `lean_kernel` for inner loops: its sums may be reordered, so that the compiler can use vector registers.

    It is inlined wherever it is called: for columns of a few hundred numbers, the call would take as long as the loop.

    Only reordering and fused multiply-add are allowed: NaN and infinity keep their meaning.
    """
    flags = {"reassoc", "contract", "nsz"}
    return _register(
        _njit(cache=True, error_model="numpy", nogil=True, fastmath=flags, forceinline=True, _nrt=False)(function)
    )


def c_function(function: Callable[..., Any], signature: Any, sources: Iterable[Path]) -> Any:
    """Compile `function` to a C function, cached on disk and fresh whenever one of `sources` has changed.

    The files of `sources` hold everything that the function inlines. It may be a closure over whole numbers: each
    combination of them is compiled, and kept, by itself.
    """
    compiled: Any = CFunc(function, (signature.args, signature.return_type), {}, {"error_model": "numpy"})
    compiled.enable_caching()
    _keep(compiled._cache, hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest())
    compiled.compile()
    return compiled


def depends_on(cls: type) -> None:
    """Count the file that defines `cls` among the sources of every kernel.

    A class of the running script, console or notebook (`__main__`) is another class in the next process, so kernels
    that use it cannot be found again: they are stamped with this process and overwritten by the next. Put a
    regularizer into a module of its own to have its kernels cached.
    """
    global _process
    if cls.__module__ == "__main__":
        if _process:
            return
        _process = f"{os.getpid()} {time.time_ns()}"
    else:
        path = Path(inspect.getfile(cls)).resolve()
        if path.is_relative_to(_PACKAGE.resolve()) or path in _user_sources:
            return
        _user_sources.add(path)
    _digest.cache_clear()
    for compiled in _kernels:
        _stamp(compiled)


def _register(compiled: Any) -> Any:
    _kernels.append(compiled)
    _stamp(compiled)
    cache = getattr(compiled, "_cache", None)
    if cache is not None:  # once, because what one process wraps twice another could not read
        cache._impl.reduce = partial(_store, cache._impl.reduce)
        cache._impl.rebuild = partial(_load, cache._impl.rebuild)
    return compiled


class _CacheFile(IndexDataCacheFile):
    """One file for each kernel, named after the sources and the key: types of arguments, machine and code.

    Numba numbers its files and writes an index of them first, so of two processes that compile at once, one may be
    given the other's kernel, or the one before an edit. A file that holds its key and is replaced as a whole is either
    the kernel asked for or none.
    """

    def save(self, key: Any, data: Any) -> None:
        for path in self._files():
            if not path.name.startswith(self._fresh()):
                path.unlink(missing_ok=True)
        self._save_data(self._file(key), (key, data))

    def load(self, key: Any) -> Any:
        try:
            stored, data = self._load_data(self._file(key))
        except (OSError, AttributeError, ImportError):  # no such file, or one that names a class that is gone
            return None
        return data if stored == key else None

    def flush(self) -> None:
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> Iterator[Path]:
        """All files of this kernel, fresh or stale; other processes may be at removing them."""
        base = escape(self._index_name.removesuffix(".nbi"))
        return Path(self._cache_path).glob(f"{base}.*.nbc")

    def _fresh(self) -> str:
        """What the names of files begin with that were made from the present sources."""
        return self._index_name.removesuffix("nbi") + _short(f"{self._version} {self._source_stamp}")

    def _file(self, key: Any) -> str:
        return f"{self._fresh()}-{_short(str(key))}.nbc"


class _Once:
    """The digest of all sources, computed once until `cache_clear`: reading the package takes milliseconds."""

    def __init__(self) -> None:
        self._value: tuple[str, str] | None = None

    def __call__(self) -> tuple[str, str]:
        if self._value is None:
            user, digest = sorted(_user_sources), hashlib.sha256()
            for path in [*_package_sources, *user]:
                text = path.read_bytes()
                if path in _user_sources or any(word in text for word in _COMPILED):
                    digest.update(text)
            digest.update(_process.encode())
            names = "\n".join([*map(str, user), "__main__" if _process else ""])
            variant = hashlib.sha256(names.encode()).hexdigest()[:8] if user or _process else ""
            self._value = digest.hexdigest(), variant
        return self._value

    def cache_clear(self) -> None:
        self._value = None


_digest = _Once()


def _stamp(compiled: Any) -> None:
    cache = getattr(compiled, "_cache", None)
    if cache is None:  # NUMBA_DISABLE_JIT=1 leaves a plain Python function
        return
    stamp, variant = _digest()
    _keep(cache, stamp, f"-{variant}" if variant else "")


def _store(reduce: Callable[..., Any], compiled: Any) -> Any:
    """What goes to disk of a compiled kernel: its text for LLVM last, and only the names that it defines in its place.

    Numba reads the text whenever it loads a kernel, which takes ten times the memory of the kernel, and as much time.
    """
    (name, kind, (machine_code, text)), *rest = reduce(compiled)
    return (name, kind, (machine_code, _names(text))), *rest, text


def _load(rebuild: Callable[..., Any], context: Any, stored: Any) -> Any:
    """A kernel from disk; its text is read when another kernel is compiled that calls this one."""
    *reduced, text = stored
    loaded = rebuild(context, tuple(reduced))
    loaded.library._shared_module = None
    loaded.library._get_module_for_linking = lambda: parse_bitcode(text)
    return loaded


def _names(text: bytes) -> bytes:
    """A text for LLVM that defines the names that another one does, and nothing else."""
    module = parse_bitcode(text)
    functions = [f'define void @"{f.name}"() {{ ret void }}' for f in module.functions if not f.is_declaration]
    variables = [f'@"{v.name}" = global i8 0' for v in module.global_variables if not v.is_declaration]
    names: bytes = parse_assembly("\n".join([*variables, *functions])).as_bitcode()
    return names


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _keep(cache: Any, stamp: str, suffix: str = "") -> None:
    base = cache._impl.filename_base + suffix
    cache._cache_file = _CacheFile(cache_path=cache._cache_path, filename_base=base, source_stamp=stamp)
