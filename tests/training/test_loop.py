"""The training loop against a loop written out by hand, and the rules a comparison rests on."""

import random
from functools import partial
from math import ceil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from optbench import models
from optbench.common.errors import UserError
from optbench.problem import Problem, build_model, identity, stream
from optbench.training.batches import Batches
from optbench.training.loop import Training

SGD = partial(torch.optim.SGD, lr=0.1)


def run(problem: Problem, optimizer=SGD, **arguments):
    """All rows and the final status."""
    updates = list(Training(problem, optimizer, log_every=1, **arguments).updates())
    steps = [row for update in updates for row in update.steps]
    epochs = [update.epoch for update in updates if update.epoch]
    return steps, epochs, updates[-1].status


def without_times(rows):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


def test_training_equals_a_loop_written_out(make_problem):
    problem = make_problem(epochs=3)
    steps, epochs, status = run(problem, seed=4)
    model, data = build_model(problem, 4), problem.dataset
    opt, order, losses = SGD(model.parameters()), stream(4, "order"), []
    for _ in range(3):
        for batch in torch.randperm(len(data.train_y), generator=order).split(16):
            loss = F.cross_entropy(model(data.train_x[batch]), data.train_y[batch])
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    assert status == "completed"
    assert [row["train_loss"] for row in steps] == pytest.approx(losses, rel=1e-6)
    model.eval()
    for part, x, y in [
        ("train", data.train_x, data.train_y),
        ("val", data.val_x, data.val_y),
        ("test", data.test_x, data.test_y),
    ]:
        logits = model(x)
        assert epochs[-1][f"{part}_loss"] == pytest.approx(
            F.cross_entropy(logits, y).item(), rel=1e-5
        )
        accuracy = (logits.argmax(1) == y).float().mean().item()
        assert epochs[-1][f"{part}_accuracy"] == pytest.approx(accuracy)
    # 48 examples in batches of 16: the running mean is that of the last three losses
    assert epochs[-1]["running_loss"] == pytest.approx(sum(losses[-3:]) / 3)
    assert [row["epoch"] for row in epochs] == [0, 1, 2, 3]
    assert epochs[0]["running_loss"] is None
    assert [row["step"] for row in steps] == list(range(1, 10))


def test_running_loss_weighs_a_short_last_batch(make_problem):
    problem = make_problem(batch_size=32, epochs=1)  # 32 and 16
    steps, epochs, _ = run(problem)
    a, b = (row["train_loss"] for row in steps)
    assert epochs[-1]["running_loss"] == pytest.approx((32 * a + 16 * b) / 48)


def test_same_seed_same_rows_and_another_seed_other_rows(make_problem):
    problem = make_problem(partial(models.mlp, hidden=[8], dropout=0.5, batch_norm=True))
    a, b, c = run(problem, seed=1), run(problem, seed=1), run(problem, seed=2)
    assert without_times(a[0]) == without_times(b[0])
    assert without_times(a[1]) == without_times(b[1])
    assert without_times(a[0]) != without_times(c[0])


def test_two_runs_side_by_side_do_not_disturb_each_other(make_problem):
    problem = make_problem(partial(models.mlp, hidden=[8], dropout=0.5))
    alone = run(problem, seed=1)[1]
    pairs = zip(
        Training(problem, SGD, seed=1).updates(),
        Training(problem, SGD, seed=2).updates(),
        strict=True,
    )
    together = [first.epoch for first, _ in pairs if first.epoch]
    assert without_times(alone) == without_times(together)


def _draws():
    numpy = np.random.randn()  # noqa: NPY002
    return torch.rand(()).item(), random.gauss(0, 1), numpy


class Noisy(torch.nn.Module):
    """Draws from every global generator, and has torch's own dropout."""

    def __init__(self, shape, classes):
        super().__init__()
        self.layer, self.drop = torch.nn.Linear(shape[0], classes), torch.nn.Dropout(0.5)

    def forward(self, x):
        scale = 1 + 0.1 * sum(_draws()) if self.training else 1
        return self.layer(self.drop(x + 0.1 * torch.randn_like(x))) * scale


class NoisyStep(torch.optim.SGD):
    def step(self, closure=None):
        _draws()
        return super().step(closure)


def test_global_draws_come_from_the_seed_and_leave_the_callers_alone(make_problem):
    problem = make_problem(Noisy, epochs=3)

    def losses(optimizer, seed=0, interleaved=None):
        found = []
        for update in Training(
            problem, partial(optimizer, lr=0.1), seed=seed, log_every=1
        ).updates():
            found += [row["train_loss"] for row in update.steps]
            _draws()
            if interleaved is not None:
                next(interleaved, None)
        return found

    torch.manual_seed(1)
    random.seed(2)
    np.random.seed(3)  # noqa: NPY002
    before = [_draws() for _ in range(3)]
    torch.manual_seed(1)
    random.seed(2)
    np.random.seed(3)  # noqa: NPY002
    assert _draws() == before[0]
    updates = Training(problem, partial(NoisyStep, lr=0.1), log_every=1).updates()
    next(updates)
    assert _draws() == before[1]
    list(updates)
    assert _draws() == before[2]

    plain = losses(torch.optim.SGD)
    other = Training(problem, partial(NoisyStep, lr=0.3), seed=5).updates()
    assert losses(torch.optim.SGD, interleaved=other) == plain
    # an optimizer that draws does not move the model's draws
    assert losses(NoisyStep) == plain
    assert losses(torch.optim.SGD, seed=1) != plain


def test_evaluating_more_often_changes_no_draw(make_problem):
    problem = make_problem(Noisy, epochs=4)

    def losses(eval_every):
        updates = Training(problem, torch.optim.Adam, log_every=1, eval_every=eval_every).updates()
        return [row["train_loss"] for update in updates for row in update.steps]

    assert losses(1) == losses(3)


def test_float64_is_the_same_run_with_less_rounding(make_problem):
    def losses(precision):
        problem = make_problem(partial(models.mlp, hidden=[8], dropout=0.3), precision=precision)
        updates = Training(problem, torch.optim.Adam, log_every=1).updates()
        return [row["train_loss"] for update in updates for row in update.steps]

    plain, exact = losses("float32"), losses("float64")
    assert exact != plain
    assert exact == pytest.approx(plain, rel=1e-5)


def test_the_global_generator_is_left_alone(make_problem):
    before = torch.get_rng_state()
    run(make_problem(partial(models.mlp, hidden=[8], dropout=0.5)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("optimizer", [SGD, partial(torch.optim.Adam, lr=0.01)])
def test_every_optimizer_starts_from_the_same_weights_and_first_batch(make_problem, optimizer):
    problem = make_problem()
    steps, epochs, _ = run(problem, optimizer, seed=3)
    reference = run(problem, seed=3)
    assert steps[0]["train_loss"] == reference[0][0]["train_loss"]
    assert without_times(epochs[:1]) == without_times(reference[1][:1])


@settings(max_examples=60, deadline=None)
@given(n=st.integers(2, 70), batch=st.integers(1, 80), seed=st.integers(0, 1000))
def test_an_epoch_holds_every_example_once_and_never_a_lone_last_one(n, batch, seed):
    class Data:
        train_y = torch.zeros(n)
        epoch_examples, stride = n, 1
        input_shape = (1,)

    unused = lambda *_: None  # noqa: E731
    problem = Problem(Data(), unused, unused, unused, batch_size=batch, epochs=2)
    orders = Batches(problem, seed)
    for _ in range(2):
        batches = [torch.as_tensor(b) for b in orders.epoch()]
        assert len(batches) == problem.steps_per_epoch <= ceil(n / batch)
        assert sorted(torch.cat(batches).tolist()) == list(range(n))
        if batch > 1:
            assert min(map(len, batches)) > 1


def test_fixed_order_replays_one_permutation_and_every_epoch_does_not(make_problem):
    def two_epochs(shuffle):
        orders = Batches(make_problem(shuffle=shuffle), 0)
        return [torch.cat(orders.epoch()) for _ in range(2)]

    fixed, fresh = two_epochs("fixed_order"), two_epochs("every_epoch")
    assert torch.equal(*fixed)
    assert not torch.equal(*fresh)
    assert torch.equal(fixed[0], fresh[0])


@pytest.mark.parametrize(("batch_size", "steps"), [(1, 48), (7, 7), ("full", 1), (1000, 1)])
def test_every_batch_size_trains(make_problem, batch_size, steps):
    rows, epochs, status = run(make_problem(batch_size=batch_size, epochs=1))
    assert (len(rows), status) == (steps, "completed")
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]


def test_batch_gradient_descent_sees_the_mean_over_the_whole_set(make_problem):
    steps, epochs, _ = run(make_problem(batch_size="full", epochs=3))
    before = [row["train_loss"] for row in epochs[:-1]]
    assert [row["train_loss"] for row in steps] == pytest.approx(before, rel=1e-6)


def test_a_budget_in_steps_may_end_within_an_epoch(make_problem):
    steps, epochs, status = run(make_problem(epochs=None, steps=4))
    assert (len(steps), status) == (4, "completed")
    assert [row["step"] for row in epochs] == [0, 3, 4]
    assert epochs[-1]["epoch"] == pytest.approx(4 / 3)


def test_evaluations_come_at_an_interval_and_on_a_part(make_problem):
    problem = make_problem(epochs=5)
    epochs = [u.epoch["epoch"] for u in Training(problem, SGD, eval_every=2).updates() if u.epoch]
    assert epochs == [0, 2, 4, 5]
    data = problem.dataset
    first = next(Training(problem, SGD, eval_train_examples=7).updates()).epoch
    logits = build_model(problem, 0)(data.train_x[:7])
    assert first["train_loss"] == pytest.approx(
        F.cross_entropy(logits, data.train_y[:7]).item(), rel=1e-5
    )


@pytest.mark.parametrize(("when", "measured"), [("each", 3), ("end", 1), ("never", 0)])
def test_the_test_set_is_measured_when_asked(make_problem, when, measured):
    _, epochs, _ = run(make_problem(), eval_test=when)
    seen = [row["test_loss"] is not None for row in epochs]
    assert sum(seen) == measured
    assert seen[-1] == (when != "never")


def test_rows_come_at_an_interval(make_problem):
    updates = Training(make_problem(epochs=5), SGD, log_every=4).updates()
    assert [r["step"] for u in updates for r in u.steps] == [1, 4, 8, 12, 15]


def test_divergence_ends_the_run_at_its_step(make_problem):
    problem = make_problem(partial(models.mlp, hidden=[8]), epochs=50)
    steps, epochs, status = run(problem, partial(torch.optim.SGD, lr=1e20))
    assert status == "diverged"
    finite = [row for row in steps if abs(row["train_loss"]) < float("inf")]
    assert len(finite) == len(steps) - 1  # one row shows it, none follows
    assert steps[-1]["step"] == len(steps) < problem.total_steps
    assert all(abs(row["train_loss"]) < float("inf") for row in epochs[:1])


def test_stop_ends_the_run_after_a_whole_step(make_problem):
    asked = iter([False, False, True])
    updates = list(Training(make_problem(), SGD, log_every=1).updates(lambda: next(asked)))
    assert updates[-1].status == "interrupted"
    assert [row["step"] for row in updates[-1].steps] == [1, 2, 3]


def test_schedule_steps_with_every_step(make_problem):
    def halve(optimizer, total_steps):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / total_steps)

    steps, _, _ = run(make_problem(epochs=1), schedule=halve)
    assert [row["lr"] for row in steps] == pytest.approx([0.1, 0.2 / 3, 0.1 / 3])


def test_lbfgs_trains_with_its_closure(make_problem):
    problem = make_problem(batch_size="full", epochs=5)
    steps, epochs, status = run(problem, partial(torch.optim.LBFGS, lr=1.0))
    assert status == "completed"
    assert len(steps) == 5
    assert epochs[-1]["train_loss"] < 0.1 * epochs[0]["train_loss"]
    assert steps[0]["train_loss"] == pytest.approx(epochs[0]["train_loss"], rel=1e-6)


def test_bfloat16_stays_near_float32(make_problem):
    plain = run(make_problem())[1][-1]
    low = run(make_problem(precision="bfloat16"))[1][-1]
    assert low["train_loss"] == pytest.approx(plain["train_loss"], rel=0.05)
    assert low["train_loss"] != plain["train_loss"]


def test_batch_norm_counts_in_evaluation_by_its_running_statistics(make_problem):
    problem = make_problem(partial(models.mlp, hidden=[8], batch_norm=True), n=61)
    _, epochs, status = run(problem, seed=0)  # 49 examples: the last batch of one is joined
    assert status == "completed"
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]


def test_a_misfit_is_a_user_error_before_the_first_step(make_problem):
    with pytest.raises(UserError, match="needs images"):
        run(make_problem(models.cnn))
    with pytest.raises(UserError, match="one logit per class"):
        run(make_problem(lambda shape, classes: torch.nn.Linear(5, classes + 1)))
    with pytest.raises(UserError, match="loss does not fit"):
        run(make_problem(loss=lambda logits, labels: F.binary_cross_entropy(logits, labels)))
    with pytest.raises(UserError, match="one number"):
        run(make_problem(loss=partial(F.cross_entropy, reduction="none")))
    with pytest.raises(UserError, match="either epochs or steps"):
        make_problem(steps=3)
    words = "can't allocate memory: you tried to allocate 313600000000 bytes."

    def huge(shape, classes):
        raise RuntimeError(f"DefaultCPUAllocator: {words} Error code 12")

    with pytest.raises(UserError, match="cannot be built: it needs 292 GiB for one tensor"):
        run(make_problem(huge))


def test_identity_ignores_key_order_and_sees_every_value():
    a = {"x": 1, "y": {"z": [1, 2], "w": None}}
    b = {"y": {"w": None, "z": [1, 2]}, "x": 1}
    assert identity(a) == identity(b)
    assert identity(a) != identity(a | {"x": 2})
    assert identity(a) != identity(a | {"x": 1.5})
    assert len(identity(a)) == 12


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_follows_the_cpu(make_problem):
    problem = make_problem(partial(models.mlp, hidden=[8], batch_norm=True), epochs=3)
    on_cpu, on_cuda = run(problem)[1], run(problem, device="cuda")[1]
    for a, b in zip(on_cpu, on_cuda, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-3)
