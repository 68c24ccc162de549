"""A plan and its outcomes belong together by what their overrides mean."""

from optbench.formats import job_list


def test_outcomes_are_found_with_and_without_quotes_about_a_value() -> None:
    """As where one worker was given the words of a study, and another its folder."""
    planned = [["optimizer=sgd", "results_dir=/tmp/r"], ["optimizer=adam", "results_dir=/tmp/r"]]
    outcomes = [
        {"overrides": ["optimizer=sgd", "results_dir='/tmp/r'"], "status": "completed"},
        {"overrides": ["optimizer='adam'", 'results_dir="/tmp/r"'], "status": "failed"},
    ]
    found = job_list.progress_of({"jobs": planned}, outcomes)["jobs"]
    assert found["missing"] == []


def test_other_values_are_other_jobs() -> None:
    planned = [["optimizer=sgd", "optimizer.lr=0.1"]]
    outcomes = [{"overrides": ["optimizer=sgd", "optimizer.lr=0.2"], "status": "completed"}]
    assert len(job_list.progress_of({"jobs": planned}, outcomes)["jobs"]["missing"]) == 1
