"""Hints never name keys that only studies set, nor speak for a class of the user's."""

from optbench.config.comments import chosen_by, likely_keys


def test_a_misspelt_key_of_tuning_is_not_the_studys_own_key() -> None:
    assert likely_keys("tuning.repeat")[0] == "tuning.repeats"
    assert "repeat" not in likely_keys("repeats")


def test_what_a_class_of_the_users_has_is_not_known() -> None:
    assert chosen_by(["model=mlp"])["model"] == ["mlp"]
    assert "model" not in chosen_by(["model._target_=my.Model", "model.width=16"])
