"""The architecture of a model as plain data: its modules, and the functions that connect them.

    describe(model) = {"modules": class and arguments of each,  "parameters", "buffers": outside of these,  "graph"}
    node k of graph = {"op", "target", "args", "kwargs"},     where {"node": j} is the result of an earlier node, j < k

`torch.fx` traces the graph, in eval mode and with the optional arguments of `forward` left out. `build` makes the model
again on the device "meta", which has no memory: first the tensors of the file are compared with it.

A `GraphModule` writes Python code and runs it. So functions, methods, attributes and classes are words of `vocabulary`;
names of modules, tensors and arguments are identifiers, arguments are `literals`; nodes are named by torch.fx. All else
is refused.
"""

from __future__ import annotations

import copy
import inspect
import keyword
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.parametrize import is_parametrized

from sparseopt.nn.sparse.literals import ANY, brief, decoded, encoded
from sparseopt.nn.sparse.records import KINDS
from sparseopt.nn.sparse.standard import CLASSES, made, module_record
from sparseopt.nn.sparse.vocabulary import ATTRIBUTES, FUNCTION_NAMES, FUNCTIONS, METHODS

__all__ = ["FORM", "build", "describe", "is_below"]

FORM = {
    "modules": [{"names": [str], "class": str, "arguments": {str: ANY}}],
    "order": [str],  # of all names of modules, as in the model
    "parameters": [str],
    "buffers": {str: bool},  # whether state_dict has it
    "graph": [{"op": str, "target": str, "args": [ANY], "kwargs": {str: ANY}}],
}
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PART = re.compile(r"[A-Za-z0-9_]+")
# Names that mean something else in the code of a GraphModule.
_TAKEN = {"self", "torch", "device", "inf", "nan", "NoneType", "fx_pytree", "pytree", "getattr", "slice", "math"}
_LEAVES = {*CLASSES, *(kind.layer for kind in KINDS.values())}


def describe(model: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description of a model, and the tensors in its graph that are neither parameters nor buffers.

    Raises
    ------
    ValueError
        When `torch.fx` cannot trace the model, or it uses something that a file may not name.
    """
    _check_plain(model)
    if type(model) in _LEAVES:
        return {"modules": [_record(model, [""])], "order": [""], "parameters": [], "buffers": {}, "graph": []}, {}
    graph, root = _traced(model)
    leaves, order = dict[nn.Module, list[str]](), list[str]()
    for name, module in model.named_modules(remove_duplicate=False):
        if type(module) in _LEAVES:
            leaves.setdefault(module, []).append(name)
            order.append(name)
    inside = set(order)
    buffers = {n: None for n, _ in model.named_buffers(remove_duplicate=False) if not is_below(n, inside)}
    parameters = [n for n, _ in model.named_parameters(remove_duplicate=False)]
    known = {*parameters, *(n for n, _ in model.named_buffers(remove_duplicate=False))}
    constants = {n.target: _tensor(root, n.target) for n in graph.nodes if n.op == "get_attr" and n.target not in known}
    numbers = {node: number for number, node in enumerate(graph.nodes)}
    description = {
        "modules": [_record(module, names) for module, names in leaves.items()],
        "order": order,
        "parameters": [name for name in parameters if not is_below(name, inside)],
        "buffers": {n: n not in constants and _is_persistent(model, n) for n in [*buffers, *constants]},
        "graph": [_node(node, numbers) for node in graph.nodes],
    }
    return description, constants


def build(description: Mapping[str, Any], layers: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> nn.Module:
    """The model of a description of the form FORM: `layers` in their places, all else on the device "meta".

    Parameters
    ----------
    layers : mapping
        The layers of sparseopt by their names.
    tensors : mapping
        Every tensor of the model by its name. Those outside of modules get their shapes from here.

    Raises
    ------
    ValueError
        When something may not be named, or the parts do not fit together.
    """
    modules: dict[str, nn.Module] = {}
    for record in description["modules"]:
        for name in record["names"]:
            if name in modules:
                raise ValueError(f"two of its modules have the name {name!r:.60}.")
            if (record["class"] in KINDS) != (name in layers):
                raise ValueError(f"its module {name!r:.60} has blocks in one place of the description only.")
        if record["class"] in KINDS:
            modules.update({name: layers[name] for name in record["names"]})
        else:
            modules.update(dict.fromkeys(record["names"], made(record["class"], record["arguments"], len(tensors))))
    if layers.keys() - modules.keys():
        raise ValueError(f"its layer {min(layers.keys() - modules.keys())!r:.60} is not in the graph's modules.")
    if sorted(modules) != sorted(description["order"]):
        raise ValueError("the order of its modules is that of others.")
    if list(modules) == [""] and not description["graph"]:
        return modules[""]
    root = nn.Module()
    for name in description["order"]:
        _register(root, name, modules, lambda home, key, module: home.add_module(key, module), modules[name])
    for name in description["parameters"]:
        like = nn.Parameter(_like(tensors, name), requires_grad=False)
        _register(root, name, modules, lambda home, key, like: home.register_parameter(key, like), like)
    for name, persistent in description["buffers"].items():
        content = _like(tensors, name), persistent
        _register(root, name, modules, lambda home, key, *content: home.register_buffer(key, *content), *content)
    graph = _graph(description["graph"], modules, {name for name in tensors if not is_below(name, layers)})
    try:
        model = fx.GraphModule(root, graph)
    except Exception as error:
        raise ValueError(f"its graph gives no code ({brief(error)}).") from error
    # GraphModule takes what the graph uses; the model has the rest as well, and all in its own order.
    for part in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
        for key in getattr(root, part):
            if hasattr(fx.GraphModule, key) or key in vars(model):
                raise ValueError(f"{key!r} means something else in a GraphModule.")
        getattr(model, part).clear()
        getattr(model, part).update(getattr(root, part))
    return model


def is_below(name: str, modules: Any) -> bool:
    """Whether the name belongs to one of `modules`, or to something inside of one."""
    parts = name.split(".")
    return any(".".join(parts[:k]) in modules for k in range(len(parts)))


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in _LEAVES

    def create_args_for_root(self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None) -> Any:
        # Tracing an optional argument would take the branch of a tensor wherever forward asks whether there is one.
        arguments = list(inspect.signature(root_fn).parameters.values())[1:]
        needed = [
            a.name for a in arguments if a.default is a.empty and a.kind in (a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD)
        ]
        return root_fn, [self.root, *(self.create_proxy("placeholder", name, (), {}) for name in needed)]


def _traced(model: nn.Module) -> tuple[fx.Graph, nn.Module]:
    """The graph, and the module whose attributes it names: a copy, because torch.fx keeps constants there."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        root = copy.copy(model)
        with warnings.catch_warnings(), torch.random.fork_rng(devices=()):
            warnings.simplefilter("ignore")  # forward is called to be recorded, with arguments that are no tensors
            return _Tracer().trace(root), root
    except Exception as error:
        raise ValueError(f"torch.fx cannot trace it ({brief(error)}).") from error
    finally:
        for module, mode in modes:
            module.training = mode


def _check_plain(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if is_parametrized(module):
            raise ValueError(f"its module {name!r} has parametrizations.")
    # torch.fx calls the forward of the class itself.
    if "forward" in vars(model) or model._forward_hooks or model._forward_pre_hooks:
        raise ValueError("its forward is changed by a hook, or by an assignment.")


def _tensor(root: nn.Module, target: str) -> Tensor:
    value: Any = root
    for part in target.split("."):
        value = getattr(value, part)
    if not isinstance(value, Tensor):
        raise ValueError(f"its attribute {target!r} is no tensor.")
    return value


def _is_persistent(model: nn.Module, name: str) -> bool:
    home, _, key = name.rpartition(".")
    return key not in model.get_submodule(home)._non_persistent_buffers_set


def _record(module: nn.Module, names: list[str]) -> dict[str, Any]:
    if type(module) in CLASSES:
        return module_record(module, names)
    return {"names": names, "class": type(module).__name__, "arguments": {}}  # the rest is in its own record


def _node(node: fx.Node, numbers: Mapping[fx.Node, int]) -> dict[str, Any]:
    target: Any = node.target
    if node.op == "call_function":
        if target not in FUNCTION_NAMES:
            raise ValueError(f"it calls {getattr(target, '__name__', str(target))!r}, which a file may not name.")
        target = FUNCTION_NAMES[target]
    args = [encoded(each, numbers) for each in node.args]
    return {
        "op": node.op,
        "target": target,
        "args": args,
        "kwargs": {k: encoded(v, numbers) for k, v in node.kwargs.items()},
    }


def _graph(described: list[dict[str, Any]], modules: Mapping[str, nn.Module], tensors: set[str]) -> fx.Graph:
    """The graph, each node checked; `tensors` leaves out those of the layers of sparseopt: positions stay."""
    graph, nodes, inputs = fx.Graph(), list[fx.Node](), set[str]()
    for number, node in enumerate(described):
        op, target = node["op"], node["target"]
        args = tuple(decoded(each, nodes) for each in node["args"])
        kwargs = {key: decoded(value, nodes) for key, value in node["kwargs"].items()}
        first = isinstance(args[0], fx.Node) if args else False
        fits = {
            "placeholder": _is_word(target) and target not in _TAKEN and target not in inputs and not args,
            "get_attr": target in tensors and not args,
            "call_module": target in modules,
            "call_method": target in METHODS and first,
            "call_function": target in FUNCTIONS
            and (target != "getattr" or (first and len(args) == 2 and args[1] in ATTRIBUTES)),
            "output": target == "output" and len(args) == 1 and number == len(described) - 1,
        }
        plain = op not in ("call_module", "call_method", "call_function") or target == "getattr"
        if not fits.get(op) or (kwargs and plain) or not all(_is_word(key) and key != "out" for key in kwargs):
            raise ValueError(f"node {number} of its graph, {op!r:.60} of {target!r:.60}, may not stand there.")
        inputs |= {target} if op == "placeholder" else set()
        nodes.append(graph.create_node(op, FUNCTIONS[target] if op == "call_function" else target, args, kwargs))
    if not nodes or nodes[-1].op != "output":
        raise ValueError("its graph has no output.")
    return graph


def _is_word(text: str) -> bool:
    return _WORD.fullmatch(text) is not None and not keyword.iskeyword(text)


def _like(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise ValueError(f"its tensor {name!r:.60} is missing.")
    return torch.empty_like(tensors[name], device="meta")


def _register(root: nn.Module, name: str, leaves: Mapping[str, Any], put: Callable[..., None], *content: Any) -> None:
    """`put` something into `root` under a name with dots, in containers made for it."""
    *parents, key = parts = name.split(".")
    if len(parts) > 100 or not all(_PART.fullmatch(part) and not keyword.iskeyword(part) for part in parts):
        raise ValueError(f"{name!r:.60} is no name of a module or tensor.")
    if is_below(name, leaves):
        raise ValueError(f"{name!r:.60} would lie inside of another module.")
    home: Any = root
    try:
        for part in parents:
            if part not in home._modules:
                home.add_module(part, nn.Module())
            home = home._modules[part]
        if key in home._modules:
            raise KeyError("the name is taken")
        put(home, key, *content)
    except KeyError as error:
        raise ValueError(f"{name!r:.60} cannot be registered ({brief(error)}).") from error
