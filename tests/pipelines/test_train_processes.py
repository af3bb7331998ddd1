"""train-head in several processes: stopped by signals, killed, and twice at once on the same runs."""

import re
import threading
import time

import numpy as np
import pytest

from featcache.errors import BusyError
from featcache.files import claim_of, claimed
from pipelines import experiments
from pipelines.training import engine
from pipelines.training.runs import Run
from pipelines.training.train import train
from tests.helpers.processes import children, command, gone, listening, stopped, wait_for
from tests.helpers.stores import run, write_all

FILE = """
from tests.helpers.stores import run
quick = [run(seed=seed) for seed in range({quick})]
RUNS = (*quick, *(run(seed=seed, init_from=quick[0].id) for seed in range({later})), *(
    run(seed=seed, steps=10**7) for seed in range({endless})
))
"""


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("stores"))


def experiment(tmp_path, *, quick, later=0, endless=0):
    """The file of an experiment, and its runs: quick ones, some that start from the first, and some without an end."""
    path = tmp_path / "e.py"
    path.write_text(FILE.format(quick=quick, later=later, endless=endless))
    return path, experiments.load(path).runs


def train_head(path, stores, runs, *words):
    return command("train-head", path, "--stores", stores, "--runs", runs, *words)


def left(runs):
    """Names in the folder of runs that are neither runs nor shared tensors."""
    return [path.name for path in runs.iterdir() if path.name.startswith(".")]


def counts(stderr):
    """Status -> number of runs, as train-head prints them."""
    (line,) = re.findall(r"^((?:\d+ [a-z]+(?:, )?)+) in [\d.]+ s$", stderr, re.MULTILINE)
    return {status: int(n) for n, status in re.findall(r"(\d+) ([a-z]+)", line)}


# ------------------------------------------------------------------------------------------------------------- stopped


SIGNALS = [("SIGINT to all", 130), ("SIGINT", 130), ("SIGTERM", 143), ("SIGTERM to all", 143)]


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), SIGNALS)
def test_one_signal_ends_it_and_the_same_command_goes_on(stores, tmp_path, how, code):
    path, configs = experiment(tmp_path, quick=2, endless=2)
    runs = tmp_path / "runs"
    process = train_head(path, stores, runs, "--workers", 2)
    finished, begun = configs[:2], configs[2:]
    assert wait_for(lambda: all(claim_of(runs / config.id).exists() for config in begun))
    workers = children(process.pid)
    assert len(workers) == 2
    returncode, seconds, stderr = stopped(process, how)
    assert gone(workers)
    assert returncode == code
    assert seconds < 10  # on a busy machine; 0.1 s on an idle one
    assert counts(stderr) == {"trained": 2}
    assert re.search(r"Stopped by \S+ after 2 of 4 runs; finished work is kept, .*same command", stderr)
    assert "Traceback" not in stderr
    for config in finished:
        assert len(Run.open(runs / config.id).log()) == config.steps
    assert not any((runs / config.id).exists() or claim_of(runs / config.id).exists() for config in begun)
    outcomes = engine.run_all(finished, stores, runs)
    assert [outcome.status for outcome in outcomes] == ["kept", "kept"]
    alone = engine.run_all(finished, stores, tmp_path / "alone")  # in this process
    assert [Run.open(o.folder).log() for o in alone] == [Run.open(o.folder).log() for o in outcomes]


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(stores, tmp_path):
    path, configs = experiment(tmp_path, quick=0, endless=2)
    runs = tmp_path / "runs"
    process = train_head(path, stores, runs, "--workers", 2)
    assert wait_for(lambda: all(claim_of(runs / config.id).exists() for config in configs))
    workers = children(process.pid)
    stopped(process, "SIGKILL")
    assert gone(workers)


# ------------------------------------------------------------------------------------------------------- twice at once


def test_a_run_that_another_process_trains_is_refused_by_train_and_named(stores, tmp_path):
    folder = tmp_path / run().id
    with claimed(folder), pytest.raises(BusyError, match=f"{folder}.*process [0-9]+"):
        train(run(), stores, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("other", ["finishes", "fails"])
def test_a_claimed_run_comes_last_and_is_kept_or_trained(stores, tmp_path, other):
    """The other process is a thread here: locks are between open files."""
    first, second = run(), run(seed=1)
    told, claim, release = [], threading.Event(), threading.Event()

    def other_process():
        with claimed(tmp_path / first.id):
            claim.set()
            release.wait(60)
            if other == "finishes":
                elsewhere = train(first, stores, tmp_path / "elsewhere")
                elsewhere.rename(tmp_path / first.id)

    def report(outcome, done, total):
        told.append((outcome.config.seed, outcome.status, done))
        if outcome.config is second:
            release.set()

    thread = threading.Thread(target=other_process)
    thread.start()
    claim.wait(60)
    outcomes = engine.run_all([first, second], stores, tmp_path, report=report)
    thread.join()
    last = {"finishes": "kept", "fails": "trained"}[other]
    assert told == [(0, "busy", 0), (1, "trained", 1), (0, last, 2)]
    assert [outcome.status for outcome in outcomes] == ["trained", last]
    assert Run.open(tmp_path / first.id).config == first
    assert left(tmp_path) == []


def test_the_lock_of_a_process_that_was_killed_after_its_run_is_removed(stores, tmp_path):
    train(run(), stores, tmp_path)
    claim_of(tmp_path / run().id).touch()
    assert [outcome.status for outcome in engine.run_all([run()], stores, tmp_path)] == ["kept"]
    assert left(tmp_path) == []


def together(path, configs, stores, runs, workers):
    """Two processes at once; the counts of each, and the logs of all runs."""
    alone = ("--batch", "off")  # runs that share a pass differ in their last digits
    processes = [train_head(path, stores, runs, "--workers", workers, *alone) for _ in range(2)]
    ended = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    assert left(runs) == []
    return [counts(stderr) for _, stderr in ended], [Run.open(runs / config.id).log() for config in configs]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_two_processes_share_the_runs(stores, tmp_path, workers):
    path, configs = experiment(tmp_path, quick=4, later=2)
    both, logs = together(path, configs, stores, tmp_path / "runs", workers)
    assert all(sum(each.values()) == len(configs) for each in both)
    assert sum(each.get("trained", 0) for each in both) == len(configs)  # each run once
    assert {status for each in both for status in each} <= {"trained", "kept"}
    engine.run_all(configs, stores, tmp_path / "alone", batch="off")
    assert logs == [Run.open(tmp_path / "alone" / config.id).log() for config in configs]


@pytest.mark.slow
def test_two_processes_with_kills_end_with_all_runs(stores, tmp_path):
    """One of the two is killed, or stopped, at a random moment, six times; the other one finishes everything."""
    random = np.random.default_rng(0)
    path, configs = experiment(tmp_path, quick=8, later=4)
    for repeat in range(6):
        runs = tmp_path / f"runs{repeat}"
        processes = [train_head(path, stores, runs, "--workers", 2) for _ in range(2)]
        victim = processes[repeat % 2]
        assert listening(victim)
        wait_for(lambda folder=runs: folder.exists() and any(folder.iterdir()))
        time.sleep(random.uniform(0, 0.5))
        workers = children(victim.pid)
        code, _, stderr = stopped(victim, ["SIGKILL", "SIGINT to all", "SIGTERM"][repeat % 3])
        assert code in (-9, 130, 143, 0)
        assert "Traceback" not in stderr
        survivor = processes[1 - repeat % 2]
        _, stderr = survivor.communicate(timeout=300)
        assert survivor.returncode == 0, stderr
        assert sum(counts(stderr).values()) == len(configs)
        assert gone(workers)
        assert sorted(path.name for path in runs.iterdir()) == sorted(config.id for config in configs)
