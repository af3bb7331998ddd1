"""A benchmark of reports: the processor time of `featcache report`, imports, workers and pictures included."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pipelines.bench._lines import Line

STEPS = (  #: the commands that make what a report reads; each resumes
    "manifest build kitchens {0}/videos",
    "extract {0}/videos/kitchens.csv hog hof logmel --stores {0}/stores",
    "manifest build pairs {0}/pairs",
    "import npz {0}/pairs/pairs.npz {0}/pairs/pairs.csv --stores {0}/stores",
    "import npz {0}/pairs/pairs_captions.npz {0}/pairs/pairs_captions.csv --stores {0}/stores",
)
REPORTS = {  #: task -> number of runs, words that choose them, and the most core-seconds that their report may take
    "classification": (40, "kitchens --seeds 0..4", 10),
    "retrieval": (12, "pairs --only CE --only ACP --seeds 0", 20),
}


def report(folder: Path) -> Iterator[Line]:
    """The report of 40 runs of `kitchens`, and of 12 runs of `pairs`."""
    home = folder / "report"
    for step in STEPS:
        core_seconds(step.format(home))
    for task, (runs, words, most) in REPORTS.items():
        chosen = f"{words} --stores {home / 'stores'} --runs {home / task}"
        core_seconds(f"train-head {chosen}")
        core_seconds(f"evaluate {chosen}")
        cost = core_seconds(f"report {chosen}")
        yield f"a report of {runs} {task} runs", f"{most} core-seconds", cost, most, lambda s: f"{s:.1f} core-seconds"


def core_seconds(words: str) -> float:
    """Run a command of featcache, and return its processor time and that of its workers."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "pipelines.cli", *words.split()], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


BENCHMARKS = {"report": report}
