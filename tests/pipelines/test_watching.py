"""Runs in training are watched: their steps, terms and evaluation points, on the screen too; nothing else changes."""

import ast
import io
import os
import pty
import re
import sys
import termios
import time
import weakref
from collections import OrderedDict, defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from tqdm import tqdm

import pipelines
from featcache.progress import Bar
from heads.methods import rna
from pipelines.cli import _shared, main
from pipelines.config import Optim
from pipelines.training import engine, groups, watching
from pipelines.training import train as training
from pipelines.training.runs import Run
from pipelines.training.watching import Course, News, Watch
from tests.conftest import ROOT
from tests.helpers.stores import run, write_all
from tests.pipelines.test_cli import commands

SOURCE = """
from heads.methods import rna, source_only
from heads.nets import adapter
from pipelines.config import Feed, Optim, RunConfig

RUNS = [
    RunConfig(
        manifest="toy", method=source_only.Params(), net=adapter.Params(dim=8), row="source-only", source=("day",),
        feeds={{"rgb": Feed("hog"), "flow": Feed("hof")}}, test="night", steps={steps}, epoch="source", batch=(6, 6),
        optim=Optim(lr=0.05, clip_norm=5.0), seed=seed,
    )
    for seed in range({seeds})
]
"""


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("stores"))


@pytest.fixture
def at_every_step(monkeypatch):
    monkeypatch.setattr(watching, "SECONDS", 0.0)
    monkeypatch.setattr(watching, "MOST", 0.0)


def experiment(folder, *, seeds=2, steps=12):
    (folder / "toy.py").write_text(SOURCE.format(seeds=seeds, steps=steps))
    return folder / "toy.py"


def train_head(folder, stores, *words):
    words = ["train-head", experiment(folder), "--stores", stores, "--runs", folder / "runs", "--workers", 1, *words]
    return CliRunner().invoke(main, list(map(str, words)))


def heard(configs, stores, folder, **options):
    """All news of the training of these runs."""
    news = []
    outcomes = engine.run_all(configs, stores, folder, hear=news.append, logs=True, **options)
    assert {outcome.status for outcome in outcomes} == {"trained"}
    return news


def lines_and_points(news):
    """Run -> its lines, and run -> its points, as the news had them, from the last beginning of the run on."""
    lines, points = defaultdict(list), defaultdict(list)
    for each in news:
        for config in each.begun:
            lines[config.id], points[config.id] = [], []
        for name in each.runs:
            lines[name] += each.lines.get(name, [])
            points[name] += each.points.get(name, [])
    return lines, points


def adapting(**changes):
    return run(method=rna.Params(), target="night", epoch=4, eval_every=3, keep=3, **changes)


TOGETHER = pytest.param(4, 1, id="in one pass")
WORKERS = pytest.param(2, 2, id="workers", marks=pytest.mark.slow)


@pytest.mark.parametrize(("seeds", "workers"), [pytest.param(1, 1, id="alone"), TOGETHER, WORKERS])
def test_news_have_what_the_log_and_the_facts_get(stores, tmp_path, monkeypatch, at_every_step, seeds, workers):
    monkeypatch.setattr(groups, "GAIN", 0)
    configs = [adapting(seed=seed) for seed in range(seeds)]
    news = heard(configs, stores, tmp_path, workers=workers)
    lines, points = lines_and_points(news)
    for config in configs:
        finished = Run.open(tmp_path / config.id)
        assert finished.facts.batched == (seeds if seeds >= groups.FEWEST else 0)
        assert lines[config.id] == finished.log()
        assert points[config.id] == list(finished.points)
        steps = [each.step for each in news if config.id in each.runs]
        assert steps[0] == 0
        assert steps == sorted(steps)
        assert steps[-1] == config.steps
    if workers == 1:  # a new step each time
        assert len(news) == 1 + configs[0].steps + 1  # the beginning, and the last point


def test_watching_changes_no_byte_of_a_run(stores, tmp_path, at_every_step):
    config = adapting()
    heard([config], stores, tmp_path / "watched")
    engine.run_all([config], stores, tmp_path / "alone")
    names = {path.name for path in (tmp_path / "alone" / config.id).iterdir()} - {"run.json", "SHA256SUMS"}
    assert {"config.json", "log.jsonl", "outputs.npz"} < names
    for name in names:
        files = [tmp_path / which / config.id / name for which in ("watched", "alone")]
        assert files[0].read_bytes() == files[1].read_bytes(), name


def test_news_are_rare_and_kept_runs_have_none(stores, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(watching.time, "monotonic", lambda: now[0])
    news = heard([run()], stores, tmp_path)
    assert [each.step for each in news] == [0, 12]
    assert news[-1].lines[run().id] == Run.open(tmp_path / run().id).log()
    again = []
    assert engine.run_all([run()], stores, tmp_path, hear=again.append)[0].status == "kept"
    assert again == []


def test_news_that_cost_much_are_rarer(monkeypatch):
    """They take a hundredth of the time at most, unless this means fewer than one in a second."""
    now, heard = [0.0], []

    def hear(news):
        heard.append(now[0])
        now[0] += cost

    monkeypatch.setattr(watching.time, "monotonic", lambda: now[0])
    for cost, pause in ((0.0005, 0.1), (0.005, 0.5), (0.2, 1.0)):
        heard.clear()
        watch = Watch(hear)
        watch.begin(run())
        for step in range(1, 300):
            now[0] += 0.01
            watch.stepped(step, {"L": torch.zeros(())})
        pauses = [later - earlier - cost for earlier, later in pairwise(heard)]
        assert pauses == pytest.approx([pause] * len(pauses), abs=0.011)
        assert len(pauses) >= 2


def test_a_watch_that_nobody_hears_keeps_nothing():
    watch, terms, scores = Watch(logs=True), {"L": torch.zeros(())}, OrderedDict(step=1.0, infomax=0.5)
    watch.begin(run())
    watch.stepped(1, terms)
    watch.point(run().id, scores)
    left = [weakref.ref(terms["L"]), weakref.ref(scores)]
    del terms, scores
    assert [each() for each in left] == [None, None]


@pytest.mark.slow
@pytest.mark.parametrize("shown", [True, False], ids=["bar", "quiet"])
def test_news_take_less_than_a_fiftieth_of_training(tmp_path, stores, monkeypatch, shown):
    """Processor time, the best of three runs. Trackers are not measured: docs/guide.md has their cost."""
    spent, printed = defaultdict(float), io.StringIO()

    def timed(place, name):
        work = getattr(place, name)

        def measured(*args, **options):
            began = time.thread_time()
            try:
                return work(*args, **options)
            finally:
                spent[name] += time.thread_time() - began

        monkeypatch.setattr(place, name, measured)

    timed(Watch, "stepped")
    timed(training, "fit")
    mine, shares = experiment(tmp_path, seeds=1, steps=2000), list[float]()
    for runs in "abc":
        spent.clear()
        with tqdm(file=printed, disable=not shown) as bar:
            progress = Bar(bar) if shown else False
            (outcome,) = pipelines.train(mine, stores, tmp_path / runs, workers=1, progress=progress)
        assert outcome.status == "trained"
        assert spent["fit"]
        shares.append(spent["stepped"] / spent["fit"])
    assert (len(set(re.findall(r"(\d+) of 2000 steps", printed.getvalue()))) > 5) == shown
    assert min(shares) < 0.02


def test_a_run_that_fails_has_told_its_last_terms(stores, tmp_path, monkeypatch):
    news = []
    config = run(optim=Optim(lr=1e30))
    (outcome,) = engine.run_all([config], stores, tmp_path, hear=news.append, logs=True)
    assert outcome.status == "failed"
    lines, _ = lines_and_points(news)
    assert int(re.search(r"at step (\d+)", outcome.note)[1]) in [line["step"] for line in lines[config.id]]


# ------------------------------------------------------------------------------------------------------------- the bar


def test_the_time_left_is_that_of_the_steps_to_make(monkeypatch):
    """Kept and failed runs are done at once, and make the others look no faster."""
    now = [1000.0]
    monkeypatch.setattr(watching.time, "monotonic", lambda: now[0])
    kept, failed, *others = [run(seed=seed, steps=100) for seed in range(5)]
    course = Course([kept, failed, *others])
    assert course.left() is None
    course.ended(kept.id)
    now[0] += 60  # of loading
    course.hear(News((failed.id,), 0, (failed,)))
    now[0] += 2
    course.hear(News((failed.id,), 20))
    assert course.left() == pytest.approx(38)  # of 380 steps
    course.ended(failed.id)
    assert course.left() == pytest.approx(30)
    now[0] += 4
    course.hear(News(tuple(each.id for each in others[:2]), 40))  # in one pass
    assert course.left() == pytest.approx(6 / 100 * 220)
    course.hear(News(tuple(each.id for each in others[:2]), 0))  # the pass has failed: they begin again
    assert course.left() == pytest.approx(6 / 100 * 300)
    assert (course.done, course.total) == (200, 500)
    for each in others:
        course.ended(each.id)
    assert course.left() == 0
    assert course.done == 500


def test_runs_without_steps_count():
    configs = [run(seed=seed, steps=0) for seed in range(3)]
    course = Course(configs)
    course.ended(configs[0].id)
    assert (course.done, course.total) == (1, 3)


def in_a_terminal(monkeypatch, write, columns=0):
    """The text that `write()` prints to stderr, which is a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24 if columns else 0, columns))
    with ThreadPoolExecutor() as pool:
        printed = pool.submit(all_of, ours)
        with os.fdopen(theirs, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", terminal)
            write()
        return printed.result()


def all_of(terminal):
    """All that is printed in a terminal until its program ends."""
    printed = b""
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:  # the end on Linux
            part = b""
        if not part:
            os.close(terminal)
            return printed.decode()
        printed += part


@pytest.mark.parametrize("columns", [0, 80, 200])
def test_in_a_terminal_the_bar_moves_with_loss_and_validators(monkeypatch, columns):
    config = run(steps=1000, row="RNA {UDA}")

    def write():
        course = Course([config])
        with _shared.progress_bar("train toy", "step") as bar:
            bar.bar.delay = bar.bar.mininterval = 0
            for step in range(0, 1000, 100):
                points = {config.id: [{"step": step, "infomax": 0.5}]} if step == 500 else {}
                course.hear(News((config.id,), step, loss=1 / (1 + step), points=points))
                course.show(bar)

    printed = in_a_terminal(monkeypatch, write, columns)
    shown = [part for part in printed.split("\r") if "steps" in part]
    percents = [int(re.search(r"(\d+)%", part)[1]) for part in shown]
    assert percents == sorted(percents)
    assert len(set(percents)) >= 9
    assert "0 of 1 runs, 900 of 1000 steps [" in shown[-1]
    assert all(len(part.rstrip("\n")) <= columns for part in shown) or not columns
    if columns != 80:
        assert "RNA {UDA}: loss 0.00111, infomax 0.5" in shown[-1]


# --------------------------------------------------------------------------------------------------- without a terminal


def test_outside_a_terminal_progress_is_lines(stores, tmp_path, monkeypatch, at_every_step):
    monkeypatch.setattr(_shared, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(_shared, "DELAY", 0.0)
    done = train_head(tmp_path, stores)
    assert done.exit_code == 0
    assert re.search(r"^train toy:  50%, 1 of 2 runs, 12 of 24 steps \[.*source-only: loss", done.stderr, re.MULTILINE)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", done.stderr)
    assert done.stdout == f"{tmp_path / 'runs'}\n"


def test_quiet_prints_only_the_end(stores, tmp_path, monkeypatch, at_every_step):
    monkeypatch.setattr(_shared, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(_shared, "DELAY", 0.0)
    done = train_head(tmp_path, stores, "--quiet")
    assert done.exit_code == 0
    assert "%" not in done.stderr
    assert done.stderr.startswith("2 trained in ") or "one by one" in done.stderr.splitlines()[0]
    loud = train_head(tmp_path, stores)  # the option of one command is not that of the next
    assert not _shared.is_quiet()
    assert loud.exit_code == 0


def test_every_command_with_a_bar_has_quiet():
    """Its function, or one that it calls in its file, shows a bar."""
    with_bar, quiet = set(), set()
    for path, command in commands():
        quiet |= {path} if any(each.name == "quiet" for each in command.params) else set()
        code = command.callback
        while hasattr(code, "__wrapped__"):
            code = code.__wrapped__
        tree = ast.parse(Path(code.__code__.co_filename).read_text())
        calls = {
            each.name: {node.id for node in ast.walk(each) if isinstance(node, ast.Name)}
            for each in tree.body
            if isinstance(each, ast.FunctionDef)
        }
        reached = [code.__name__]
        for name in reached:
            reached += [other for other in calls.get(name, ()) if other not in reached]
        with_bar |= {path} if "progress_bar" in reached else set()
    assert quiet == with_bar
    assert {("train-head",), ("sweep",), ("extract",), ("evaluate",), ("weights", "fetch")} <= quiet


@pytest.mark.slow
def test_the_bar_of_5000_steps_moves_in_a_terminal(stores, tmp_path):
    words = ["train-head", experiment(tmp_path, seeds=1, steps=5000), "--stores", stores, "--runs", tmp_path / "runs"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "pipelines.cli", *map(str, words)])
    steps = [int(each) for each in re.findall(r"(\d+) of 5000 steps", all_of(terminal))]
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert steps == sorted(steps)
    assert len(set(steps)) >= 5
    assert steps[-1] == 5000
