"""Draw batches of examples from the seed alone, the same for all optimizers."""

from typing import Any

import torch
from torch import Tensor

from optbench.datasets.image_files.streamed import StreamedImages, tensor_of
from optbench.datasets.prepare import Dataset
from optbench.problem import Problem, stream

Batch = Tensor | range  # indices; a range is all examples, which need no copy


def examples_of(data: Dataset, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the inputs and targets of a batch of training examples."""
    if isinstance(batch, range):
        x, y = data.scored_train()
        return tensor_of(x), tensor_of(y)
    return data.train_x.index_select(0, batch), data.train_y.index_select(0, batch)


def announce(data: Dataset, batches: list[Batch]) -> None:
    """Read images of the coming batches ahead, if the images lie in files."""
    if isinstance(data.train_x, StreamedImages):
        data.train_x.expect([batch for batch in batches if isinstance(batch, Tensor)])


class Batches:
    """The batches of one epoch after another."""

    def __init__(self, problem: Problem, seed: int, device: torch.device | str = "cpu") -> None:
        self.problem = problem
        self.device = device
        self.examples = problem.dataset.epoch_examples
        self.generator = stream(seed, "order")
        self._before = self.generator.get_state()  # before the current permutation was drawn
        self._fixed: Tensor | None = None  # the one permutation of shuffle=fixed_order

    def epoch(self) -> list[Batch]:
        """Return the next epoch's batches: slices of a permutation, or random windows."""
        problem = self.problem
        dropped = problem.drop_last and problem.batch_size != "full"
        if problem.steps_per_epoch == 1 and not (
            dropped and int(problem.batch_size) < self.examples
        ):
            return [range(self.examples)]  # the whole set as one batch needs no order
        batches = list(self._order().to(self.device).split(int(problem.batch_size)))
        if problem.drop_last:
            del batches[problem.steps_per_epoch :]
        elif len(batches) > problem.steps_per_epoch:
            batches[-2:] = [torch.cat(batches[-2:])]
        return list(batches)

    def _order(self) -> Tensor:
        if self._fixed is not None:
            return self._fixed
        self._before = self.generator.get_state()
        windows, count = len(self.problem.dataset.train_y), self.examples
        if self.problem.dataset.stride > 1:  # windows at random places, as many as cover the text
            order = torch.randint(windows, (count,), generator=self.generator)
        else:
            order = torch.randperm(count, generator=self.generator)
        if self.problem.shuffle == "fixed_order":
            self._fixed = order
        return order

    def state_dict(self, *, within: bool) -> dict[str, Any]:
        """Return the generator's state, which resumes the current or the next epoch.

        within: the run stands within an epoch, so that `epoch` has to draw its permutation again.
        """
        again = within or self.problem.shuffle == "fixed_order"
        return {"generator": self._before if again else self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from where `state_dict` was called."""
        self.generator.set_state(state["generator"])
        self._before, self._fixed = state["generator"], None
