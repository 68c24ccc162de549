"""Synthetic datasets from a seed of their own: tasks of tokens, and a linear map."""

import torch
from torch import Tensor

from optbench.common.errors import UserError
from optbench.datasets.raw import RawDataset
from optbench.tasks import IGNORED


def modular_addition(modulus: int = 31, train_size: float = 0.5, seed: int = 0) -> RawDataset:
    """Return the table of a + b modulo a prime or another number (Power et al. 2022).

    An example is the tokens (a, b, =), of which the last is `modulus`; its class is the sum. A
    share `train_size` of all pairs, drawn at random, is for training, and the rest for the test.
    """
    _check("modulus", modulus, 2)
    _check_share("train_size", train_size)
    a, b = torch.meshgrid(torch.arange(modulus), torch.arange(modulus), indexing="ij")
    x = torch.stack([a.flatten(), b.flatten(), torch.full((modulus**2,), modulus)], dim=1)
    y = (x[:, 0] + x[:, 1]) % modulus
    order = torch.randperm(len(y), generator=_generator(seed))
    count = min(max(1, round(train_size * len(y))), len(y) - 1)
    train, test = order[:count].sort().values, order[count:].sort().values
    return RawDataset(x[train], y[train], x[test], y[test])


def associative_recall(
    pairs: int = 4,
    keys: int = 8,
    values: int = 8,
    train: int = 8192,
    test: int = 1024,
    seed: int = 0,
) -> RawDataset:
    """Return sequences of keys with values, and then the keys in another order.

    The task is that of Arora et al. 2024; Ba et al. 2016 ask for one key alone. An example is the
    tokens k1 v1 k2 v2 ..., and then all its keys again. The label of a repeated key is the value
    that stood behind the key before. The first tokens have no label. Tokens below `keys` are keys,
    which differ within an example; larger ones are values.
    """
    for name, value in (("pairs", pairs), ("values", values), ("train", train), ("test", test)):
        _check(name, value, 1)
    _check("keys", keys, pairs)
    generator = _generator(seed)
    count = train + test
    ordered = torch.rand(count, keys, generator=generator).argsort(dim=1)[:, :pairs]
    bound = torch.randint(values, (count, pairs), generator=generator)
    again = torch.rand(count, pairs, generator=generator).argsort(dim=1)
    told = torch.stack([ordered, keys + bound], dim=2).flatten(1)
    x = torch.cat([told, ordered.gather(1, again)], dim=1)
    y = torch.cat([torch.full_like(told, IGNORED), bound.gather(1, again)], dim=1)
    return RawDataset(x[:train], y[:train], x[train:], y[train:])


def linear_map(
    features: int = 16,
    outputs: int = 16,
    condition: float = 10.0,
    noise: float = 0.0,
    train: int = 512,
    test: int = 256,
    seed: int = 0,
) -> RawDataset:
    """Return normal vectors and their images under a linear map, with normal noise.

    The map has random singular vectors, and singular values from 1 down to 1 / `condition`, evenly
    spaced in their logarithms. `linear_optimum` is the least loss of a deep linear network.
    """
    for name, value in (("features", features), ("outputs", outputs), ("train", train)):
        _check(name, value, 1)
    _check("test", test, 1)
    if not condition >= 1 or not noise >= 0:
        raise UserError(
            f"dataset.condition must be at least 1 and dataset.noise at least 0, not "
            f"{condition!r} and {noise!r}"
        )
    generator = _generator(seed)
    rank = min(features, outputs)
    left, right = (_orthogonal(n, rank, generator) for n in (features, outputs))
    sizes = condition ** -torch.linspace(0, 1, rank).double()
    x = torch.randn(train + test, features, generator=generator).double()
    y = x @ (left * sizes) @ right.T
    y = y + noise * torch.randn(train + test, outputs, generator=generator).double()
    x, y = x.float(), y.float()
    return RawDataset(x[:train], y[:train], x[train:], y[train:])


def linear_optimum(x: Tensor, y: Tensor, width: int | None = None) -> float:
    """Return the least mean squared error of a deep linear network without biases.

    width: of its narrowest layer; None: no narrower than inputs and outputs. The best map is that
    of least squares, and at a width its best approximation in that rank on the given inputs
    (reduced-rank regression, Eckart & Young 1936, Izenman 1975). Every local minimum has this loss
    (Baldi & Hornik 1989, Kawaguchi 2016).
    """
    x, y = x.double(), y.double()
    fitted = x @ torch.linalg.lstsq(x, y).solution
    missed = (y - fitted).square().sum()
    if width is not None:
        missed = missed + torch.linalg.svdvals(fitted)[width:].square().sum()
    return float(missed / y.numel())


def _orthogonal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    square = torch.randn(rows, rows, generator=generator).double()
    return torch.linalg.qr(square).Q[:, :columns]


def _generator(seed: int) -> torch.Generator:
    _check("seed", seed, 0)
    return torch.Generator().manual_seed(seed)


def _check(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"dataset.{name} must be a whole number of at least {least}, not {value!r}")


def _check_share(name: str, value: object) -> None:
    if not isinstance(value, float) or not 0 < value < 1:
        raise UserError(f"dataset.{name} must be a share above 0 and below 1, not {value!r}")
