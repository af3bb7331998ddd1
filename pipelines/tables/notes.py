"""The sentences under a table: what its numbers are, what they rest on, and what is not there."""

from collections.abc import Iterable, Iterator

from featcache.wording import first
from pipelines import tasks
from pipelines.config import OWN, method_class
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.measures.validators import ORACLE, VALIDATORS
from pipelines.tables.cells import Line, Note, beside_published

SELECT = {
    "last": "last (the weights at the end of training; no labels choose)",
    "mean": "mean (over the outputs kept near the end of training; no labels choose)",
    **{
        name: f"{name} (the kept outputs with the {'highest' if rule.higher else 'lowest'} {rule.words})"
        for name, rule in VALIDATORS.items()
    },
    ORACLE: "oracle (the kept outputs that are best on the test rows, by their labels)",
}
FIDELITY = {
    "exact": "exact (what the paper trains is trained here, all of it)",
    "adapter": "adapter (trainable layers on frozen features, where a paper may train the backbone as well)",
    "surrogate": "surrogate (another method that stands for the paper's, which cannot run on cached features)",
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
    clips = _clips(plan, found)
    unequal = _unequal(clips)
    loud = [
        *([experiment.note] if experiment.note else []),
        *_untrained(rows),
        *_mixed_recipes(rows),
        *_mixed_contents(rows),
        *unequal,
        *_collapsed(plan, found),
        *_oracles(lines),
        *_unknown_start(experiment),
        *_missing(experiment, plan, found),
    ]
    calm = [Note(_what(metric, lines)), Note(f"Fidelity: {_per_line(lines, 'fidelity', FIDELITY)}.")]
    calm += [Note(text) for text in experiment.task.notes]
    if instead := _stand_ins(metric, plan, found):
        calm.append(Note(f"{experiment.task.stand_in_words}: {', '.join(instead)}."))
    if surrogates := _surrogates(experiment, [line.method for line in lines if line.measured]):
        calm.append(Note(f"Surrogates: {'; '.join(surrogates)}."))
    if any(not line.label_free for line in lines):
        calm.append(
            Note(
                "† trained on labels of the test domain, itself or in a run it starts from: a reference, not an "
                "adaptation method."
            )
        )
    if transductive := _transductive(experiment):
        calm.append(
            Note(f"Transductive: {', '.join(transductive)} adapted to the very clips of the test, without labels.")
        )
    if clips and not unequal:
        counts = {shift: counts[0] for shift, methods in clips.items() for counts in methods.values()}
        calm.append(Note("Test clips: " + ", ".join(f"{shift} {n}" for shift, n in counts.items()) + "."))
    if beside_published(lines):
        calm.append(Note("In parentheses: published numbers, in the authors' own setting; mind the fidelity column."))
    if streamed := _streamed(plan, found):
        calm.append(
            Note(
                f"Streamed: {', '.join(streamed)}. Features were larger than memory, so batches came in another order "
                "than in the other tiers: shuffled within blocks of rows."
            )
        )
    feeds = sorted({(feed, sha256[:8]) for row in rows for feed, sha256 in row.recipes.items()})
    if feeds:
        calm.append(Note("Feature recipes: " + ", ".join(f"{feed} {sha256}" for feed, sha256 in feeds) + "."))
    if rows:
        calm.append(Note(f"featcache {said(sorted({row.version for row in rows}))}."))
    return [*(Note(text, loud=True) for text in loud), *calm]


def _what(metric: str, lines: list[Line]) -> str:
    of = tasks.metric(metric)
    name, unit = of.words, " in per cent" if of.is_share else ""
    if metric.startswith("validator/"):
        name = f"{metric}: {name}"
    rows = "" if of.unit == "a score" else " on the test rows"
    measured = {line.method: line.measured for line in lines if line.measured}
    seeds = set(measured.values())
    if not seeds:
        over = "no results yet"
    elif len(seeds) == 1:
        (only,) = seeds
        over = f"seed {only[0]} only, so without ±" if len(only) == 1 else f"mean ± sample std over {_list(only)}"
    else:
        by_row = "; ".join(f"{method}: {_list(only)}" for method, only in measured.items())
        over = f"mean ± sample std over seeds, which differ by row: {by_row}"
    return f"{name[0].upper()}{name[1:]}{unit}{rows}; {over}. Selection: {_per_line(lines, 'select', SELECT)}."


def _stand_ins(metric: str, plan: Plan, found: dict[str, Result]) -> list[str]:
    """Rows that show the task's stand-in, because their runs do not have the metric itself."""
    instead = {run for run, row in found.items() if row.metric != metric}
    return list(dict.fromkeys(method for (method, _), seeds in plan.items() if instead & set(seeds.values())))


def _list(seeds: Iterable[int]) -> str:
    seeds = list(seeds)
    return f"{len(seeds)} seed{'s' * (len(seeds) != 1)} ({', '.join(map(str, seeds))})"


def _per_line(lines: list[Line], name: str, explained: dict[str, str]) -> str:
    """What most lines have, explained; then what others have, and which lines these are."""
    methods: dict[str, list[str]] = {}
    for line in lines:
        methods.setdefault(getattr(line, name), []).append(line.method)
    most, *others = sorted(methods, key=lambda value: -len(methods[value]))
    said = [f"{explained.get(value, value)}: {', '.join(methods[value])}" for value in others]
    return "; ".join([explained.get(most, most), *said])


def _untrained(rows: list[Result]) -> list[str]:
    feeds = sorted({feed for row in rows for feed in row.untrained})
    if not feeds:
        return []
    return [
        f"UNTRAINED WEIGHTS in {', '.join(feeds)}: these features come from randomly initialised networks; "
        "the numbers test the machinery, not the method."
    ]


def _mixed_recipes(rows: list[Result]) -> list[str]:
    """Feeds that are not the same in all rows of a shift, or a store that has changed between runs."""
    recipes: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        for feed, sha256 in row.recipes.items():
            store = row.config["feeds"][feed]["store"]
            for same in (("shift", *row.source, row.test), ("store", row.config["manifest"], store)):
                recipes.setdefault((feed, *same), set()).add(sha256[:8])
    mixed: dict[str, set[str]] = {}
    for (feed, *_), shas in recipes.items():
        if len(shas) > 1:
            mixed.setdefault(feed, set()).update(shas)
    return [
        f"DIFFERENT FEATURES: feed {feed} was made by {len(shas)} recipes ({', '.join(sorted(shas))}); "
        "runs of this table are not comparable until all use one."
        for feed, shas in sorted(mixed.items())
    ]


def _mixed_contents(rows: list[Result]) -> Iterator[str]:
    """The same store or manifest, read in different states; of features made by another recipe that is said already."""
    states: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        manifest = row.config["manifest"]
        if "manifest" in row.read:
            states.setdefault((f"manifest {manifest}",), set()).add(row.read["manifest"][:8])
        for m, feed in row.config["feeds"].items():
            if f"store {m}" in row.read:
                of = manifest if feed.get("captions", "") in ("", OWN) else feed["captions"]
                key = (f"store {of}/{feed['store']}", row.recipes.get(m, ""))
                states.setdefault(key, set()).add(row.read[f"store {m}"][:8])
    for (what, *_), found in states.items():
        if len(found) > 1:
            yield (
                f"DIFFERENT CONTENT: {what} was read in {len(found)} states ({', '.join(sorted(found))}); runs of this "
                "table are not comparable until all are trained and evaluated on one."
            )


def _clips(plan: Plan, found: dict[str, Result]) -> dict[str, dict[str, list[int]]]:
    """Shift -> method -> on how many clips it was tested, each number once."""
    clips: dict[str, dict[str, list[int]]] = {}
    for (method, shift), seeds in plan.items():
        if counts := sorted({found[run].n for run in seeds.values() if run in found}):
            clips.setdefault(shift, {})[method] = counts
    return clips


def _unequal(clips: dict[str, dict[str, list[int]]]) -> list[str]:
    """Columns whose numbers were measured on different clips, as where clips without a modality are dropped."""
    return [
        f"DIFFERENT TEST CLIPS in {shift}: "
        + ", ".join(f"{method} {' or '.join(map(str, counts))}" for method, counts in methods.items())
        + "; these numbers are not comparable."
        for shift, methods in clips.items()
        if len({n for counts in methods.values() for n in counts}) > 1
    ]


def _collapsed(plan: Plan, found: dict[str, Result]) -> list[str]:
    """Cells whose features died in training: there is nothing left to align."""
    dead: dict[tuple[str, str], list[int]] = {}  # (method and shift, modality) -> seeds
    for (method, shift), seeds in plan.items():
        for seed, run in seeds.items():
            for m in found[run].collapsed if run in found else ():
                dead.setdefault((f"{method} {shift}", m), []).append(seed)
    if not dead:
        return []
    which = first([f"{cell} ({_seeds(of)}): {m}" for (cell, m), of in dead.items()], between="; ")
    return [f"COLLAPSED FEATURES: {which}. Their norm vanished in training, so nothing was left to align."]


def _streamed(plan: Plan, found: dict[str, Result]) -> list[str]:
    """Methods that were trained in the tier `streaming`, with how many of their runs where not all were."""
    streamed: dict[str, list[bool]] = {}
    for (method, _), seeds in plan.items():
        streamed.setdefault(method, []).extend(found[run].tier == "streaming" for run in seeds.values() if run in found)
    return [
        method if all(runs) else f"{method} ({sum(runs)} of {len(runs)} runs)"
        for method, runs in streamed.items()
        if any(runs)
    ]


def _oracles(lines: list[Line]) -> list[str]:
    """Rows whose outputs were chosen by labels of the test rows."""
    chosen = [line.method for line in lines if ORACLE in line.select.split(" / ")]
    if not chosen:
        return []
    return [
        f"ORACLE: {', '.join(chosen)} took the kept outputs that are best on the test rows, by their labels: what a "
        "perfect choice would give, not a result without target labels."
    ]


def _unknown_start(experiment: Experiment) -> list[str]:
    """Rows that start from a run outside the experiment."""
    starts: dict[str, dict[str, None]] = {}
    for run in experiment.runs:
        if run.row and (start := experiment.chain(run)[-1].init_from):
            starts.setdefault(run.row_shown, {})[start] = None
    return [
        f"UNKNOWN START: {row} starts from {first(list(runs))}, not among the runs of this experiment; whether labels "
        "of the test domain were seen there is not known."
        for row, runs in starts.items()
    ]


def _surrogates(experiment: Experiment, methods: list[str]) -> list[str]:
    """Of these, the rows whose method only stands for the paper's, and what stands for what."""
    rows = {run.row: method_class(run).surrogate for run in experiment.runs if run.row_shown in methods}
    return [f"{row}: {stands_for}" for row, stands_for in rows.items() if stands_for]


def _transductive(experiment: Experiment) -> list[str]:
    """Rows that had their test clips, unlabelled, as the target of their training or of a run they start from."""
    return list(
        dict.fromkeys(
            run.row_shown
            for run in experiment.runs
            for stage in experiment.chain(run)
            if run.row and stage.target == run.test and stage.train_split == run.test_split
        )
    )


def _seeds(seeds: Iterable[int]) -> str:
    seeds = list(seeds)
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _missing(experiment: Experiment, plan: Plan, found: dict[str, Result]) -> list[str]:
    """Per row how many results are not there of how many, and the first of these."""
    holes: dict[str, dict[tuple[int, ...], list[str]]] = {}
    planned: dict[str, int] = {}
    for (method, shift), seeds in plan.items():
        planned[method] = planned.get(method, 0) + len(seeds)
        if gone := tuple(seed for seed, run in seeds.items() if run not in found):
            holes.setdefault(method, {}).setdefault(gone, []).append(shift)
    if not holes:
        return []
    rows = []
    for method, groups in holes.items():
        lacking = sum(len(gone) * len(shifts) for gone, shifts in groups.items())
        which = first([f"{first(shifts, 3)} {_seeds(gone)}" for gone, shifts in groups.items()], 3, "; ")
        rows.append(
            f"{method} all {lacking}"
            if lacking == planned[method]
            else f"{method} {lacking} of {planned[method]} ({which})"
        )
    return [f"MISSING: {first(rows, between='; ')}. To make them: {experiment.command}"]


def said(words: Iterable[str]) -> str:
    """Different words once each, separated by slashes."""
    return " / ".join(dict.fromkeys(words))
