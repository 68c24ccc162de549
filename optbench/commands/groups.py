"""`optbench groups [KEY=VALUE]`: the group, rule and rate of each parameter of a run's model.

Nothing is trained. The optimizer is built as a run builds it, so that what a run would refuse is
refused here: a pattern that matches nothing, a parameter in two groups or in none.
"""

from collections.abc import Sequence
from typing import Any

from optbench.commands import Parser
from optbench.common.console import say
from optbench.common.errors import UserError

TOKENS = "austen"  # the dataset for a model of tokens, where the words name none
HEADINGS = ("parameter", "shape", "kind", "depth", "group", "rule", "optimizer", "rate", "decay")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each parameter, and a line for each optimizer's share."""
    parser = Parser(prog="optbench groups", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as of a single run")
    asked = parser.parse_intermixed_args(arguments)
    from optbench.optimizers import owners  # imports torch

    factory, optimizer, model = built(asked.overrides)
    rows = owners(factory, optimizer, model)
    cells = [
        (
            row.parameter, "x".join(map(str, row.shape)) or "1", row.kind, str(row.depth),
            row.group, row.rule, row.optimizer, _text(row.lr), _text(row.weight_decay),
        )
        for row in rows
    ]  # fmt: skip
    say(*table([HEADINGS, *cells]))
    sizes: dict[str, int] = {}
    parameters = dict(model.named_parameters())
    for row in rows:
        sizes[row.optimizer] = sizes.get(row.optimizer, 0) + parameters[row.parameter].numel()
    whole = sum(sizes.values())
    for name, size in sizes.items():
        say(f"{name}: {size:,} of {whole:,} parameters ({100 * size / whole:.3g} %)")
    if frozen := [name for name, p in parameters.items() if not p.requires_grad]:
        say(f"frozen: {', '.join(frozen)}")
    from optbench.optimizers import share_of_main

    share = share_of_main(factory, optimizer, model)
    if share is not None and share.is_small:
        say(share.words())


def built(words: Sequence[str]) -> tuple[Any, Any, Any]:
    """Return the factory, the optimizer and the model of a run with these words."""
    from optbench import optimizers
    from optbench.config.compose import compose_run  # imports Hydra
    from optbench.problem import build_model
    from optbench.runner.planning import arguments, plan
    from optbench.training.setup import budget_of

    def of_run(words: Sequence[str]) -> tuple[Any, Any, Any]:
        config = compose_run([*words, "quiet=true"])
        planned = plan(config, results(config), find=lambda *_: None)
        asked = arguments(planned)
        problem = asked["problem"]
        model = build_model(problem, asked["seed"])
        factory = optimizers.with_budget(asked["optimizer"], budget_of(problem))
        decay = asked["decay_biases_and_norms"]
        return factory, optimizers.build(factory, model, decay_biases_and_norms=decay), model

    def results(config: Any) -> Any:
        from optbench.config.build import results_of

        return results_of(config)

    try:
        return of_run(words)
    except UserError as error:
        named = any(word.lstrip("+").startswith(("dataset=", "problem=")) for word in words)
        if named or "tokens" not in str(error):
            raise
        say(f"model of tokens: dataset={TOKENS}")
        return of_run([*words, f"dataset={TOKENS}"])


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of text in columns of equal width."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
