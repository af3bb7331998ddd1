"""Predictions of many runs in one file, for pandas and other tools: a line per run, label kind and test clip.

    run, row, manifest, source, target, test, seed     the run; several sources are joined by +
    step                                               step of the kept outputs: the last selected ones
    label, clip_id, truth                              label kind, clip and its class; empty if it has no label
    predicted, probabilities                           the class with the largest score, and the softmax of all scores
    branch, cluster, predicted                         instead of these in clustering: the class is the one that
                                                       Hungarian matching pairs with the cluster

`probabilities` is a list in the order of the names of the classes of that label in the manifest, which are sorted. A
Parquet file holds them, too: `pandas.read_parquet(path).attrs["classes"][manifest][label]`.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from featcache.errors import ConfigError
from featcache.files import check_new, replacing
from featcache.progress import Progress, silent
from featcache.untrusted.arrow import pyarrow
from pipelines.config import RunConfig
from pipelines.data.stores import open_manifest
from pipelines.evaluation.evaluate import predicted
from pipelines.training.runs import Run

ENDINGS = (".jsonl", ".parquet", ".csv")
OF_RUN = ("run", "row", "manifest", "source", "target", "test", "seed", "step")
WHOLE = ("seed", "step", "cluster")  #: columns of whole numbers
FLOATS = ("start", "stop")
LISTS = ("probabilities", "embedding")  #: columns of lists of numbers
Columns = dict[str, Any]  #: column -> values


def check(path: Path, configs: Iterable[RunConfig], overwrite: bool) -> None:
    """Raise ConfigError or FormatError if the predictions of these runs cannot be written to this file."""
    tasks = {config.task.name: config.task for config in configs}
    if reason := next(filter(None, (task.no_predictions for task in tasks.values())), ""):
        raise ConfigError(f"--predictions has a class for each clip, but {reason}")
    if len(tasks) > 1:
        raise ConfigError(f"--predictions has the runs of one task, not of {' and '.join(sorted(tasks))}; name one")
    check_file("--predictions", path, overwrite)


def check_file(option: str, path: Path, overwrite: bool) -> None:
    """Raise ConfigError or FormatError if no table can be written to this file, which an option names."""
    if path.suffix not in ENDINGS:
        raise ConfigError(f"{option} {path} must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    if path.suffix == ".parquet":
        pyarrow()
    check_new(path, overwrite)


def write(path: Path, runs: Sequence[tuple[RunConfig, Path, Path]], progress: Progress = silent) -> None:
    """Write the predictions of finished runs, whole or not at all. runs: (configuration, folder, folder of stores)."""
    tables, classes = _tables(runs, progress), {}
    for config, _, stores in runs:
        manifest = open_manifest(stores, config.manifest)
        classes[config.manifest] = {label: list(names) for label, names in manifest.classes.items()}
    write_tables(path, tables, {"classes": classes}, digits=6)


def _tables(runs: Sequence[tuple[RunConfig, Path, Path]], progress: Progress) -> Iterator[Columns]:
    for number, (config, folder, stores) in enumerate(runs, 1):
        yield from of_run(Run.open(folder), stores, config.row)
        progress(number, len(runs))


def of_run(run: Run, stores: Path, row: str) -> Iterator[Columns]:
    """Yield column -> values of a run: a table per label kind, in clustering one per branch."""
    config, manifest = run.config, open_manifest(stores, run.config.manifest)
    run, truth, point, outputs = predicted(run, stores)
    source, step = "+".join(config.source), int(run.points[point]["step"])
    facts = (config.id, row, config.manifest, source, config.target, config.test, config.seed, step)
    clips = [manifest.clips[number].clip_id for number in run.outputs["rows"].tolist()]
    for label, y in truth.items():
        names = config.task.tested(manifest, config.test)[label]
        known = {
            **{name: [value] * len(clips) for name, value in zip(OF_RUN, facts, strict=True)},
            "label": [label] * len(clips),
            "clip_id": clips,
            "truth": [names[k] if k >= 0 else "" for k in y],
        }
        for table in config.task.predictions(outputs, label, y, len(names)):
            yield known | table | {"predicted": [names[k] for k in table["predicted"]]}


def write_tables(path: Path, tables: Iterator[Columns], attrs: dict[str, Any], digits: int | None = None) -> None:
    """Write tables of the same columns to one file, whole or not at all. The ending of its name decides the format.

    attrs: facts about all rows, which only Parquet keeps. digits: decimals of numbers in lists in CSV and JSON; None:
    all that float32 has.
    """
    with replacing(path) as scratch:
        if path.suffix == ".parquet":
            _write_parquet(scratch, tables, attrs)
            return
        with scratch.open("w", encoding="utf-8", newline="") as file:
            (write_csv if path.suffix == ".csv" else _write_jsonl)(file, tables, digits)


def _write_parquet(path: Path, tables: Iterator[Columns], attrs: dict[str, Any]) -> None:
    """Write a row group per table; pandas reads `attrs` from the metadata of the schema."""
    pa, pq = pyarrow()
    kinds = {name: pa.int64() for name in WHOLE} | {name: pa.float64() for name in FLOATS}
    kinds |= {name: pa.list_(pa.float32()) for name in LISTS}
    kinds |= {"classes": pa.list_(pa.string()), "clusters": pa.list_(pa.int64())}
    first = next(tables)
    fields = [pa.field(name, kinds.get(name, pa.string())) for name in first]
    schema = pa.schema(fields, {"PANDAS_ATTRS": json.dumps(attrs)})
    with pq.ParquetWriter(path, schema) as file:
        for table in chain([first], tables):
            file.write_table(pa.table(table, schema=schema))


def write_csv(file: TextIO, tables: Iterator[Columns], digits: int | None = None) -> None:
    """Write a header and a line per prediction; lists are JSON."""
    writer = csv.writer(file, lineterminator="\n")
    first = next(tables)
    writer.writerow(first)
    for table in chain([first], tables):
        texts = {name: map(json.dumps, _plain(table[name], digits)) for name in table if _of_lists(table[name])}
        writer.writerows(zip(*(table | texts).values(), strict=True))


def _write_jsonl(file: TextIO, tables: Iterator[Columns], digits: int | None) -> None:
    """Write an object per prediction."""
    for table in tables:
        columns = [_plain(values, digits) for values in table.values()]
        for values in zip(*columns, strict=True):
            file.write(json.dumps(dict(zip(table, values, strict=True)), ensure_ascii=False) + "\n")


def _of_lists(values: Sequence[Any]) -> bool:
    """Return whether a column holds lists or arrays."""
    return len(values) > 0 and isinstance(values[0], list | np.ndarray)


def _plain(values: Sequence[Any], digits: int | None) -> Iterator[Any]:
    """Yield values as plain Python ones; numbers of a list as the shortest text that float32 reads back."""
    for value in values:
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            yield [
                float(str(x)) if digits is None else round(x, digits)
                for x in (value if digits is None else value.tolist())
            ]
        else:
            yield value.tolist() if isinstance(value, np.ndarray | np.generic) else value
