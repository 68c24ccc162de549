"""Models of a user's own: trained as torch would train them, or refused in words."""

import torch
from torch import nn

from optbench import models
from optbench.diagnostics import gradient_noise_scale
from optbench.problem import stream
from optbench.stack import Masks
from optbench.training import Training


class WithPart(nn.Module):
    """A model whose own part is called generator."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.generator, self.drop = nn.Linear(width, 4), models.Dropout(0.5)
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        return self.head(self.drop(self.generator(x)))


def with_part(input_shape, classes):
    return WithPart(*input_shape, classes)


def test_part_called_generator_stays_the_models_own(make_problem):
    problem = make_problem(with_part)
    training = Training(problem, torch.optim.SGD)
    model = training.model
    assert [name for name, _ in models.drawing_layers(model)] == ["drop"]
    assert isinstance(model.generator, nn.Linear)
    assert "generator" not in vars(model)
    assert model.drop.generator is training.noise
    assert [name for name, *_ in Masks(problem, torch.device("cpu")).calls] == ["drop"]
    assert list(training.updates())[-1].status == "completed"


def test_noise_scale_puts_back_every_generator_that_a_model_holds():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.source = nn.Linear(3, 2), stream(0, "own")

        def forward(self, x):
            return self.layer(x + torch.randn(x.shape, generator=self.source))

    model = Own()
    before = model.source.get_state()
    gradient_noise_scale(
        model, lambda x, y: model(x).square().mean(), torch.ones(16, 3), torch.ones(16)
    )
    assert torch.equal(model.source.get_state(), before)
