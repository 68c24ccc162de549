"""Many training steps as one call: the operations of a step, recorded once and replayed.

The forward pass, the backward pass and the optimizer's update of any model are recorded with
`make_fx` and written as a TorchScript function with the loop over the batches inside, so that no
Python runs between the operations. Nothing is compiled: it starts in half a second and needs no
C++ compiler. What cannot be recorded keeps to plain steps.
"""

import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from optbench.optimizers import ELEMENTWISE, attributes, memory
from optbench.replay import Steps

# stands for the lr where an optimizer computes with a number: it is looked for in the recording
MARK = 1.2345678e-3
# numbers of a parameter that is updated as soon as its gradient is known, which is in the caches
# then; for smaller ones a call for each costs more
LARGE = 2**18
MOVING = 0.1  # an lr at which weights move visibly


class Unrecordable(Exception):
    """The step does something that a recording would not repeat."""


def record_steps(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: Optimizer,
    x: Tensor,
    y: Tensor,
) -> Steps:
    """`steps(X, Y, batches, rates)`: takes k steps and gives their losses (k,).

    loss: of a batch, as a function of its examples and labels. x, y: a batch like all later ones.
    batches: k tensors of indices (batch,). rates: of each step, the lr of each parameter group.
    The optimizer must have made a step before, so that its state exists. Nothing is changed by
    recording.

    Raises `Unrecordable`.
    """
    reasons = []
    large = [p for p in model.parameters() if p.requires_grad and p.numel() >= LARGE]
    # hooks want to see all parameters at once
    hooked = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    apart = type(optimizer) in ELEMENTWISE and not hooked
    orders = [large, []] if large and apart else [[]]
    # a number for the lr is exact where a tensor rounds it to float32
    for early, mark in product(orders, (MARK, None)):
        try:
            with unchanged(model, optimizer):
                text, held = _script(*_record(loss, optimizer, x, y, mark, early))
                if mark is not None:
                    # an optimizer may compute with its lr: then another lr makes another recording
                    other, _ = _script(*_record(loss, optimizer, x, y, 2.3 * mark, early))
                    if other != text:
                        raise Unrecordable("the optimizer computes with its lr")
            steps = _compiled(text, held)
            if not repeats(steps, model, loss, optimizer, x, y):
                raise Unrecordable("the recording does not repeat the step exactly")
            return steps
        except Unrecordable as error:
            reasons.append(str(error))
        except Exception as error:  # torch raises many kinds, and each means: take plain steps
            first = str(error).strip().splitlines()[:1]
            reasons.append(": ".join([type(error).__name__, *first])[:160])
    raise Unrecordable("; ".join(dict.fromkeys(reasons)))


@contextmanager
def unchanged(model: nn.Module, optimizer: Optimizer) -> Iterator[None]:
    """Put every number of the model, the optimizer and their generators back at the end."""
    kept = [*model.parameters(), *model.buffers(), *tensors(list(optimizer.state.values()))]
    values = [tensor.detach().clone() for tensor in kept]
    groups = [dict(group) for group in optimizer.param_groups]
    states = [(state, dict(state)) for state in optimizer.state.values()]
    own = attributes(optimizer)
    drawn = [(generator, generator.get_state()) for generator in generators(model)]
    devices = {p.device for p in model.parameters() if p.is_cuda}
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(kept, values, strict=True):
                tensor.copy_(value)
        for now, before in [*zip(optimizer.param_groups, groups, strict=True), *states]:
            now.clear()
            now.update(before)
        vars(optimizer).update(own)
        for generator, place in drawn:
            generator.set_state(place)
        optimizer.zero_grad()


def generators(model: nn.Module) -> set[torch.Generator]:
    """Those of layers that draw while training."""
    held = {id(v): v for m in model.modules() for v in vars(m).values()}
    return {value for value in held.values() if isinstance(value, torch.Generator)}


class NoNumbers(TorchDispatchMode):
    """A number read from a tensor would be frozen into the recording."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise Unrecordable("the step reads a number from a tensor")
        return func(*args, **(kwargs or {}))


def _record(
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: Optimizer,
    x: Tensor,
    y: Tensor,
    mark: float | None,
    early: Sequence[Tensor],
) -> tuple[fx.GraphModule, list[Any]]:
    """The graph of a step, and what stands in it for the lr of each group: a tensor or a number.

    early: the parameters to update within the backward pass.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    rates: list[Any] = []
    for place, group in enumerate(optimizer.param_groups):
        number = float(group["lr"]) if mark is None else mark * (1 + place / 64)
        rates.append(torch.tensor(number) if mark is None else number)
        group["lr"] = rates[-1]
        if "foreach" in group and not group.get("fused"):
            group["foreach"] = False  # its lists would be copies

    def step(x: Tensor, y: Tensor) -> Tensor:
        value = loss(x, y)

        def update(chosen: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
            for p, gradient in zip(chosen, gradients, strict=True):
                p.grad = gradient
            with only(optimizer, chosen):
                optimizer.step(lambda: value)  # type: ignore[arg-type, return-value]  # the stubs

        with ExitStack() as hooks:
            for p in early:
                hook = p.register_hook(lambda gradient, p=p: update([p], [gradient]))
                hooks.callback(hook.remove)
            gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        late = [k for k, p in enumerate(parameters) if all(p is not q for q in early)]
        update([parameters[k] for k in late], [gradients[k] for k in late])
        return value.detach()

    before, remembered = numbers(optimizer), memory(optimizer)
    compiler: Any = torch.compiler
    flag = compiler._is_compiling_flag
    compiler._is_compiling_flag = True  # optimizers then skip their checks of Python numbers
    try:
        with NoNumbers():
            graph = make_fx(step, tracing_mode="real", _allow_non_fake_inputs=True)(x, y)
    finally:
        compiler._is_compiling_flag = flag
    if numbers(optimizer) != before or memory(optimizer) != remembered:
        raise Unrecordable("the optimizer counts in Python")
    return graph, rates


@contextmanager
def only(optimizer: Optimizer, chosen: Sequence[Tensor]) -> Iterator[None]:
    """Within, the optimizer has no parameters but these."""
    kept = [group["params"] for group in optimizer.param_groups]
    names = {id(p) for p in chosen}
    for group, params in zip(optimizer.param_groups, kept, strict=True):
        group["params"] = [p for p in params if id(p) in names]
    try:
        yield
    finally:
        for group, params in zip(optimizer.param_groups, kept, strict=True):
            group["params"] = params


def _script(graph: fx.GraphModule, rates: list[Any]) -> tuple[str, list[Any]]:
    """The graph as TorchScript, and the tensors, generators and lists that it works on."""
    held: dict[str, Any] = {}  # by name
    names: dict[int, str] = {}  # of the held, by id
    lists: dict[tuple[str, ...], str] = {}
    values: dict[fx.Node, str] = {}
    body: list[str] = []
    count = torch.ones(())

    def hold(value: Any) -> str:
        if id(value) not in names:
            names[id(value)] = f"h{len(held)}"
            held[names[id(value)]] = value
        return names[id(value)]

    def text(value: Any) -> str:
        if isinstance(value, fx.Node):
            return values[value]
        if isinstance(value, list | tuple):
            parts = [text(item) for item in value]
            if not parts:
                return "empty"
            if all(part in held for part in parts):  # fused kernels write to lists of tensors
                return lists.setdefault(tuple(parts), f"l{len(lists)}")
            return f"[{', '.join(parts)}]"
        if isinstance(value, torch.Generator):
            return hold(value)
        if isinstance(value, float):
            for place, rate in enumerate(rates):
                if isinstance(rate, float) and abs(value) == rate:
                    return f"{'-' if value < 0 else ''}r{place}"
            return f'float("{value}")' if value in (float("inf"), float("-inf")) else repr(value)
        if isinstance(value, torch.device):
            return f'torch.device("{value}")'
        return repr(value) if not isinstance(value, torch.dtype | torch.layout) else str(value)

    inputs = iter("xy")
    for node in graph.graph.nodes:
        target: Any = node.target
        if node.op == "placeholder":
            values[node] = next(inputs)
        elif node.op == "get_attr":
            values[node] = hold(getattr(graph, target))
        elif node.op == "output":
            result = node.args[0]
            result = result[0] if isinstance(result, list | tuple) else result
            body.append(f"losses.append({text(result)})")
        elif target is operator.getitem:
            values[node] = f"{text(node.args[0])}[{node.args[1]}]"
        elif target is torch.ops.aten.detach.default:
            values[node] = text(node.args[0])
        elif "_record_function" in str(target) or not (node.users or target._schema.is_mutable):
            continue
        else:
            arguments = [text(a) for a in node.args]
            arguments += [f"{k}={text(v)}" for k, v in node.kwargs.items() if k != "pin_memory"]
            if target is torch.ops.aten.addmm.default and not node.kwargs:
                # with constants TorchScript takes it apart: slower, and rounded differently
                arguments += ["beta=one", "alpha=one"]
            if target is torch.ops.aten._foreach_add_.Scalar and arguments[1] == "1":
                arguments[1] = hold(count)  # for a number each addition makes a tensor
            call = target._schema.name.replace("::", ".")
            call = f"torch.ops.{call}({', '.join(arguments)})"
            if target._schema.returns:
                values[node] = f"v{len(values)}"
                call = f"{values[node]} = {call}"
            body.append(call)
    signature = ["X: Tensor", "Y: Tensor", "batches: List[Tensor]", "rates: List[List[float]]"]
    signature += ["one: float", "empty: List[Tensor]"]
    lines = ["b = batches[i]", "x = X.index_select(0, b)", "y = Y.index_select(0, b)"]
    for place, rate in enumerate(rates):
        if isinstance(rate, Tensor):
            lines.append(f"{hold(rate)}.fill_(rates[i][{place}])")
        else:
            lines.append(f"r{place} = rates[i][{place}]")
    signature += [
        f"{n}: {type(v).__name__.replace('Parameter', 'Tensor')}" for n, v in held.items()
    ]
    signature += [f"{name}: List[Tensor]" for name in lists.values()]
    code = "".join(f"        {line}\n" for line in [*lines, *body])
    source = (
        f"def steps({', '.join(signature)}):\n"
        f"    losses: List[Tensor] = []\n"
        f"    for i in range(len(batches)):\n{code}    return losses\n"
    )
    extra = [*held.values(), *([held[part] for part in parts] for parts in lists)]
    return source, [value.detach() if isinstance(value, Tensor) else value for value in extra]


def _compiled(source: str, held: list[Any]) -> Steps:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and has no successor for this
        function = torch.jit.CompilationUnit(source).steps
    tensors = [[t.detach() for t in part] if isinstance(part, list) else part for part in held]

    @torch.no_grad()
    def steps(
        x: Tensor, y: Tensor, batches: Sequence[Tensor], rates: Sequence[Sequence[float]]
    ) -> Tensor:
        return torch.stack(function(x, y, list(batches), list(rates), 1.0, [], *tensors))

    return steps


def repeats(
    steps: Steps,
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: Optimizer,
    x: Tensor,
    y: Tensor,
    near: float = 0,
) -> bool:
    """Whether two steps come out the same, replayed and plain: bit for bit, or `near` it.

    The lr of the second is large where they must be equal: at the start of a warm-up nothing moves,
    and what reads weights that have been updated would not show.
    """

    def same(a: Tensor, b: Tensor) -> bool:
        return torch.allclose(a, b, rtol=near, atol=near / 100)

    rates = [[float(group["lr"]) for group in optimizer.param_groups]]
    rates.append(rates[0] if near else [MOVING] * len(rates[0]))
    whole = [torch.arange(len(x), device=x.device)] * 2
    with unchanged(model, optimizer):
        losses = steps(x, y, whole, rates)
        weights = [p.detach().clone() for p in model.parameters()]

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(x, y)
        value.backward()
        return value

    with unchanged(model, optimizer):
        for expected, lrs in zip(losses, rates, strict=True):
            for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = lr
            if not same(optimizer.step(closure), expected):  # type: ignore[arg-type]
                return False
        pairs = zip(model.parameters(), weights, strict=True)
        return all(same(p, weight) for p, weight in pairs)


def numbers(tree: Any) -> Any:
    """Everything in an optimizer's state and groups that is no tensor."""
    if isinstance(tree, Optimizer):
        return [numbers(list(tree.state.values())), numbers(tree.param_groups)]
    if isinstance(tree, dict):
        return {key: numbers(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [numbers(value) for value in tree]
    return id(tree) if isinstance(tree, Tensor) else tree


def tensors(tree: Any) -> Iterator[Tensor]:
    """All that lie in dictionaries, lists and tuples."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict | list | tuple):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from tensors(part)
