"""`optbench find_lr [KEY=VALUE]`: the loss against a learning rate that rises in one short run.

Writes the losses to lr_finder.csv and draws lr_finder.png. One seed and a short run show where to
begin a search, and tune nothing.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from optbench.commands import Parser, use_own_files
from optbench.common.console import say
from optbench.common.csv_export import to_csv
from optbench.common.errors import UNWRITABLE, UserError
from optbench.common.files import expanded


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the ramp of a configuration, write its files, and print two learning rates."""
    parser = Parser(prog="optbench find_lr", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as of a single run")
    parser.add_argument("--low", type=float, default=1e-6, help="first learning rate (1e-6)")
    parser.add_argument("--high", type=float, default=10.0, help="last learning rate (10)")
    parser.add_argument("--steps", type=int, default=200, help="steps of the ramp (200)")
    parser.add_argument("--out", help="folder; by default results_dir/find_lr/OPTIMIZER-DATASET")
    parser.add_argument("--config-dir", metavar="FOLDER", help="a folder of yours with choices")
    asked = parser.parse_intermixed_args(arguments)
    use_own_files(asked.config_dir)
    if not 0 < asked.low < asked.high < math.inf:
        raise UserError(
            f"--low must be above 0 and below --high, not {asked.low:g} and {asked.high:g}"
        )
    if asked.steps < 10:
        raise UserError(f"--steps must be at least 10, not {asked.steps}")
    from optbench.config.compose import compose_run  # these import torch and Hydra
    from optbench.runner import lr_finder

    config = compose_run(asked.overrides)
    ramp = lr_finder.find(config, asked.low, asked.high, asked.steps)
    marked = {"steepest descent": ramp.steepest, "least loss": ramp.least}
    path = config["data"]["path"]
    data = Path(path).name if path else config["dataset"]["name"]
    title = f"{config['optimizer']['name']} on {data}"
    name = title.replace(" on ", "-").replace("/", "_")
    folder = Path(expanded(asked.out or f"{config['results_dir']}/find_lr/{name}"))
    table = pd.DataFrame({"step": range(1, len(ramp.lr) + 1), **ramp._asdict()})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        to_csv(table, folder / "lr_finder.csv")
    except OSError as error:
        raise UserError(UNWRITABLE.format(folder, error.strerror or error)) from error
    from optbench.report import lr_curve  # imports matplotlib

    picture = lr_curve.draw(folder, ramp._asdict(), marked, title)
    for words, value in marked.items():
        say(f"{words} at a learning rate of {value:.2g}")
    if ramp.least / 10 < ramp.steepest:
        low, high = f"{ramp.least / 10:.2g}", f"{ramp.steepest:.2g}"
        say(f"begin a search between {low} (a tenth of that of the least loss) and {high}")
    if len(ramp.lr) < asked.steps:
        say(f"the run ended after {len(ramp.lr)} of {asked.steps} steps, as the loss had risen")
    if len(ramp.lr) == asked.steps and ramp.least == ramp.lr[-1]:
        say("the loss still fell at the largest rate: try a larger --high")
    say(f"one seed and {len(ramp.lr)} steps: a place to begin a search, and no tuned rate")
    say(f"picture: {picture}")
