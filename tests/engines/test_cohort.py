"""Runs that are trained together give what each gives alone."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from optbench import losses, models, schedules
from optbench.common.errors import UserError
from optbench.datasets import loaders, prepare
from optbench.engines.cohort import train as cohort
from optbench.engines.cohort.eligibility import group_key
from optbench.engines.cohort.stacked_models import Stack
from optbench.engines.cohort.train import train_together
from optbench.initializers import initialize
from optbench.problem import Problem, build_model
from optbench.textbook import Momentum
from optbench.training import loop
from optbench.training.evaluation import means, score
from optbench.training.loop import Training, train

SGD = partial(torch.optim.SGD, lr=0.1)
SEVEN = [
    partial(torch.optim.SGD, lr=0.1),
    partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True),
    partial(torch.optim.Adam, lr=0.01),
    partial(torch.optim.RMSprop, lr=0.003),
    partial(torch.optim.Adadelta, lr=1.0),
    partial(Momentum, lr=0.05),
    partial(torch.optim.NAdam, lr=0.01),
]
MLP = partial(models.mlp, hidden=[8], dropout=0.3)


def together(members, **more):
    """Each member's updates; all their statuses but the last are "running"."""
    found = [[] for _ in members]
    for index, update in train_together(members, **more):
        found[index].append(update)
    return found


def rows(updates):
    return [row for u in updates for row in [*u.steps, *([u.epoch] if u.epoch else [])]]


def check_as_alone(members, rel=1e-5, near=1e-6):
    assert len({group_key(m) for m in members} - {None}) == 1
    for member, updates in zip(members, together(members), strict=True):
        alone = list(train(**member))
        assert [(u.step, u.total_steps, u.status) for u in updates] == [
            (u.step, u.total_steps, u.status) for u in alone
        ]
        for a, b in zip(rows(alone), rows(updates), strict=True):
            assert list(a) == list(b)
            for key in (key for key in a if "seconds" not in key):
                if a[key] is None:
                    assert b[key] is None
                else:
                    assert b[key] == pytest.approx(a[key], rel=rel, abs=near, nan_ok=True)


def make_members(problem, optimizers=SEVEN, **same):
    return [
        {"problem": problem, "optimizer": o, "seed": i % 3, "log_every": 1} | same
        for i, o in enumerate(optimizers)
    ]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_seven_optimizers_on_an_mlp(make_problem, batch_norm):
    members = make_members(make_problem(partial(MLP, batch_norm=batch_norm), epochs=4))
    check_as_alone(members)


def in_double(problem):
    """Where float32 rounds, a rule that divides by a small gradient's size makes it large."""
    tensors = {k: v.double() for k, v in vars(problem.dataset).items() if k.endswith("_x")}
    dataset = replace(problem.dataset, **tensors)

    def model(shape, classes):
        return problem.model(shape, classes).double()

    return replace(problem, dataset=dataset, model=model)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_seven_optimizers_on_a_cnn(batch_norm):
    x = torch.randn(56, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    raw = prepare.RawDataset(x, torch.arange(56) % 3, x[:9], torch.arange(9) % 3)
    model = partial(models.cnn, channels=[4, 6], hidden=[8], dropout=0.2, batch_norm=batch_norm)
    problem = Problem(
        prepare.prepare(raw, val_size=0.2), model, losses.cross_entropy, initialize, 16, epochs=2
    )
    check_as_alone(make_members(in_double(problem)))


@pytest.mark.parametrize(
    "model", [partial(models.mlp, hidden=[32]), models.cnn], ids=["mlp", "cnn"]
)
def test_what_differs_on_real_images_is_rounding(model):
    # In float32 these curves part in the third digit after 80 steps: batch norm divides what never
    # changes by next to nothing, and Adam a gradient by its size. In float64 nothing does.
    more = {} if model is not models.cnn else {"channels": [4, 8], "hidden": [16]}
    prepared = prepare.prepare(loaders.mnist_5k(), val_size=0.1, subset=1000)
    model = partial(model, batch_norm=True, **more)
    problem = Problem(prepared, model, losses.cross_entropy, initialize, 64, epochs=None, steps=80)
    check_as_alone(make_members(in_double(problem)), rel=1e-9, near=1e-12)


@pytest.mark.parametrize("decay", [True, False])
@pytest.mark.parametrize(
    "cls",
    ["SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta"],
)
def test_rates_and_decays_of_one_rule_step_together(make_problem, cls, decay):
    cls = getattr(torch.optim, cls)
    settings = [(0.01, 0.0), (0.02, 0.1), (0.01, 0.1)]
    rules = [partial(cls, lr=lr, weight_decay=wd) for lr, wd in settings]
    members = make_members(make_problem(epochs=3), rules, decay_biases_and_norms=decay)
    assert joint_sizes(members) == [3]
    members[1]["schedule"] = partial(schedules.warmup_cosine, warmup=0.5)
    check_as_alone(members)


def test_equal_rules_step_as_one(make_problem):
    cosine = partial(schedules.cosine, final=0.1)
    rule = partial(torch.optim.Adam, lr=0.02, weight_decay=0.1)
    check_as_alone(make_members(make_problem(MLP, epochs=3), [rule] * 3, schedule=cosine))


def test_what_steps_together(make_problem):
    def rules(*rules):
        return joint_sizes(make_members(make_problem(), rules))

    adam, rprop = torch.optim.Adam, torch.optim.Rprop
    assert rules(partial(adam, lr=0.1), SGD, partial(adam, lr=0.2), SGD) == [2, 2]
    assert rules(partial(adam, lr=0.1), partial(adam, lr=0.1, betas=(0.8, 0.9))) == []
    assert rules(partial(rprop, lr=0.1), partial(rprop, lr=0.1)) == []
    assert rules(partial(SGD, maximize=True), partial(SGD, maximize=True)) == []


def joint_sizes(members):
    made = [cohort.Member(i, Training(**m), m["seed"]) for i, m in enumerate(members)]
    return sorted(j.slots.stop - j.slots.start for j in cohort.Cohort(made).joint)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": None, "steps": 4},
        {"weight_penalty": 0.02, "drop_last": True},
        {"shuffle": "fixed_order", "epochs": 3},
        {"batch_size": "full", "epochs": 3},
        {"batch_size": 47},  # 48 examples: the last one joins
        {"loss": losses.mse},
        {"loss": losses.bce},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_problems(make_problem, changes):
    check_as_alone(make_members(make_problem(MLP, **changes), SEVEN[:3]))


def test_one_seed_shares_batches_and_masks(make_problem):
    check_as_alone([m | {"seed": 5} for m in make_members(make_problem(MLP, epochs=3))])
    full = make_problem(MLP, batch_size="full")
    check_as_alone([m | {"seed": 5} for m in make_members(full)])


def test_initializers_and_schedules_of_its_own_and_evaluations(make_problem):
    near = partial(initialize, weight=partial(nn.init.normal_, std=0.01), bias=0.0)
    members = make_members(make_problem(MLP, epochs=5), eval_every=2, eval_test="end")
    members[0] |= {"problem": make_problem(MLP, epochs=5, initializer=near)}
    members = [m | {"schedule": schedules.one_cycle} for m in members]
    members[1]["schedule"] = None
    for member in members[1:]:
        member["problem"] = members[1]["problem"]
    members[0]["problem"] = replace_dataset(members[0]["problem"], members[1]["problem"])
    check_as_alone([m | {"eval_train_examples": 20, "log_every": 4} for m in members])


def replace_dataset(problem, other):
    return replace(problem, dataset=other.dataset)


def test_weights_are_those_of_a_run_alone(make_problem):
    problem = make_problem(partial(MLP, batch_norm=True), epochs=4)
    members = make_members(problem)
    made = [cohort.Member(i, Training(**m), m["seed"]) for i, m in enumerate(members)]
    assert list(cohort.Cohort(made).updates(lambda: False))[-1][1].status == "completed"
    for member, arguments in zip(made, members, strict=True):
        alone = Training(**arguments)
        list(alone.updates())
        expected = alone.model.state_dict()
        for name, value in member.training.model.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


def test_one_that_diverges_leaves_the_others_as_they_are(make_problem):
    problem = make_problem(partial(MLP, dropout=0.0), epochs=60)  # several chunks of steps
    wild = partial(torch.optim.SGD, lr=1e20)
    members = make_members(problem, [SGD, wild, partial(torch.optim.SGD, lr=0.05), *SEVEN[2:4]])
    found = together(members)
    assert [updates[-1].status for updates in found] == [
        "completed", "diverged", "completed", "completed", "completed"
    ]  # fmt: skip
    check_as_alone(members, rel=2e-3)
    calm = together([m for i, m in enumerate(members) if i != 1])
    for a, b in zip([u for i, u in enumerate(found) if i != 1], calm, strict=True):
        assert [r["train_loss"] for r in rows(a)] == pytest.approx(
            [r["train_loss"] for r in rows(b)], rel=1e-3
        )


def test_members_leave_within_an_epoch(make_problem, monkeypatch):
    monkeypatch.setattr(cohort, "CHUNK", 3)
    monkeypatch.setattr(loop, "CHUNK", 3)
    rules = [partial(torch.optim.Adam, lr=lr) for lr in (0.01, 1e25, 0.02, 0.03, 1e25, 0.01)]
    wild = partial(Momentum, lr=1e25)
    problem = make_problem(partial(models.mlp, hidden=[8]), batch_size=4, epochs=2)
    members = make_members(problem, [*rules, wild, wild, SGD])
    members = [m | {"seed": i} for i, m in enumerate(members)]
    found = [updates[-1].status for updates in together(members)]
    assert found.count("completed") == 5
    assert found.count("diverged") == 4
    check_as_alone(members)


def test_a_start_that_is_not_finite(make_problem):
    huge = partial(initialize, weight=partial(nn.init.constant_, val=1e38))
    fine = make_problem()
    members = make_members(fine, SEVEN[:3])
    members[1]["problem"] = replace_dataset(make_problem(initializer=huge), fine)
    found = together(members)
    assert [u[-1].status for u in found] == ["completed", "diverged", "completed"]
    assert len(found[1]) == 2
    check_as_alone(members)


def test_stop_interrupts_all_after_a_whole_step(make_problem):
    asked = iter([False, False, False, False, True])
    found = together(make_members(make_problem()), stop=lambda: next(asked))
    for updates in found:
        assert updates[-1].status == "interrupted"
        assert [row["step"] for u in updates for row in u.steps] == [1, 2, 3, 4, 5]


class Breaks(torch.optim.SGD):
    """Raises at its fourth step."""

    count = 0

    def step(self, closure=None):
        self.count += 1
        if self.count == 4:
            raise RuntimeError("broken")
        return super().step(closure)


def test_errors_of_one_member_do_not_end_the_others(make_problem):
    members = make_members(make_problem(), SEVEN[:4])
    members[1]["optimizer"] = partial(torch.optim.SGD, lr=-1.0)
    members[2]["optimizer"] = partial(Breaks, lr=0.1)
    found = together(members)
    assert isinstance(found[1][0], UserError)
    assert len(found[1]) == 1
    assert isinstance(found[2][-1], RuntimeError)
    assert found[0][-1].status == found[3][-1].status == "completed"


@pytest.mark.parametrize("channels_last", [True, False])
def test_optimizers_that_flatten_train_convolutions(channels_last):
    raw = prepare.RawDataset(
        torch.rand(12, 1, 8, 8), torch.arange(12) % 3, torch.rand(3, 1, 8, 8), torch.arange(3)
    )
    problem = Problem(
        prepare.prepare(raw, val_size=0), partial(models.cnn, channels=[3, 2], hidden=[4]),
        losses.cross_entropy, initialize, 4, epochs=1,
    )  # fmt: skip
    optimizer = partial(torch.optim.LBFGS, max_iter=2)
    *_, last = train(problem, optimizer, channels_last=channels_last)
    assert last.status == "completed"


def test_seconds_add_up_to_what_was_spent(make_problem):
    members = make_members(make_problem(epochs=3))
    final = [updates[-1].epoch for updates in together(members)]
    spent = {row["seconds"] for row in final}
    assert len(spent) == 1
    assert 0 < sum(row["seconds"] for row in final) <= final[0]["total_seconds"]


def test_evaluations_on_a_gpu_are_vectorised(make_problem):
    members = make_members(make_problem(partial(MLP, batch_norm=True)), eval_test="end")
    made = [cohort.Member(i, Training(**m), m["seed"]) for i, m in enumerate(members)]
    group = cohort.Cohort(made)
    group.scores_together = True
    found = [[] for _ in members]
    for index, update in group.updates(lambda: False):
        found[index].append(update)
    for member, updates in zip(members, found, strict=True):
        for a, b in zip(rows(train(**member)), rows(updates), strict=True):
            for key in ("train_loss", "val_accuracy", "test_loss"):
                assert a.get(key) == b.get(key) or b[key] == pytest.approx(a[key], rel=1e-5)


def test_vectorised_scores_equal_those_of_each(make_problem):
    problem = make_problem(partial(MLP, batch_norm=True), weight_penalty=0.1)
    own = [build_model(problem, seed).eval() for seed in range(3)]
    x, y = problem.dataset.train_x, problem.dataset.train_y
    expected = [score(problem, model, x, y) for model in own]
    sums = Stack(problem, build_model(problem, 0), own).scores(x, y)
    for row, scores in zip(sums.tolist(), expected, strict=True):
        assert means(problem, *row) == pytest.approx(scores, rel=1e-6)
