"""Which runs can be trained together, and where that is faster."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from optbench import losses, models, schedules
from optbench.engines.cohort import eligibility
from optbench.engines.cohort.eligibility import group_key
from optbench.engines.compiled_mlp import mlp
from optbench.initializers import initialize
from optbench.optimizers import MuonWithAdamW
from optbench.textbook import Nesterov

SGD = partial(torch.optim.SGD, lr=0.1)


MLP = partial(models.mlp, hidden=[8])


def changed(act):
    """A model's function, and what is done to each model that it makes."""

    def make(shape, classes):
        model = MLP(shape, classes)
        return act(model) or model

    return make


class OwnLinear(nn.Linear):
    pass


class OwnDropout(models.Dropout):
    pass


class OwnSGD(torch.optim.SGD):
    pass


class Twice(partial):
    def __call__(self, *args, **kwargs):
        return 2 * super().__call__(*args, **kwargs)


def own_function(params):
    return torch.optim.SGD(params, lr=0.1)


def own_schedule(optimizer, total_steps):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)


def own_loss(logits, labels):
    return 2 * losses.cross_entropy(logits, labels)


def frozen(model):
    model[1].bias.requires_grad_(False)


def tied(model):
    model[3] = nn.Linear(8, 8)
    model[3].weight.data = model[1].weight.data
    model.append(nn.Linear(8, 3))


def of_seed(shape, classes):
    """The layers go by what the seed draws."""
    return MLP(shape, classes, activation="relu" if torch.rand(()) < 0.5 else "tanh")


def with_a_parameter(model):
    model[2].slope = nn.Parameter(torch.ones(()))


def with_a_buffer(model):
    model[1].register_buffer("more", torch.ones(2))


def own_forward(model):
    model[1].forward = lambda x: nn.Linear.forward(model[1], x)


MODELS = {
    "a subclass": lambda m: nn.Sequential(OwnLinear(5, 3)),
    "a subclass of a container": lambda m: type("Own", (nn.Sequential,), {})(*m),
    "a model of its own": lambda m: models_of_its_own(),
    "torch's dropout": lambda m: nn.Sequential(m[0], nn.Dropout(0.5), *m[1:]),
    "a subclass of dropout": lambda m: nn.Sequential(m[0], OwnDropout(0.5), *m[1:]),
    "a dropout used twice": lambda m: nn.Sequential(m[0], *[models.Dropout(0.5)] * 2, *m[1:]),
    "random slopes": lambda m: nn.Sequential(m[0], m[1], nn.RReLU(), m[3]),
    "a layer norm": lambda m: nn.Sequential(m[0], m[1], nn.LayerNorm(8), m[3]),
    "norms that count": lambda m: nn.Sequential(m[1], nn.BatchNorm1d(8, momentum=None), m[3]),
    "norms without statistics": lambda m: nn.Sequential(
        m[1], nn.BatchNorm1d(8, track_running_stats=False), m[3]
    ),
    "weight norm": lambda m: nn.Sequential(nn.utils.parametrizations.weight_norm(m[1]), m[3]),
    "a hook": lambda m: m[1].register_forward_hook(lambda *_: None) and None,
    "a hook of a gradient": lambda m: m[1].weight.register_hook(lambda g: g) and None,
    "a forward of its own": own_forward,
    "a frozen weight": frozen,
    "tied weights": tied,
    "a parameter more": with_a_parameter,
    "a buffer more": with_a_buffer,
    "a slope that is a tensor": lambda m: nn.Sequential(
        m[1], nn.LeakyReLU(torch.tensor(0.1)), m[3]
    ),
}


def models_of_its_own():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, x):
            y = self.layer(x)
            return y if y.mean() > 0 else 2 * y

    return Own()


@pytest.mark.parametrize("act", MODELS.values(), ids=MODELS)
def test_models_that_have_to_run_alone(make_problem, act):
    assert group_key({"problem": make_problem(changed(lambda m: None)), "optimizer": SGD})
    problem = make_problem(changed(act))
    assert group_key({"problem": problem, "optimizer": SGD}) is None


def test_what_has_to_run_alone(make_problem):
    problem = make_problem()
    base = {"problem": problem, "optimizer": SGD}
    assert group_key(base) is not None
    alone = [
        *({"optimizer": partial(cls, lr=0.1)} for cls in (
            torch.optim.LBFGS, torch.optim.Rprop, torch.optim.Muon, Nesterov, OwnSGD, MuonWithAdamW,
        )),
        {"optimizer": own_function},
        {"optimizer": lambda params: torch.optim.SGD(params, lr=0.1)},
        {"optimizer": partial(torch.optim.SGD, lr=torch.tensor(0.1))},
        {"optimizer": partial(torch.optim.SGD, lr=0.1, differentiable=True)},
        {"optimizer": Twice(torch.optim.SGD, lr=0.1)},
        {"schedule": own_schedule},
        {"schedule": torch.optim.lr_scheduler.ExponentialLR},
        {"schedule": partial(schedules.step, milestones=torch.tensor([0.5]))},
        {"layers": True},
        *({"problem": make_problem(**changes)} for changes in (
            {"loss": own_loss},
            {"loss": Twice(losses.cross_entropy)},
            {"loss": nn.CrossEntropyLoss()},
            {"loss": partial(F.cross_entropy, weight=torch.ones(3))},
            {"precision": "bfloat16"},
            {"model": partial(models.mlp, hidden=torch.tensor([8]))},
            {"model": models.cnn},  # not images
        )),
    ]  # fmt: skip
    for changes in alone:
        assert group_key(base | changes) is None, changes


def test_modes_and_hooks_of_everything_let_runs_be_alone(make_problem):
    base = {"problem": make_problem(), "optimizer": SGD}
    with torch.autocast("cpu", torch.bfloat16):
        assert group_key(base) is None
    handle = register_optimizer_step_post_hook(lambda *_: None)
    assert group_key(base) is None
    handle.remove()
    assert group_key(base) is not None


def test_models_of_another_seed_may_have_other_layers(make_problem):
    problem = make_problem(of_seed)
    keys = [group_key({"problem": problem, "optimizer": SGD, "seed": seed}) for seed in range(8)]
    assert len(set(keys)) == 2
    assert None not in keys


@pytest.mark.parametrize("cls", eligibility.OPTIMIZERS, ids=lambda cls: f"{cls.__module__}")
def test_known_optimizers_take_gradients_as_they_are_given(cls):
    """The closure is called once, before a weight has moved, and weights stay where they lie."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    weights, calls = list(model.parameters()), 0

    def closure():
        nonlocal calls
        calls += 1
        assert all(map(torch.equal, weights, before))
        return torch.ones(())

    optimizer = cls(weights, lr=0.1)
    places = [p.data_ptr() for p in weights]
    for number in range(1, 9):
        before = [p.detach().clone() for p in weights]
        for p in weights:
            p.grad = torch.randn(p.shape)
        optimizer.step(closure)
        assert calls == number
        assert places == [p.data_ptr() for p in weights]


def test_a_model_is_not_made_to_see_that_it_is_too_large(make_problem):
    made = []

    def huge(shape, classes):
        made.append(nn.Linear(*shape, 10**7))
        return made[-1]

    asked = {"problem": make_problem(huge), "optimizer": SGD}
    assert not eligibility.is_faster(asked, 8)
    assert made[0].weight.is_meta
    assert not eligibility.is_faster(asked, 2)
    assert len(made) == 1


def test_where_a_cohort_is_faster(make_problem):
    def arguments(model, **changes):
        return {"problem": make_problem(model, **changes), "optimizer": SGD}

    gelu = partial(models.mlp, hidden=[8], activation="gelu")
    small = arguments(gelu)
    assert eligibility.is_faster(small, 8)
    compiled = arguments(None)  # alone it is as fast, where there is a compiler
    assert eligibility.is_faster(compiled, 8) == (not mlp.available())
    assert eligibility.is_faster(compiled | {"compile_steps": False}, 8)
    assert not eligibility.is_faster(small, 2)
    assert eligibility.is_faster(small | {"device": "cuda"}, 2)
    assert eligibility.is_faster(arguments(gelu, epochs=None, steps=2000), 8)
    wide = arguments(partial(models.mlp, hidden=[512, 256], activation="gelu"))
    assert not eligibility.is_faster(wide, 8)
    assert eligibility.is_faster(wide | {"device": "cuda"}, 8)


def test_what_cannot_be_grouped_with_each_other(make_problem):
    problem = make_problem()

    def key(optimizer=SGD, **changes):
        return group_key({"problem": replace(problem, **changes), "optimizer": optimizer})

    same = key()
    assert key(partial(torch.optim.Adam, lr=0.01)) == same
    assert key(model=partial(models.mlp, hidden=[8])) == same
    assert key(initializer=partial(initialize, bias=1.0)) == same
    for changes in (
        {"dataset": make_problem().dataset},
        {"model": partial(models.mlp, hidden=[9])},
        {"model": partial(models.mlp, hidden=[8], dropout=0.1)},
        {"loss": partial(losses.cross_entropy, label_smoothing=0.1)},
        {"batch_size": 8},
        {"epochs": 3},
        {"shuffle": "fixed_order"},
        {"drop_last": True},
        {"weight_penalty": 0.1},
    ):
        assert key(**changes) not in (None, same), changes
    assert group_key({"problem": problem, "optimizer": SGD, "log_every": 3}) != same
