"""Fast composition gives what Hydra's own gives."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import OmegaConf

from optbench.config.hydra_internals import VERSION_BASE, WANTS_NAMES
from optbench.formats.groups import config_folder
from optbench.sweeps.sweep_loader import SweepLoader

MASTERS = (
    ["study=comparison"],
    [
        "hydra.sweep.dir='/a b'",
        "+hydra.job.env_set.A=b",
        "hydra.sweep.subdir=${hydra:job.num}",
        "hydra.job.chdir=true",
    ],
)
JOBS = (
    [],
    ["optimizer=sgd", "seed=2"],
    ["optimizer=sgd", "seed=3", "optimizer.lr=0.5", "+optimizer.dampening=0.1"],
    ["optimizer=sgd", "~optimizer.lr"],
    ["~optimizer.lr", "optimizer=adam"],
    ["+optimizer.new={a:1,b:[1,2]}", "optimizer.new.a=3"],
    ["++optimizer.other=1", "++seed=4"],
    ["optimizer._target_=torch.optim.NAdam", "optimizer.lr=${seed}", "seed=7"],
    ["batch_size=full", "preprocessing=none", "name='a=b, c'", "data.subset=null"],
    ["problem=fmnist_2c2d", "epochs=3"],
    ["epochs=3", "problem=fmnist_2c2d", "dataset=digits"],
    ["study=fair_comparison", "model.hidden=[3,4]", "hydra.sweep.subdir=trials"],
    ["~schedule", "+schedule=cosine"],
    ["optimizer={_target_:a.B,lr:1}"],
    ["hydra.job.name=mine", "phase=trials", "seed=0"],
    ["optimizer=textbook/adam", "figure.lines=optimizer.lr", "initializer.weight=null"],
    ["hydra={}"],
    ["results_dir=${oc.env:HOME}/x", "optimizer.search.lr.low=1e-6"],
    ["hydra.sweep.subdir=${hydra:job.num}", "optimizer.lr=${oc.env:NOSUCH}"],
)
WRONG = (
    ["optimiser=sgd"], ["optimizer=nosuch"], ["optimizer.lrr=1"], ["~nothing"], ["seed=1,2"],
    ["+seed=1"], ["seed"], ["hydra.nothing=1"], ["optimizer.lr.x=1"], ["++optimizer=sgd"],
    ["+a@b=1"],
    ["model@model=cnn"],
)  # fmt: skip


@pytest.fixture
def hydra_loader():
    with initialize_config_dir(str(config_folder()), **VERSION_BASE):
        yield GlobalHydra.instance().config_loader()


@pytest.mark.parametrize("master", MASTERS)
def test_it_composes_what_hydra_composes(hydra_loader, master):
    config = hydra_loader.load_configuration("config", master, RunMode.MULTIRUN)
    fast = SweepLoader(hydra_loader)
    jobs = JOBS if master == MASTERS[0] else JOBS[1:4]
    for overrides in jobs:
        try:
            expected = hydra_loader.load_sweep_config(config, overrides)
        except ConfigCompositionException:
            assert WANTS_NAMES, overrides  # Hydra 1.4 refuses a study, and what changes aliases
            continue
        for _ in range(2):  # the second time from the kept composition
            got = fast.load_sweep_config(config, overrides)
            assert got == expected
            assert OmegaConf.to_yaml(got) == OmegaConf.to_yaml(expected)
            assert OmegaConf.is_struct(got)
            assert OmegaConf.get_type(got, "hydra") is OmegaConf.get_type(expected, "hydra")
            assert got._metadata.flags == expected._metadata.flags
            assert got.hydra._metadata.flags == expected.hydra._metadata.flags


def test_one_job_leaves_no_trace_in_the_next(hydra_loader):
    config = hydra_loader.load_configuration("config", [], RunMode.MULTIRUN)
    fast = SweepLoader(hydra_loader)
    before = fast.load_sweep_config(config, ["optimizer=sgd"])
    changed = fast.load_sweep_config(config, ["optimizer=sgd", "+optimizer.new={a:[1]}"])
    changed.optimizer.new.a.append(2)
    assert fast.load_sweep_config(config, ["optimizer=sgd"]) == before
    again = fast.load_sweep_config(config, ["optimizer=sgd", "+optimizer.new={a:[1]}"])
    assert again.optimizer.new.a == [1]


def test_what_was_looked_at_is_taken_once(hydra_loader):
    config = hydra_loader.load_configuration("config", [], RunMode.MULTIRUN)
    fast = SweepLoader(hydra_loader)
    seen = fast.load_sweep_config(config, ["seed=1"])
    taken = fast.take_config(config, ["seed=1"])
    assert taken is seen
    taken.seed = 2
    again = fast.take_config(config, ["seed=1"])
    assert (again.seed, again is seen) == (1, False)
    other = hydra_loader.load_configuration("config", ["hydra.job.name=mine"], RunMode.MULTIRUN)
    fast.load_sweep_config(config, ["seed=4"])
    assert fast.take_config(other, ["seed=4"]).hydra.job.name == "mine"


@pytest.mark.parametrize("overrides", WRONG)
def test_mistakes_are_refused_with_hydras_words(hydra_loader, overrides):
    config = hydra_loader.load_configuration("config", [], RunMode.MULTIRUN)
    with pytest.raises(Exception) as expected:  # noqa: PT011
        hydra_loader.load_sweep_config(config, overrides)
    with pytest.raises(type(expected.value)) as got:
        SweepLoader(hydra_loader).load_sweep_config(config, overrides)
    assert str(got.value) == str(expected.value)
