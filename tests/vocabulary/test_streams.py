"""The global generators within a stream, and as the caller left them outside of it."""

import random
from contextlib import nullcontext, suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optbench.streams import Stream, stream

SEED = 7


def drawn():
    """One draw of each kind from each global generator; also those that come in pairs."""
    numbers = [torch.rand(()).item(), torch.randn(()).item(), random.random(), random.gauss(0, 1)]
    return [*numbers, np.random.rand(), np.random.randn()]  # noqa: NPY002


def seed_all(number):
    """As documented in `Stream`."""
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed([number % 2**32, number >> 32])  # noqa: NPY002


@pytest.fixture(autouse=True)
def _callers():
    kept = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    seed_all(123)
    yield
    torch.set_rng_state(kept[0])
    random.setstate(kept[1])
    np.random.set_state(kept[2])  # noqa: NPY002


def caller():
    """What the caller draws, undisturbed: six times."""
    seed_all(123)
    found = [drawn() for _ in range(6)]
    seed_all(123)
    return found


def alone(purpose, count):
    """What a stream gives that nothing interrupts."""
    seed_all(stream(SEED, purpose).initial_seed())
    found = [drawn() for _ in range(count)]
    seed_all(123)
    return found


def interrupted(block):
    """What is drawn within a block that ends with an exception."""
    with suppress(ZeroDivisionError), block:
        found = drawn()
        raise ZeroDivisionError
    return found


def test_a_stream_gives_what_its_documented_seed_gives():
    expected = alone("model", 3)
    draws = Stream(SEED, "model")
    with draws:
        first = drawn()
    with draws:
        assert [first, drawn(), drawn()] == expected


def test_seeds_of_purposes_are_apart():
    numbers = {stream(seed, name).initial_seed() for seed in range(3) for name in ("a", "b")}
    assert len(numbers) == 6
    assert all(0 <= number < 2**56 for number in numbers)


def test_callers_generators_stay_as_they_were():
    expected = caller()
    found = [drawn()]
    draws = Stream(SEED, "model")
    found.append(drawn())
    with draws:
        drawn()
        np.random.randn()  # noqa: NPY002  # its spare stays in the stream
    found.append(drawn())
    draws.load_state_dict(draws.state_dict())
    found.append(drawn())
    interrupted(draws)
    found.append(drawn())
    assert [*found, drawn()] == expected


def test_streams_within_streams_go_on_where_they_were():
    """An optimizer's within the model's, and the model's within a closure, and so on."""
    outer, model, own = caller(), alone("model", 4), alone("optimizer", 4)
    draws, steps = Stream(SEED, "model"), Stream(SEED, "optimizer")
    assert drawn() == outer[0]
    with draws:
        assert drawn() == model[0]
        with steps:
            assert drawn() == own[0]
            with steps.left():
                assert drawn() == model[1]
                assert interrupted(steps) == own[1]
                assert drawn() == model[2]
            assert drawn() == own[2]
            assert interrupted(steps.left()) == model[3]
            assert drawn() == own[3]
    assert drawn() == outer[1]


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_spare_normals_of_numpy_and_python_are_kept(before):
    """Both make normal numbers in pairs; the second waits in the generator."""

    def normals(count):
        return [(np.random.randn(), random.gauss(0, 1)) for _ in range(count)]  # noqa: NPY002

    seed_all(stream(SEED, "model").initial_seed())
    expected = normals(8)
    seed_all(123)
    mine = normals(before + 4)
    seed_all(123)
    draws = Stream(SEED, "model")
    found = normals(before)
    with draws:
        first = normals(before)
    other = Stream(SEED + 1, "model")
    other.load_state_dict(draws.state_dict())
    found += normals(1)
    with other:
        assert first + normals(5) == expected[: before + 5]
    assert found + normals(3) == mine


def test_state_goes_through_a_file(tmp_path):
    draws = Stream(SEED, "model")
    with draws:
        drawn()
    torch.save(draws.state_dict(), tmp_path / "state.pt")
    with draws:
        expected = [drawn(), drawn()]
    other = Stream(SEED + 1, "elsewhere")
    with other:
        drawn()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    with other:
        assert [drawn(), drawn()] == expected


def test_state_is_a_copy():
    draws = Stream(SEED, "model")
    state = draws.state_dict()
    with draws:
        first = drawn()
    draws.load_state_dict(state)
    with draws:
        again = drawn()
    draws.load_state_dict(state)
    with draws:
        assert first == again == drawn()


@pytest.mark.parametrize(
    "change",
    [
        {"torch": torch.zeros(3, dtype=torch.uint8)},
        {"python": [3, [1, 2], None]},
        {"numpy": [[1, 2], 0, None]},
        {"numpy": [[1] * 624, 625, None]},
        {"numpy": [[1] * 624, -1, None]},
        {"numpy": None},
    ],
    ids=range(6),
)
def test_what_is_no_state_is_refused_and_changes_nothing(change):
    draws = Stream(SEED, "model")
    with pytest.raises((ValueError, TypeError, RuntimeError, LookupError)):
        draws.load_state_dict(draws.state_dict() | change)
    expected = alone("model", 1)
    with draws:
        assert [drawn()] == expected


def test_a_seed_of_the_callers_within_a_stream_stays_there():
    """As a model does that calls `torch.manual_seed` in `forward`."""
    expected = caller()
    with Stream(SEED, "model"):
        seed_all(5)
    assert drawn() == expected[0]


WHERE = st.sampled_from(("outside", "model", "optimizer"))
DRAWS = st.lists(st.tuples(st.sampled_from(("normal", "uniform", "integers")), st.integers(0, 3)))


@settings(deadline=None)
@given(st.lists(st.tuples(WHERE, DRAWS), max_size=12))
def test_numpys_numbers_are_those_of_three_generators_of_their_own(visits):
    """Whether a visit draws nothing, a whole key of 624 integers, or an odd count of normals."""

    def draw(source, kind, count):
        if kind == "integers":
            return source.randint(0, 2**32, size=624 * count, dtype=np.uint32).tolist()
        return [source.randn() if kind == "normal" else source.rand() for _ in range(count)]

    seed_all(123)
    streams = {name: Stream(SEED, name) for name in ("model", "optimizer")}
    own = {name: stream(SEED, name).initial_seed() for name in streams}
    twins = {name: np.random.RandomState([n % 2**32, n >> 32]) for name, n in own.items()}
    twins["outside"] = np.random.RandomState([123, 0])
    for where, draws in visits:
        with streams.get(where, nullcontext()):
            for kind, count in draws:
                assert draw(np.random, kind, count) == draw(twins[where], kind, count)


def test_a_program_that_seeds_numpy_again_keeps_its_spare_number():
    """Five and six normal numbers leave a generator at one place, with and without a spare one."""
    for count in (6, 5):
        seed_all(123)
        twin = np.random.RandomState([123, 0])
        assert np.random.randn(count).tolist() == twin.randn(count).tolist()  # noqa: NPY002
        with Stream(SEED, "model"):
            pass
        after = np.random.randn(3).tolist() if count == 5 else []  # noqa: NPY002
        assert after == twin.randn(len(after)).tolist()
