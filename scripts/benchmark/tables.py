"""The benchmark's tables and figure, from the rows of `epochs_cpu.csv`.

    python -m scripts.benchmark.tables

writes the table of docs/performance.md and the figure again from results/benchmark. A whole run of
the benchmark does so at its end.
"""

from pathlib import Path

import pandas as pd

from scripts import ROOT
from scripts.tables import markdown

TITLES = {
    "optbench": "optbench",
    "tutorial": "tutorial loop: DataLoader, transforms, loss.item()",
    "loader": "DataLoader over a TensorDataset",
    "slices_mkl": "tensors and slices, fused Adam",
    "slices": "the same with oneDNN's products",
    "lightning": "Lightning, CSVLogger",
    "skorch": "skorch",
    "keras_torch": "Keras 3 on torch",
    "keras_jax": "Keras 3 on JAX",
    "jax": "JAX and optax, an epoch in one jit scan (CNN: a jit step)",
    "sklearn": "scikit-learn MLPClassifier",
    "bound": "bound: the matrix products alone",
    "floor": "the products, Adam and the evaluation alone",
}
BOUNDS = ("bound", "floor")
OWN = "optbench"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- written by `python -m scripts.benchmark.tables` -->", "<!-- end -->"


def peers_table(part: pd.DataFrame) -> list[str]:
    """Return a row per peer of one model: seconds of an epoch, their ratio, test accuracy."""
    groups = part.groupby("peer", sort=False)
    best = groups["seconds"].min()
    rows = []
    for name, group in groups:
        s = group["seconds"]
        rows.append(
            {
                "": TITLES[str(name)],
                "best": f"{s.min():.3f}",
                "median": f"{s.median():.3f}",
                "slowest": f"{s.max():.3f}",
                "times optbench": f"{s.min() / best.get(OWN, float('nan')):.2f}",
                "times the bound": f"{s.min() / best['bound']:.1f}" if "bound" in best else "",
                "start-up, s": "".join(f"{v:.1f}" for v in group["startup"].dropna()[:1]),
                "test accuracy": f"{group['accuracy'].median():.3f}".replace("nan", ""),
            }
        )
    return markdown(rows)


def models_table(table: pd.DataFrame) -> list[str]:
    """Return a row per model: the best seconds of each peer, and of the bound."""
    best = table.pivot_table("seconds", "model", "peer", aggfunc="min", sort=False)
    names = [name for name in TITLES if name in best and name != "floor"]
    rows = []
    for model, row in best.iterrows():
        fastest = row.drop(labels=list(BOUNDS), errors="ignore").min()
        cells = {name: f"{row[name]:.3g}".replace("nan", "") for name in names}
        shown = {n: f"**{c}**" if row[n] == fastest else c for n, c in cells.items()}
        rows.append({"model": str(model)} | {name.replace("_", " "): shown[name] for name in names})
    return markdown(rows)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw each peer's best epoch of each model, as a multiple of optbench's."""
    import matplotlib.pyplot as plt

    best = table.pivot_table("seconds", "model", "peer", aggfunc="min", sort=False)
    if OWN not in best:
        return
    figure, ax = plt.subplots(figsize=(7.5, 1.6 + 0.32 * len(best)), layout="constrained")
    for number, name in enumerate(n for n in TITLES if n in best and n != OWN):
        marker = "|" if name in BOUNDS else "osD^vP*X<>"[number % 10]
        color = "black" if name in BOUNDS else f"C{number % 10}"
        ratio = best[name] / best[OWN]
        ax.plot(ratio, range(len(best)), marker, color=color, markersize=6, label=TITLES[name])
    ax.axvline(1, color="0.6", zorder=0)
    ax.set_xscale("log")
    ax.set_yticks(range(len(best)), [str(model) for model in best.index])
    ax.margins(y=0.15)
    ax.invert_yaxis()
    ax.set_xlabel("best seconds of an epoch, times optbench's")
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    for suffix in ("png", "pdf"):
        figure.savefig(path.with_suffix(f".{suffix}"))
    plt.close(figure)


def write_page(folder: Path) -> None:
    """Write the part of docs/performance.md between the marks from `epochs_cpu.csv`."""
    text = PAGE.read_text("utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    lines = models_table(pd.read_csv(folder / "epochs_cpu.csv"))
    PAGE.write_text("\n".join([before + BEGIN, "", *lines, "", END]) + after, "utf-8")


if __name__ == "__main__":
    made = ROOT / "results" / "benchmark"
    write_page(made)
    draw(pd.read_csv(made / "epochs_cpu.csv"), made / "epochs_cpu")
