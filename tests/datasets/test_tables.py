"""Tables: what the training part decides, against plain formulas; and what is refused."""

import gzip
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from optbench.common.errors import UserError
from optbench.datasets import csv
from optbench.datasets.prepare import prepare
from optbench.datasets.tables.columns import detected, of_series, of_texts
from optbench.tasks import Classes, Values

N = 60


def frame(n: int = N, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "size": random.normal(50, 9, n).round(3),
            "city": random.choice(["Bonn", "Ulm", "Kiel"], n),
            "rooms": random.integers(1, 6, n),
            "price": (random.normal(300, 80, n)).round(2),
        }
    )


@pytest.fixture
def write(tmp_path):
    def written(data: pd.DataFrame, name: str = "table.csv", **settings) -> str:
        path = tmp_path / name
        data.to_csv(path, index=False, **settings)
        return str(path)

    return written


def rows_of(data, table: pd.DataFrame) -> dict[str, np.ndarray]:
    """The row of each example, found by the target, of which no two are equal."""
    mean, std = data.task.mean[0], data.task.std[0]
    prices = table["price"].to_numpy()
    return {
        part: np.array(
            [
                np.abs(prices - (y * std + mean)).argmin()
                for y in getattr(data, f"{part}_y")[:, 0].tolist()
            ]
        )
        for part in ("train", "val", "test")
    }


def test_columns_are_those_of_scikit_learn_by_the_training_part(write):
    table = frame()
    data = prepare(csv(write(table), "price"), preprocessing="standardize_features", val_size=10)
    assert [len(data.train_y), len(data.val_y), len(data.test_y)] == [38, 10, 12]
    rows = rows_of(data, table)
    assert sorted(np.concatenate(list(rows.values()))) == list(range(N))
    train = table.iloc[rows["train"]]
    numbers = StandardScaler().fit(train[["size", "rooms"]])
    cities = OneHotEncoder(sparse_output=False).fit(train[["city"]])
    for part, places in rows.items():
        own = table.iloc[places]
        scaled = numbers.transform(own[["size", "rooms"]])
        right = np.hstack([scaled[:, :1], cities.transform(own[["city"]]), scaled[:, 1:]])
        np.testing.assert_allclose(getattr(data, f"{part}_x").numpy(), right, atol=1e-5)
    assert data.train_y.mean().abs() < 1e-6
    assert data.task.mean[0] == pytest.approx(train["price"].mean())


@pytest.mark.parametrize(
    ("preprocessing", "low", "high"), [("none", 1, 5), ("scale", 0, 1), ("standardize", -1.4, 1.4)]
)
def test_numbers_are_scaled_as_asked_and_categories_are_not(write, preprocessing, low, high):
    data = prepare(csv(write(frame()), "price"), preprocessing=preprocessing)
    rooms, cities = data.train_x[:, -1], data.train_x[:, 1:4]
    assert rooms.min() == pytest.approx(low, abs=0.3)
    assert rooms.max() == pytest.approx(high, abs=0.3)
    assert torch.equal(cities.sum(dim=1), torch.ones(len(cities)))


@pytest.mark.parametrize("name", ["t.tsv", "t.csv.gz", "t.parquet"])
def test_files_of_other_kinds_are_the_same_table(write, tmp_path, name):
    table, path = frame(), tmp_path / name
    plain = prepare(csv(write(table), "price"))
    if name == "t.parquet":
        table.to_parquet(path)
    else:
        text = table.to_csv(index=False, sep="\t" if name == "t.tsv" else ",").encode()
        path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    other = prepare(csv(str(path), "price"))
    for part in ("train_x", "test_x", "train_y"):
        torch.testing.assert_close(getattr(other, part), getattr(plain, part))


@pytest.mark.parametrize("separator", [";", "|", "\t"])
def test_the_separator_is_found_or_given(write, separator):
    path = write(frame(), sep=separator)
    plain = prepare(csv(write(frame(), "plain.csv"), "price"))
    assert torch.equal(prepare(csv(path, "price")).train_x, plain.train_x)
    given = "tab" if separator == "\t" else separator
    assert torch.equal(prepare(csv(path, "price", separator=given)).train_x, plain.train_x)


def test_missing_values_are_filled_by_the_training_part_and_told(write):
    table = frame()
    table.loc[::4, "size"] = np.nan
    table.loc[::5, "city"] = "?"
    for missing in ("median", "mean"):
        made = csv(write(table), "price", missing=missing)
        data = prepare(made, preprocessing="none")
        rows = rows_of(data, table)
        train = table.iloc[rows["train"]]
        filled = getattr(train["size"], missing)()
        assert data.train_x.shape[1] == 1 + 1 + 4 + 1  # size, whether it lacks, cities, rooms
        for part, places in rows.items():
            x, own = getattr(data, f"{part}_x").numpy(), table.iloc[places]
            np.testing.assert_allclose(x[:, 0], own["size"].fillna(filled), rtol=1e-6)
            assert np.array_equal(x[:, 1], own["size"].isna())
            assert np.array_equal(x[:, 5], own["city"] == "?")
    with pytest.raises(UserError, match=r"'size' lacks 15 values \(first in data row 1\)"):
        prepare(csv(write(table), "price", missing="error"))


def test_an_unknown_category_is_said_and_is_zeros(write, capsys):
    table = frame()
    first = prepare(csv(write(table), "price"))
    rows = rows_of(first, table)
    table.loc[rows["test"][0], "city"] = "Oslo"
    capsys.readouterr()
    data = prepare(csv(write(table), "price"), preprocessing="none")
    assert data.train_x.shape[1] == 5
    assert data.test_x[0, 1:4].sum() == 0
    assert data.test_x[1:, 1:4].sum() == len(data.test_x) - 1
    said = capsys.readouterr().err
    assert "'city' has categories in validation or test that the training part lacks" in said
    assert "'Oslo'): they count as zeros in the columns of all known ones" in said
    numbers = prepare(csv(write(table), "price", nominal="numbers"), preprocessing="none")
    assert numbers.test_x[0, 1] == pytest.approx(numbers.train_x[:, 1].mean().item())
    places = prepare(csv(write(table), "price", nominal="embedding"), preprocessing="none")
    assert places.test_x[0, -1] == 0
    assert places.nominal == (4,)
    assert set(places.train_x[:, -1].tolist()) == {1, 2, 3}


def test_kinds_are_detected_and_can_be_declared(write):
    table = frame().assign(zip=[f"0{i % 3}" for i in range(N)], noise=np.arange(N) / 7)
    path = write(table)
    detected_kinds = prepare(csv(path, "price"))
    assert detected_kinds.train_x.shape[1] == 1 + 3 + 1 + 1 + 1
    made = csv(path, "price", nominal_columns=["zip", "rooms"], ignored_columns=["noise"])
    assert prepare(made).train_x.shape[1] == 1 + 3 + 5 + 3
    with pytest.raises(UserError, match="'city' is to hold numbers, and data row 1 has"):
        csv(path, "price", numeric_columns=["city"])
    with pytest.raises(UserError, match="declared both"):
        csv(path, "price", numeric_columns=["zip"], nominal_columns=["zip"])


def test_a_category_keeps_its_text_and_an_ordered_one_its_order():
    assert not detected(of_texts("a", ["1_0", "2"])).is_numeric
    assert detected(of_texts("a", ["1e3", "", "-2.5"])).is_numeric
    order = pd.Categorical(["low", "high"], ["low", "mid", "high"], ordered=True)
    assert of_series("a", pd.Series(order)).order == ("low", "mid", "high")
    mixed = of_series("a", pd.Series([1.0, None, "x", True], dtype=object))
    assert list(mixed.cells) == ["1", None, "x", "True"]


@pytest.mark.parametrize(
    ("target", "task"),
    [
        (["no", "yes"] * 30, Classes(2)),
        ([True, False] * 30, Classes(2)),
        ([7, 9, 8] * 20, Classes(3)),
        (range(60), Values(1)),
        (np.arange(60) / 8, Values(1)),
        ([0.5, 1.5] * 30, Values(1)),
    ],
)
def test_the_target_tells_the_task(write, target, task):
    made = csv(write(frame().assign(price=target)), "price")
    assert made.task == task
    if isinstance(task, Classes):
        names = sorted(map(str, {*target}))
        assert made.y.tolist() == [names.index(str(value)) for value in target]


def test_a_declared_task_replaces_that_of_the_target(write):
    path = write(frame())
    assert csv(path, "rooms").task == Classes(5)
    assert csv(path, "rooms", task="regression").task == Values(1)
    with pytest.raises(UserError, match="'price' has 60 different values in 60 rows, too many"):
        csv(path, "price", task="classification")
    with pytest.raises(UserError, match="'city' is to hold numbers"):
        csv(path, "city", task="regression")


def test_whole_numbers_taken_as_classes_are_told(write, capsys):
    path = write(frame())
    prepare(csv(path, "rooms"))
    assert "the target 'rooms' are taken as 5 classes; dataset.task=regression" in (
        capsys.readouterr().err
    )
    prepare(csv(path, "rooms", task="classification"))
    prepare(csv(path, "price"))
    assert "are taken as" not in capsys.readouterr().err


def test_classes_of_one_or_two_rows_are_told(write, capsys):
    table = pd.DataFrame({"a": range(40), "y": ["no", "yes"] * 19 + ["maybe", "no"]})
    prepare(csv(write(table), "y"))
    assert "fewer than three rows of 'maybe' (1)" in capsys.readouterr().err
    scores = pd.DataFrame({"a": range(100), "y": [4, 5, 6, 7] * 24 + [9, 9, 4, 5]})
    prepare(csv(write(scores), "y"))
    told = capsys.readouterr().err
    assert "fewer than three rows of '9' (2)" in told
    assert "are taken as 5 classes" in told


def test_one_text_among_numbers_is_no_category(write):
    table = frame()
    table["rooms"] = [*map(str, table["rooms"][:-1]), "many"]
    path = write(table)
    with pytest.raises(UserError, match=r"data row 60 has 'many'.*dataset.nominal_columns"):
        csv(path, "price")
    assert prepare(csv(path, "price", nominal_columns=["rooms"])).train_x.shape[1] > 1


def test_the_digest_covers_the_bytes_and_the_treatment(write):
    table = frame()
    path = write(table)
    digest = csv(path, "price").digest
    assert csv(path, "price").digest == digest
    others = [
        csv(write(table, "quoted.csv", quoting=1), "price"),
        csv(path, "price", nominal="numbers"),
        csv(path, "price", missing="mean"),
        csv(path, "price", ignored_columns=["city"]),
        csv(path, "size"),
        csv(write(table.assign(size=table["size"] + 0.001), "moved.csv"), "price"),
    ]
    assert len({digest, *(other.digest for other in others)}) == 7


def test_the_split_seed_draws_the_test_part(write):
    made = csv(write(frame()), "price")
    parts = [prepare(made, split_seed=seed, test_size=15).test_y for seed in (0, 0, 1)]
    assert len(parts[0]) == 15
    assert torch.equal(parts[0], parts[1])
    assert not torch.equal(parts[0], parts[2])
    small = prepare(made, subset=20, val_size=0.5)
    assert [len(small.train_y), len(small.val_y), len(small.test_y)] == [10, 10, 12]


def test_a_shift_moves_the_numbers_of_the_test_alone(write):
    made = csv(write(frame()), "price")
    plain, moved = prepare(made), prepare(made, shift=1.5)
    assert torch.equal(plain.train_x, moved.train_x)
    assert torch.equal(plain.val_x, moved.val_x)
    difference = (moved.test_x - plain.test_x).mean(dim=0)
    torch.testing.assert_close(difference, torch.tensor([1.5, 0, 0, 0, 1.5]), atol=1e-5, rtol=0)


def test_a_constant_column_is_left_out_and_named(write, capsys):
    table = frame().assign(unit="EUR", year=2020)
    data = prepare(csv(write(table), "price"))
    assert data.train_x.shape[1] == 5
    assert "the columns 'unit', 'year' have one value in the training part" in (
        capsys.readouterr().err
    )
    with pytest.raises(UserError, match="no column is left to learn from"):
        prepare(csv(write(table[["unit", "price"]]), "price"))


def test_a_first_column_without_a_name_is_left_out(tmp_path, capsys):
    path = tmp_path / "t.csv"
    frame().to_csv(path)
    assert prepare(csv(str(path), "price")).train_x.shape[1] == 5
    assert "no name" in capsys.readouterr().err


LINES = "a,b,y\n1,2,x\n3,4,y\n5,6,x\n"


@pytest.mark.parametrize(
    ("content", "target", "settings", "named"),
    [
        (LINES, "why", {}, r"'why', which is no column of the table\nThe columns are: a, b, y"),
        (LINES, "Y", {}, "Did you mean y"),
        (LINES, None, {}, "data.target=COLUMN; the columns of t.csv are: a, b, y"),
        (LINES + "7,8,\n", "y", {}, r"'y' is empty in 1 row \(row 4\)"),
        (LINES.replace("y\n5", "x\n5"), "y", {}, r"one class only \('x'\)"),
        ("a,y\n1,2.5\n2,2.5\n", "y", {"task": "regression"}, "2.5 in all rows"),
        ("", "y", {}, "is empty"),
        ("a,b,y\n", "y", {}, "a header and no rows"),
        ("1,2,3\n4,5,6\n", "3", {}, "its first line must name the columns"),
        ("a,a,y\n1,2,3\n", "y", {}, "'a' twice among its columns"),
        ("a,,y\n1,2,3\n", "y", {}, "column 2 of the header has no name"),
        (LINES + "7,8\n", "y", {}, "line 5 has 2 fields, and the header has 3"),
        (LINES + '7,"8,x\n', "y", {}, "line 5: unexpected end of data"),
        (
            LINES + "1e999,8,x\n",
            "y",
            {},
            "'a' has inf in data row 4, which is infinite or",
        ),
        ("a,y\n1,2.5\n2,3.5\n4,inf\n", "y", {}, "in data row 3, .*correct it, or remove the row"),
        (LINES.encode() + b"7,\xe9,x\n", "y", {}, "line 5 is not utf-8 .byte 0xe9.*latin-1"),
        (LINES + "7,\0,x\n", "y", {}, "line 5 holds a NUL byte"),
        ("y\nx\nz\n", "y", {}, "no column beside the target"),
        (LINES, "y", {"separator": ";;"}, "dataset.separator must be one character"),
        (LINES, "y", {"encoding": "utf-9"}, "dataset.encoding=utf-9 is unknown"),
        (LINES, "y", {"nominal": "one-hot"}, "dataset.nominal.*Did you mean onehot"),
        (LINES, "y", {"missing": "zero"}, "dataset.missing must be one of median"),
        (LINES, "y", {"task": "classes"}, "dataset.task must be one of classification"),
        (LINES, "y", {"ignored_columns": "a"}, r"dataset.ignored_columns must be a list"),
        (LINES, "y", {"ignored_columns": ["y"]}, "'y' is data.target, and dataset.ignored_columns"),
        (LINES, "y", {"nominal_columns": ["c"]}, "dataset.nominal_columns names 'c'"),
        ('a;y\n"3,5";x\n"4,1";z\n', "y", {"numeric_columns": ["a"]}, "decimals with a point"),
    ],
)
def test_bad_tables_are_refused_in_words(tmp_path, content, target, settings, named):
    path = tmp_path / "t.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=named):
        csv(str(path), target, **settings)


def test_a_column_of_thousands_of_texts_is_refused_unless_declared(write):
    table = frame(3000).assign(name=[f"Mr. {i % 2500}" for i in range(3000)])
    path = write(table)
    with pytest.raises(UserError, match="'name' holds 2,500 different texts in 3,000 rows"):
        csv(path, "price")
    made = csv(path, "price", nominal_columns=["name"], nominal="embedding")
    assert prepare(made).nominal[1] > 1000


def test_missing_files_and_files_of_other_kinds_are_named(write, tmp_path):
    path = Path(write(frame()))
    with pytest.raises(UserError, match=r"there is no file .*tabel.csv. Did you mean table.csv"):
        csv(str(path.with_name("tabel.csv")), "price")
    with pytest.raises(UserError, match="is a folder, and a table is one file"):
        csv(str(tmp_path), "price")
    with pytest.raises(UserError, match=r"needs a file: data.path=FILE.csv"):
        csv(None, "price")
    for name in ("bad.csv.gz", "bad.parquet"):
        (tmp_path / name).write_bytes(b"no archive")
        with pytest.raises(UserError, match=r"does not unpack|no Parquet that can be read"):
            csv(str(tmp_path / name), "price")
    dates = io.BytesIO()
    frame().assign(day=pd.Timestamp("2020-01-01")).to_parquet(dates)
    (tmp_path / "dates.parquet").write_bytes(dates.getvalue())
    with pytest.raises(UserError, match="'day' holds dates or times"):
        csv(str(tmp_path / "dates.parquet"), "price")
    ignored = csv(str(tmp_path / "dates.parquet"), "price", ignored_columns=["day"])
    assert prepare(ignored).train_x.shape[1] == 5


def test_a_table_is_refused_for_what_it_is_not(write):
    made = csv(write(frame()), "price")
    for settings, named in (
        ({"preprocessing": "integers"}, "integers is not for a table"),
        ({"layout": "channels_last"}, "rows of a table"),
        ({"target": "size"}, "the target of this table is 'price'"),
        ({"targets": "binary"}, "binary is for two classes"),
        ({"test_size": 60}, "leaves no training example"),
        ({"test_size": 0}, "neither a share nor a count"),
        ({"shift": "much"}, "data.shift must be a number"),
    ):
        with pytest.raises(UserError, match=named):
            prepare(made, **settings)


@pytest.mark.parametrize(
    ("column", "texts", "words"),
    [
        ("x", [f"{k}.5" for k in range(299)] + ["big"], "row 300 has 'big'"),
        ("y", [f"{k}.5" for k in range(299)] + ["big"], "row 300 has 'big'"),
        ("x", [f"{k},5" for k in range(300)], "row 1 has '0,5': write decimals with a point"),
    ],
)
def test_columns_of_numbers_with_a_mistake_are_no_columns_of_names(tmp_path, column, texts, words):
    plain = [f"{k}.25" for k in range(300)]
    other = "y" if column == "x" else "x"
    frame = pd.DataFrame({column: texts, other: plain, "z": ["a", "b"] * 150})
    frame.to_csv(tmp_path / "t.csv", index=False, sep=";")
    with pytest.raises(UserError, match=words):
        csv(path=tmp_path / "t.csv", target="y")
