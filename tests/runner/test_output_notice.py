"""A model that applies the loss's own function to its outputs is warned of."""

from functools import partial
from types import SimpleNamespace

import pytest
from torch import nn

from optbench import losses
from optbench.runner import notices


@pytest.mark.parametrize(
    ("last", "loss", "warned"),
    [
        (nn.Softmax(dim=1), partial(losses.cross_entropy, label_smoothing=0.1), True),
        (nn.Softmax(dim=1), losses.nll, True),
        (nn.Softmax(dim=1), losses.mse, True),
        (nn.Softmax(dim=1), partial(losses.mse, output="linear"), False),
        (nn.Softmax(dim=1), nn.CrossEntropyLoss(), True),
        (nn.Sigmoid(), losses.bce, True),
        (nn.Sigmoid(), nn.BCELoss(), False),
        (nn.LogSoftmax(dim=1), losses.cross_entropy, False),
        (nn.Linear(3, 2), losses.cross_entropy, False),
    ],
)
def test_an_output_layer_before_a_loss_of_logits_is_warned_of(
    last, loss, warned, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(notices, "_told", set())
    training = SimpleNamespace(
        model=nn.Sequential(nn.Linear(4, 3), last), problem=SimpleNamespace(loss=loss)
    )
    notices.tell_output(training)
    notices.tell_output(training)  # said once
    said = capsys.readouterr().err
    assert said.count("takes logits") == int(warned)
    if warned:
        assert f"Sequential ends with {type(last).__name__}" in said


@pytest.mark.parametrize(
    ("size", "warned"), [(101, True), (100, False), ("full", False), (128, False), (5, False)]
)
def test_batches_of_more_examples_than_there_are_are_told(size, warned, monkeypatch, capsys):
    """128, the default, was not asked for."""
    monkeypatch.setattr(notices, "_told", set())
    dataset = SimpleNamespace(train_y=range(100))
    training = SimpleNamespace(problem=SimpleNamespace(batch_size=size, dataset=dataset))
    notices.tell_batch(training)
    notices.tell_batch(training)
    assert capsys.readouterr().err.count("more than the 100 training examples") == int(warned)
