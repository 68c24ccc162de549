"""Images are augmented as by hand, alike for all optimizers, from a stream of their own."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.optim import SGD, Adam

from optbench import losses, models
from optbench.common.errors import UserError
from optbench.datasets import prepare
from optbench.initializers import initialize
from optbench.problem import Problem, stream
from optbench.training.loop import Training
from optbench.training.recipes import Recipe
from optbench.training.recipes.augmentation import Augmentation, Augmenter

ALL = Augmentation(crop=2, flip=True, cutout=3)
CNN = partial(models.cnn, channels=[4])


@pytest.fixture
def images() -> Problem:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 2, 8, 8, generator=generator)
    y = torch.arange(40) % 3
    raw = prepare.RawDataset(x, y, x[:10], y[:10])
    data = prepare.prepare(raw, preprocessing="none", val_size=0.2)
    return Problem(data, CNN, losses.cross_entropy, initialize, batch_size=8, epochs=2)


def by_hand(x: torch.Tensor, draws: torch.Tensor, settings: Augmentation) -> torch.Tensor:
    """Augment one image after the other, with slices."""
    found, pad = [], settings.crop
    height, width = x.shape[2:]
    for image, (flip, down, right, middle, centre) in zip(x, draws.T.tolist(), strict=True):
        top, left = int(down * (2 * pad + 1)), int(right * (2 * pad + 1))
        image = F.pad(image, (pad, pad, pad, pad))[:, top : top + height, left : left + width]
        if settings.flip and flip < 0.5:
            image = image.flip(2)
        image = image.clone()
        if side := settings.cutout:
            top, left = int(middle * height) - side // 2, int(centre * width) - side // 2
            image[:, max(top, 0) : top + side, max(left, 0) : left + side] = 0
        found.append(image)
    return torch.stack(found)


@pytest.mark.parametrize(
    "settings",
    [
        ALL, Augmentation(crop=4), Augmentation(flip=True), Augmentation(cutout=1),
        Augmentation(cutout=8), Augmentation(crop=1, cutout=2),
    ],
)  # fmt: skip
def test_images_are_augmented_as_by_hand(settings):
    x = torch.rand(50, 3, 8, 6, generator=torch.Generator().manual_seed(1))
    draws = torch.rand(5, 50, generator=stream(5, "augmentation"))
    made = Augmenter(settings, 5, torch.device("cpu"))(x)
    assert torch.equal(made, by_hand(x, draws, settings))
    assert made.is_contiguous()


def seen_batches(monkeypatch, problem, optimizer, recipe, **settings) -> list[torch.Tensor]:
    found = []
    step = "optbench.training.stepping.Stepper.step"
    from optbench.training.stepping import Stepper

    plain = Stepper.step

    def keep(self, x, y, *rest):
        found.append(x.clone())
        return plain(self, x, y, *rest)

    monkeypatch.setattr(step, keep)
    list(Training(problem, optimizer, seed=3, recipe=recipe, **settings).updates())
    monkeypatch.setattr(step, plain)
    return found


def test_all_optimizers_of_a_seed_see_the_same_augmented_batches(images, monkeypatch):
    recipe = Recipe(augment=ALL)
    first = seen_batches(monkeypatch, images, partial(SGD, lr=0.1), recipe)
    second = seen_batches(monkeypatch, images, Adam, recipe, layers=True)
    third = seen_batches(monkeypatch, images, torch.optim.LBFGS, recipe)
    for a, b, c in zip(first, second, third, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    plain = seen_batches(monkeypatch, images, Adam, Recipe())
    assert not any(torch.equal(a, b) for a, b in zip(first, plain, strict=True))


def test_a_flip_moves_no_crop(images, monkeypatch):
    flipped = seen_batches(monkeypatch, images, Adam, Recipe(augment=Augmentation(2, True)))
    cropped = seen_batches(monkeypatch, images, Adam, Recipe(augment=Augmentation(2)))
    pairs = [p for a, b in zip(flipped, cropped, strict=True) for p in zip(a, b, strict=True)]
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(2)) for a, b in pairs)
    assert 0 < sum(torch.equal(a, b) for a, b in pairs) < len(pairs)


def test_augmentation_moves_neither_batches_nor_dropout_masks(images):
    def states(recipe):
        training = Training(images, Adam, seed=3, recipe=recipe)
        list(training.updates())
        return training.noise.get_state(), training.batches.generator.get_state()

    problem_states = zip(states(Recipe()), states(Recipe(augment=ALL)), strict=True)
    assert all(torch.equal(a, b) for a, b in problem_states)


def test_only_images_are_augmented(make_problem, images):
    with pytest.raises(UserError, match=r"augment is for images.*\(5,\)"):
        Training(make_problem(), Adam, recipe=Recipe(augment=ALL))
    with pytest.raises(UserError, match="at most the images' side of 8 pixels, not 9"):
        Training(images, Adam, recipe=Recipe(augment=Augmentation(cutout=9)))
    with pytest.raises(UserError, match=r"augment.crop must be a whole number"):
        Augmentation(crop=-1)
    with pytest.raises(UserError, match=r"augment.flip must be true or false"):
        Augmentation(flip="yes")
