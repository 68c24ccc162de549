"""Images larger than memory: the same batches, curves and resumption as in memory."""

import json
import subprocess
import sys
from functools import partial
from multiprocessing import active_children

import numpy as np
import pytest
import torch
from image_files import write, write_digits
from torch import nn
from torch.optim import SGD

from optbench import datasets, losses, models
from optbench.common.errors import UserError
from optbench.datasets import preprocessing
from optbench.datasets.image_files.decoding import read_ahead
from optbench.datasets.image_files.streamed import StreamedImages
from optbench.datasets.prepare import Dataset, prepare
from optbench.formats.keys import identity_part
from optbench.initializers import initialize
from optbench.problem import Problem
from optbench.training.loop import Training
from optbench.training.recipes import Averaging, Recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return str(write_digits(tmp_path_factory.mktemp("digits"), 44, 12))


def both(folder, workers=0, **settings) -> tuple[Dataset, Dataset]:
    held = prepare(datasets.image_folder(folder), **settings)
    raw = datasets.image_folder(folder, in_memory_mb=0, workers=workers)
    return held, prepare(raw, **settings)


@pytest.mark.parametrize("name", ["none", "scale", "standardize", "standardize_features"])
def test_streamed_images_are_those_in_memory_bit_for_bit(folder, name):
    held, streamed = both(folder, preprocessing=name, val_size=8)
    assert held.digest == streamed.digest
    for part in ("train_x", "val_x", "test_x"):
        x, y = getattr(held, part), getattr(streamed, part)
        assert isinstance(y, StreamedImages)
        assert torch.equal(x, y.load())
        assert torch.equal(x[1:7:2], y[1:7:2].load())
        assert [len(batch) for batch in y.split(5)] == [len(batch) for batch in x.split(5)]
        assert all(map(torch.equal, x.split(3), y.split(3)))
        places = torch.tensor([3, 0, 3])
        assert torch.equal(x.index_select(0, places), y.index_select(0, places))


def test_subset_and_split_are_those_in_memory(folder):
    held, streamed = both(folder, subset=20, split_seed=3, val_size=0.2)
    assert torch.equal(held.val_x, streamed.val_x.load())
    assert torch.equal(held.test_x, streamed.test_x.load())
    assert torch.equal(held.train_y, streamed.train_y)


def test_exact_sums_scale_images_as_the_sums_of_floats_did():
    x = datasets.mnist_5k().train_x
    shift, scale = preprocessing.shift_and_scale(x, "standardize")
    values = x.numpy().astype(np.float64)
    assert shift.item() == values.mean()
    assert scale.item() == pytest.approx(values.std(), rel=1e-12)
    scaled = ((values - values.mean()) / values.std()).astype(np.float32)
    assert np.array_equal(preprocessing.affine(x, shift, scale).numpy(), scaled)


def test_another_process_finds_the_same_images(folder):
    _, streamed = both(folder)
    plain = json.loads(json.dumps(streamed.to_plain(), default=torch.Tensor.tolist))
    assert plain["train_x"]["streamed"]["files"]["root"] == folder
    again = Dataset.from_plain(streamed.to_plain())
    assert torch.equal(again.train_x.load(), streamed.train_x.load())


class Noisy(nn.Module):
    """A small network with dropout of torch, which draws from the global generator."""

    def __init__(self, inputs, classes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, 6), nn.BatchNorm1d(6), nn.Dropout(0.3),
            nn.Linear(6, classes),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


def curves(data, stop_at=None, **settings):
    recipe = settings.pop("recipe", None)
    given = {"batch_size": 8, "epochs": 2, "precision": "float32"} | settings
    loss = losses.mse if data.classes == 0 else losses.cross_entropy
    problem = Problem(data, lambda s, c: Noisy(784, c or 784), loss, initialize, **given)
    if data.classes == 0:
        make = lambda s, c: nn.Sequential(Noisy(784, 784), nn.Unflatten(1, s))  # noqa: E731
        problem = Problem(data, make, nn.MSELoss(), initialize, **given)
    training = Training(problem, partial(SGD, lr=0.1), seed=1, recipe=recipe)
    stop = (lambda: training.step >= 0) if stop_at else (lambda: False)
    rows = [u.epoch for u in training.updates(stop) if u.epoch]
    return rows, training, problem


def weights(training):
    return torch.cat([t.flatten() for t in training.model.state_dict().values()])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"workers": 2},
        {"batch_size": "full"},
        {"precision": "float64"},
        {"targets": "inputs"},
        {"recipe": Recipe(averaging=Averaging("tail", start=0.5))},
    ],
    ids=["plain", "workers", "full", "float64", "autoencoder", "averaging"],
)
def test_a_run_is_the_one_in_memory_bit_for_bit(folder, settings):
    made = {key: settings[key] for key in ("workers", "targets") if key in settings}
    rest = {key: value for key, value in settings.items() if key not in made}
    held, streamed = both(folder, **made, val_size=8)
    (rows, first, _), (others, second, _) = curves(held, **rest), curves(streamed, **rest)
    assert torch.equal(weights(first), weights(second))
    timed = ("seconds", "total_seconds")
    for row, other in zip(rows, others, strict=True):
        assert {k: v for k, v in row.items() if k not in timed} == {
            k: v for k, v in other.items() if k not in timed
        }


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumes_within_an_epoch_bit_for_bit(folder, workers):
    _, streamed = both(folder, workers=workers, val_size=8)
    _, whole, problem = curves(streamed)
    _, first, _ = curves(streamed, stop_at=True)
    assert first.step % problem.steps_per_epoch > 0
    rest = Training(problem, partial(SGD, lr=0.1), seed=1)
    rest.load_state_dict(first.state_dict())
    list(rest.updates())
    assert torch.equal(weights(rest), weights(whole))


def test_batches_are_read_ahead_in_the_order_that_the_seed_gives(folder, monkeypatch):
    _, streamed = both(folder, val_size=0)
    asked = []

    def seen(read, batches, workers):
        asked.append([list(batch) for batch in batches])
        return read_ahead(read, batches, workers)

    monkeypatch.setattr("optbench.datasets.image_files.streamed.read_ahead", seen)
    x = streamed.to("cpu").train_x
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).split(10)
    x.expect(order)
    places = streamed.train_x.rows
    for batch in order:
        assert torch.equal(x.index_select(0, batch), streamed.train_x.index_select(0, batch))
    assert asked == [[places[batch].tolist() for batch in order]]
    assert x._ahead is None  # the processes have ended


def test_reading_ahead_draws_from_no_global_generator(folder):
    _, streamed = both(folder, workers=2)
    before = torch.get_rng_state()
    list(streamed.train_x.split(10))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_changes_during_a_run_ends_it_in_words(tmp_path, workers):
    root = write_digits(tmp_path, 30, 6)
    streamed = prepare(datasets.image_folder(str(root), in_memory_mb=0, workers=workers))
    path = streamed.train_x.files.path(int(streamed.train_x.rows[3]))
    write(path, shape=(9, 9))
    with pytest.raises(UserError, match=r"has 9x9 pixels .* now, and had 28x28"):
        list(streamed.train_x.split(4))
    path.unlink()
    with pytest.raises(UserError, match="cannot be read: No such file"):
        list(streamed.train_x.split(4))


def test_whole_numbers_are_refused_for_streamed_images(folder):
    with pytest.raises(UserError, match=r"raise dataset\.in_memory_mb"):
        prepare(datasets.image_folder(folder, in_memory_mb=0), preprocessing="integers")


def test_the_identity_holds_neither_the_path_nor_how_images_are_read(folder):
    from composed import configuration

    from optbench.config.build import describe_problem
    from optbench.formats.keys import Role

    words = ("dataset=image_folder", "model=resnet")
    one = configuration(*words, f"data.path={folder}")
    other = configuration(
        *words, "data.path=elsewhere", "dataset.in_memory_mb=0", "dataset.workers=0"
    )
    assert describe_problem(one) == describe_problem(other)
    assert identity_part(one, Role.RUN) == identity_part(other, Role.RUN)
    sized = configuration(*words, "data.path=elsewhere", "dataset.size=8")
    assert describe_problem(one) != describe_problem(sized)


def test_a_small_network_learns_images_of_a_folder(folder):
    held, _ = both(folder, val_size=0)
    problem = Problem(held, partial(models.mlp, hidden=[16]), losses.cross_entropy, initialize,
                      batch_size=8, epochs=12)  # fmt: skip
    rows = [u.epoch for u in Training(problem, partial(SGD, lr=0.1)).updates() if u.epoch]
    assert rows[-1]["train_accuracy"] > 0.95


def test_processes_that_read_ahead_end_where_a_run_is_stopped_within_an_epoch():
    others = active_children()  # of stopped runs that other tests still hold
    reading = read_ahead(lambda places: np.zeros(3), [[place] for place in range(50)], 2)
    next(reading)
    readers = [child for child in active_children() if child not in others]
    assert len(readers) == 2
    reading.close()
    assert not any(child.is_alive() for child in readers)


def test_a_program_ends_though_processes_still_read_ahead():
    code = (
        "import numpy as np\n"
        "from optbench.datasets.image_files.decoding import read_ahead\n"
        "reading = read_ahead(lambda places: np.zeros(3), [[i] for i in range(50)], 2)\n"
        "next(reading)\n"
        "print('read', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "read\n", "")
