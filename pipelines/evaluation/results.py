"""Results: one JSON line per run and metric. Tables are made only from these lines.

Lines are appended and never edited. The last key of a line, "crc32c", is the checksum of the line without that key.
"""

import fcntl
import json
import os
import re
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google_crc32c import value as crc32c

from featcache import schema
from featcache.errors import ConfigError, FeatcacheError
from featcache.files import disk_errors, flock, regular, remembered
from featcache.wording import exactly, first

if TYPE_CHECKING:
    import pandas as pd

CHECKSUM = b', "crc32c": "'  #: precedes the checksum of a line
#: run, metric and stress of a line
NAMES = re.compile(rb'\{"run": "((?:[^"\\]|\\.)*)".*?"metric": "((?:[^"\\]|\\.)*)"(?:.*"stress": "((?:[^"\\]|\\.)*)")?')
#: keys that a line lacks where they are empty
UNWRITTEN = ("leaks", "one_class", "batched", "measurement", "clips", "by_class", "stress")
CLIPS = re.compile(rb', "clips": "[\w:+/= ]*"')  #: outcomes of clips in a line: lines of earlier versions have none
ByClass = dict[str, tuple[float, float, float]]  #: class -> counts, see `Result.by_class`
MOST = 1e100  #: the largest number of a result: squares of larger ones are infinite
SLACK = 100  #: bytes by which lines of the same run and metric may differ; no line is that short


@dataclass(frozen=True)
class Measurement:
    """The measurement that a result is a part of. Its lines are written together, and are equal in this.

    A run is not measured again while all lines of its latest measurement are there and nothing has changed.
    """

    kind: str  #: a name of the measurement, and a digest of everything that it measures
    files: str  #: digest of the run's files; "" in a folder of an earlier version, which has no digests
    lines: int  #: number of its lines


@dataclass(frozen=True)
class Result:
    """One measured number, with everything that is needed to interpret it."""

    run: str  #: run id
    experiment: str
    row: str  #: table row
    source: tuple[str, ...]  #: labelled domains
    target: str | None  #: unlabelled domain
    test: str  #: evaluated domain
    seed: int
    metric: str  #: a name from `featcache list metrics`, with /LABEL or /SIDE/MODALITY behind it if there are several
    value: float  #: accuracies, R@K and GM are shares in [0, 1]
    n: int  #: number of test rows; in retrieval, of clips
    select: str  #: rule that selected the kept point: last, mean, a validator, or oracle (labels of the test rows)
    fidelity: str  #: exact | adapter | surrogate
    untrained: tuple[str, ...]  #: modalities whose extractor had untrained weights
    recipes: dict[str, str]  #: modality -> sha256 of the recipe of its features
    read: dict[str, str]  #: fingerprints of the stores, the manifest and the earlier run that were read
    config: dict[str, Any]  #: the RunConfig as JSON
    version: str  #: version of featcache
    collapsed: tuple[str, ...] = ()  #: modalities with dead features after training (mean norm below 1e-3)
    leaks: tuple[
        str, ...
    ] = ()  #: features that give a label away, see featcache/leaks.py; not written if there are none
    one_class: tuple[
        str, ...
    ] = ()  #: class that all test rows are given, if there is one; not written if there is none
    tier: str = ""  #: tier of the features in training, see pipelines/data/tiers.py
    #: feed -> data that the network behind its features was trained on, see featcache/training_data.py; None if the
    #: result is of an earlier version
    trained_on: dict[str, str] | None = None
    #: True if norms and `dev` are those of the features that are classified; False in results of earlier versions
    classified: bool = False
    batched: int = 0  #: number of runs trained in one pass with this one, see `Facts`; not written if it was alone
    limits: tuple[str, ...] = ()  #: "KIND: explanation": clips without features, classes that limit the number
    measurement: Measurement | None = None  #: None if the result is of an earlier version; then it is not written
    #: the outcome of each test clip, of metrics that are shares of right answers, see pipelines/measures/outcomes.py;
    #: not written if there is none
    clips: str = ""
    #: class -> its test clips predicted right, its test clips, and the clips given it (means over several selected
    #: points); on the lines of top-1 accuracy per label; not written if there is none
    by_class: ByClass = field(default_factory=dict)
    stress: str = ""  #: the change of the test features, see evaluation/stress.py; not written if there is none

    def __post_init__(self) -> None:
        """Refuse numbers that no table can average."""
        for number in (self.value, *chain.from_iterable(self.by_class.values())):
            if not abs(number) <= MOST:  # False for nan, too
                raise ConfigError(
                    f"{self.metric} of run {self.run} is {number}; results are finite numbers of at most {MOST:g}"
                )


@dataclass(frozen=True)
class _Feed:
    """The parts of a feed that tables read from a result's configuration, which may be of an older version."""

    store: str = ""
    captions: str = ""


@dataclass(frozen=True)
class _Config:
    """The parts of a result's configuration that tables read."""

    manifest: str = ""
    feeds: dict[str, _Feed] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """The parts of a result that have nothing to do with its metric."""

    run: str
    experiment: str
    row: str
    metric: str
    read: dict[str, str]
    stress: str = ""
    collapsed: tuple[str, ...] = ()
    one_class: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    measurement: Measurement | None = None


@dataclass
class Earlier:
    """The results that a file has of one run, without their numbers."""

    last: Line  #: its last line
    #: metric and stress -> the measurement of their last line
    latest: dict[tuple[str, str], Measurement | None] = field(default_factory=dict)
    lines: dict[Measurement, Line] = field(default_factory=dict)  #: measurement -> one of its lines

    def whole(self, kind: str, files: str) -> Line | None:
        """Return a line of the measurement of this kind on these files of the run, if all its lines are there."""
        for measurement, line in self.lines.items():
            count = sum(each == measurement for each in self.latest.values())
            if (measurement.kind, measurement.files, measurement.lines) == (kind, files, count):
                return line
        return None


def earlier(path: Path) -> dict[str, Earlier]:
    """Read what a file has of each run, by its id; {} if there is no file. Damaged lines count as missing.

    Numbers are not kept, because the file may have the results of thousands of runs.
    """
    return _earlier(path) if path.exists() else {}


@remembered(1, settled=True)
def _earlier(path: Path) -> dict[str, Earlier]:
    found: dict[str, Earlier] = {}
    for text in _lines(path):
        with suppress(ValueError, RecursionError, ConfigError):
            line = schema.from_json(json.loads(_checked(text)), Line, newer=True)
            run = found.setdefault(line.run, Earlier(line))
            run.last = line
            run.latest[line.metric, line.stress] = line.measurement
            if line.measurement:
                run.lines[line.measurement] = line
    return found


def renamed(path: Path, names: Mapping[str, tuple[str, str]]) -> list[Result]:
    """Return the latest results of some runs under other names. names: id of a run -> its experiment and table row."""
    latest: dict[tuple[str, ...], Result] = {}
    for line in _lines(path):
        with suppress(ValueError, ConfigError):
            result = _parse(_checked(line))
            if result.run in names:
                latest[result.run, result.metric, result.stress] = result
    moved = []
    for result in latest.values():
        experiment, row = names[result.run]
        moved.append(replace(result, experiment=experiment, row=row, config={**result.config, "row": row}))
    return moved


def append(path: Path, results: Iterable[Result]) -> None:
    """Append lines to a JSONL file, whole, whatever other processes append at the same time.

    If a killed process left a torn line at its end, start a new line first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(_line(result) + "\n" for result in results)
    with disk_errors(path), path.open("a+b") as file:
        flock(file, fcntl.LOCK_EX)  # until the file is closed
        if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            lines = "\n" + lines
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())


def _line(result: Result) -> str:
    data = vars(result) | {"measurement": asdict(result.measurement) if result.measurement else None}
    line = json.dumps({key: value for key, value in data.items() if value or key not in UNWRITTEN})
    return f'{line[:-1]}{CHECKSUM.decode()}{crc32c(line.encode()):08x}"}}'


class Results(list[Result]):
    """The results of a file, and a sentence about its damaged lines for the notes of tables: "" if there are none."""

    damaged = ""

    def of(self, runs: Container[str]) -> "Results":
        """Return the results of these runs, by their ids."""
        kept = Results(result for result in self if result.run in runs)
        kept.damaged = self.damaged
        return kept

    def frame(self) -> "pd.DataFrame":
        """Return a line per run and metric, with the fields of `Result` as columns."""
        import pandas as pd

        names = [each.name for each in fields(Result)]
        return pd.DataFrame([[getattr(result, name) for name in names] for result in self], columns=names)

    def __repr__(self) -> str:
        runs, metrics = {result.run for result in self}, {result.metric for result in self}
        return f"Results({len(self)} numbers: {len(runs)} runs, {len(metrics)} metrics)"

    def _repr_html_(self) -> str:
        shown = ["row", "source", "target", "test", "seed", "metric", "value", "n", "select"]
        return str(self.frame()[shown].to_html(max_rows=60))


def read(path: Path, *, stressed: bool = False) -> Results:
    """Read all results of a file. One warning names the damaged lines, if there are any, and the fix.

    A later line replaces an earlier one of the same run, metric and stress, also a damaged one. stressed: read the
    results on changed features, and only these; other results never mix with them.
    """
    try:
        lines = list(_lines(path))
    except FileNotFoundError:
        options = " with --drop, --windows, --dtype or --noise" if stressed else ""
        raise ConfigError(f"no results at {path}; `featcache evaluate`{options} writes them") from None
    latest: dict[tuple[str, str, str], Result] = {}
    reasons: dict[int, str] = {}  # index of a damaged line -> reason
    for k, line in enumerate(lines):
        try:
            if line.strip():
                result = _parse(_checked(line))
                latest[result.run, result.metric, result.stress] = result
        except (ValueError, ConfigError) as error:
            reasons[k] = str(error)
    lost = _not_replaced(lines, reasons) if reasons else []
    results = Results(result for result in latest.values() if bool(result.stress) == stressed)
    if lost:
        noun, verb = ("line", "is") if len(lost) == 1 else ("lines", "are")
        results.damaged = (
            f"{len(lost)} damaged {noun} {verb} left out of {exactly([os.fspath(path)])[0]} ({noun} "
            f"{first(str(k + 1) for k in lost)}): tables may lack their numbers, or have earlier ones; run `featcache "
            "evaluate` for every experiment that uses this file, then remove the lines that are still named here"
        )
        warnings.warn(f"{results.damaged} (the first: {reasons[lost[0]]})", stacklevel=2)
    return results


def _not_replaced(lines: list[bytes], damaged: Container[int]) -> list[int]:
    """Return the indices of the damaged lines whose number may not have been measured again.

    A later line replaces a damaged one if the damaged line still names the same run, metric and stress, and is as long
    as one line: damage to the end of a line joins it with the next one, whose number would be lost, too.
    """
    sizes: dict[tuple[bytes, ...], int] = {}  # run, metric and stress -> length of their last line
    lost = []
    for k, line in reversed(list(enumerate(lines))):
        names, size = NAMES.match(line), len(CLIPS.sub(b"", line))
        if k not in damaged:
            if names:
                sizes.setdefault(names.groups(), size)
        elif not (names and line.count(b'"run": ') == 1 and size <= sizes.get(names.groups(), 0) + SLACK):
            lost.append(k)
    return lost[::-1]


def damage(results: Iterable[Result]) -> str:
    """The sentence about damaged lines, if these are the results of a file; else ""."""
    return results.damaged if isinstance(results, Results) else ""


def _checked(line: bytes) -> bytes:
    """Return a line without its checksum; ValueError if they do not fit. Lines of earlier versions have no checksum."""
    content, found, checksum = line.rpartition(CHECKSUM)
    if found:
        content += b"}"
        if checksum != b'%08x"}' % crc32c(content):
            raise ValueError("it does not match its checksum")
        return content
    try:
        json.loads(line.decode())
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    return line


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines that the file has now, without the half of a line that another process is appending."""
    with regular(path, ConfigError).open("rb") as file:
        with suppress(FeatcacheError):  # a file system without locks, where nothing can be appended either
            flock(file, fcntl.LOCK_SH)
        left = os.fstat(file.fileno()).st_size
        with suppress(FeatcacheError):
            flock(file, fcntl.LOCK_UN)
        for line in file:
            if left <= 0:
                return
            yield line[:left].removesuffix(b"\n")
            left -= len(line)


def _parse(line: bytes) -> Result:
    """Make a Result from its line, without the keys that a newer version added; ConfigError if it is not one."""
    result = schema.parse(line, Result, "", newer=True)
    schema.from_json(result.config, _Config, "config", newer=True)
    return result
