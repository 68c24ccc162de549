"""The report's data, its escaping and its size; what a browser makes of it: test_report_browser."""

import base64
import json
import math
import re
import time

import numpy as np
import pytest
from in_process import sub_command
from made_runs import SEVEN, make_run, sweep

from optbench import load_runs
from optbench.analysis.caveats import caveats
from optbench.analysis.comparison import compare as compare_folders
from optbench.analysis.final_values import final_values
from optbench.analysis.leader import best_settings
from optbench.analysis.pairing import by_seed, owners_of
from optbench.analysis.series import assign_series
from optbench.analysis.summary import summary
from optbench.analysis.table import flatten
from optbench.analysis.verdict import verdict_texts
from optbench.common.errors import UserError
from optbench.report import page as report
from optbench.report.collect import collect
from optbench.report.page import render, source_hash
from optbench.report.sections import curves as report_curves
from optbench.report.sections.curves import facet_keys
from optbench.report.sections.verdict import margin, sentence
from optbench.report.tables import plain
from optbench.stats.pairwise import compare

main = sub_command("report")

EVIL = "<script>alert(1)</script>"


def data_of(page: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


def unpacked(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_the_page_holds_every_logged_number(tmp_path):
    sweep(tmp_path / "runs", ("adam", "sgd"), 2)
    make_run(tmp_path / "runs" / "lost", "momentum", diverged_at=40)
    assert main([str(tmp_path / "runs")]) == 0
    data = data_of((tmp_path / "runs" / "report.html").read_text("utf-8"))
    table = load_runs(tmp_path / "runs")
    plan = assign_series(table)
    curves = data["curves"]
    assert len(curves["runs"]) == 5
    for run, entry in zip(plan.runs["run"], curves["runs"], strict=True):
        own = table[table["run"] == run]
        for name in ("step", "epoch", "seconds", "train_loss", "test_accuracy"):
            got = unpacked(curves["arrays"][entry["epochs"][name]])
            np.testing.assert_allclose(got, own[name], rtol=1e-6)
    assert [entry["diverged"] for entry in curves["runs"]].count(True) == 1
    # the steps are the same in the four complete runs, and kept once
    assert len({entry["epochs"]["step"] for entry in curves["runs"]}) == 2


def test_panels_are_not_offered_by_what_only_tells_the_optimizers_apart(tmp_path):
    for name, lr in (("adam", 0.001), ("sgd", 0.1)):
        sweep(tmp_path, (name,), 2, lr=lr)
    assert set(facet_keys(assign_series(load_runs(tmp_path)))) == {"optimizer", "seed"}
    sweep(tmp_path, ("sgd",), 2, lr=0.01)
    assert "optimizer.lr" in facet_keys(assign_series(load_runs(tmp_path)))


def test_rows_are_thinned_alike_so_that_medians_have_a_grid(tmp_path, monkeypatch):
    sweep(tmp_path, ("adam",), 2)
    make_run(tmp_path / "lost", "adam", 7, diverged_at=100)
    table = load_runs(tmp_path, rows="steps")
    plan = assign_series(table)
    monkeypatch.setattr(report_curves, "MAX_ROWS", 50)
    names = report_curves.names_of(plan)
    thin = report_curves.curves({"steps": table}, plan, names, "train_loss")
    assert (thin["most"], thin["rows"]) == (50, {"steps": 361})
    steps = [unpacked(thin["arrays"][run["steps"]["step"]]) for run in thin["runs"]]
    assert (steps[0][0], steps[0][-1], len(steps[0])) == (0, 360, 50)
    assert set(steps[0]) == set(steps[1])
    (lost,) = (s for s, run in zip(steps, thin["runs"], strict=True) if run["diverged"])
    assert lost[-1] == 100
    assert set(lost[:-1]) <= set(steps[0])
    assert len(report_curves.thinned(10, 50)) == 10


@pytest.mark.slow
def test_a_hundred_runs_of_two_hundred_rows_take_seconds_and_stay_below_the_limit(tmp_path):
    for index in range(100):
        make_run(tmp_path / "runs" / f"{index:03d}", SEVEN[index % 7], index // 7, epochs=150)
    start = time.perf_counter()
    written = report.write([tmp_path / "runs"], tmp_path / "report.html")
    seconds = time.perf_counter() - start
    assert written.runs == 100
    assert written.path.stat().st_size < 1_500_000
    assert seconds < 60  # about ten on one core
    curves = data_of(written.path.read_text("utf-8"))["curves"]
    assert curves["most"] > curves["rows"]["epochs"]  # all are there
    assert curves["most"] < curves["rows"]["steps"]  # thinned, and the page says so


def test_names_that_are_markup_stay_text(tmp_path):
    evil = EVIL + "\"'&\u2028"
    for seed in range(2):
        make_run(tmp_path / "runs" / f"a{seed}", evil, seed)
        make_run(tmp_path / "runs" / f"b{seed}", "adam", seed, model__activation="</script><b>")
    failed = {"status": "failed", "error": "</script><img src=x onerror=alert(2)>"}
    make_run(tmp_path / "runs" / "c", "sgd", 9, record=failed)
    assert main([str(tmp_path / "runs")]) == 1  # the failed run is named
    page = (tmp_path / "runs" / "report.html").read_text("utf-8")
    assert EVIL not in page
    assert "onerror=alert" not in page.split('id="data">')[0]
    assert page.count("<script") == 2
    assert page.count("</script") == 2
    data = data_of(page)
    assert evil in [entry["name"] for entry in data["toggles"]]
    messages = [run["message"] for run in data["runs"]["runs"]]
    assert failed["error"] in messages


def test_the_policy_allows_the_pages_own_script_and_style_alone(tmp_path):
    page = render(collect([make_run(tmp_path / "run")]))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    script = re.search(r"<script>(.*?)</script>", page, re.S)[1]
    style = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    assert f"script-src '{source_hash(script)}';" in policy
    assert f"style-src '{source_hash(style)}';" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("):
        assert word not in script
    assert not re.search(r'(src|href)="?https?:', page.replace("https://github.com/leeoniya", ""))


def test_the_title_is_escaped(tmp_path):
    folder = tmp_path / "a<b>&c"
    make_run(folder / "run")
    page = render(collect([folder]))
    assert "<title>a&lt;b&gt;&amp;c" in page
    assert "<h1>a&lt;b&gt;&amp;c</h1>" in page


def test_the_verdict_is_that_of_the_pairs(tmp_path):
    sweep(tmp_path, ("adam", "sgd", "momentum"), 8)
    card = collect([tmp_path])["verdict"]["cards"][0]
    table = load_runs(tmp_path)
    frame = by_seed(table, "train_loss")
    assert card["leader"] == "adam"
    pairs = compare(frame, "adam", True, chosen=True).set_index("a")
    assert card["level"] == "clear"
    assert card["headline"] == "adam is better than each of the 2 others."
    data = collect([tmp_path])
    assert "Holm" not in data["verdict"]["note"]
    assert data["pairs_lead"].endswith(", as in the leader's verdict.")
    cells = data["matrices"][0]["cells"]["adam"]
    assert [cells[pair["name"]]["p"] for pair in card["against"]] == [
        pair["p"] for pair in card["against"]
    ]
    for pair in card["against"]:
        want = pairs.loc[pair["name"]]
        assert pair["difference"] == pytest.approx(want["difference"], rel=1e-5)
        assert pair["p"] == pytest.approx(want["p_corrected"])
        assert pair["word"] == "worse"
    assert card["n"] == 8


@pytest.mark.parametrize("seeds", [1, 3])
def test_few_seeds_cannot_tell(tmp_path, seeds):
    sweep(tmp_path, ("adam", "sgd"), seeds)
    card = collect([tmp_path])["verdict"]["cards"][0]
    assert card["level"] == "open"
    assert card["headline"].startswith("Cannot tell: adam is first")
    assert ("one seed shows no spread" in card["headline"]) == (seeds == 1)


def test_where_all_diverged_nobody_leads(tmp_path):
    for seed in range(6):
        make_run(tmp_path / f"a{seed}", "adam", seed, diverged_at=0)
        make_run(tmp_path / f"s{seed}", "sgd", seed, diverged_at=40)
    card = collect([tmp_path])["verdict"]["cards"][0]
    assert card["level"] == "open"
    assert "every optimizer diverged" in card["headline"]
    assert card["margin"] == ""  # no difference of 0 with an interval from 0 to 0


def test_a_single_run_gives_a_report(tmp_path):
    data = collect([make_run(tmp_path / "run")])
    assert data["verdict"]["cards"][0]["level"] == "none"
    assert data["matrices"] == []
    assert data["reached"] is None


def test_the_sentence_says_what_the_pairs_say():
    def pair(name, word, n=8):
        return {"name": name, "word": word, "n": n}

    level, text = sentence("a", [pair("b", "worse"), pair("c", "cannot tell")])
    assert (level, text) == ("partly", "a is better than b; it cannot be told from c.")
    level, text = sentence("a", [pair("b", "better")])
    assert (level, text) == ("partly", "a was chosen, yet b turned out better.")
    assert sentence("a", [pair("b", "worse")]) == ("clear", "a is better than b.")
    two = [pair("b", "worse"), pair("c", "worse")]
    assert sentence("a", two)[1] == "a is better than each of the 2 others."
    many = [pair(str(n), "worse" if n < 5 else "cannot tell") for n in range(9)]
    assert sentence("a", many, kind="settings")[1] == (
        "a is better than 5 of the 9 other settings; it cannot be told from the other 4."
    )
    assert sentence("a", many[3:], kind="both")[1] == (
        "a is better than 3 and 4; it cannot be told from the other 4."
    )
    alone = sentence("a", two, kind="settings")[1]
    assert alone == "a is better than each of the 2 other settings."


def test_each_optimizer_competes_at_its_best_setting(tmp_path):
    for lr in (0.0001, 0.003):
        sweep(tmp_path, ("adam", "sgd"), 6, lr=lr)
    table = load_runs(tmp_path)
    frame = by_seed(table, "train_loss")
    assert best_settings(frame, owners_of(frame)) == ["adam lr=0.003", "sgd lr=0.003"]
    data = collect([tmp_path])
    assert len(data["verdict"]["cards"][0]["against"]) == 1
    assert data["rates"][0]["lines"][0]["x"] == [0.0001, 0.003]
    assert len(data["toggles"]) == 2
    assert len(data["names"]) == 4


def test_a_problem_is_named_with_its_key(tmp_path):
    for norm in (True, False):
        sweep(tmp_path / str(norm), ("adam", "sgd"), 2, model__batch_norm=norm)
    data = collect([tmp_path])
    for table in (data["ranking"], data["reached"]):
        named = {row["cells"][0]["t"] for row in table["rows"]}
        assert named == {"model.batch_norm=true", "model.batch_norm=false"}
    assert "model.batch_norm=true: validation loss" in data["reached_figure"]["svg"]


def test_the_headline_says_that_other_settings_were_left_out(tmp_path):
    sweep(tmp_path / "other", ("adam", "sgd", "momentum"), 8, lr=0.003)
    sweep(tmp_path / "far", ("adam",), 8, lr=1e-6)
    card = collect([tmp_path])["verdict"]["cards"][0]
    want = "adam lr=0.003 is better than the best setting of each of the 2 other optimizers."
    assert card["headline"] == want
    for lr in (1e-5, 1e-6):
        sweep(tmp_path / "alone" / str(lr), ("adam",), 8, lr=lr)
    sweep(tmp_path / "alone" / "best", ("adam",), 8, lr=0.003)
    card = collect([tmp_path / "alone"])["verdict"]["cards"][0]
    assert card["headline"] == "adam lr=0.003 is better than each of the 2 other settings."


def test_a_tuned_study_has_both_phases_side_by_side(tmp_path):
    for name in ("adam", "sgd", "momentum"):
        for index, lr in enumerate((0.0001, 0.001, 0.003, 0.01)):
            make_run(tmp_path / "trials" / f"{name}{index}", name, 0, lr=lr, phase="trials")
        for seed in range(1, 7):
            make_run(tmp_path / "tuned" / f"{name}{seed}", name, seed, lr=0.003, phase="tuned")
            make_run(tmp_path / "default" / f"{name}{seed}", name, seed, lr=0.01, phase="default")
    data = collect([tmp_path])
    assert data["verdict"]["column"] == "test loss"
    # one test for the verdict and for the pairs
    assert "over all pairs" in data["verdict"]["note"]
    assert "as in the leader's verdict" in data["pairs_lead"]
    led = data["verdict"]["cards"][0]
    cells = data["matrices"][0]["cells"][led["leader"]]
    assert [cells[pair["name"]]["p"] for pair in led["against"]] == [
        pair["p"] for pair in led["against"]
    ]
    assert data["verdict"]["cards"][0]["leader"] == "adam"
    assert "learning rate" in data["verdict"]["cards"][0]["rate"]
    columns = data["ranking"]["columns"]
    at = columns.index("tuned: final test loss")
    assert columns[at + 1] == "default: final test loss"
    values = [row["cells"][at]["v"] for row in data["ranking"]["rows"]]
    assert values == sorted(values)
    table = load_runs(tmp_path / "tuned")
    adam = final_values(table[table["optimizer"] == "adam"], "test_loss").median()
    row = next(row for row in data["ranking"]["rows"] if row["toggle"] == "adam")
    assert row["cells"][at]["v"] == pytest.approx(adam, rel=1e-5)
    assert [len(line["dots"]) for line in data["rates"][0]["lines"]] == [4, 4, 4]
    assert [line["x"] for line in data["budget"][0]["lines"]] == [[1, 2, 3, 4]] * 3
    assert data["ranks"]["rows"][0][0] == "adam"
    assert len(data["curves"]["runs"]) == 36  # the trials' curves are left out, not their runs
    assert len(data["runs"]["runs"]) == 48


def test_caveats_of_a_tuned_study_speak_of_the_verdicts_value(tmp_path):
    for name, lr in (("adam", 0.003), ("nesterov", 0.0001)):
        make_run(tmp_path / "trials" / name, name, 0, lr=lr, phase="trials")
        for phase in ("tuned", "default"):
            for seed in range(1, 4):
                make_run(tmp_path / phase / f"{name}{seed}", name, seed, lr=lr, phase=phase)
    made = compare_folders([tmp_path])
    assert (made.judged, made.final) == ("test_loss", "train_loss")
    told = [text for text in caveats(made) if "is first by" in text]
    assert len(told) == 2
    assert all("first by median test loss" in text for text in told)
    assert "first by median test loss" in verdict_texts(made)[0]
    assert list(summary(made, "test_loss")["phase"]) == ["tuned"] * 2 + ["default"] * 2
    assert [part["phase"].iloc[0] for part in made.plan.panels] == ["tuned", "default"]
    made.table["test_loss"] = math.nan  # log.eval_test=never
    assert made.judged == "train_loss"


def test_the_next_is_the_second_of_the_ranked_table(tmp_path):
    trials = {"adam": 0.003, "nesterov": 0.0001, "momentum": 0.003}
    finals = {"adam": 0.003, "nesterov": 0.003, "momentum": 0.0001}
    for name in trials:
        make_run(tmp_path / "trials" / name, name, 0, lr=trials[name], phase="trials")
        for seed in range(1, 7):
            make_run(
                tmp_path / "tuned" / f"{name}{seed}", name, seed, lr=finals[name], phase="tuned"
            )
    table = load_runs(tmp_path / "trials")
    tried = final_values(table, "val_loss").groupby(
        table.drop_duplicates("run").set_index("run")["optimizer"].astype(str)
    )
    assert list(tried.min().sort_values().index) == ["adam", "momentum", "nesterov"]
    data = collect([tmp_path])
    card = data["verdict"]["cards"][0]
    ranked = [row["toggle"] for row in data["ranking"]["rows"]]
    assert ranked[1:] == [pair["name"] for pair in card["against"]] == ["nesterov", "momentum"]
    assert card["margin"].startswith(
        "These settings, of 1 search each: the next, nesterov, differs in final test loss (lower "
        "is better) by "
    )
    assert card["problem"] == "mlp on mnist_5k"


def test_few_pairs_have_no_interval():
    pair = {"name": "b", "n": 3, "difference": 0.5, "low": -math.inf, "high": math.inf, "p": 0.5}
    text = "The next, b, differs in final training loss (lower is better) by +0.5 (no 95 % "
    text += "interval at n = 3), p = 0.5."
    assert margin([pair], "train_loss") == text
    assert "\u2212∞ to +1, n = 3" in margin([pair | {"high": 1.0}], "train_loss")
    assert margin([pair], "train_loss", first=False).startswith("The best other, b, ")


def test_what_a_figure_draws_of_an_optimizer_can_be_found_in_it(tmp_path):
    sweep(tmp_path, ("adam", "sgd", EVIL), 6)
    sweep(tmp_path, ("adam", "sgd", EVIL), 6, model__batch_norm=True)
    data = collect([tmp_path])
    for image in (data["reached_figure"], data["ranks"]):
        ids = re.findall(r'id="(optimizer-[^"]*)"', image["svg"])
        assert len(set(ids)) == len(ids) > 4
        assert {image["groups"][name.split(".")[0]] for name in ids} == {"adam", "sgd", EVIL}


def test_what_is_diverged_failed_or_missing_is_listed(tmp_path):
    sweep(tmp_path, ("adam", "sgd"), 2)
    make_run(tmp_path / "lost", "momentum", 0, diverged_at=40)
    make_run(tmp_path / "bad", "sgd", 5, record={"status": "failed", "error": "no memory"})
    first = {"planned": 2, "jobs": [["optimizer=adam"], ["optimizer=nadam"]]}
    jobs = [
        first,
        {"job": 0, "overrides": ["optimizer=adam"], "status": "completed"},
        {"job": 2, "overrides": ["optimizer=no"], "status": "failed", "error": "there is no no"},
    ]
    (tmp_path / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    data = collect([tmp_path])
    assert data["failed_jobs"] == [{"command": "optimizer=no", "message": "there is no no"}]
    told = {run["run"]: run["message"] for run in data["runs"]["runs"] if run["message"]}
    assert told == {"lost": "the loss was not finite at step 40", "bad": "no memory"}
    planned = "planned and not run: optimizer=nadam"
    assert data["missing"] == ["momentum lacks seed 1", planned]
    rows = data["ranking"]["rows"]
    cells = next(row["cells"] for row in rows if row["toggle"] == "momentum")
    assert "diverged" in [cell["t"] for cell in cells]


def test_the_configuration_of_a_run_can_be_put_together_again(tmp_path):
    folder = sweep(tmp_path, ("adam", "sgd"), 2)
    runs = collect([folder])["runs"]
    for entry in runs["runs"]:
        record = json.loads((folder / entry["run"] / "run.json").read_text())
        want = {k: v for k, v in flatten(record["config"]).items() if "._" not in k}
        got = {k: v for k, v in (runs["shared"] | entry["differs"]).items() if "._" not in k}
        assert set(got) == set(want)
        assert got["seed"] == str(want["seed"])
        assert f"seed={want['seed']}" in entry["command"] or want["seed"] == 0


def test_the_machine_is_told_and_no_place_on_it(tmp_path):
    machine = {"system": "Linux x86_64", "cpu": "a fast one", "cores": "2"}
    for seed in range(2):
        keys = {"results_dir": "/home/me/results", "data__root": "/home/me/data"}
        make_run(tmp_path / f"{seed}", "adam", seed, record={"machine": machine}, **keys)
    data = collect([tmp_path])
    (told,) = data["machines"]
    assert (told["runs"], told["facts"]["cpu"]) == (2, "a fast one")
    assert "/home/me" not in json.dumps(data)


def test_numbers_that_json_lacks_become_text_or_null():
    value = {"a": math.inf, "b": math.nan, "c": np.float64(1 / 3), "d": np.array([1, -math.inf])}
    assert plain(value) == {"a": "inf", "b": None, "c": 0.333333, "d": [1, "-inf"]}
    assert plain(True) is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nowhere"], "there is no folder"),
        (["{tmp}/empty"], "no finished run found"),
        (["{tmp}/runs", "-o", "{tmp}/runs"], "is a folder; give the name of a file"),
        (["{tmp}/runs", "-o", "{tmp}/runs/run/run.json/x.html"], "cannot write"),
        (["{tmp}/runs", "--where", "optimizer=nadam"], "no run with optimizer = nadam"),
        (["{tmp}/runs", "--y", "train_los"], "no logged column 'train_los'"),
        (["{tmp}/runs", "{tmp}/runs"], "several folders were given"),
    ],
)
def test_mistakes_are_named(tmp_path, capsys, arguments, message):
    make_run(tmp_path / "runs" / "run")
    (tmp_path / "empty").mkdir()
    assert main([word.format(tmp=tmp_path) for word in arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("optbench: ")
    assert message in error


def test_the_same_files_give_the_same_page(tmp_path):
    sweep(tmp_path, ("adam", "sgd", "momentum"), 6)
    assert render(collect([tmp_path])) == render(collect([tmp_path]))


def test_the_page_can_have_a_title(tmp_path):
    for name in ("a", "b"):
        make_run(tmp_path / name, seed=ord(name))
    folders = [str(tmp_path / name) for name in ("a", "b")]
    out = tmp_path / "page.html"
    assert main([*folders, "-o", str(out), "--title", "Adam & <b>co</b>"]) == 0
    assert "<h1>Adam &amp; &lt;b&gt;co&lt;/b&gt;</h1>" in out.read_text("utf-8")


def test_missing_folder_is_made(tmp_path):
    make_run(tmp_path / "run")
    out = tmp_path / "new" / "page.html"
    assert main([str(tmp_path / "run"), "-o", str(out)]) == 0
    assert out.exists()
    with pytest.raises(UserError):
        report.write([tmp_path / "nowhere"], out)


def test_the_page_of_a_study_with_a_claim_has_its_verdict(tmp_path):
    sweep(tmp_path, ("adam", "sgd"), 6)
    sides = [{"optimizer": name} for name in ("adam", "sgd")]
    check = {"value": "train_loss", "lower": sides[0], "than": sides[1]}
    (tmp_path / "claim.json").write_text(json.dumps({"text": "Adam is faster.", "checks": [check]}))
    found = collect([tmp_path])["claim"]
    assert (found["text"], found["word"], found["level"]) == ("Adam is faster.", "held", "clear")
    (told,) = found["checks"]
    assert told["word"] == "held"
    assert told["text"].startswith("final training loss: ")
    assert "by another test: its p may differ" in found["tests"][0]
    assert len(found["tests"]) == 1  # no setting was chosen
    # the claim is about all runs
    assert collect([tmp_path], ["optimizer=adam"])["claim"] is None


def test_the_width_of_good_rates_is_of_the_leaders_other_settings(tmp_path):
    for momentum, rates in ((0.9, (0.001, 0.003, 0.01)), (0.0, (0.03, 0.1))):
        for lr in rates:
            for seed in range(2):
                folder = tmp_path / f"{momentum}-{lr}-{seed}"
                make_run(folder, "momentum", seed, lr=lr, optimizer__momentum=momentum)
    (card,) = collect([tmp_path])["verdict"]["cards"]
    assert card["leader"] == "momentum lr=0.003"
    assert re.search(r"\b3 (learning )?rates tried", card["rate"]), card["rate"]
