"""The features that the figures of a report draw: of a run of each drawn row, on the same sampled test clips.

The runs are of one shift and one seed, so the figures compare rows "before" and "after" adaptation. Labels of the clips
are read to colour and to group clips only; the runs are trained already.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ConfigError, FeatcacheError
from featcache.manifest import Clip, Manifest
from pipelines.data.opening import Opened
from pipelines.experiments import Experiment
from pipelines.report.steps import steps
from pipelines.tables.build import planned_runs
from pipelines.tables.cells import Line, Table
from pipelines.training.outputs import clip_features, clip_norms, projected_features
from pipelines.training.runs import Run

ROWS = 4  #: number of rows up to which a table's figures draw all of them, as `--only` chooses them
MOST = 500  #: number of clips that are drawn per domain
SEED = 0  #: seed of the choice of clips

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Half:
    """The sampled clips of one domain of a shift, and the features of them that a run classifies."""

    domains: tuple[str, ...]
    clips: tuple[Clip, ...]  #: n clips, in the order of the manifest
    total: int  #: number of clips of which these are a sample
    split: str  #: split of the clips
    f: dict[str, Floats]  #: modality, or "fused" -> (n, D)
    projected: dict[str, Floats]  #: modality -> (n, P), after the method's projection head; {} without one
    norms: dict[str, Floats]  #: modality, or "fused" -> (n, label kinds)
    present: dict[str, NDArray[np.bool_]]  #: modality, or "fused" -> (n,), True where the clip has it

    def labels(self, kind: str) -> NDArray[np.str_]:
        """The clips' labels of this kind (n,); "" for a clip that has none."""
        return np.array([clip.labels.get(kind, "") for clip in self.clips], dtype=str)

    @property
    def words(self) -> str:
        """The domains, and the number of clips."""
        of = "" if len(self.clips) == self.total else f" of {self.total}"
        return f"{len(self.clips)}{of} {self.split} clips of {', '.join(self.domains)}"


@dataclass(frozen=True)
class Sample:
    """The features of one run on the sampled clips of both domains."""

    method: str  #: name of the table row
    manifest: Manifest
    parts: dict[str, slice]  #: label kind -> the part of a feature that its classifier reads
    source: Half
    target: Half
    adapted: bool = False  #: the run, or one that it starts from, was trained on unlabelled clips of a target

    @property
    def spaces(self) -> tuple[str, ...]:
        """The names of the features that both domains have: "fused" if the net fuses modalities, else modalities."""
        return tuple(name for name in self.source.f if name in self.target.f)

    @property
    def halves(self) -> dict[str, Half]:
        """Name of the side -> its clips, source first."""
        return {"source": self.source, "target": self.target}


@dataclass(frozen=True)
class Drawn:
    """The samples of the rows that are drawn, in the order of the table, and the reasons for those that are missing."""

    shift: str
    seed: int
    samples: tuple[Sample, ...]
    reasons: tuple[str, ...] = ()
    on: str = ""  #: what headings add: " on D1→D2" where the shift was chosen, because a page may then draw several

    @property
    def kinds(self) -> tuple[str, ...]:
        """The label kinds, in the order of the norms; () without samples."""
        return tuple(self.samples[0].parts) if self.samples else ()

    @property
    def words(self) -> str:
        """The shift, the seed and the number of clips, as one or two sentences; "" without samples."""
        if not self.samples:
            return ""
        source, target = self.samples[0].source, self.samples[0].target
        cut = len(source.clips) < source.total or len(target.clips) < target.total
        drawn = f"Drawn: {self.shift}, the runs of seed {self.seed}, {source.words} and {target.words}"
        return f"{drawn}, sampled at random with seed {SEED}." if cut else f"{drawn}, which are all of them."


def rows_drawn(table: Table) -> list[Line]:
    """Return the rows that figures draw, in the table's order: all of at most ROWS, else the first and the best one.

    Only the first row may be one that was trained on labels of the test domain, because such a row adapts nothing.
    """
    base, *others = table.lines
    lines = [base, *(line for line in others if line.label_free)]
    return lines if len(lines) <= ROWS else [base, *([table.best] if table.best else [])]


def draw(experiment: Experiment, table: Table, runs: Path, stores: Path, shift: str = "") -> Drawn:
    """Return the samples of the drawn rows on a shift; "" takes the first shift that these rows share."""
    on = f" on {shift}" if shift else ""
    try:
        shift, seed, ids = chosen(experiment, table, shift)
    except ConfigError as error:
        return Drawn(shift, 0, (), (f"No features: {error}.",), on)
    samples, reasons = [], []
    for method, run in steps(ids.items()):
        try:
            samples.append(sample(experiment, method, runs / run, stores))
        except (FeatcacheError, OSError) as error:
            reasons.append(f"No features of {method} on {shift}: {error}.")
    return Drawn(shift, seed, tuple(samples), tuple(reasons), on)


def chosen(experiment: Experiment, table: Table, shift: str = "") -> tuple[str, int, dict[str, str]]:
    """Return a shift, a seed, and row -> the id of its run there, for the drawn rows that have one.

    They are the first shift, or the given one, and the first seed for which most of these rows have a run, and of
    several such the first for which most have results. ConfigError if no drawn row has a run on the given shift.
    """
    planned, lines = planned_runs(experiment), rows_drawn(table)
    by_cell: dict[tuple[str, int], dict[str, str]] = {}
    for place in [shift] if shift else table.shifts:
        for line in lines:
            for seed, run in planned.get((line.method, place), {}).items():
                by_cell.setdefault((place, seed), {})[line.method] = run
    if not by_cell:
        raise ConfigError(f"{', '.join(line.method for line in lines)} have no run on {shift}; name rows with --only")

    def filled(cell: tuple[str, int]) -> tuple[int, int]:
        """The numbers of rows with a run and with a result."""
        return len(by_cell[cell]), sum(cell[1] in line.cells[cell[0]].values for line in lines)

    shift, seed = max(by_cell, key=filled)
    return shift, seed, by_cell[shift, seed]


def sample(experiment: Experiment, method: str, folder: Path, stores: Path) -> Sample:
    """Return the features that a run classifies, of sampled test clips of its source and of its test domain.

    A source-free run has the source of the run that it starts from. Where the source has no test clips, its train clips
    take their place. FeatcacheError if the run or its stores are missing, or have changed.
    """
    run = Run.open(folder)
    opened, trained = run.opened(stores), run.method()
    source_domains = next((stage.source for stage in experiment.chain(run.config) if stage.source), ())
    if not source_domains:
        raise ConfigError(f"run {run.config.id} and the runs that it starts from have no source")
    halves = []
    for domains in (source_domains, (run.config.test,)):
        split, rows = _rows(opened, domains)
        chosen = np.sort(np.random.default_rng(SEED).permutation(rows)[:MOST]).tolist()
        loaded = opened.load("test", chosen)
        f = {m: f_ND.cpu().numpy() for m, f_ND in clip_features(trained, loaded).items()}
        if not all(np.isfinite(f_ND).all() for f_ND in f.values()):
            raise ConfigError(
                f"the features of run {run.config.id} are not finite; train it again with a lower optim.lr"
            )
        projected = {m: f_NP.cpu().numpy() for m, f_NP in projected_features(trained, loaded).items()}
        norms = {m: norms_N.cpu().numpy() for m, norms_N in clip_norms(trained, loaded).items()}
        everywhere = np.ones(len(chosen), bool)
        present = {m: loaded.present[m].any(1).cpu().numpy() if m in loaded.present else everywhere for m in f}
        clips = tuple(opened.manifest.clips[row] for row in chosen)
        halves.append(Half(domains, clips, len(rows), split, f, projected, norms, present))
    adapted = any(stage.target for stage in experiment.chain(run.config))
    source, target = halves
    return Sample(method, opened.manifest, trained.parts, source, target, adapted)


def _rows(opened: Opened, domains: tuple[str, ...]) -> tuple[str, list[int]]:
    """Return the split and the rows to draw from: test rows, or train rows of domains without any test rows."""
    config = opened.config
    if not opened.test_rows(*domains):
        opened.check_measured(*domains)
        return config.train_split, opened.train_rows("source", *domains)
    return config.test_split, opened.check_test(*domains)
