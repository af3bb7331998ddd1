"""`make bench`: the cost of featcache's parts, as ratios to the plainest way to do the same.

Machines are noisy and differ, so a table row is a ratio of medians that were measured in turns; the absolute figures
only give an idea. docs/benchmarks.md keeps the figures of named machines. `python -m pipelines.bench NAME ...` runs
some of the benchmarks; a name is a key of `BENCHMARKS` in one of the files of this folder.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from featcache.stopping import stoppable
from pipelines.bench import (
    clustering,
    evaluation,
    extraction,
    flow,
    groups,
    loaders,
    objects,
    on_ray,
    report,
    retrieval,
    scaling,
    step,
    store,
    training,
    workers,
)
from pipelines.bench._lines import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    **store.BENCHMARKS,
    **extraction.BENCHMARKS,
    **flow.BENCHMARKS,
    **step.BENCHMARKS,
    **training.BENCHMARKS,
    **groups.BENCHMARKS,
    **retrieval.BENCHMARKS,
    **clustering.BENCHMARKS,
    **evaluation.BENCHMARKS,
    **report.BENCHMARKS,
    **loaders.BENCHMARKS,
    **workers.BENCHMARKS,
    **on_ray.BENCHMARKS,
    **objects.BENCHMARKS,
    **scaling.BENCHMARKS,
}


def main(names: Sequence[str] = ()) -> None:
    """Run the named benchmarks (default: all) and print a Markdown table."""
    if unknown := [name for name in names if name not in BENCHMARKS]:
        raise SystemExit(f"no benchmark {unknown[0]!r}; choose from {', '.join(BENCHMARKS)}")
    print("| what | against | ratio (1.00 = as fast) | figures |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name in names or BENCHMARKS:
            for measured, against, ours, plain, text in BENCHMARKS[name](Path(folder)):
                ratio = plain / ours
                print(f"| {measured} | {against} | {ratio:.2f} | {text(ours)}, plain {text(plain)} |", flush=True)


if __name__ == "__main__":
    with stoppable(lambda stop: print(f"{stop}; run the same command again", file=sys.stderr)):
        main(sys.argv[1:])
