"""The section of a report on the runs: hyper-parameters, time, machine and versions."""

import statistics
from collections.abc import Iterable, Iterator, Sequence

from featcache.wording import first
from pipelines.config import RunConfig
from pipelines.experiments import Experiment
from pipelines.report import page
from pipelines.report.opened import Opened
from pipelines.settings import as_text, flattened
from pipelines.tables.cells import Table
from pipelines.tables.comparing import VALUES
from pipelines.training.runs import Run

OF_CELLS = ("row", "seed", "source", "test")  #: settings that the table's rows, columns and seeds show
UNKNOWN = "not recorded"


def conditions(experiment: Experiment, table: Table, opened: Opened) -> str:
    """The time and machine of each row's runs, and all settings: those that rows share, and those that differ."""
    configs = {line.method: [run for run in experiment.runs if run.row_shown == line.method] for line in table.lines}
    grid = [["method", "runs", "steps", "seconds per run", "total seconds", "trained (UTC)", "machine", "device"]]
    for method, of_row in configs.items():
        if found := [opened.runs[run.id] for run in of_row if run.id in opened.runs]:
            grid.append([method, *_facts(found)])
    shared, own = _settings(configs)
    parts = [page.grid(grid, "words")]
    if own:
        lines = [[method, "; ".join(own[method]) or "–"] for method in configs]
        parts.append(page.grid([["method", "settings in which the rows differ"], *lines], "words"))
    everywhere = page.items((f"{path}={value}" for path, value in shared.items()), "columns")
    parts.append(page.details(f"Settings of all rows ({len(shared)})", everywhere))
    versions = dict.fromkeys(
        ", ".join(f"{name} {version}" for name, version in run.facts.versions.items()) or UNKNOWN
        for run in opened.runs.values()
    )
    parts.append(page.paragraph(f"Versions: {'; or '.join(versions)}." if versions else ""))
    seconds = "Seconds are those of training. Runs that were trained in one pass share its seconds equally. "
    intro = f"{seconds * bool(opened.runs)}Settings are named as `--set` takes them."
    return page.section("Runs and settings", intro, *parts, reasons=opened.summary(opened.reasons))


def _facts(runs: Sequence[Run]) -> Iterator[str]:
    """Yield the cells of a row about its runs."""
    seconds = [run.facts.seconds for run in runs]
    dates = sorted({run.facts.date for run in runs} - {""})
    yield str(len(runs))
    yield _several(str(run.config.steps) for run in runs)
    yield f"{statistics.fmean(seconds):.1f}"
    yield f"{sum(seconds):.1f}"
    yield (
        " to ".join(dict.fromkeys(date[:16].replace("T", " ") for date in (dates[0], dates[-1]))) if dates else UNKNOWN
    )
    yield _several(run.facts.host or UNKNOWN for run in runs)
    yield _several(run.facts.device or UNKNOWN for run in runs)


def _several(texts: Iterable[str]) -> str:
    return first(dict.fromkeys(texts), VALUES, " / ")


def _settings(configs: dict[str, list[RunConfig]]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return setting -> value where all rows share it, and row -> "setting=value" of those in which rows differ."""
    by_row: dict[str, dict[str, str]] = {}
    for method, runs in configs.items():
        values: dict[str, list[str]] = {}
        for run in runs:
            for path, value in flattened(run.all_settings).items():
                if path not in OF_CELLS:
                    values.setdefault(path, []).append(as_text(value))
        by_row[method] = {path: _several(of_path) for path, of_path in values.items()}
    everywhere = dict.fromkeys(path for settings in by_row.values() for path in settings)
    shared = {path for path in everywhere if len({settings.get(path) for settings in by_row.values()}) == 1}
    first_row = next(iter(by_row.values()))
    own = {
        method: [f"{path}={value}" for path, value in settings.items() if path not in shared]
        for method, settings in by_row.items()
    }
    return {path: first_row[path] for path in first_row if path in shared}, own if len(shared) < len(everywhere) else {}
