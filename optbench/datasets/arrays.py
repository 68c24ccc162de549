"""A dataset's arrays (of torch, NumPy, pandas, or plain lists) as tensors."""

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optbench.common.errors import UserError

# torch has hardly any operations on the unsigned dtypes
WIDER_DTYPES = {
    torch.uint16: torch.int32,
    torch.uint32: torch.int64,
    torch.uint64: torch.int64,
}


def as_tensor(name: str, value: Any) -> Tensor:
    """Return a part of a dataset as a dense CPU tensor, in a dtype torch computes in.

    name: the part's, for messages. Raises `UserError` for values that are no array of numbers, and
    for masked and missing values, which would turn into wrong numbers.
    """
    if isinstance(value, list | tuple):
        with suppress(TypeError, ValueError, RuntimeError):
            value = torch.as_tensor(value)
    if not isinstance(value, Tensor):
        array = _as_array(name, value)
        try:
            # torch refuses foreign byte orders and negative strides, and warns of read-only arrays
            order = array.dtype.newbyteorder("=")
            value = torch.as_tensor(np.require(array, dtype=order, requirements=["C", "W"]))
        except (TypeError, ValueError, RuntimeError) as error:
            raise _refusal(name, f"holds {array.dtype}", str(error)) from error
    if value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
        raise _refusal(name, f"is a tensor of {value.layout} on {value.device}", "to_dense()")
    tensor = value.detach().cpu().resolve_conj().resolve_neg()
    if tensor.dtype == torch.uint64 and (tensor.view(torch.int64) < 0).any():
        raise _refusal(name, "holds whole numbers from 2**63", "convert them in the loader")
    return tensor.to(WIDER_DTYPES.get(tensor.dtype, tensor.dtype)).contiguous()


def _as_array(name: str, value: Any) -> np.ndarray:
    kind = f"{type(value).__module__.split('.')[0]}'s {type(value).__name__}"
    if isinstance(value, torch.utils.data.Dataset | torch.utils.data.DataLoader):
        raise _refusal(
            name, f"is {kind}", "stack its examples: x, y = map(torch.stack, zip(*dataset))"
        )
    if hasattr(value, "toarray"):  # SciPy's sparse arrays, each of which NumPy takes for one object
        raise _refusal(name, f"is {kind}, a sparse matrix", "give its toarray()")
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise _refusal(name, "has masked values", "fill them (filled(0)), or drop those examples")
    if isinstance(value, list | tuple):
        value = [v.detach().cpu().numpy() if isinstance(v, Tensor) else v for v in value]
    elif hasattr(value, "to_numpy"):  # pandas, polars
        value = value.to_numpy()
    elif not hasattr(value, "__array__"):
        raise _refusal(name, f"is {kind}", "return a tensor or an array")
    try:
        array = np.asarray(value)
    except Exception as error:  # the class may be anybody's
        raise _refusal(name, f"is {kind}", str(error)) from error
    return _plain(name, array) if array.dtype.kind in "OUS" else array


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """Return the numbers of an array of objects, which pandas makes of mixed columns."""
    kinds = {type(item) for item in array.flat}
    whole = (int, np.integer, np.bool_)
    if wrong := [k for k in kinds if not issubclass(k, (*whole, float, np.floating))]:
        words = ", ".join(sorted(k.__name__ for k in wrong))
        raise _refusal(
            name,
            f"holds objects ({words})",
            "numbers are needed: leave out or encode such columns, fill what is missing, and "
            "number labels from 0 (numpy.unique(labels, return_inverse=True)[1])",
        )
    return array.astype(np.int64 if all(issubclass(k, whole) for k in kinds) else np.float64)


def _refusal(name: str, what: str, advice: str) -> UserError:
    return UserError(
        f"{name} {what}, and does not convert to a tensor ({advice}); return a tensor or a numeric "
        f"numpy array."
    )
