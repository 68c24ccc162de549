"""The sharpness of the training loss: the largest eigenvalue of its Hessian.

Gradient descent with a learning rate lr on a quadratic is stable while the sharpness is below 2 /
lr (Cohen et al. 2021). Adam is stable while the sharpness of the preconditioned Hessian is below
(2 + 2 beta1) / ((1 - beta1) lr), which is 38 / lr for beta1 = 0.9 (Cohen et al. 2022).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer, RMSprop

from optbench.problem import Problem
from optbench.training.evaluation import Row, objective

LANCZOS_STEPS = 30  # Hessian-vector products; eigenvalues of a wide spectrum settle in about 20
CHUNK_EXAMPLES = 2048  # whose graph is in memory at the same time
CONVERGED = 1e-4  # relative change of the estimate at which the iteration ends


def sharpness(
    problem: Problem, model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor
) -> Row:
    """Return the sharpness of the mean loss, and the preconditioned sharpness.

    x: the examples (n, ...). y: their targets. The loss includes the problem's weight penalty, and
    dropout is off if the model is in evaluation mode. The preconditioned sharpness is that of
    P^(-1/2) H P^(-1/2), where P is the diagonal by which the optimizer divides its gradients. It is
    None before the first step, and for optimizers other than Adam, AdamW and RMSprop. A value that
    is not finite is None.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]

    def product(vector: Tensor) -> Tensor:
        return hessian_product(problem, model, parameters, x, y, vector)

    size = sum(p.numel() for p in parameters)
    start = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(x.device)
    found: Row = {"sharpness": largest_eigenvalue(product, start), "preconditioned_sharpness": None}
    if (diagonal := preconditioner(optimizer, parameters)) is not None:
        root = diagonal.rsqrt()
        found["preconditioned_sharpness"] = largest_eigenvalue(
            lambda v: root * product(root * v), start
        )
    return found


def hessian_product(
    problem: Problem,
    model: nn.Module,
    parameters: list[nn.Parameter],
    x: Tensor,
    y: Tensor,
    vector: Tensor,
) -> Tensor:
    """Return the Hessian of the mean loss times a flat vector.

    Each chunk of examples takes two backward passes.
    """
    total = torch.zeros_like(vector)
    with torch.enable_grad():
        for xb, yb in zip(x.split(CHUNK_EXAMPLES), y.split(CHUNK_EXAMPLES), strict=True):
            loss = objective(problem, model, xb, yb) * (len(yb) / len(y))
            first = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
            along = torch.cat([g.flatten() for g in first]) @ vector
            second = torch.autograd.grad(along, parameters, materialize_grads=True)
            total += torch.cat([g.flatten() for g in second]).detach()
    return total


def largest_eigenvalue(product: Callable[[Tensor], Tensor], start: Tensor) -> float | None:
    """Return the largest eigenvalue of a symmetric matrix; None if it is not finite.

    product: the matrix times a vector. Lanczos's method: power iteration that keeps the space of
    all its vectors, with full orthogonalization.
    """
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    value = 0.0
    for _ in range(min(LANCZOS_STEPS, len(start))):
        vector = product(basis[-1])
        diagonal.append(float(vector @ basis[-1]))
        space = torch.stack(basis)
        vector = vector - space.T @ (space @ vector)
        vector = vector - space.T @ (space @ vector)  # twice is enough against rounding
        length = float(vector.norm())
        small = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        if beside:
            off = torch.tensor(beside, dtype=torch.float64)
            small += torch.diag(off, 1) + torch.diag(off, -1)
        if not small.isfinite().all():
            return None
        last, value = value, float(torch.linalg.eigvalsh(small)[-1])
        if length <= 1e-9 * abs(value) or abs(value - last) <= CONVERGED * abs(value):
            break
        beside.append(length)
        basis.append(vector / length)
    return value


def preconditioner(optimizer: Optimizer, parameters: list[nn.Parameter]) -> Tensor | None:
    """Return the flat diagonal by which an optimizer divides its gradients.

    None if the diagonal is not known, as with `amsgrad` or `centered`. For Adam it is
    (1 - beta1^t) (sqrt(v / (1 - beta2^t)) + eps) (Cohen et al. 2022, equation 2), for RMSprop
    sqrt(v) + eps.
    """
    if type(optimizer) not in (Adam, AdamW, RMSprop):
        return None
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}
    parts = []
    for p in parameters:
        state, group = optimizer.state.get(p, {}), groups[p]
        if group.get("amsgrad") or group.get("centered"):
            return None
        if isinstance(optimizer, RMSprop):
            if "square_avg" not in state:
                return None
            parts.append(state["square_avg"].sqrt() + group["eps"])
        else:
            if "exp_avg_sq" not in state:
                return None
            beta1, beta2 = group["betas"]
            t = float(state["step"])
            root = (state["exp_avg_sq"] / (1 - beta2**t)).sqrt() + group["eps"]
            parts.append((1 - beta1**t) * root)
    return torch.cat([part.detach().flatten() for part in parts])
