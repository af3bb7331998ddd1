"""The sentences under a table: what its numbers are, what they rest on, and what is not there."""

from collections.abc import Iterable

from pipelines._table_parts import RAW, Line, Note
from pipelines.experiments import Experiment
from pipelines.results import Result

NAMES = {
    "top1": "top-1 accuracy",
    "mean_class": "mean class accuracy",
    "cv_s": "CV of norms, source side",
    "cv_t": "CV of norms, target side",
    "cv_st": "CV of norms, both sides",
}
SELECT = {
    "last": "last (the weights at the end of training; no labels choose)",
    "mean": "mean (over the outputs kept near the end of training; no labels choose)",
    "source_val": "source_val (the kept outputs that are best on held-out source rows)",
}
FIDELITY = {
    "exact": "exact (the paper's own setting on frozen features)",
    "adapter": "adapter (trainable layers on frozen features, where a paper may train the backbone as well)",
}

Plan = dict[tuple[str, str], dict[int, str]]  # (method, shift) -> seed -> run id


def notes(
    experiment: Experiment,
    metric: str,
    lines: list[Line],
    plan: Plan,
    found: dict[str, Result],
) -> list[Note]:
    """What the numbers are, what they rest on and what is not there; loud notes first."""
    rows = list(found.values())
    loud = [
        Note(text, loud=True) for text in (*_untrained(rows), *_mixed_recipes(rows), *_missing(experiment, plan, found))
    ]
    calm = [Note(_what(metric, lines)), Note(f"Fidelity: {_per_line(lines, 'fidelity', FIDELITY)}.")]
    if any(not line.label_free and "oracle" not in line.select for line in lines):
        calm.append(Note("† trained on labels of the test domain: a reference, not an adaptation method."))
    if any("oracle" in line.select for line in lines):
        loud.append(Note("ORACLE rows chose their weights by labels of the test domain: no user has those.", loud=True))
    if any(cell.published is not None for line in lines for cell in line.cells.values()):
        calm.append(Note("In parentheses: published numbers, in the authors' own setting; mind the fidelity column."))
    feeds = sorted({(feed, sha256[:8]) for row in rows for feed, sha256 in row.recipes.items()})
    if feeds:
        calm.append(Note("Feature recipes: " + ", ".join(f"{feed} {sha256}" for feed, sha256 in feeds) + "."))
    if rows:
        calm.append(Note(f"featcache {said(sorted({row.version for row in rows}))}."))
    return [*loud, *calm]


def _what(metric: str, lines: list[Line]) -> str:
    name = NAMES.get(metric, metric)
    unit = "" if metric.startswith(RAW) else " in per cent"
    seeds = dict.fromkeys(tuple(sorted({s for c in line.cells.values() for s in c.seeds})) for line in lines)
    if len(seeds) == 1:
        (only,) = seeds
        over = f"seed {only[0]} only, so without ±" if len(only) == 1 else f"mean ± sample std over {_list(only)}"
    else:
        over = "mean ± sample std over seeds, which differ by row: " + "; ".join(
            f"{line.method}: {_list(sorted({s for c in line.cells.values() for s in c.seeds}))}" for line in lines
        )
    return (
        f"{name[0].upper()}{name[1:]}{unit} on the test rows; {over}. Selection: {_per_line(lines, 'select', SELECT)}."
    )


def _list(seeds: Iterable[int]) -> str:
    seeds = list(seeds)
    return f"{len(seeds)} seed{'s' * (len(seeds) != 1)} ({', '.join(map(str, seeds))})"


def _per_line(lines: list[Line], name: str, explained: dict[str, str]) -> str:
    """One value for all lines, or each line's own; then what the values mean."""
    values = {line.method: getattr(line, name) for line in lines}
    distinct = dict.fromkeys(values.values())
    if len(distinct) == 1:
        return explained.get(*distinct, *distinct)
    meanings = [explained[value] for value in distinct if value in explained]
    return "; ".join([*(f"{method}: {value}" for method, value in values.items()), *meanings])


def _untrained(rows: list[Result]) -> list[str]:
    feeds = sorted({feed for row in rows for feed in row.untrained})
    if not feeds:
        return []
    return [
        f"UNTRAINED WEIGHTS in {', '.join(feeds)}: these features come from randomly initialised networks; "
        "the numbers test the machinery, not the method."
    ]


def _mixed_recipes(rows: list[Result]) -> list[str]:
    recipes: dict[str, set[str]] = {}
    for row in rows:
        for feed, sha256 in row.recipes.items():
            recipes.setdefault(feed, set()).add(sha256[:8])
    return [
        f"DIFFERENT FEATURES: feed {feed} was made by {len(shas)} recipes ({', '.join(sorted(shas))}); "
        "runs of this table are not comparable until all use one."
        for feed, shas in sorted(recipes.items())
        if len(shas) > 1
    ]


def _missing(experiment: Experiment, plan: Plan, found: dict[str, Result]) -> list[str]:
    holes: dict[str, dict[tuple[int, ...], list[str]]] = {}
    for (method, shift), seeds in plan.items():
        if gone := tuple(seed for seed, run in seeds.items() if run not in found):
            holes.setdefault(method, {}).setdefault(gone, []).append(shift)
    if not holes:
        return []
    which = "; ".join(
        f"{method} {', '.join(shifts)} (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))})"
        for method, groups in holes.items()
        for seeds, shifts in groups.items()
    )
    return [f"MISSING: {which}. To make them: {command(experiment)}"]


def command(experiment: Experiment) -> str:
    """What makes all results of an experiment from its stores; runs that exist are kept."""
    what = experiment.typed or experiment.name
    return f"featcache train-head {what} && featcache evaluate {what}"


def said(words: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(words))
