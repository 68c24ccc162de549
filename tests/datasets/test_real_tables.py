"""The real tables and the bag of words: what the loaders make of the files, and runs of each."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from composed import configuration
from sklearn.feature_extraction.text import CountVectorizer

from optbench.common.errors import UserError
from optbench.datasets.bag_of_words import WORD, bag_of_words, paragraphs
from optbench.datasets.prepare import prepare
from optbench.datasets.tables import loaders
from optbench.formats.run import read_record
from optbench.runner import run as experiment

RANDOM = np.random.default_rng(0)


def place(root: Path, name: str, table: pd.DataFrame, monkeypatch) -> None:
    """Put a table where scripts/fetch-data puts it, as if it were the original."""
    (root / name).mkdir()
    text = table.to_csv(index=False).encode()
    (root / name / f"{name}.csv").write_bytes(text)
    monkeypatch.setitem(loaders.TABLES, name, hashlib.sha256(text).hexdigest())


@pytest.fixture
def letters(tmp_path, monkeypatch) -> pd.DataFrame:
    n = 16_040
    table = pd.DataFrame({"lettr": RANDOM.choice(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), n)})
    for i in range(16):
        table[f"x{i}"] = RANDOM.integers(0, 16, n)
    place(tmp_path, "letter", table, monkeypatch)
    return table


@pytest.fixture
def stones(tmp_path, monkeypatch) -> pd.DataFrame:
    n = 300
    table = pd.DataFrame({"carat": RANDOM.uniform(0.2, 3, n).round(2)})
    for name, order in loaders.DIAMONDS_ORDERS.items():
        table[name] = RANDOM.choice(order, n)
    for name in ("depth", "table", "x", "y", "z"):
        table[name] = RANDOM.uniform(3, 9, n).round(2)
    table["price"] = (3000 * table["carat"] ** 1.7).round()
    table.loc[3, "z"], table.loc[5, "y"] = 0, 58.9
    place(tmp_path, "diamonds", table, monkeypatch)
    return table


def test_letters_are_divided_as_by_their_donor(tmp_path, letters):
    raw = loaders.letter(tmp_path)
    assert [tuple(t.shape) for t in raw] == [(16_000, 16), (16_000,), (40, 16), (40,)]
    assert raw.train_y[:9].tolist() == [ord(text) - 65 for text in letters["lettr"][:9]]
    assert np.array_equal(raw.test_x.numpy(), letters.iloc[16_000:, 1:])


def test_diamonds_are_by_the_logarithm_and_in_their_own_order(tmp_path, stones):
    made = loaders.diamonds(tmp_path)
    np.testing.assert_allclose(made.y[:, 0], np.log(stones["price"]))
    columns = {column.name: column for column in made.columns}
    assert "price" not in columns
    assert columns["cut"].order == ("Fair", "Good", "Very Good", "Premium", "Ideal")
    assert np.flatnonzero(columns["z"].missing).tolist() == [3]
    assert np.flatnonzero(columns["y"].missing).tolist() == [5]
    assert loaders.diamonds(tmp_path, target="price").y[0, 0] == stones["price"][0]
    with pytest.raises(UserError, match=r"dataset\.target must be log_price or price"):
        loaders.diamonds(tmp_path, target="prize")
    places = prepare(loaders.diamonds(tmp_path, nominal="numbers"), preprocessing="none")
    assert places.train_x.shape[1] == 9 + 2  # which side is missing


def test_a_changed_file_is_refused(tmp_path, stones):
    with (tmp_path / "diamonds" / "diamonds.csv").open("a") as file:
        file.write("\n")
    with pytest.raises(UserError, match="is damaged: the SHA-256"):
        loaders.diamonds(tmp_path)


@pytest.mark.parametrize("problem", ["letter_mlp", "diamonds_mlp"])
def test_the_problems_of_tables_train(tmp_path, letters, stones, problem):
    words = [f"problem={problem}", f"data.root={tmp_path}", "data.subset=100", "epochs=2"]
    config = configuration(*words, "batch_size=16", f"results_dir={tmp_path / 'r'}", "quiet=true")
    outcome = experiment.run(config, tmp_path / "r" / "runs")
    record = read_record(outcome.folder / "run.json")
    assert record["status"] == "completed"
    assert ("test_rmse" if problem == "diamonds_mlp" else "test_accuracy") in record["summary"]


TEXTS = {
    "one": "The cat.\n\nThe dog's cat ran.\n\nA cat\nand a dog\n \nran ran\n\nThe\n\ncat a\n\n",
    "two": "\n\n".join(["The end of it"] * 12),
}


def test_counts_are_those_of_scikit_learn():
    raw = bag_of_words(words=4, shortest=2, texts=lambda: TEXTS)
    documents = [
        (text.lower(), label)
        for label, novel in enumerate(TEXTS.values())
        for place, text in enumerate(
            (p for p in paragraphs(novel) if len(WORD.findall(p.lower())) >= 2), start=1
        )
        if place % 5
    ]
    vectorizer = CountVectorizer(token_pattern=WORD.pattern, vocabulary=["the", "end", "it", "of"])
    right = vectorizer.fit_transform(text for text, _ in documents).toarray()
    assert np.array_equal(raw.train_x.numpy(), right)
    assert raw.train_y.tolist() == [label for _, label in documents]
    assert len(raw.test_y) == 3
    assert raw.test_y.tolist() == [0, 1, 1]


def test_a_bag_of_words_is_sparse_and_of_six_novels():
    raw = bag_of_words(words=500)
    assert raw.train_x.dtype == torch.uint8
    assert raw.train_x.shape == (6179, 500)
    assert torch.bincount(raw.test_y).tolist() == [265, 309, 296, 361, 139, 172]
    assert (raw.train_x > 0).float().mean() < 0.1
    assert raw.train_x.sum(dim=0).diff().max() <= 0  # the most frequent word first
    data = prepare(raw, preprocessing="none")
    assert torch.equal(data.test_x, raw.test_x.float())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"words": 0}, r"dataset\.words must be a whole number of at least 1"),
        ({"shortest": True}, r"dataset\.shortest must be a whole number"),
        ({"shortest": 99}, "no text has 5 paragraphs of 99 words"),
    ],
)
def test_settings_of_a_bag_are_checked(settings, named):
    with pytest.raises(UserError, match=named):
        bag_of_words(texts=lambda: TEXTS, **settings)


def test_the_problem_of_the_bag_trains(tmp_path):
    words = ["problem=bag_of_words", "data.subset=300", "epochs=1", "optimizer=adagrad"]
    config = configuration(*words, f"results_dir={tmp_path}", "quiet=true")
    outcome = experiment.run(config, tmp_path / "runs")
    assert read_record(outcome.folder / "run.json")["status"] == "completed"
