"""Texts: parts without a common character, windows, vocabularies, and wrong files in words."""

import io
import tarfile
from functools import partial
from math import log

import numpy as np
import pytest
import torch
from torch import nn

from optbench import losses
from optbench.common.errors import UserError
from optbench.datasets import Text, austen, text, text_files
from optbench.datasets.prepare import Dataset, prepare
from optbench.datasets.texts import UNKNOWN
from optbench.initializers import initialize
from optbench.models import bigram, gpt, lstm, mlp
from optbench.problem import Problem, build_model
from optbench.tasks import Bytes, Characters
from optbench.training.batches import Batches, examples_of
from optbench.training.evaluation import score

PLACES = "".join(chr(0x4E00 + i) for i in range(2000))  # each character tells its place


def ready(raw, **settings) -> Dataset:
    return prepare(raw, preprocessing="integers", **settings)


def made(content=PLACES, test=PLACES[::-1], context=8, unit="characters"):
    return Text(content, test, context, unit)


def places_of(data: Dataset, part: str) -> set[int]:
    x, y = getattr(data, f"{part}_x"), getattr(data, f"{part}_y")
    return set(x.unique().tolist()) | set(y.unique().tolist())


class Places(Text):
    """A text whose tokens are the places of its characters, of the test text from a million on."""

    def _tokens(self, content):
        return np.arange(len(content)) + (10**6 if content == self.test else 0)


def stream(x, y):
    """Return the tokens that the windows of a part cover."""
    return torch.cat([x[:, 0], x[-1, 1:], y[-1, -1:]]) if len(x) else x


@pytest.mark.parametrize("val_size", [0.1, 12, 0])
@pytest.mark.parametrize("split_seed", [0, 1])
@pytest.mark.parametrize("subset", [None, 100])
def test_no_token_is_in_two_parts(val_size, split_seed, subset):
    raw = Places("a" * 1501, "b" * 500, 8, "bytes")
    data = ready(raw, val_size=val_size, split_seed=split_seed, subset=subset)
    seen = [places_of(data, part) for part in ("train", "val", "test")]
    assert sum(map(len, seen)) == len(set.union(*seen))
    assert min(seen[2]) >= 10**6 > max(seen[0] | seen[1])
    tokens, whole = stream(data.train_x, data.train_y), 1501 if subset is None else 801
    span = {0.1: round(0.1 * whole), 12: 97, 0: 0}[val_size]
    assert len(seen[1]) == ((span - 1) // 8 * 8 + 1 if span else 0)
    # the training part is all the rest, and begins again behind the passage
    assert len(tokens) == len(seen[0]) == whole - span
    assert (tokens.diff() != 1).sum() == (val_size != 0)


def test_validation_is_one_passage_and_the_split_seed_draws_its_place():
    starts = set()
    raw = Places("a" * 1501, "b" * 500, 8, "bytes")
    for seed in range(4):
        data = ready(raw, val_size=10, split_seed=seed)
        assert data.val_x.shape == (10, 8)
        assert torch.equal(data.val_x.flatten(), torch.arange(80) + data.val_x[0, 0])
        starts.add(int(data.val_x[0, 0]))
        assert torch.equal(ready(raw, val_size=10, split_seed=seed).val_x, data.val_x)
    assert len(starts) == 4


def test_windows_are_followed_by_their_next_tokens():
    data = ready(made("abcdefghij" * 20), val_size=0)
    assert data.train_x.shape == (192, 8)
    assert torch.equal(data.train_x[0], torch.arange(1, 9))
    assert torch.equal(data.train_x[:, 1:], data.train_y[:, :-1])
    assert torch.equal(data.train_x[1:], data.train_y[:-1])
    assert data.val_x.shape == data.val_y.shape == (0, 8)
    # of evaluation: every token once, but for the first and an unfinished window
    assert data.test_x.shape == (1999 // 8, 8)
    assert data.epoch_examples == 199 // 8
    assert data.train_x.untyped_storage().nbytes() == 200 * 8


def test_a_share_and_a_number_of_windows_mean_what_they_say():
    assert ready(made(), val_size=0.25).val_x.shape == ((500 - 1) // 8, 8)
    assert ready(made(), val_size=7).val_x.shape == (7, 8)
    small = ready(made(), val_size=5, subset=30)
    assert small.val_x.shape == (5, 8)
    assert small.test_x.shape == (30, 8)
    assert len(small.train_x) + 8 == 30 * 8 + 1 - (5 * 8 + 1)
    whole = ready(made(), subset=10**6)
    assert torch.equal(whole.train_x, ready(made()).train_x)


def test_the_vocabulary_is_that_of_the_training_part_with_an_unknown_symbol():
    data = ready(made("abcab" * 30, "abcXabcYab" * 3), val_size=0)
    assert data.classes == data.vocabulary == 4
    assert data.test_x[0].tolist() == [1, 2, 3, UNKNOWN, 1, 2, 3, UNKNOWN]
    assert UNKNOWN not in places_of(data, "train")
    # the validation part is no training part either
    raw = made("ab" * 50 + "Z" * 30 + "ab" * 50, "ab" * 20)
    hidden = [ready(raw, val_size=5, split_seed=seed) for seed in range(40)]
    sizes = {data.classes for data in hidden}
    assert sizes <= {3, 4}
    for data in hidden:
        if data.classes == 3:
            assert UNKNOWN in places_of(data, "val")


def test_a_text_of_bytes_counts_its_characters():
    content = "añ€😀" * 100  # of 1, 2, 3 and 4 bytes
    data = ready(made(content, content, unit="bytes"), val_size=0)
    assert data.task == Bytes(256)
    assert data.vocabulary == 256
    problem = Problem(data, bigram, losses.cross_entropy, initialize)
    model = build_model(problem, 0)
    found = score(problem, model, data.test_x, data.test_y)
    assert found["loss"] == pytest.approx(log(256), rel=1e-6)
    tokens = bytes(data.test_y.flatten().tolist())
    characters = len(tokens.decode("utf-8", "ignore"))
    assert characters == pytest.approx(len(tokens) / 2.5, abs=1)
    assert found["bits_per_character"] == pytest.approx(8 * len(tokens) / characters, rel=0.01)


def test_the_digest_is_of_the_texts_alone(tmp_path):
    raw = made()
    digest = ready(raw).digest
    assert all(
        ready(changed).digest != digest for changed in (made(PLACES + "x"), made(test="x" * 99))
    )
    assert len(digest) == 16
    assert ready(raw, val_size=3, split_seed=2).digest == digest
    # of the same characters, divided at another place
    divided = [ready(made("a" * n, "a" * (200 - n))).digest for n in (100, 110)]
    assert divided[0] != divided[1]
    (tmp_path / "a.txt").write_text("abc" * 500)
    (tmp_path / "b.txt").write_text("abc" * 500)
    paths = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    assert len({ready(text(path)).digest for path in paths}) == 1


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"val_size": -1}, "data.val_size=-1 is neither"),
        ({"val_size": True}, "neither a share nor"),
        ({"val_size": 1.0}, "neither a share nor"),
        ({"val_size": 249}, "leaves no window"),
        ({"val_size": 0.999}, "leaves no window"),
        ({"val_size": 0.001}, "the validation part of the text has 2 characters"),
        ({"targets": "inputs"}, "its next characters"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, named):
    with pytest.raises(UserError, match=named):
        ready(made(), **settings)
    with pytest.raises(UserError, match="preprocessing=integers"):
        prepare(made(), preprocessing="standardize")


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (made("abc", context=8), "the training part of the text has 3 characters"),
        (made("abc" * 50, "ab", context=8), "the test part of the text has 2 characters"),
        (made("é" * 4, unit="bytes"), "has 8 bytes, and a window takes 9"),
    ],
)
def test_a_text_shorter_than_a_window_is_refused(raw, named):
    with pytest.raises(UserError, match=named):
        ready(raw, val_size=0)


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.txt").write_bytes("\ufefffirst\n".encode())
    (tmp_path / "sub" / "c.md").write_text("third")
    (tmp_path / ".hidden").write_bytes(b"\xff")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x").write_bytes(b"\xff")
    assert text_files.read_texts(str(tmp_path)) == "first\nsecond\nthird"
    raw = text(str(tmp_path), context=3, test_size=0.25)
    assert (raw.train, raw.test) == ("first\nsecond\nt", "hird")


def test_a_path_may_have_a_home_folder_or_a_variable(tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text("my own text")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert text_files.read_texts("~/mine.txt") == "my own text"
    assert text_files.read_texts("$HOME/mine.txt") == "my own text"


@pytest.mark.parametrize("path", [None, "", "  ", 3])
def test_a_text_needs_a_path(path):
    with pytest.raises(UserError, match="needs a text: "):
        text(path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"fine\nth\xe9 end", "byte 0xe9 in line 2 .at position 7."),
        (b"ends within \xe2\x82", "is not UTF-8"),
        (b"", "it is empty"),
        (b"\xef\xbb\xbf\n \n", "it is empty"),
        ("UTF-16".encode("utf-16"), "byte 0xff in line 1"),
    ],
)
def test_a_broken_or_empty_file_is_named(tmp_path, content, named):
    (tmp_path / "mine.txt").write_bytes(content)
    for path in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(UserError, match=named):
            text(str(path))


def test_missing_files_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        text(str(tmp_path / "gone.txt"))
    with pytest.raises(UserError, match="folder without files"):
        text(str(tmp_path))
    with pytest.raises(UserError, match="no ordinary file"):
        text("/dev/null")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"unit": "words"}, "characters, bytes"),
        ({"context": 0}, "dataset.context"),
        ({"context": 2.5}, "dataset.context"),
        ({"test_size": 1.0}, "dataset.test_size"),
        ({"test_size": "half"}, "dataset.test_size"),
    ],
)
def test_wrong_settings_of_a_text_are_refused(tmp_path, settings, named):
    (tmp_path / "mine.txt").write_text("a text\n" * 30)
    with pytest.raises(UserError, match=named):
        text(str(tmp_path), **settings)


@pytest.fixture(scope="module")
def novels() -> Text:
    return austen()


def test_the_bundled_novels_are_six_and_persuasion_is_the_test(novels):
    assert len(text_files.read_novels()) == 6
    assert novels.test.startswith("Persuasion\n")
    assert "Anne Elliot" in novels.test
    assert "Anne Elliot" not in novels.train
    for title in ("SENSE AND SENS", "PRIDE AND PREJ", "MANSFIELD PARK", "EMMA", "NORTHANGER"):
        assert title in novels.train
    assert "Gutenberg" not in novels.train + novels.test
    assert "Signet" not in novels.train
    assert len(novels.train) == 3_557_753
    assert len(novels.test) == 466_854
    assert len(set(novels.train)) == 81


def test_a_damaged_bundle_is_told(tmp_path, monkeypatch):
    broken = tmp_path / "austen.tar.xz"
    broken.write_bytes(text_files.BUNDLED_AUSTEN.read_bytes()[:-100])
    monkeypatch.setattr(text_files, "BUNDLED_AUSTEN", broken)
    with pytest.raises(UserError, match="reinstall the package"):
        text_files.read_novels()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz"):
        pass
    broken.write_bytes(buffer.getvalue())
    monkeypatch.setattr(text_files, "check_hash", lambda *rest: None)
    with pytest.raises(UserError, match="does not hold the novels"):
        text_files.read_novels()


def test_the_windows_of_a_seed_are_the_same_for_every_optimizer(novels):
    data = ready(novels, subset=200, val_size=20)
    problem = Problem(data, gpt, losses.cross_entropy, initialize, batch_size=16)
    first, second = (Batches(problem, seed=5).epoch() for _ in range(2))
    assert all(map(torch.equal, first, second))
    assert not torch.equal(first[0], Batches(problem, seed=6).epoch()[0])
    x, y = examples_of(data, first[0])
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert torch.equal(build_model(problem, 5).head.weight, build_model(problem, 5).head.weight)


def test_the_first_loss_on_the_novels_is_that_of_an_even_guess(novels):
    data = ready(novels, subset=300, val_size=50)
    for factory in (gpt, lstm, bigram, partial(lstm, cell="gru")):
        problem = Problem(data, factory, losses.cross_entropy, initialize)
        model = build_model(problem, 0)
        loss = score(problem, model, data.val_x, data.val_y)["loss"]
        assert loss == pytest.approx(log(data.classes), rel=0.02)


def test_a_bigram_learns_the_counts_of_the_training_part(novels):
    data = ready(novels, subset=60, val_size=5)
    problem = Problem(data, bigram, losses.cross_entropy, initialize, batch_size=8)
    model = build_model(problem, 0)
    x, y = data.scored_train()
    counts = np.zeros((data.classes, data.classes))
    np.add.at(counts, (x.flatten().numpy(), y.flatten().numpy()), 1)
    rows = counts.sum(axis=1, keepdims=True)
    chances = np.divide(counts, rows, where=rows > 0, out=np.ones_like(counts))
    least = -(counts * np.log(np.where(counts > 0, chances, 1))).sum() / counts.sum()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = losses.cross_entropy(model(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert losses.cross_entropy(model(x), y).item() == pytest.approx(least, rel=0.02)


def test_a_model_of_vectors_is_refused_on_tokens(novels):
    problem = Problem(ready(novels, subset=20), mlp, losses.cross_entropy, initialize)
    with pytest.raises(UserError, match="take model=gpt, lstm or bigram"):
        build_model(problem, 0)


class Peeking(nn.Module):
    """Logits of a token by the token that follows."""

    def __init__(self, vocabulary, classes):
        super().__init__()
        self.table = nn.Embedding(vocabulary, classes)

    def forward(self, x):
        return self.table(x.roll(-1, dims=1))


def test_a_model_that_sees_the_next_token_is_refused(novels):
    def factory(input_shape, num_classes, vocab_size):
        return Peeking(vocab_size, num_classes)

    data = ready(novels, subset=20)
    with pytest.raises(UserError, match="change with later tokens"):
        build_model(Problem(data, factory, losses.cross_entropy, initialize), 0)
    both = partial(lstm, bidirectional=True)
    with pytest.raises(UserError, match="has to predict"):
        build_model(Problem(data, both, losses.cross_entropy, initialize), 0)


def test_prepared_windows_survive_the_way_to_another_process(novels):
    data = ready(novels, subset=50, val_size=5)
    buffer = io.BytesIO()
    torch.save(data.to_plain(), buffer)
    assert len(buffer.getvalue()) < 200_000  # the windows share their memory
    buffer.seek(0)
    again = Dataset.from_plain(torch.load(buffer, weights_only=True))
    assert again.task == data.task == Characters(data.classes)
    for name in ("train_x", "train_y", "val_x", "val_y", "test_x", "test_y"):
        assert torch.equal(getattr(again, name), getattr(data, name))
