"""Steps of one training taken many at a time, as long as that gives what plain steps give."""

from collections.abc import Callable, Sequence
from time import perf_counter

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

WORTH_RECORDING = 1000  # steps: a run of fewer does not earn back the time that recording takes
# of the examples, the labels, the indices of each batch and each step's lr of each group: losses
Steps = Callable[[Tensor, Tensor, Sequence[Tensor], Sequence[Sequence[float]]], Tensor]


class Replay:
    """Takes compiled steps where there are some. Otherwise it records a step when it is first
    wanted: on CUDA as a graph, elsewhere as operations.

    on: whether steps are to be taken by `take`; False once that is found impossible. compiled:
    whether they are compiled ones. note: something to tell a person, or "". seconds: spent on
    recording. The last two are for the caller to take up and put back to their start.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        *,
        on: bool,
        total: int,
        compiled: Callable[[], Steps] | None = None,
    ) -> None:
        """total: steps of the whole run, for the note. compiled: binds compiled steps to the model
        and the optimizer, once that has taken a step."""
        self.model, self.loss, self.optimizer, self.scheduler = model, loss, optimizer, scheduler
        self.on, self.total, self.note, self.seconds = on, total, "", 0.0
        self.compiled = compiled is not None
        self._bind = compiled
        self._steps: Steps | None = None

    def forget(self) -> None:
        """The optimizer's state lies elsewhere now: bind or record the steps again."""
        self._steps = None

    def take(
        self, x: Tensor, y: Tensor, batches: Sequence[Tensor]
    ) -> tuple[Tensor, list[float]] | None:
        """Take a step with each batch, of equal sizes: losses (k,) and learning rates.

        Recorded steps are all of one size of batch; compiled ones, of any.
        x, y: the examples and labels of which the batches are indices. None: nothing was taken,
        and `on` is now False. The optimizer must have taken a step before.
        """
        if self._steps is None and self._bind is not None:
            self._steps = self._bind()
        elif self._steps is None and not self._record(x[batches[0]], y[batches[0]]):
            return None
        assert self._steps is not None
        rates = self._rates(len(batches))
        if rates is None:
            self.on = False
            return None
        return self._steps(x, y, batches, rates), [row[0] for row in rates]

    def _record(self, x: Tensor, y: Tensor) -> bool:
        begun = perf_counter()
        try:
            # imported where it is used: it takes a second
            from optbench.recorded import Unrecordable, record_steps

            record = record_steps
            if x.is_cuda:
                from optbench.graphed import capture_steps as record
            try:
                self._steps = record(self.model, self.loss, self.optimizer, x, y)
            except Unrecordable as error:
                self.on = False
                self.note = f"plain steps, not recorded ones: {error}"
                return False
        finally:
            self.seconds += perf_counter() - begun
        self.note = (
            f"a step was recorded in {self.seconds:.1f} s, which about {WORTH_RECORDING:,} "
            f"replayed steps earn back; the run has {self.total:,}"
        )
        return True

    def _rates(self, steps: int) -> list[list[float]] | None:
        """Of each of the next steps, the lr of each group; the schedule moves on.

        None, and nothing has moved, where the schedule changes anything else: of a recording those
        are constants.
        """
        groups = self.optimizer.param_groups
        before = [dict(group) for group in groups]
        state = self.scheduler.state_dict() if self.scheduler else {}
        rates = []
        for _ in range(steps):
            rates.append([float(group["lr"]) for group in groups])
            if self.scheduler is not None:
                self.scheduler.step()
            # after each step: what a cycle changes may come back
            if any(a | {"lr": 0} != b | {"lr": 0} for a, b in zip(before, groups, strict=True)):
                for group, old in zip(groups, before, strict=True):
                    group.update(old)
                if self.scheduler is not None:
                    self.scheduler.load_state_dict(state)
                return None
        return rates
