"""A misspelt name gets the name that was most likely meant."""

import pytest

from optbench.common.names import did_you_mean, edits, nearest
from optbench.config.comments import GROUPS, likely_keys
from optbench.formats.groups import choices


@pytest.mark.parametrize(
    ("a", "b", "count"),
    [("", "abc", 3), ("adma", "adam", 1), ("adma", "adamax", 2), ("mpl", "mlp", 1), ("x", "x", 0),
     ("ca", "abc", 3), ("kitten", "sitting", 3)],
)  # fmt: skip
def test_an_exchange_of_neighbours_is_one_edit(a, b, count):
    assert edits(a, b) == edits(b, a) == count


@pytest.mark.parametrize(
    ("group", "word", "name"),
    [
        ("optimizer", "adma", "adam"),
        ("optimizer", "sdg", "sgd"),
        ("optimizer", "ADAM", "adam"),
        ("optimizer", "nestrov", "nesterov"),
        ("optimizer", "adam_w", "adamw"),
        ("optimizer", "textbook_adam", "textbook/adam"),
        ("dataset", "mnsit", "mnist"),
        ("dataset", "fashion", "fashion_mnist"),
        ("dataset", "cifar-10", "cifar10"),
        ("model", "mpl", "mlp"),
        ("model", "ncn", "cnn"),
        ("loss", "crossentropy", "cross_entropy"),
        ("problem", "fmnist_2cd2", "fmnist_2c2d"),
        ("schedule", "warmup", "warmup_cosine"),
        ("study", "momentum", "claims/momentum"),
        ("study", "claims/mom", "claims/momentum"),
        ("optimizer", "ada", "adam"),
    ],
)
def test_the_nearest_choice_is_the_one_meant(group, word, name):
    assert nearest(word, choices(group)) == [name]


@pytest.mark.slow
def test_every_name_with_two_letters_exchanged_gets_itself():
    for names in (list(GROUPS), *(list(choices(group)) for group in GROUPS)):
        for name in names:
            for at in range(len(name) - 1):
                word = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
                near = nearest(word, names)
                assert near == [name] or edits(word, near[0]) <= 1


@pytest.mark.parametrize(
    ("key", "name"), [("epcohs", "epochs"), ("optimzier", "optimizer"), ("optimizer.rl", "lr")]
)
def test_the_nearest_key_is_the_one_meant(key, name):
    assert likely_keys(key)[0].endswith(name)


def test_nothing_is_proposed_where_nothing_is_near():
    assert did_you_mean("zzz", ["adam", "sgd"]) == did_you_mean("", ["adam"]) == ""
