"""Two rows or two runs side by side: numbers by hand and by loops, marks, refusals, and the section of the report."""

import csv
import dataclasses
import io
import itertools
import json
import math
import re

import numpy as np
import pytest
from click.testing import CliRunner

from featcache import Manifest
from featcache.errors import ConfigError
from heads.batch import Spec
from heads.methods import rna
from pipelines.cli import main
from pipelines.evaluation import results
from pipelines.evaluation.evaluate import evaluate, predictions, ranked
from pipelines.experiments import Experiment
from pipelines.measures.intervals import over_clips
from pipelines.measures.outcomes import checksum, encode, of_clips
from pipelines.measures.paired import mcnemar
from pipelines.report import write as report
from pipelines.tables import comparing, sides
from pipelines.training import runs as run_folders
from pipelines.training.train import train
from tests.helpers import caption_stores, skeleton_stores
from tests.helpers.result_rows import result
from tests.helpers.stores import CLASSES, manifest, run

TRUTH = np.repeat([0, 1, 2], 4)  # of the 12 test clips of each domain: 4 of each class
HEADS = ["shift", "seed", "clip", "truth", "a", "b", "right"]
SOURCE_ONLY = run(train_split="train")
A = [0, 0, 0, 1, 1, 1, 0, 0, 2, 2, 2, 2]  # right: 3 of chop, 2 of peel, 4 of stir
B = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 1, 1]  # right: 4 of chop, 4 of peel, 2 of stir


@pytest.fixture
def folder(tmp_path):
    """A folder of stores with a manifest of three domains, and no stores: `compare` reads none."""
    write_manifest(tmp_path, manifest(("day", "night", "dusk"), train=1, test=4))
    return tmp_path


def write_manifest(folder, clips):
    clips.write(folder / "stores" / clips.name / "manifest.csv")


def keep(folder, config, predicted, *, truth=None, evaluated=True, read=None, **facts):
    """A run whose outputs are these classes of the test clips of its domain, and its result; label -> classes."""
    clips = Manifest.read(folder / "stores" / "toy" / "manifest.csv")
    rows = np.array([k for k, clip in enumerate(clips) if (clip.domain, clip.split) == (config.test, "test")])
    predicted = predicted if isinstance(predicted, dict) else {"label": predicted}
    counts = {label: len(names) for label, names in clips.classes.items()}
    spec = Spec(shapes={"rgb": (4,)}, windows={"rgb": 1}, classes=counts, rows={"source": 3}, domains=("day",))
    facts = {
        "read": read or {"manifest": clips.sha256, "store rgb": "5" * 64},
        "points": [{"step": step} for step in config.points],
        "note": "",
        "recipes": {"rgb": "a" * 64},
        "untrained": [],
        "collapsed": [],
    } | facts
    scores = {name: np.eye(counts[name], dtype=np.float32)[np.array(k)] for name, k in predicted.items()}
    outputs = {name: np.stack([each] * config.kept) for name, each in scores.items()} | {"rows": rows}
    log = [{"L_C": 1.0}] * config.steps
    path = folder / "runs" / config.id
    run_folders.write(path, config, spec, facts, log=log, weights={}, outputs=outputs)
    if evaluated:
        right = np.array(next(iter(predicted.values()))) == TRUTH
        metric = "top1" if len(predicted) == 1 else "top1/action"
        counted = dataclasses.replace(of_clips(right), clips=checksum(clips.sha256, rows))
        changes = {"clips": encode(counted), "read": facts["read"], "untrained": tuple(facts["untrained"])}
        results.append(folder / "runs" / "results.jsonl", [result(config, right.mean(), metric, n=12, **changes)])
    return path


def rna_run(**changes):
    return run(**{"row": "RNA", "method": rna.Params(), "target": changes.get("test", "night"), **changes})


def command(folder, *words):
    """(exit code, stdout and stderr) of `featcache compare`."""
    where = ["--stores", folder / "stores", "--runs", folder / "runs"]
    done = CliRunner().invoke(main, [str(word) for word in ("compare", *words, *where)])
    assert done.exit_code in (0, 1, 2), done.output
    return done.exit_code, done.output


def part(comparison, name):
    (found,) = [part for part in comparison.parts if part.heading.startswith(name)]
    return found


def two_runs(folder, a=SOURCE_ONLY, b=None):
    """The comparison of A and B."""
    paths = keep(folder, a, A), keep(folder, b or rna_run(), B)
    return comparing.compare(sides.of_runs(*paths), folder / "stores")


# ------------------------------------------------------------------------------------------------------------- the test


@pytest.mark.parametrize("n", range(13))
def test_mcnemar_is_the_share_of_outcomes_that_are_as_uneven(n):
    """By enumeration of all 2^n ways in which n clips can be right in A or in B, which are equally likely."""
    unevenness = [abs(2 * sum(of_b) - n) for of_b in itertools.product((0, 1), repeat=n)]
    for only_b in range(n + 1):
        share = np.mean([uneven >= abs(2 * only_b - n) for uneven in unevenness])
        assert math.isclose(mcnemar(n - only_b, only_b), share)


def test_two_runs_by_hand(folder):
    compared = two_runs(folder)
    assert part(compared, "McNemar").grid[1] == ["12", "2", "3", "1"]  # 2 of stir; 1 of chop and 2 of peel
    assert part(compared, "Classes").grid == [
        ["class", "clips", "A", "B", "B - A"],
        ["peel", "4", "50.0", "100.0", "+50.0"],
        ["chop", "4", "75.0", "100.0", "+25.0"],
        ["stir", "4", "100.0", "50.0", "-50.0"],
    ]
    assert part(compared, "Clips").grid == [
        ["clip", "truth", "A", "B"],
        ["night_chop_test3", "chop", "peel", "chop"],
        ["night_peel_test2", "peel", "chop", "peel"],
        ["night_peel_test3", "peel", "chop", "peel"],
        ["night_stir_test2", "stir", "stir", "peel"],
        ["night_stir_test3", "stir", "stir", "peel"],
    ]


def test_results_have_the_interval_over_clips(folder):
    a, b = ({"day→night": {0: of_clips(np.array(given) == TRUTH)}} for given in (A, B))
    interval = over_clips(b, a).times(100)
    (_, line) = part(two_runs(folder), "Results").grid
    assert line == ["top1", "day→night", "75.0", "83.3", "+8.3", f"[{interval.low:+.1f}, {interval.high:+.1f}] n.d."]


def test_settings_and_facts_that_differ_have_both_values(folder):
    paths = keep(folder, SOURCE_ONLY, A), keep(folder, rna_run(seed=3), B, untrained=["rgb"], recipes={"rgb": "b" * 64})
    grid = part(comparing.compare(sides.of_runs(*paths), folder / "stores"), "Settings").grid
    found = {name: (a, b) for name, a, b in grid[1:]}
    assert found["method.name"] == ("source_only", "rna")
    assert found["target"] == ("none", "night")
    assert found["seed"] == ("0", "3")
    assert found["method.lambda_g"] == ("–", str(rna.Params().lambda_g))
    assert found["recipe of rgb"] == ("a" * 8, "b" * 8)
    assert found["untrained weights"] == ("none", "rgb")
    assert not found.keys() & {"row", "steps", "test", "net.dim", "content of rgb"}


# ---------------------------------------------------------------------------------------------------------------- rows


def random_rows(folder, shifts, seeds=(0, 1, 2)):
    """An experiment of two rows with random answers: A by domain and seed, and B; and these answers."""
    rng, runs, given = np.random.default_rng(0), [], {}
    for name, make in (("source-only", run), ("RNA", rna_run)):
        for source, test in shifts:
            for seed in seeds:
                config = make(source=(source,), test=test, seed=seed)
                given[name, source, test, seed] = rng.integers(0, 3, 12)
                keep(folder, config, given[name, source, test, seed])
                runs.append(config)
    return Experiment("toy", "Toy.", tuple(runs)), given


def compared_rows(folder, experiment, **options):
    rows = results.read(folder / "runs" / "results.jsonl")
    two = sides.of_rows(experiment, "source-only", "RNA", rows, folder / "runs", **options)
    return comparing.compare(two, folder / "stores")


def test_a_clip_counts_once_whatever_the_number_of_its_seeds_and_shifts(folder):
    """By loops. Two of the three shifts end in the same domain, so that they share their clips."""
    shifts = [("day", "night"), ("dusk", "night"), ("night", "day")]
    experiment, given = random_rows(folder, shifts)

    def won(test_shifts):
        """(clips, only A, only B)"""
        gains = {}
        for source, test in test_shifts:
            for k, truth in enumerate(TRUTH):
                for seed in (0, 1, 2):
                    right = [given[name, source, test, seed][k] == truth for name in ("source-only", "RNA")]
                    gains[test, k] = gains.get((test, k), 0) + right[1] - right[0]
        return len(gains), sum(g < 0 for g in gains.values()), sum(g > 0 for g in gains.values())

    grid = part(compared_rows(folder, experiment), "McNemar").grid
    expected = [won([shift]) for shift in shifts] + [won(shifts)]
    assert expected[-1][0] == 24
    assert [line[1:5] for line in grid[1:]] == [[*map(str, e), f"{mcnemar(*e[1:]):.2g}"] for e in expected]


def test_seeds_that_tell_the_sides_apart_are_counted(folder):
    experiment = Experiment("toy", "", tuple(make(seed=seed) for make in (run, rna_run) for seed in (0, 1)))
    wrong, right = (TRUTH + 1) % 3, TRUTH
    for config, given in zip(experiment.runs, (wrong, wrong, right, [*right[:3], *wrong[3:]]), strict=True):
        keep(folder, config, given)
    line = part(compared_rows(folder, experiment), "McNemar").grid[1]
    assert line == ["12", "0", "12", "0.00049", "B 1 of 2"]  # 2 / 2^12; with 3 clips p is 0.25


def test_the_file_of_clips_has_each_seed_of_each_clip_that_one_side_has_right(folder):
    experiment, given = random_rows(folder, [("day", "night"), ("night", "day")], seeds=(0, 1))
    lines = list(csv.DictReader(io.StringIO(comparing.clips_csv(compared_rows(folder, experiment)))))
    expected = []
    for source, test in (("day", "night"), ("night", "day")):
        for seed, (k, truth) in itertools.product((0, 1), enumerate(TRUTH)):
            a, b = (given[name, source, test, seed][k] for name in ("source-only", "RNA"))
            if (a == truth) != (b == truth):
                clip, side = f"{test}_{CLASSES[truth]}_test{k % 4}", "A" if a == truth else "B"
                expected.append([f"{source}→{test}", str(seed), clip, CLASSES[truth], CLASSES[a], CLASSES[b], side])
    assert [[line[name] for name in HEADS] for line in lines] == expected


def test_one_shift_can_be_chosen_and_numbers_are_those_of_the_table(folder):
    experiment, given = random_rows(folder, [("day", "night"), ("night", "day")], seeds=(0, 1))
    whole = part(compared_rows(folder, experiment), "Results").grid
    one = part(compared_rows(folder, experiment, shifts=["night->day"]), "Results").grid
    assert [line[1] for line in whole[1:]] == ["day→night", "night→day", "mean"]
    assert one == [whole[0], whole[2]]
    shares = [
        100 * np.mean([np.mean(given["RNA", *s, k] == TRUTH) for s in (("day", "night"), ("night", "day"))])
        for k in (0, 1)
    ]
    assert whole[3][3] == f"{np.mean(shares):.1f} ± {np.std(shares, ddof=1):.1f}"


def test_means_over_shifts_are_of_the_seeds_that_all_shifts_have(folder):
    """Seeds 0 and 1 of one shift, 1 and 2 of the other: their intervals pair equal seeds, not equal places."""
    _, given = random_rows(folder, [("day", "night"), ("night", "day")])
    shifts = (("day", "night", 0), ("day", "night", 1), ("night", "day", 1), ("night", "day", 2))
    runs = [make(source=(s,), test=t, seed=k) for make in (run, rna_run) for s, t, k in shifts]
    *_, line = part(compared_rows(folder, Experiment("toy", "", tuple(runs))), "Results").grid
    a, b = (
        {
            t: {1: dataclasses.replace(of_clips(given[name, s, t, 1] == TRUTH), clips=t)}
            for s, t in (shifts[0][:2], shifts[3][:2])
        }
        for name in ("source-only", "RNA")
    )
    interval, mean = over_clips(b, a).times(100), [np.mean([of[1].value for of in side.values()]) for side in (a, b)]
    assert line[1:4] == ["mean", *(f"{100 * share:.1f}" for share in mean)]
    assert line[5].startswith(f"[{interval.low:+.1f}, {interval.high:+.1f}]")


def test_pairs_without_a_result_are_left_out_and_named(folder):
    experiment, _ = random_rows(folder, [("day", "night")], seeds=(0, 1))
    extra = tuple(make(seed=2) for make in (run, rna_run))
    keep(folder, extra[0], A)
    compared = compared_rows(folder, dataclasses.replace(experiment, runs=(*experiment.runs, *extra)))
    assert {line[2] for line in compared.lines} == {"0", "1"}
    assert any(note.loud and "MISSING" in note.text and "RNA" in note.text for note in compared.notes)


# --------------------------------------------------------------------------------------------------------------- marks


def test_reference_oracle_and_untrained_runs_are_marked(folder):
    a = run(source=("night",), row="supervised")
    b = rna_run(select="oracle", eval_every=6, keep=2)
    paths = keep(folder, a, A), keep(folder, b, B, untrained=["rgb"])
    code, text = command(folder, *(path.name for path in paths))
    assert code == 0
    assert f"A: {a.id} (supervised) †" in text
    assert f"B: {b.id} (RNA) (oracle)\n" in text
    for mark in ("ORACLE", "UNTRAINED WEIGHTS in rgb", "† trained on labels", "Fidelity: adapter"):
        assert mark in text


def test_a_run_that_starts_from_one_that_saw_the_labels_is_marked(folder):
    first = run(source=("night",), row="first")
    second = run(init_from=first.id, row="second")
    paths = keep(folder, first, A), keep(folder, second, B)
    for a, b, marks in ((*paths, (True, True)), (keep(folder, SOURCE_ONLY, A), paths[1], (False, True))):
        compared = comparing.compare(sides.of_runs(a, b), folder / "stores")
        assert tuple("†" in title for title in compared.titles) == marks


# --------------------------------------------------------------------------------------------------------- label kinds


def test_label_kinds_are_compared_one_by_one_and_together(tmp_path):
    nouns = {"chop": "leek", "peel": "leek", "stir": "pan"}
    write_manifest(tmp_path, manifest(train=1, test=4, labels=lambda d, s, name: {"verb": name, "noun": nouns[name]}))
    noun = np.repeat([0, 1], (8, 4))
    swapped = [*noun[:11], 0]  # wrong about the last clip, a stir
    paths = (
        keep(tmp_path, SOURCE_ONLY, {"verb": A, "noun": swapped}),
        keep(tmp_path, rna_run(), {"verb": B, "noun": noun}),
    )
    compared = comparing.compare(sides.of_runs(*paths), tmp_path / "stores")
    tests = {line[0]: line[1:4] for line in part(compared, "McNemar").grid[1:]}
    assert tests == {"verb": ["12", "2", "3"], "noun": ["12", "0", "1"], "action": ["12", "1", "3"]}
    stir = ["action", "pan, stir", "4", "75.0", "50.0", "-25.0"]
    assert stir in part(compared, "Classes").grid


# ------------------------------------------------------------------------------------------------- the other two tasks


def test_retrieval_compares_the_ranks_of_queries(tmp_path):
    stores = caption_stores.write_all(tmp_path / "stores", uncaptioned=(25,))
    configs = [caption_stores.run(steps=steps) for steps in (2, 40)]
    paths = [train(config, stores, tmp_path / "runs") for config in configs]
    for path in paths:
        results.append(tmp_path / "runs" / "results.jsonl", evaluate(path, stores))
    compared = comparing.compare(sides.of_runs(*paths), stores)
    a, b = ({way: rank for way, (rank, _) in ranked(path, stores).items()} for path in paths)
    tests = {line[0]: line[1:4] for line in part(compared, "McNemar").grid[1:]}
    of_captions = run_folders.Run.open(paths[0]).outputs["clip"]
    for way, clip_of in (("t2v", of_captions), ("v2t", np.arange(6))):
        gains = {}  # clip -> captions that only B finds - captions that only A finds: a clip has one to three
        for k in np.flatnonzero(~np.isnan(a[way])):
            gains[clip_of[k]] = gains.get(clip_of[k], 0) + int(b[way][k] == 0) - int(a[way][k] == 0)
        counts = len(gains), sum(gain < 0 for gain in gains.values()), sum(gain > 0 for gain in gains.values())
        assert tests[way] == [*map(str, counts)]
    moves = np.sort(np.abs(b["t2v"] - a["t2v"]))[::-1]
    listed = [abs(float(line[-1])) for line in part(compared, "Queries").grid[1:] if line[0] == "t2v"]
    assert listed == moves[moves > 0][: len(listed)].tolist()
    assert len(listed) == min((moves > 0).sum(), 20)
    line = next(line for line in compared.lines if line[0] == "t2v")
    place = [clip.clip_id for clip in caption_stores.captions(caption_stores.clips(), [25])].index(line[3])
    k = run_folders.Run.open(paths[0]).outputs["captions"].tolist().index(place)
    assert line[4] == line[3].partition("#")[0]
    assert [float(rank) - 1 for rank in line[5:7]] == [a["t2v"][k], b["t2v"][k]]


@pytest.mark.slow
def test_clustering_compares_matched_clusters(tmp_path):
    stores = skeleton_stores.write_all(tmp_path / "stores")
    configs = [skeleton_stores.run(row=row, seed=seed) for seed, row in enumerate(("one", "other"))]
    paths = [train(config, stores, tmp_path / "runs") for config in configs]
    for path in paths:
        results.append(tmp_path / "runs" / "results.jsonl", evaluate(path, stores))
    compared = comparing.compare(sides.of_runs(*paths), stores)
    tests = part(compared, "McNemar")
    assert [line[0] for line in tests.grid[1:]] == ["B0", "B1"]
    for branch, *line in tests.grid[1:]:
        a, b = (predictions(path, stores, branch=branch) for path in paths)
        right = a.truth == a.predicted, b.truth == b.predicted
        counts = len(a.truth), (right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum()
        assert line[:3] == [*map(str, counts)]
    assert any("k-means" in text for text in tests.texts)


# ------------------------------------------------------------------------------------------------------------- refusals


def one_sentence(folder, *words):
    """The error of `compare` about these names."""
    code, text = command(folder, *words)
    assert (code, text.count("\n"), text[:7]) == (1, 1, "Error: "), text
    return text


def test_runs_that_cannot_be_compared_are_refused_in_one_sentence(folder):
    a = keep(folder, SOURCE_ONLY, A)
    b = rna_run()
    assert b.id in one_sentence(folder, a.name, b.id)  # not trained
    nearly = a.name[:-1]
    assert nearly in (text := one_sentence(folder, a.name, nearly))
    assert f"did you mean {a.name}" in text
    assert "itself" in one_sentence(folder, a.name, a.name)
    path = keep(folder, b, B, evaluated=False)
    assert b.id in (text := one_sentence(folder, a.name, b.id))
    assert "featcache evaluate" in text
    other = keep(folder, run(test="dusk"), B)
    assert "'night'" in (text := one_sentence(folder, a.name, other.name))
    assert "'dusk'" in text
    changed = keep(folder, run(seed=7), B, read={"manifest": "0" * 64})
    assert "manifest 'toy'" in one_sentence(folder, a.name, changed.name)
    (path / "outputs.npz").write_bytes(b"")
    assert "outputs.npz" in (text := one_sentence(folder, a.name, b.id))
    assert "train the run again" in text


def test_results_of_an_earlier_training_are_not_those_of_the_run(folder):
    a = keep(folder, SOURCE_ONLY, A)
    b = keep(folder, rna_run(), B)
    facts = json.loads((b / "run.json").read_text())
    keep(folder, rna_run(), B, evaluated=False, read=facts["read"] | {"store rgb": "6" * 64})
    assert "featcache evaluate" in one_sentence(folder, a.name, b.name)


def test_rows_that_cannot_be_compared_are_refused(folder):
    experiment, _ = random_rows(folder, [("day", "night")], seeds=(0,))
    rows = results.read(folder / "runs" / "results.jsonl")

    def refused(a, b, match, rows=rows, **options):
        with pytest.raises(ConfigError, match=match):
            sides.of_rows(experiment, a, b, rows, folder / "runs", **options)

    refused("source-only", "RNN", "'RNN'.*'RNA'")
    refused("RNA", "RNA", "itself")
    refused("source-only", "RNA", "'day→nigh'.*'day→night'", shifts=["day->nigh"])
    refused(
        "source-only",
        "RNA",
        "featcache train-head .*--only source-only --only RNA",
        rows=[row for row in rows if row.row == "RNA"],
    )


@pytest.mark.parametrize("words", [["kitchens"], ["kitchens", "a", "b", "c"], ["a", ""], ["a", "b", "--shift", "x→y"]])
def test_a_wrong_number_of_names_is_a_mistake_of_usage(folder, words):
    assert command(folder, *words)[0] == 2


def test_an_experiment_without_rows_is_told_from_a_run(folder):
    assert "'ROW'" in one_sentence(folder, "kitchens", "source-only")


# ----------------------------------------------------------------------------------------------- command and report


def test_the_command_compares_rows_of_a_file_and_writes_the_clips(folder):
    for config in (run(seed=0), rna_run(seed=0)):
        keep(folder, config, A if config.row == "source-only" else B)
    (folder / "mine.py").write_text(
        '"""Mine."""\nimport dataclasses\nfrom heads.methods import rna\nfrom tests.helpers.stores import run\n'
        'RUNS = [run(), run(row="RNA", method=rna.Params(), target="night")]\n'
    )
    clips = folder / "new" / "clips.csv"
    code, text = command(folder, folder / "mine.py", "source-only", "RNA †", "--clips", clips)
    assert code == 0, text
    assert text.startswith("A: source-only\nB: RNA\n")
    assert "| night_chop_test3 | " in text
    assert len(clips.read_text().splitlines()) == 1 + 5


def test_the_command_compares_two_settings_of_a_sweep(folder):
    for weight, classes in ((0.1, A), (1.0, B)):
        keep(folder, rna_run(seed=0, method=rna.Params(lambda_g=weight)), classes)
    (folder / "mine.py").write_text(
        '"""Mine."""\nfrom heads.methods import rna\nfrom tests.helpers.stores import run\n'
        'RUNS = [run(row="RNA", method=rna.Params(), target="night")]\n'
    )
    rows = "RNA, lambda_g = 0.1", "RNA, lambda_g = 1"
    code, text = command(folder, folder / "mine.py", *rows, "--grid", "method.lambda_g=0.1,1")
    assert code == 0, text
    assert re.search(r"method.lambda_g \| 0.1 \| 1.0 ", text)


@pytest.mark.parametrize("named", [None, ("RNA", "source-only")])
def test_the_report_has_the_comparison(folder, named):
    experiment, _ = random_rows(folder, [("day", "night"), ("night", "day")], seeds=(0, 1))
    rows = results.read(folder / "runs" / "results.jsonl")
    out = folder / "page.html"
    report.write(experiment, rows, folder / "runs", folder / "stores", out, compared=named)
    text, (a, b) = out.read_text(), named or ("source-only", "RNA")
    assert f"<h2>{b} compared with {a}</h2>" in text
    compared = comparing.compare(sides.of_rows(experiment, a, b, rows, folder / "runs"), folder / "stores")
    for line in part(compared, "McNemar").grid[1:]:
        assert "".join(f"<td>{cell}</td>" for cell in line[1:]) in text
    assert ("--compare RNA source-only" in text) == bool(named)


def test_the_report_has_the_reason_where_a_run_is_missing(folder):
    experiment, _ = random_rows(folder, [("day", "night")], seeds=(0,))
    rows = results.read(folder / "runs" / "results.jsonl")
    report.write(experiment, rows, folder / "no runs", folder / "stores", folder / "page.html")
    assert "No comparison: no finished run" in (folder / "page.html").read_text()
    with pytest.raises(ConfigError, match="nix"):
        report.write(experiment, rows, folder, folder / "stores", folder / "page.html", compared=("RNA", "nix"))
