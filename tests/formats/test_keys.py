"""The table of config keys names each key of conf/config.yaml, and what is derived from it."""

from collections.abc import Iterable

import pytest
import yaml

from optbench.formats import keys
from optbench.formats.groups import config_folder
from optbench.formats.keys import KEYS, Key, Role


def dotted(tree: dict, prefix: str = "") -> set[str]:
    """All keys of a YAML file; a claim holds what a study puts there."""
    found = set()
    for key, value in tree.items():
        found.add(prefix + key)
        if isinstance(value, dict):
            found |= dotted(value, f"{prefix}{key}.")
    return found


def filled(names: Iterable[str]) -> dict:
    """A configuration with any values, and empty groups of keys."""
    return {name: {} if keys.nested_keys(name) else "set" for name in names}


def test_the_table_and_the_configuration_have_the_same_keys():
    whole = yaml.safe_load((config_folder() / "config.yaml").read_text("utf-8"))
    chosen = {next(iter(entry)) for entry in whole.pop("defaults") if isinstance(entry, dict)}
    del whole["hydra"]
    groups = {name for name in chosen if not name.startswith("override ")}
    assert dotted(whole) | groups == {*KEYS, *keys.OVERLAYS}
    assert groups == {*keys.GROUPS, "logger", *keys.OVERLAYS}


def test_each_key_of_an_identity_has_one_place_in_it():
    for name, key in KEYS.items():
        assert not (key.role & Role.PROBLEM and key.role & Role.RUN), name
        told = key.role & (Role.PROBLEM | Role.RUN)
        if key.role & (Role.SWEEP | Role.STUDY | Role.ENDING | Role.UNRECORDED | Role.NO_EFFECT):
            assert not told, f"{name} is left out of a run's command, and part of the run"
        if "." not in name and key.before is not ...:
            assert told, f"{name} is no part of an identity"


def test_a_key_that_came_later_is_described_where_it_is_set():
    config = filled(keys.TOP_KEYS) | {"data": {"targets": "labels", "root": "x"}}
    config |= {"drop_last": False}
    part = keys.identity_part(config, Role.PROBLEM)
    assert part["data"] == {}
    assert "drop_last" not in part
    config |= {"drop_last": True, "data": {"targets": "inputs", "root": "x", "new": 1}}
    part = keys.identity_part(config, Role.PROBLEM)
    assert part["data"] == {"targets": "inputs", "new": 1}
    assert part["drop_last"] is True


def read_table_anew() -> None:
    keys.having.cache_clear()
    keys.nested_keys.cache_clear()


@pytest.fixture
def uncached():
    """Let the table be read anew, before and after a test that changes it."""
    read_table_anew()
    yield
    read_table_anew()


def test_one_line_in_the_table_makes_a_key(uncached, monkeypatch):
    """It is checked, described, and known as a key of a sweep by that line alone."""
    from optbench.config import validate

    key = Key(Role.RUN | Role.COSMETIC, keys.Count(1, "things"), before=1)
    monkeypatch.setitem(KEYS, "things", key)
    config = filled(KEYS) | {"things": 2}
    assert keys.identity_part(config, Role.RUN)["things"] == 2
    assert "things" not in keys.identity_part(config | {"things": 1}, Role.RUN)
    assert "things" in keys.having(Role.COSMETIC)
    assert "at least 1 (things)" in validate._mistake(0, key.check)
