"""Muon for the hidden matrices of a model, and AdamW for all other parameters."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from optbench.optimizers.parts import Parted, flattened

KIND = "kind"  # the entry of a group that names the kind of its layers (`layers.KINDS`)


class MuonWithAdamW(Parted):
    """torch.optim.Muon for matrices, torch.optim.AdamW for all other parameters.

    Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix. A matrix is a parameter of
    two dimensions; with `flatten_kernels` a convolution's kernel is one too, of shape
    (out, in * height * width). Biases and norms go to AdamW. `hidden_only` also gives embeddings
    and the head to AdamW. Where groups do not name their `kind`, the first and the last
    weight count as embedding and head. A model without hidden matrices then has AdamW only.

    lr: of Muon. adamw_lr_ratio: AdamW's lr divided by Muon's, so that one lr tunes and schedules
    both. weight_decay: of both, decoupled. Muon's groups come first in `param_groups`.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        weight_decay: float = 0.01,
        adamw_lr_ratio: float = 0.015,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        adamw_eps: float = 1e-8,
        adjust_lr_fn: str | None = None,
        hidden_only: bool = False,
        flatten_kernels: bool = False,
        fused: bool | None = None,
    ) -> None:
        if adamw_lr_ratio < 0:
            raise ValueError(f"adamw_lr_ratio must be at least 0, not {adamw_lr_ratio}")
        settings = {"lr": lr, "weight_decay": weight_decay}
        groups = [settings | group for group in _as_groups(params)]
        weights = [p for group in groups for p in group["params"] if p.ndim >= 2]
        told = any(KIND in group for group in groups)
        outer = {weights[0], weights[-1]} if hidden_only and weights and not told else set()

        def is_matrix(p: nn.Parameter, kind: str | None) -> bool:
            fits = p.ndim == 2 or (
                flatten_kernels and p.ndim > 2 and kind in (None, "conv", "head")
            )
            inner = kind not in ("embedding", "head") if hidden_only and told else p not in outer
            return fits and inner and kind != "norm"

        matrices, others = [], []
        for given in groups:
            group = {key: value for key, value in given.items() if key != KIND}
            mine = [p for p in group["params"] if is_matrix(p, given.get(KIND))]
            rest = [p for p in group["params"] if not is_matrix(p, given.get(KIND))]
            if mine:
                matrices.append(group | {"params": mine})
            if rest:
                others.append(group | {"params": rest, "lr": group["lr"] * adamw_lr_ratio})
        parts: list[Optimizer] = []
        if matrices:
            matrices = _merged(matrices)
            with flattened([p for group in matrices for p in group["params"]]):
                muon = torch.optim.Muon(
                    matrices,
                    momentum=momentum,
                    nesterov=nesterov,
                    ns_steps=ns_steps,
                    adjust_lr_fn=adjust_lr_fn,
                )
            parts.append(muon)
        if others:
            others = _merged(others)
            adamw = torch.optim.AdamW(others, betas=adamw_betas, eps=adamw_eps, fused=fused)
            parts.append(adamw)
        flat = [isinstance(part, torch.optim.Muon) and flatten_kernels for part in parts]
        super().__init__(parts, flat, settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; see torch.optim.Optimizer."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        super().step()
        return loss


def _as_groups(params: ParamsT) -> list[dict[str, Any]]:
    entries: list[Any] = list(params)
    if entries and isinstance(entries[0], dict):
        return [group | {"params": list(group["params"])} for group in entries]
    return [{"params": entries}]


def _merged(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the groups with equal settings as one, in the order of their first."""
    found: dict[str, dict[str, Any]] = {}
    for group in groups:
        settings = repr({key: value for key, value in group.items() if key != "params"})
        if settings in found:
            found[settings]["params"] = [*found[settings]["params"], *group["params"]]
        else:
            found[settings] = dict(group)
    return list(found.values())
