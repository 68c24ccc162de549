"""Where a run computes, and by which library."""

import pytest
import torch

from optbench.training import device

SETTING = torch.backends.mkldnn.matmul


@pytest.fixture
def answers(monkeypatch):
    """What the trials find: (accurate, faster)."""

    def set_to(accurate: bool, faster: bool) -> None:
        monkeypatch.setattr(device, "_is_accurate", lambda: accurate)
        monkeypatch.setattr(device, "_is_faster", lambda: faster)

    before = SETTING.fp32_precision
    yield set_to
    SETTING.fp32_precision = before


@pytest.mark.parametrize("accurate", [True, False])
@pytest.mark.parametrize("faster", [True, False])
def test_products_go_to_onednn_where_it_is_accurate_and_faster(answers, accurate, faster):
    answers(accurate, faster)
    default = device._default_precision()
    for deterministic, expected in ((False, accurate and faster), (True, accurate)):
        device.choose("cpu", deterministic=deterministic)
        assert SETTING.fp32_precision == (device.ONEDNN_PRECISION if expected else default)
    device.choose("cpu")
    assert SETTING.fp32_precision == (device.ONEDNN_PRECISION if accurate and faster else default)


def test_a_worker_takes_its_parents_word(answers, monkeypatch):
    monkeypatch.setattr(device, "_onednn_decision", [])
    answers(True, True)
    device.choose("cpu")
    assert device.products() == "oneDNN"
    device.set_onednn_decision(False)
    device.choose("cpu")
    assert device.products() == "default"


def test_whatever_multiplies_is_float32_accurate():
    a, b = torch.randn(2, 200, 200, generator=torch.Generator().manual_seed(1))
    exact = a.double() @ b.double()
    before = SETTING.fp32_precision
    for deterministic in (False, True):
        device.choose("cpu", deterministic=deterministic)
        assert (a @ b - exact).abs().max() < 1e-4
    SETTING.fp32_precision = before
    torch.use_deterministic_algorithms(False)


def test_the_trials_leave_the_switch_as_it_was():
    before = SETTING.fp32_precision
    for trial in (device._is_accurate, device._is_faster):
        trial.cache_clear()
        assert isinstance(trial(), bool)
        assert SETTING.fp32_precision == before
