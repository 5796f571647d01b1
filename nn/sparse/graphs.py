"""The architecture of a model as plain data: which modules it has, and which functions connect them.

    describe(model) = {"modules": class and arguments of every standard module,  "graph": nodes in order}
    node k          = {"op", "target", "args", "kwargs"},     in whose arguments {"node": j} means the result of j < k

`torch.fx` traces the graph, in eval mode and with optional arguments of `forward` left out. `build` makes the model
again, on the device "meta": it has no memory before the tensors of the file have been compared with it.

A `GraphModule` writes Python code and runs it, so nothing may get into that code that was not chosen here: functions,
methods and attributes are those of `vocabulary`; other words must have the form of an identifier or of a short string
without quotes, backslashes and braces; numbers are numbers; nodes are named by `torch.fx`. Whatever else stands in a
description is refused, and `describe` refuses what `build` would.
"""

from __future__ import annotations

import copy
import inspect
import keyword
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.parametrize import is_parametrized

from sparseopt.nn.sparse.layers import BlockSparseLayer
from sparseopt.nn.sparse.vocabulary import (
    ATTRIBUTES,
    CONSTANTS,
    FUNCTION_NAMES,
    FUNCTIONS,
    LAYERS,
    METHODS,
    MODULES,
)

__all__ = ["ANY", "GRAPH", "build", "conform", "describe"]

ANY: Any = object()
GRAPH = {
    "modules": [{"names": [str], "class": str, "arguments": {str: ANY}}],
    "buffers": [str],
    "graph": [{"op": str, "target": str, "args": [ANY], "kwargs": {str: ANY}}],
}
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9_]+", re.ASCII)
_STRING = re.compile(r"[A-Za-z0-9_ .,:>()*+/-]{0,100}", re.ASCII)
_DEVICE = re.compile(r"[a-z]{1,20}(:[0-9]{1,3})?", re.ASCII)
# Names that mean something else in the code that GraphModule writes.
_TAKEN = {"self", "torch", "device", "inf", "nan", "NoneType", "fx_pytree", "pytree", "getattr", "slice", "math"}
_DEPTH = 8


def conform(value: Any, pattern: Any, where: str = "the description") -> None:
    """Refuse data of another form: a type, [pattern of entries], {str: pattern of values}, or {key: pattern, ...}."""
    if pattern is ANY:
        return
    kind = pattern if isinstance(pattern, type) else type(pattern)
    if type(value) is not kind:
        raise ValueError(f"{where} must be {kind.__name__}, not {value!r:.60}.")
    if kind is list:
        for number, entry in enumerate(value):
            conform(entry, pattern[0], f"{where}[{number}]")
    elif kind is dict and list(pattern) == [str]:
        for key, entry in value.items():
            conform(entry, pattern[str], f"{where}[{key!r:.60}]")
    elif kind is dict:
        if value.keys() != pattern.keys():
            raise ValueError(f"{where} must have the entries {', '.join(pattern)}, not {', '.join(value)!r:.60}.")
        for key, part in pattern.items():
            conform(value[key], part, f"{where}[{key!r}]")


def describe(model: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description of a model, and the tensors in its graph that are neither parameters nor buffers.

    Raises
    ------
    ValueError
        When `torch.fx` cannot trace the model, or it uses a function or a constant that no file may name.
    """
    _check_plain(model)
    if type(model) in _CLASSES:
        return {"modules": [_module(model, [""])], "buffers": [], "graph": []}, {}
    if isinstance(model, BlockSparseLayer):
        return {"modules": [], "buffers": [], "graph": []}, {}
    graph, root = _traced(model)
    names = _names(model)
    leaves = {n for module, found in names.items() if type(module) in _CLASSES or _is_sparse(module) for n in found}
    modules = [_module(module, found) for module, found in names.items() if type(module) in _CLASSES]
    loose = [n for n, _ in model.named_buffers(remove_duplicate=False) if n.rpartition(".")[0] not in leaves]
    nodes: dict[fx.Node, int] = {}
    described, constants = [], {}
    for node in graph.nodes:
        described.append(_node(node, nodes))
        nodes[node] = len(nodes)
        if node.op == "get_attr":
            tensor = _attribute(root, node.target)
            if node.target not in dict(model.named_parameters(remove_duplicate=False)) and node.target not in loose:
                constants[node.target] = tensor
    return {"modules": modules, "buffers": [*loose, *constants], "graph": described}, constants


def build(
    description: Mapping[str, Any], layers: Mapping[str, BlockSparseLayer], tensors: Mapping[str, Tensor]
) -> nn.Module:
    """The model of a description that has the form GRAPH: `layers` in their places, all else on the device "meta".

    Parameters
    ----------
    tensors : mapping
        Every tensor of the model under its full name, on any device; those that belong to no module of the description
        become parameters, or buffers if listed in `buffers`.

    Raises
    ------
    ValueError
        When a word or a number is not allowed where it stands, or the parts do not fit together.
    """
    modules = dict(layers)
    for record in description["modules"]:
        made = _made(record["class"], record["arguments"], len(tensors))
        for name in record["names"]:
            if name in modules:
                raise ValueError(f"two modules are called {name!r:.60}.")
            modules[name] = made
    if "" in modules:
        if len(set(modules.values())) > 1 or description["graph"]:
            raise ValueError("the model is one module, and there is more than that.")
        return modules[""]
    root = nn.Module()
    for name, module in modules.items():
        _put(root, name, modules, lambda home, key, module=module: home.add_module(key, module))
    buffers = set(description["buffers"])
    for name, tensor in tensors.items():
        if name.rpartition(".")[0] not in modules and not _inside(name, modules):
            _put(root, name, modules, _registration(tensor, name in buffers))
    graph = _graph(description["graph"], modules, tensors, layers)
    try:
        model = fx.GraphModule(root, graph)
        # All that the file holds, in its order, whether the graph uses it or not.
        for part, own in ((root._modules, model._modules), (root._parameters, model._parameters)):
            own.clear()  # type: ignore[attr-defined]
            own.update(part)  # type: ignore[attr-defined]
        model._buffers.clear()
        model._buffers.update(root._buffers)
    except Exception as error:
        raise ValueError(f"its graph gives no code ({_brief(error)}).") from error
    return model


_CLASSES = {cls: name for name, (cls, _) in MODULES.items()}


def _is_sparse(module: nn.Module) -> bool:
    return type(module) in LAYERS.values()


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in _CLASSES or _is_sparse(m)

    def create_args_for_root(self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None) -> Any:
        # Tracing an optional argument would take the branch of a tensor wherever forward asks if there is one.
        signature = list(inspect.signature(root_fn).parameters.values())[1:]
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        needed = [p for p in signature if p.default is p.empty and p.kind in positional]
        return root_fn, [self.root, *(self.create_proxy("placeholder", p.name, (), {}) for p in needed)]


def _traced(model: nn.Module) -> tuple[fx.Graph, nn.Module]:
    """The graph, and the module that its names belong to: torch.fx writes constants there."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        root = copy.copy(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # forward is called to be recorded, with data that is none
            return _Tracer().trace(root), root
    except Exception as error:
        raise ValueError(f"torch.fx cannot trace it ({_brief(error)}).") from error
    finally:
        for module, mode in modes:
            module.training = mode


def _check_plain(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if is_parametrized(module):
            raise ValueError(f"its module {name!r} has parametrizations.")
    # torch.fx calls forward itself, past the hooks of the model, and takes it from the class.
    if "forward" in vars(model) or model._forward_hooks or model._forward_pre_hooks:
        raise ValueError("its forward is changed by hooks, or by assigning to it.")


def _names(model: nn.Module) -> dict[nn.Module, list[str]]:
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    return names


def _attribute(root: nn.Module, target: str) -> Tensor:
    value: Any = root
    for part in target.split("."):
        value = getattr(value, part)
    if not isinstance(value, Tensor):
        raise ValueError(f"its attribute {target!r} is no tensor.")
    return value


def _module(module: nn.Module, names: list[str]) -> dict[str, Any]:
    """Class and arguments of a standard module, those that differ from their defaults."""
    kind = _CLASSES[type(module)]
    cls, wanted = MODULES[kind]
    defaults = {key: p.default for key, p in inspect.signature(cls).parameters.items()}
    arguments = {key: _argument(module, key) for key in wanted if key in defaults or "args" in defaults}
    arguments = {k: v for k, v in arguments.items() if not (type(v) is type(defaults.get(k)) and v == defaults[k])}
    record = {"names": names, "class": kind, "arguments": {key: _encoded(v, {}) for key, v in arguments.items()}}
    again = vars(_made(kind, record["arguments"], len(arguments) + len(list(module.parameters()))))
    mine = vars(module)
    for key, value in again.items():
        if key not in ("training", "_parameters", "_buffers", "_modules") and not key.startswith("_flat_weight"):
            if key not in mine or mine[key] != value:
                raise ValueError(f"its module {names[0]!r} is no {kind} as torch makes it: {key} was changed.")
    if "forward" in mine:
        raise ValueError(f"its module {names[0]!r} has a forward of its own.")
    return record


def _argument(module: Any, key: str) -> Any:
    if isinstance(module, nn.MultiheadAttention) and key in ("bias", "add_bias_kv"):
        return (module.in_proj_bias if key == "bias" else module.bias_k) is not None
    value = getattr(module, key)
    return value if isinstance(value, bool) or key != "bias" else value is not None


def _made(kind: str, arguments: Mapping[str, Any], most: int) -> nn.Module:
    if kind not in MODULES:
        raise ValueError(f"a file may not name the module {kind!r:.60}.")
    cls, names = MODULES[kind]
    unknown = arguments.keys() - set(names)
    if unknown:
        raise ValueError(f"{kind} has no argument {min(unknown)!r:.60}.")
    values = {key: _decoded(value, []) for key, value in arguments.items()}
    layers = values.get("num_layers", 1)  # the one argument that a constructor counts up to
    if type(layers) is not int or not 0 < layers <= most:
        raise ValueError(f"{kind} cannot have num_layers={layers!r:.60} with {most} tensors.")
    try:
        with torch.device("meta"):
            return cls(**values)
    except Exception as error:
        raise ValueError(f"{kind} cannot be made ({_brief(error)}).") from error


def _node(node: fx.Node, nodes: Mapping[fx.Node, int]) -> dict[str, Any]:
    target: Any = node.target
    if node.op == "call_function":
        if target not in FUNCTION_NAMES:
            raise ValueError(f"it calls {getattr(target, '__name__', target)!r}, which a file may not name.")
        target = FUNCTION_NAMES[target]
    args = [_encoded(each, nodes) for each in node.args]
    kwargs = {key: _encoded(value, nodes) for key, value in node.kwargs.items()}
    return {"op": node.op, "target": target, "args": args, "kwargs": kwargs}


def _encoded(value: Any, nodes: Mapping[fx.Node, int]) -> Any:
    """An argument as JSON: numbers, strings and lists as they are, all else as {kind: content}."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, fx.Node):
        return {"node": nodes[value]}
    if isinstance(value, slice):
        return {"slice": [_encoded(each, nodes) for each in (value.start, value.stop, value.step)]}
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return {"tuple": [_encoded(each, nodes) for each in value]}
    if isinstance(value, list):
        return [_encoded(each, nodes) for each in value]
    if isinstance(value, dict) and all(type(key) is str for key in value):
        return {"dict": {key: _encoded(each, nodes) for key, each in value.items()}}
    if value is Ellipsis:
        return {"ellipsis": None}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, (torch.dtype, torch.memory_format)):
        return {"torch": str(value).removeprefix("torch.")}
    raise ValueError(f"it uses a {kind.__name__} as a constant, which a file cannot hold.")


def _decoded(value: Any, nodes: list[fx.Node], depth: int = 0) -> Any:
    def inner(each: Any) -> Any:
        return _decoded(each, nodes, depth + 1)

    if depth > _DEPTH:
        raise ValueError(f"an argument is nested more than {_DEPTH} deep.")
    if value is None or type(value) in (bool, float):
        return value
    if type(value) is int and abs(value) < 2**63:
        return value
    if type(value) is str and _STRING.fullmatch(value):
        return value
    if type(value) is list:
        return [inner(each) for each in value]
    if type(value) is dict and len(value) == 1:
        ((kind, content),) = value.items()
        if kind == "node" and type(content) is int and 0 <= content < len(nodes):
            return nodes[content]
        if kind == "tuple" and type(content) is list:
            return tuple(inner(each) for each in content)
        if kind == "slice" and type(content) is list and len(content) == 3:
            return slice(*(inner(each) for each in content))
        if kind == "dict" and type(content) is dict and all(_STRING.fullmatch(key) for key in content):
            return {key: inner(each) for key, each in content.items()}
        if kind == "ellipsis" and content is None:
            return ...
        if kind == "float" and content in ("inf", "-inf", "nan"):
            return float(content)
        if kind == "torch" and type(content) is str and content in CONSTANTS:
            return CONSTANTS[content]
        if kind == "device" and type(content) is str and _DEVICE.fullmatch(content):
            return torch.device(content)
    raise ValueError(f"{value!r:.60} cannot be an argument there.")


def _graph(
    described: list[dict[str, Any]],
    modules: Mapping[str, nn.Module],
    tensors: Mapping[str, Tensor],
    layers: Mapping[str, BlockSparseLayer],
) -> fx.Graph:
    graph, nodes = fx.Graph(), list[fx.Node]()
    for number, node in enumerate(described):
        op, target = node["op"], node["target"]
        if (op == "output") != (number == len(described) - 1):
            raise ValueError("the graph must end with its one output.")
        if op == "placeholder":
            fits = _WORD.fullmatch(target) and not keyword.iskeyword(target) and target not in _TAKEN
            fits = fits and target not in [n.target for n in nodes if n.op == op]
        elif op == "call_module":
            fits = target in modules
        elif op == "get_attr":  # crow and col of a layer have been checked, and stay what they are
            fits = target in tensors and not _inside(target, layers)
        elif op == "call_method":
            fits = target in METHODS and node["args"][:1] and "node" in _keys(node["args"][0])
        elif op == "call_function":
            fits = target in FUNCTIONS
        else:
            fits = op == target == "output" and len(node["args"]) == 1
        if not fits:
            raise ValueError(f"node {number} of the graph, {op!r:.60} of {target!r:.60}, is not allowed there.")
        args = tuple(_decoded(each, nodes) for each in node["args"])
        kwargs = {key: _decoded(each, nodes) for key, each in node["kwargs"].items()}
        bad = [k for k in kwargs if not _WORD.fullmatch(k) or keyword.iskeyword(k) or k == "out"]
        if bad or ((args or kwargs) and op in ("placeholder", "get_attr")) or (kwargs and op == "output"):
            raise ValueError(f"node {number} of the graph has arguments that are not allowed there.")
        if target == "getattr" and (len(args) != 2 or not isinstance(args[0], fx.Node) or args[1] not in ATTRIBUTES):
            raise ValueError(f"node {number} of the graph reads an attribute that a file may not name.")
        nodes.append(graph.create_node(op, FUNCTIONS[target] if op == "call_function" else target, args, kwargs))
    if not nodes:
        raise ValueError("its graph is empty.")
    return graph


def _keys(value: Any) -> set[str]:
    return set(value) if isinstance(value, dict) else set()


def _inside(name: str, modules: Mapping[str, Any]) -> bool:
    """Whether a module, or one of its parents, is among `modules`."""
    return any(parent in modules for parent in _parents(name))


def _parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:k]) for k in range(1, len(parts)))


def _put(root: nn.Module, name: str, leaves: Mapping[str, Any], put: Callable[[nn.Module, str], None]) -> None:
    """Register something in `root` under a name with dots, in containers made for it."""
    parts = name.split(".")
    if len(parts) > 100 or not all(_PART.fullmatch(part) and not keyword.iskeyword(part) for part in parts):
        raise ValueError(f"{name!r:.60} is no name of a module or tensor.")
    if _inside(name, leaves):
        raise ValueError(f"{name!r:.60} lies inside of another module.")
    home = root
    try:
        for part in parts[:-1]:
            if part not in home._modules:
                home.add_module(part, nn.Module())
            home = home._modules[part]  # type: ignore[assignment]
        if parts[-1] in home._modules:
            raise KeyError(f"{name!r:.60} is taken")
        put(home, parts[-1])
    except (KeyError, TypeError) as error:
        raise ValueError(f"the name {name!r:.60} cannot be used in a module ({_brief(error)}).") from error


def _registration(tensor: Tensor, is_buffer: bool) -> Callable[[nn.Module, str], None]:
    like = torch.empty_like(tensor, device="meta")
    if is_buffer:
        return lambda home, key: home.register_buffer(key, like, persistent=False)
    return lambda home, key: home.register_parameter(key, nn.Parameter(like, requires_grad=False))


def _brief(error: BaseException) -> str:
    """The first line of a message of another library, as a part of a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(". ")[:200]
