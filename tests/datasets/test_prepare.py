"""Preparation of the data against plain formulas, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optbench.common.errors import UserError
from optbench.datasets import prepare as data
from optbench.datasets.prepare import RawDataset, prepare
from optbench.datasets.preprocessing import PREPROCESSING

REPOSITORY = Path(__file__).resolve().parents[2]


def images(n=60, n_test=20, channels=1, seed=0, dtype=torch.uint8) -> RawDataset:
    g = torch.Generator().manual_seed(seed)
    shape = (channels, 4, 5)
    x = torch.randint(0, 256, (n + n_test, *shape), generator=g).to(dtype)
    y = torch.arange(n + n_test) % 3
    return RawDataset(x[:n], y[:n], x[n:], y[n:])


def vectors(n=60, n_test=20, features=6, seed=0) -> RawDataset:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n + n_test, features, generator=g, dtype=torch.float64) * 7 + 100
    y = torch.arange(n + n_test) % 3
    return RawDataset(x[:n], y[:n], x[n:], y[n:])


def numbered(n=100, n_test=30) -> RawDataset:
    """Each example's value is its index, so that a split can be read off the prepared data."""
    x, t = torch.arange(n).float(), torch.arange(n_test).float()
    return RawDataset(x[:, None], torch.arange(n) % 4, t[:, None], torch.arange(n_test) % 4)


@pytest.mark.parametrize("raw", [images(), images(channels=3), vectors()], ids=["grey", "rgb", "v"])
@pytest.mark.parametrize("preprocessing", PREPROCESSING)
def test_preprocessing_follows_its_formula(raw, preprocessing):
    out = prepare(raw, preprocessing=preprocessing, val_size=15, split_seed=3)
    plain = prepare(raw, preprocessing="none", val_size=15, split_seed=3)
    train = plain.train_x.numpy() if raw.train_x.dtype == torch.uint8 else None
    if train is None:  # the float64 originals of the same examples
        order = torch.randperm(60, generator=torch.Generator().manual_seed(3))
        train = raw.train_x[order[15:].sort().values].numpy()
    train = train.astype(np.float64)
    is_image = train.ndim == 4
    if preprocessing == "none":
        shift, scale = 0.0, 1.0
    elif preprocessing in ("scale", "binarize") and is_image:
        shift, scale = 0.0, 255.0
    elif preprocessing in ("scale", "binarize"):
        shift, scale = train.min(0), train.max(0) - train.min(0)
    else:
        by_pixel = preprocessing == "standardize_features"
        axis = 0 if by_pixel else ((0, 2, 3) if is_image else None)
        shift = train.mean(axis, keepdims=axis is not None)
        scale = train.std(axis, keepdims=axis is not None)
        if axis is not None:
            shift, scale = shift[0], scale[0]
    expected = (train - shift) / scale
    test = (raw.test_x.numpy().astype(np.float64) - shift) / scale
    if preprocessing == "binarize":
        expected, test = expected > 0.5, test > 0.5
    np.testing.assert_allclose(out.train_x.numpy(), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(out.test_x.numpy(), test, rtol=1e-6, atol=1e-6)
    assert {t.dtype for t in (out.train_x, out.val_x, out.test_x)} == {torch.float32}


def test_statistics_come_from_the_training_part_only():
    raw = vectors()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    raw.train_x[order[:15]] += 1000.0  # the validation part of split_seed=0
    out = prepare(raw, preprocessing="standardize_features", val_size=15)
    assert out.train_x.mean(0).abs().max() < 1e-5
    assert out.val_x.min() > 50


def test_constant_features_become_zero_and_do_not_blow_up():
    raw = vectors()
    raw.train_x[:, 2], raw.test_x[:, 2] = 0.1, 0.4
    for preprocessing in ("scale", "standardize_features"):
        out = prepare(raw, preprocessing=preprocessing)
        assert (out.train_x[:, 2] == 0).all()
        assert out.test_x[:, 2].sub(0.3).abs().max() < 1e-6  # std 1: the plain difference


def test_float_images_scale_by_their_extremes():
    raw = images(dtype=torch.float32)
    out = prepare(raw, preprocessing="scale", val_size=0)
    assert out.train_x.min() == 0
    assert out.train_x.max() == 1


def test_chunks_do_not_change_the_result(monkeypatch):
    whole = prepare(images(), preprocessing="standardize_features")
    monkeypatch.setattr("optbench.datasets.preprocessing._CHUNK_ELEMENTS", 50)
    parts = prepare(images(), preprocessing="standardize_features")
    torch.testing.assert_close(whole.train_x, parts.train_x)


def test_split_is_disjoint_complete_and_fixed_by_its_seed():
    global_state = torch.get_rng_state()
    a, b = (prepare(numbered(), preprocessing="none", val_size=0.2) for _ in range(2))
    other = prepare(numbered(), preprocessing="none", val_size=0.2, split_seed=1)
    train, val = a.train_x.flatten().tolist(), a.val_x.flatten().tolist()
    assert (len(train), len(val)) == (80, 20)
    assert sorted(train + val) == list(range(100))
    assert torch.equal(a.val_x, b.val_x)
    assert not torch.equal(a.val_x, other.val_x)
    assert torch.equal(a.train_y, a.train_x.flatten().long() % 4)
    assert torch.equal(a.val_y, a.val_x.flatten().long() % 4)
    assert torch.equal(torch.get_rng_state(), global_state)


def test_subset_draws_training_and_test_examples():
    out = prepare(numbered(), preprocessing="none", val_size=5, subset=20)
    assert (len(out.train_y), len(out.val_y), len(out.test_y)) == (15, 5, 20)
    assert len({*out.train_x.flatten().tolist(), *out.val_x.flatten().tolist()}) == 20
    assert out.test_x.flatten().tolist() != list(range(20))  # drawn, not cut off
    assert torch.equal(out.test_y, out.test_x.flatten().long() % 4)
    assert len(prepare(numbered(), subset=10**6).test_y) == 30
    assert out.digest == prepare(numbered()).digest
    assert out.classes == 4


def test_no_validation_keeps_every_example_in_order():
    out = prepare(numbered(), preprocessing="none", val_size=0)
    assert out.train_x.flatten().tolist() == list(range(100))
    assert out.val_x.shape == (0, 1)
    assert out.input_shape == (1,)
    assert prepare(images(channels=3)).input_shape == (3, 4, 5)


def test_prepared_data_do_not_share_memory_with_the_raw():
    raw = numbered()
    out = prepare(raw, preprocessing="none", val_size=0)
    out.train_x.fill_(-1)
    out.test_x.fill_(-1)
    out.test_y.fill_(-1)
    assert raw.train_x.min() == 0
    assert raw.test_x.min() == 0
    assert raw.test_y.min() == 0


def test_digest_sees_every_part_and_no_setting():
    raw = images()
    digests = {
        prepare(raw, preprocessing=p, val_size=v).digest for p, v in (("none", 0), ("scale", 9))
    }
    assert len(digests) == 1
    assert len(digests.copy().pop()) == 16
    for i in range(4):
        changed = [t.clone() for t in raw]
        flat = changed[i].view(-1)
        flat[0] = (flat[0] + 1) % 3
        digests.add(prepare(changed).digest)
    digests.add(
        prepare(raw._replace(train_x=raw.train_x.float(), test_x=raw.test_x.float())).digest
    )
    assert len(digests) == 6


def test_numpy_arrays_and_plain_tuples_are_accepted():
    raw = images()
    arrays = tuple(t.numpy() for t in raw)
    assert prepare(arrays).digest == prepare(raw).digest
    swapped = tuple(a.astype(a.dtype.newbyteorder(">")) for a in arrays)
    assert prepare(swapped).digest == prepare(raw).digest
    flipped = (arrays[0][::-1], *arrays[1:])
    flipped[0].flags.writeable = False
    assert len(prepare(flipped).train_y) == 54
    assert (
        prepare((arrays[0], arrays[1].astype(np.uint8), *arrays[2:])).digest == prepare(raw).digest
    )


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 40),
    n_test=st.integers(1, 10),
    features=st.integers(1, 4),
    val=st.one_of(st.integers(0, 45), st.floats(0, 0.99)),
    subset=st.one_of(st.none(), st.integers(1, 50)),
    seed=st.integers(0, 2**63 - 1),
    preprocessing=st.sampled_from(PREPROCESSING),
    magnitude=st.sampled_from([0.0, 1e-30, 1.0, 1e15]),
)
def test_prepare_keeps_its_promises(
    n, n_test, features, val, subset, seed, preprocessing, magnitude
):
    rng = np.random.default_rng(seed % 1000)
    x, t = rng.normal(size=(n, features)), rng.normal(size=(n_test, features))
    y, ty = rng.integers(0, 5, n), rng.integers(0, 5, n_test)
    raw = (x * magnitude, y, t * magnitude, ty)
    options = {"val_size": val, "split_seed": seed, "subset": subset}
    kept = min(n, subset or n)
    if val >= kept or (isinstance(val, float) and val > 0 and max(1, round(val * kept)) >= kept):
        with pytest.raises(UserError, match=r"data\.val_size"):
            prepare(raw, preprocessing=preprocessing, **options)
        return
    out = prepare(raw, preprocessing=preprocessing, **options)
    assert len(out.train_y) + len(out.val_y) == kept
    assert len(out.train_x) == len(out.train_y) >= 1
    assert len(out.test_x) == min(n_test, subset or n_test)
    assert out.classes == max(y.max(), ty.max()) + 1
    for part in (out.train_x, out.val_x, out.test_x):
        assert torch.isfinite(part).all()
    if preprocessing == "scale":
        assert out.train_x.min() >= 0
        assert out.train_x.max() <= 1
    if preprocessing == "standardize_features":
        assert out.train_x.mean(0).abs().max() < 1e-5
        spread = out.train_x.std(0, correction=0)
        assert ((spread - 1).abs().lt(1e-4) | spread.lt(1e-6)).all()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"preprocessing": "whiten"}, ["preprocessing='whiten'", "standardize_features"]),
        ({"val_size": -1}, ["data.val_size=-1", "0.1"]),
        ({"val_size": 1.0}, ["data.val_size=1.0"]),
        ({"val_size": float("nan")}, ["data.val_size=nan"]),
        ({"val_size": "some"}, ["data.val_size='some'"]),
        ({"val_size": True}, ["data.val_size=True"]),
        ({"val_size": 60}, ["data.val_size=60", "at most 59"]),
        ({"val_size": 0.1, "subset": 1}, ["data.val_size", "data.subset"]),
        ({"subset": 0}, ["data.subset=0", "from 1"]),
        ({"subset": 2.5}, ["data.subset=2.5"]),
        ({"split_seed": -1}, ["data.split_seed=-1"]),
        ({"split_seed": "a"}, ["data.split_seed='a'"]),
    ],
)
def test_bad_settings_name_the_key_and_what_is_allowed(options, named):
    with pytest.raises(UserError) as caught:
        prepare(images(), **options)
    for text in [*named, "allowed"]:
        assert text in str(caught.value)


def bad_raws():
    good = images()
    x, y = good.train_x, good.train_y
    nan = x.float()
    nan[3, 0, 0, 0] = float("nan")
    return {
        "nan": (good._replace(train_x=nan, test_x=good.test_x.float()), "train_x holds NaN"),
        "huge": ((vectors().train_x * 1e300, *vectors()[1:]), "train_x holds NaN"),
        "negative": (good._replace(test_y=good.test_y - 1), "test_y holds labels from -1"),
        "far": (good._replace(train_y=y + 10**9), "train_y holds labels from"),
        "float labels": (good._replace(train_y=y.float()), "must be of one kind"),
        "lengths": (good._replace(train_y=y[:-1]), "train_y has shape (59,)"),
        "one-hot": (good._replace(train_y=torch.eye(60).long()), "train_y has shape"),
        "empty": (good._replace(train_x=x[:0], train_y=y[:0]), "at least one example"),
        "no test": (good._replace(test_x=x[:0], test_y=y[:0]), "at least one example"),
        "flat": (good._replace(train_x=y), "train_x has shape (60,)"),
        "shapes": (good._replace(test_x=good.test_x[:, :, :3]), "must be the same"),
        "dtypes": (good._replace(test_x=good.test_x.float()), "must be the same"),
        "three": (tuple(good[:3]), "four tensors"),
        "none": (None, "four tensors"),
        "objects": ((np.array([object()] * 60), *good[1:]), "does not convert"),
    }


@pytest.mark.parametrize("case", bad_raws())
def test_bad_raw_data_are_refused(case):
    raw, message = bad_raws()[case]
    with pytest.raises(UserError) as caught:
        prepare(raw)
    assert message in str(caught.value)


def test_overflow_of_a_test_example_is_not_trained_around():
    x = torch.ones(20, 1, dtype=torch.float64)
    x[0] += 1e-9
    raw = RawDataset(x, torch.zeros(20).long(), x[:3] * 1e35, torch.zeros(3).long())
    with pytest.raises(UserError, match="test_x overflow"):
        prepare(raw, val_size=0)


def test_to_moves_all_tensors():
    moved = prepare(images()).to("meta")
    parts = [getattr(moved, f"{p}_{q}") for p in ("train", "val", "test") for q in "xy"]
    assert {t.device.type for t in parts} == {"meta"}
    assert isinstance(moved, data.Dataset)


@pytest.mark.parametrize("least", [0, 1])
def test_labels_that_count_from_one_are_told(capsys, least):
    raw = vectors()
    labels = [y.clamp(min=least) for y in (raw.train_y, raw.test_y)]
    data = prepare(raw._replace(train_y=labels[0], test_y=labels[1]), preprocessing="none")
    assert data.classes == int(max(y.max() for y in labels)) + 1
    assert ("no example has the label 0" in capsys.readouterr().err) == bool(least)
