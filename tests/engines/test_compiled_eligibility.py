"""Compiled steps serve what is of exactly known types, with nothing added; the rest is torch's."""

from contextlib import nullcontext
from functools import partial
from types import MethodType

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.optim import SGD, Adagrad, Adam, AdamW, RMSprop
from torch.optim import optimizer as torch_optimizer
from torch.overrides import TorchFunctionMode

from optbench import engines, losses, models, schedules
from optbench.config import build
from optbench.engines.compiled_mlp import eligibility
from optbench.engines.compiled_mlp import mlp as dense
from optbench.training.loop import Training

pytestmark = pytest.mark.skipif(not dense.available(), reason="no C++ compiler")
MLP = partial(models.mlp, hidden=[5])
WHOLE = partial(engines.select, "compiled_mlp", required=False)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(5, 5), nn.LeakyReLU(), nn.Linear(5, 3))


PLAIN_SGD = partial(SGD, lr=0.1)


def is_compiled(problem, model, optimizer=PLAIN_SGD) -> bool:
    return not engines.refusal("compiled_mlp", problem, model, optimizer(model.parameters()))


class OwnSequential(nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


class OwnLinear(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Renamed(nn.Linear):
    """Even a class that changes nothing."""


class Called(nn.ReLU):
    def __call__(self, x):
        return 2 * super().__call__(x)


class OwnWeight(nn.Parameter):
    pass


OwnLinear.__name__ = "Linear"


def changed(act):
    """A model of which something was changed."""

    def make():
        model = mlp()
        return act(model) or model

    return make


def tied(model):
    model[3] = nn.Linear(5, 5)
    model[3].weight = model[1].weight
    model.append(nn.Linear(5, 3))


def same_memory(model):
    model[3] = nn.Linear(5, 5)
    model[3].weight.data = model[1].weight.data
    model.append(nn.Linear(5, 3))


def one_memory(model):
    together = torch.zeros(30)
    model[1].weight.data, model[1].bias.data = together[:25].view(5, 5), together[25:]


def shared_layer(model):
    model.insert(2, model[1])


def shared_norm(model):
    norm = nn.BatchNorm1d(5)
    return nn.Sequential(model[1], norm, nn.Tanh(), nn.Linear(5, 5), norm, nn.Tanh(), model[3])


def as_buffer(model):
    model[1].register_buffer("shadow", model[1].weight.detach())


def own_forward(model):
    model[1].forward = lambda x: x


def own_forward_of_all(model):
    model.forward = MethodType(lambda self, x: 2 * nn.Sequential.forward(self, x), model)


def own_weight(model):
    model[1].weight = OwnWeight(model[1].weight.detach())


def own_data(model):
    model[1].weight.data = torch.zeros(5, 5).t()


def frozen(model):
    model[1].bias.requires_grad_(False)


def of_double(model):
    model[3].double()


def cut(model):
    model[1].weight = nn.Parameter(torch.zeros(4, 5))


def with_tensor_hook(model):
    model[1].weight.register_hook(lambda g: 2 * g)


def with_accumulation_hook(model):
    model[1].weight.register_post_accumulate_grad_hook(lambda p: None)


def with_a_part(model):
    model[1].more = nn.Linear(2, 2)


def with_a_parameter(model):
    model.temperature = nn.Parameter(torch.ones(()))


def with_another_weight(model):
    model[2].slope = nn.Parameter(torch.ones(()))


def slope_of_tensor(model):
    model[2].negative_slope = torch.tensor(0.1)


def slope_of_nan(model):
    model[2].negative_slope = float("nan")


MODELS = {
    "a subclass of Sequential": changed(lambda m: OwnSequential(*m)),
    "a subclass of Linear": changed(lambda m: nn.Sequential(nn.Flatten(), OwnLinear(5, 3))),
    "a subclass that adds nothing": changed(lambda m: nn.Sequential(nn.Flatten(), Renamed(5, 3))),
    "a call of its own": changed(lambda m: nn.Sequential(m[0], m[1], Called(), m[3])),
    "tied weights": changed(tied),
    "weights that share memory": changed(same_memory),
    "weights that are views of one": changed(one_memory),
    "a layer used twice": changed(shared_layer),
    "a batch norm used twice": changed(shared_norm),
    "a buffer": changed(as_buffer),
    "a forward of its own": changed(own_forward),
    "a forward of the whole": changed(own_forward_of_all),
    "a subclass of Parameter": changed(own_weight),
    "transposed weights": changed(own_data),
    "a frozen bias": changed(frozen),
    "another dtype": changed(of_double),
    "weights of another shape": changed(cut),
    "a tensor hook": changed(with_tensor_hook),
    "a hook of accumulation": changed(with_accumulation_hook),
    "a part of a layer": changed(with_a_part),
    "a parameter of the whole": changed(with_a_parameter),
    "a parameter of an activation": changed(with_another_weight),
    "a slope that is a tensor": changed(slope_of_tensor),
    "a slope that is no number": changed(slope_of_nan),
    "an ELU that cannot be inverted": changed(
        lambda m: nn.Sequential(m[0], m[1], nn.ELU(alpha=0.0), m[3])
    ),
    "weight norm": changed(lambda m: nn.Sequential(nn.utils.weight_norm(m[1]), m[3])),
    "spectral norm": changed(lambda m: nn.Sequential(nn.utils.spectral_norm(m[1]), m[3])),
    "parametrized weight norm": changed(
        lambda m: nn.Sequential(nn.utils.parametrizations.weight_norm(m[1]), m[3])
    ),
    "orthogonal weights": changed(
        lambda m: nn.Sequential(nn.utils.parametrizations.orthogonal(m[1]), m[3])
    ),
    "pruned weights": changed(
        lambda m: nn.Sequential(prune.random_unstructured(m[1], "weight", 0.5), m[3])
    ),
    "torch's dropout": changed(lambda m: nn.Sequential(m[1], nn.Dropout(0.5), m[3])),
    "dropout after the last layer": changed(lambda m: m.append(models.Dropout(0.5))),
    "dropout before an activation": changed(
        lambda m: nn.Sequential(m[1], models.Dropout(0.5), nn.Tanh(), m[3])
    ),
    "two dropouts": changed(
        lambda m: nn.Sequential(m[1], models.Dropout(0.5), models.Dropout(0.1), m[3])
    ),
    "a subclass of dropout": changed(
        lambda m: nn.Sequential(m[1], type("Dropout", (models.Dropout,), {})(0.5), m[3])
    ),
    "batch norm of a cumulative mean": changed(
        lambda m: nn.Sequential(m[1], nn.BatchNorm1d(5, momentum=None), m[3])
    ),
    "two batch norms": changed(
        lambda m: nn.Sequential(m[1], nn.BatchNorm1d(5), nn.ReLU(), nn.BatchNorm1d(5), m[3])
    ),
    "batch norm after the last layer": changed(lambda m: m.append(nn.BatchNorm1d(3))),
    "batch norm of the inputs": changed(lambda m: nn.Sequential(nn.BatchNorm1d(5), m[1], m[3])),
    "synchronized batch norm": changed(
        lambda m: nn.Sequential(m[1], nn.SyncBatchNorm(5), nn.ReLU(), m[3])
    ),
    "batch norm in evaluation": changed(
        lambda m: nn.Sequential(m[1], nn.BatchNorm1d(5).eval(), nn.ReLU(), m[3])
    ),
    "an approximate GELU": changed(
        lambda m: nn.Sequential(m[1], nn.GELU(approximate="tanh"), m[3])
    ),
    "a layer norm": changed(lambda m: nn.Sequential(m[1], nn.LayerNorm(5), m[3])),
    "two activations": changed(lambda m: nn.Sequential(m[1], nn.Tanh(), nn.Tanh(), m[3])),
    "a flattening of fewer dimensions": changed(
        lambda m: nn.Sequential(nn.Flatten(1, 1), m[1], m[3])
    ),
    "a flattening between layers": changed(lambda m: nn.Sequential(m[1], nn.Flatten(), m[3])),
    "an empty place": changed(lambda m: setattr(m, "2", None)),
    "a script": changed(torch.jit.script),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.filterwarnings("ignore")
def test_models_with_something_of_their_own_are_torchs(make_problem, make):
    problem = make_problem()
    assert is_compiled(problem, mlp())
    model = make()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert engines.refusal("compiled_mlp", problem, model, SGD(trained, lr=0.1))
    assert eligibility.model_refusal(problem, model)


@pytest.mark.parametrize(
    "hook",
    [
        lambda m: m.register_forward_hook(lambda *_: None),
        lambda m: m.register_forward_hook(lambda *_: None, always_call=True),
        lambda m: m.register_forward_pre_hook(lambda *_: None),
        lambda m: m.register_full_backward_hook(lambda *_: None),
        lambda m: m.register_full_backward_pre_hook(lambda *_: None),
        lambda m: m.register_state_dict_post_hook(lambda *_: None),
        lambda m: m.register_load_state_dict_post_hook(lambda *_: None),
    ],
)
@pytest.mark.parametrize("place", [None, 0, 1, 2])
def test_models_with_hooks_are_torchs(make_problem, hook, place):
    model = mlp()
    handle = hook(model if place is None else model[place])
    assert not is_compiled(make_problem(), model)
    handle.remove()
    assert is_compiled(make_problem(), model)


def test_known_models_stay_so(make_problem):
    """In evaluation, nested, with one activation in two places, without biases."""
    problem, relu = make_problem(), nn.ReLU(inplace=True)
    assert is_compiled(problem, mlp().eval())
    assert is_compiled(problem, nn.Sequential(nn.Flatten(), nn.Sequential(*mlp()[1:])))
    layers = nn.Linear(5, 4, bias=False), relu, nn.Linear(4, 4), relu, nn.Linear(4, 3)
    assert is_compiled(problem, nn.Sequential(*layers))
    assert is_compiled(problem, nn.Linear(5, 3))


class OwnSGD(SGD):
    pass


def replaced_step(params):
    optimizer = SGD(params, lr=0.1)
    optimizer.step = lambda closure=None: closure()
    return optimizer


def replaced_and_scheduled(params):
    optimizer = SGD(params, lr=0.1)
    optimizer.step = MethodType(lambda self, closure=None: closure(), optimizer)
    torch.optim.lr_scheduler.StepLR(optimizer, 3)
    return optimizer


def replaced_zero_grad(params):
    optimizer = SGD(params, lr=0.1)
    optimizer.zero_grad = lambda set_to_none=True: None
    return optimizer


def scaled_gradients(params):
    optimizer = Adam(params, lr=0.1, fused=True)
    optimizer.grad_scale = torch.tensor(2.0)
    return optimizer


def hooked(register):
    def make(params):
        optimizer = SGD(params, lr=0.1)
        getattr(optimizer, register)(lambda *_: None)
        return optimizer

    return make


def set_to(cls, **settings):
    """An optimizer whose first group is given settings that its class does not check."""

    def make(params):
        optimizer = cls(params, lr=0.1)
        optimizer.param_groups[0].update(settings)
        return optimizer

    return make


def leaves_one_out(params):
    return SGD(list(params)[:-1], lr=0.1)


def has_one_more(params):
    return SGD([*params, nn.Parameter(torch.zeros(2))], lr=0.1)


def has_one_twice(params):
    params = list(params)
    optimizer = SGD(params, lr=0.1)
    optimizer.param_groups.append(optimizer.param_groups[0] | {"params": params[:1]})
    return optimizer


def of_two_rules(params):
    first, *rest = params
    return SGD([{"params": [first], "momentum": 0.9}, {"params": rest}], lr=0.1)


OPTIMIZERS = {
    "a subclass": partial(OwnSGD, lr=0.1),
    "step replaced": replaced_step,
    "step replaced before a schedule counts it": replaced_and_scheduled,
    "zero_grad replaced": replaced_zero_grad,
    "gradients that are scaled": scaled_gradients,
    **{
        f"a hook: {name}": hooked(f"register_{name}_hook")
        for name in ("step_pre", "step_post", "state_dict_post", "load_state_dict_pre")
    },
    "a weight without owner": leaves_one_out,
    "a weight of something else": has_one_more,
    "a weight in two groups": has_one_twice,
    "two rules": of_two_rules,
    "lr a tensor": partial(SGD, lr=torch.tensor(0.1)),
    "maximize": partial(SGD, lr=0.1, maximize=True),
    "differentiable": partial(Adam, lr=0.1, differentiable=True),
    "capturable": set_to(Adam, capturable=True),
    "betas that are tensors": set_to(Adam, betas=(torch.tensor(0.9), torch.tensor(0.99))),
    "momentum a tensor": set_to(SGD, momentum=torch.tensor(0.9)),
    "decay a tensor": set_to(AdamW, weight_decay=torch.tensor(0.1)),
    "eps a tensor": set_to(RMSprop, eps=torch.tensor(0.1)),
    "eps too small": partial(Adam, lr=0.1, eps=1e-13),
    "eps of nothing": partial(Adagrad, lr=0.1, eps=0.0),
    "centered": partial(RMSprop, lr=0.1, centered=True),
    "momentum of RMSprop": partial(RMSprop, lr=0.1, momentum=0.5),
    "another class": partial(torch.optim.NAdam, lr=0.1),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_optimizers_with_something_of_their_own_are_torchs(make_problem, make):
    assert not is_compiled(make_problem(), mlp(), make)


def of_two_groups(params):
    first, *rest = params
    groups = [{"params": [first], "lr": 0.3, "momentum": 0.5, "nesterov": True}, {"params": rest}]
    return SGD(groups, lr=0.1, momentum=0.9)


@pytest.mark.parametrize(
    "make",
    [
        of_two_groups,
        partial(SGD, lr=1),
        partial(SGD, lr=0.1, foreach=True),
        partial(Adam, lr=0.1, foreach=True),
        partial(Adam, lr=0.1, foreach=False),
        partial(AdamW, lr=0.1, fused=True),
        set_to(SGD, weight_decay=-0.1),
        set_to(Adam, decoupled_weight_decay=True, weight_decay=0.1),
    ],
)
def test_known_settings_give_torchs_numbers(make_problem, make):
    problem = make_problem(epochs=4)
    found = []
    for engine in (WHOLE, None):
        training = Training(problem, make, log_every=1, engine=engine)
        assert bool(training.engine) == bool(engine)
        found.append([row["train_loss"] for u in training.updates() for row in u.steps])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


class Doubles(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


MODES = {
    "nothing": nullcontext,
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
    "anomalies": partial(torch.autograd.detect_anomaly, check_nan=False),
    "a mode": Doubles,
    "saved tensors": partial(torch.autograd.graph.saved_tensors_hooks, lambda x: x, lambda x: x),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_modes_of_torch_are_obeyed(make_problem, mode):
    with MODES[mode]():
        assert is_compiled(make_problem(), mlp()) == (mode == "nothing")


@pytest.mark.parametrize(
    "register",
    [
        nn.modules.module.register_module_forward_hook,
        nn.modules.module.register_module_forward_pre_hook,
        nn.modules.module.register_module_full_backward_hook,
        torch_optimizer.register_optimizer_step_pre_hook,
        torch_optimizer.register_optimizer_step_post_hook,
    ],
)
def test_hooks_of_all_modules_and_optimizers_are_called(make_problem, register):
    handle = register(lambda *_: None)
    try:
        assert not is_compiled(make_problem(), mlp())
    finally:
        handle.remove()
    assert is_compiled(make_problem(), mlp())


def test_another_default_type_is_obeyed(make_problem):
    """Models are of float64 then, and what is of float32 is still computed as such."""
    model, problem = mlp(), make_problem()
    optimizer = SGD(model.parameters(), lr=0.1)
    data = problem.dataset
    batches = [torch.arange(16), torch.arange(7, 23)]
    expected = dense.CompiledSteps(problem.loss, model, optimizer)(
        data.train_x, data.train_y, batches, [[0.0]] * 2
    )
    torch.set_default_dtype(torch.float64)
    try:
        dense.available.cache_clear()
        assert dense.available()
        steps = dense.CompiledSteps(problem.loss, model, optimizer)
        taken = steps(data.train_x, data.train_y, batches, [[0.0]] * 2)
        assert not is_compiled(problem, mlp())
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(taken, expected)


class Equal:
    """Says that it is every function."""

    def __eq__(self, other):
        return True

    def __hash__(self):
        return hash(losses.cross_entropy)

    def __call__(self, logits, labels):
        return 2 * losses.cross_entropy(logits, labels)


class Twice(partial):
    def __call__(self, *args, **kwargs):
        return 2 * super().__call__(*args, **kwargs)


def cross_entropy(logits, labels):
    return 2 * losses.cross_entropy(logits, labels)


LOSSES = {
    "a wrapper": lambda logits, labels: losses.cross_entropy(logits, labels),
    "the same name": cross_entropy,
    "torch's": nn.functional.cross_entropy,
    "torch's class": nn.CrossEntropyLoss(),
    "an object equal to it": Equal(),
    "a subclass of partial": Twice(losses.cross_entropy),
    "weights": partial(nn.functional.cross_entropy, weight=torch.ones(3)),
    "smoothing of nll": partial(losses.nll, label_smoothing=0.1),
    "smoothing of a tensor": partial(losses.cross_entropy, label_smoothing=torch.tensor(0.1)),
    "too much smoothing": partial(losses.cross_entropy, label_smoothing=1.0),
    "negative smoothing": partial(losses.cross_entropy, label_smoothing=-0.1),
    "no smoothing at all": partial(losses.cross_entropy, label_smoothing=None),
    "smoothing that is no number": partial(losses.cross_entropy, label_smoothing=float("nan")),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_other_losses_are_torchs(make_problem, loss):
    assert not is_compiled(make_problem(loss=loss), mlp())


def test_what_a_configuration_asks_for_is_known(make_problem):
    """Hydra has a class of its own for partial calls."""
    asked = {"_target_": "optbench.losses.cross_entropy", "_partial_": True}
    assert is_compiled(make_problem(loss=build.build("loss", asked)), mlp())


@pytest.mark.parametrize("smoothing", [0, 0.0, 0.3, 0.999])
def test_smoothing_of_labels_is_known(make_problem, smoothing):
    loss = partial(partial(losses.cross_entropy, label_smoothing=0.5), label_smoothing=smoothing)
    assert is_compiled(make_problem(loss=loss), mlp())


def test_a_rule_that_changes_is_refused(make_problem):
    """Settings are read at each call: of a schedule that does more than it says."""
    problem, model = make_problem(), mlp()
    optimizer = SGD(model.parameters(), lr=0.1, weight_decay=0.5)
    steps = dense.CompiledSteps(problem.loss, model, optimizer)
    x, y = problem.dataset.train_x, problem.dataset.train_y
    before = model[1].weight.detach().clone()
    optimizer.param_groups[0]["weight_decay"] = 0.0
    steps(x, y, [torch.arange(9)], [[0.0]])
    optimizer.param_groups[0]["momentum"] = 0.9
    with pytest.raises(ValueError, match="another rule"):
        steps(x, y, [torch.arange(9)], [[0.1]])
    assert torch.equal(model[1].weight, before)


def of_other_settings(optimizer, total_steps):
    """Only its name says that it changes rates alone."""

    def factor(step):
        optimizer.param_groups[0]["weight_decay"] = 0.1 * (step % 2)
        return 1.0

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def of_a_cycle(optimizer, total_steps):
    return torch.optim.lr_scheduler.CyclicLR(
        optimizer, 0.1, 0.2, cycle_momentum=False, scale_fn=lambda x: 1.0
    )


def of_a_step_of_its_own(optimizer, total_steps):
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    scheduler.step = lambda: None
    return scheduler


@pytest.mark.parametrize("schedule", [of_other_settings, of_a_cycle, of_a_step_of_its_own])
def test_schedules_with_functions_of_ones_own_are_torchs(make_problem, schedule):
    problem = make_problem()
    assert not Training(problem, PLAIN_SGD, schedule=schedule, engine=WHOLE).engine
    assert Training(problem, PLAIN_SGD, schedule=schedules.cosine, engine=WHOLE).engine
