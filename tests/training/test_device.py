"""Where a run computes, and by which library."""

import pytest
import torch

from optbench.runs import provenance
from optbench.training import device

SETTING = torch.backends.mkldnn.matmul


@pytest.fixture
def answers(monkeypatch):
    """What the trial and the system say: whether oneDNN is accurate, and the CPU's name."""

    def set_to(accurate: bool, cpu: str) -> None:
        monkeypatch.setattr(device, "_is_accurate", lambda: accurate)
        monkeypatch.setattr(device, "cpu_name", lambda: cpu)

    before = SETTING.fp32_precision
    yield set_to
    SETTING.fp32_precision = before


@pytest.mark.parametrize("accurate", [True, False])
@pytest.mark.parametrize(
    ("cpu", "intel"),
    [
        ("AMD EPYC 9654", False),
        ("Intel(R) Xeon(R) Processor", True),
        ("Intel64 Family 6 Model 85 Stepping 7, GenuineIntel", True),
        ("AMD64 Family 25 Model 17 Stepping 1, AuthenticAMD", False),
    ],
)
def test_products_go_to_onednn_by_the_cpus_maker_where_it_is_accurate(
    answers, accurate, cpu, intel
):
    answers(accurate, cpu)
    default = device._default_precision()
    for deterministic, expected in ((False, accurate and not intel), (True, accurate)) * 2:
        device.choose("cpu", deterministic=deterministic)
        assert SETTING.fp32_precision == (device.ONEDNN_PRECISION if expected else default)
    device.choose("cpu")


def test_the_cpu_has_a_name_with_its_maker():
    assert device.cpu_name()
    assert device.cpu_name() == provenance.machine("cpu")["cpu"]


def test_whatever_multiplies_is_float32_accurate():
    a, b = torch.randn(2, 200, 200, generator=torch.Generator().manual_seed(1))
    exact = a.double() @ b.double()
    before = SETTING.fp32_precision
    for deterministic in (False, True):
        device.choose("cpu", deterministic=deterministic)
        assert (a @ b - exact).abs().max() < 1e-4
    SETTING.fp32_precision = before
    torch.use_deterministic_algorithms(False)


def test_the_trial_leaves_the_switch_as_it_was():
    before = SETTING.fp32_precision
    device._is_accurate.cache_clear()
    assert isinstance(device._is_accurate(), bool)
    assert SETTING.fp32_precision == before
