"""Give each purpose of a run its own random stream, from the seed alone.

A model may draw from torch's, NumPy's or Python's global generator (`nn.Dropout`,
`torch.randn_like`), and so may an optimizer. Each of the two has a stream of its own, so that an
optimizer that draws does not change the model's masks.
"""

import ctypes
import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch


def stream(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the generator for one purpose of a seed, shared with no other purpose."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7]))


class _Numpy(NamedTuple):
    """NumPy's global generator: its source of bits, and the spare normal number."""

    bits: Any
    spare: float | None = None

    @classmethod
    def present(cls) -> "_Numpy":
        bits = np.random.get_bit_generator()  # type: ignore[attr-defined]  # missing in the stubs
        if _placed is not None and _placed == (bits, _place_of(bits)):
            return cls(bits)  # nothing was drawn since, so there is no spare number either
        state: Any = np.random.get_state(legacy=False)  # noqa: NPY002
        return cls(bits, state["gauss"] if state["has_gauss"] else None)

    def put_in_place(self) -> None:
        global _placed
        # by reference: copying the state takes ten times as long
        np.random.set_bit_generator(self.bits)  # type: ignore[attr-defined]
        if self.spare is not None:
            state = self.bits.state | {"has_gauss": 1, "gauss": self.spare}
            np.random.set_state(state)  # noqa: NPY002
        place = _place_of(self.bits) if self.spare is None else None
        _placed = (self.bits, place) if place else None


# the source of bits that was put in place last without a spare number, and where it stood
_placed: tuple[Any, tuple[int, int]] | None = None
_KEY_LENGTH = 624  # of a Mersenne twister


def _place_of(bits: Any) -> tuple[int, int] | None:
    """Return what changes with each draw, or None, in a hundredth of the time that the state takes.

    It is the first number of the key, which is new after 624 draws, and the place in the key.
    """
    if type(bits) is not np.random.MT19937:
        return None
    address = bits.ctypes.state_address  # of a struct: uint32_t key[624]; int pos;
    place = ctypes.c_int.from_address(address + 4 * _KEY_LENGTH).value
    return ctypes.c_uint32.from_address(address).value, place


class Stream:
    """The states of all global generators for one purpose; `with` puts them in place.

    Outside of `with`, the generators are as the caller left them. The generators begin as after
    `torch.manual_seed(n)`, `random.seed(n)` and `np.random.seed([n % 2**32, n >> 32])`, where n is
    `stream(seed, purpose).initial_seed()`.
    """

    def __init__(self, seed: int, purpose: str, device: torch.device | str = "cpu") -> None:
        """Start the stream of a purpose; it includes the generator of a CUDA `device`."""
        global _placed
        _placed = None  # seeded anew since, NumPy may stand there again, with a spare number
        generator = stream(seed, purpose)
        number = generator.initial_seed()
        self._torch = generator.get_state()
        bits: Any = np.random.MT19937()
        bits._legacy_seeding([number % 2**32, number >> 32])
        self._numpy = _Numpy(bits)
        self._python: Any = random.Random(number).getstate()
        self._device = torch.device(device)
        self._cuda: torch.Tensor | None = None
        if self._device.type == "cuda":
            self._cuda = torch.Generator(self._device).manual_seed(number).get_state()

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *error: object) -> None:
        self._swap()

    @contextmanager
    def left(self) -> Iterator[None]:
        """Put the caller's states back for this block, inside of `with self`."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors for `load_state_dict`; call outside of `with`."""
        bits, spare = self._numpy
        inner = bits.state["state"]
        found = {
            "torch": self._torch.clone(),
            "numpy": [inner["key"].tolist(), int(inner["pos"]), spare],
            "python": _lists(self._python),
        }
        return found if self._cuda is None else found | {"cuda": self._cuda.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a `state_dict`. Raises the errors of the generators."""
        torch.Generator().set_state(state["torch"])  # raises if it is no state
        random.Random().setstate(_tuples(state["python"]))
        key, place, spare = state["numpy"]
        if not 0 <= place <= 624:
            # NumPy would read beyond its state
            raise ValueError(f"NumPy's generator has no place {place}")
        bits: Any = np.random.MT19937()
        inner = {"key": np.array(key, dtype=np.uint32), "pos": place}
        bits.state = {"bit_generator": "MT19937", "state": inner}
        self._torch, self._python = state["torch"].clone(), _tuples(state["python"])
        self._numpy = _Numpy(bits, spare)
        if self._cuda is not None:
            self._cuda = state["cuda"].clone()

    def _swap(self) -> None:
        """Exchange the global generators' states with the stored ones."""
        mine, self._torch = self._torch, torch.get_rng_state()
        torch.set_rng_state(mine)
        numbers, self._python = self._python, random.getstate()
        random.setstate(numbers)
        legacy, self._numpy = self._numpy, _Numpy.present()
        legacy.put_in_place()
        if self._cuda is not None:
            there, self._cuda = self._cuda, torch.cuda.get_rng_state(self._device)
            torch.cuda.set_rng_state(there, self._device)


def _lists(value: Any) -> Any:
    return [_lists(part) for part in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
