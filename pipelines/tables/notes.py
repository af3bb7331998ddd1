"""The notes under a table: the meaning of its numbers, the conditions they were measured under, and missing results."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from featcache import training_data
from featcache.leaks import WARNING
from featcache.wording import first
from pipelines import tasks
from pipelines.config import OWN, Preparation, RunConfig, method_class
from pipelines.data.lacking import NO_FEATURES
from pipelines.evaluation.results import Result, damage
from pipelines.experiments import Experiment
from pipelines.measures.validators import ORACLE, VALIDATORS
from pipelines.tables.cells import Line, Note, has_published
from pipelines.training.outputs import remedy

SELECT = {
    "last": "last (the weights at the end of training; chosen without labels)",
    "mean": "mean (over the outputs kept near the end of training; chosen without labels)",
    **{
        name: f"{name} (the kept outputs with the {'highest' if rule.higher else 'lowest'} {rule.words})"
        for name, rule in VALIDATORS.items()
    },
    ORACLE: "oracle (the kept outputs that are best on the test rows, by their labels)",
}
SEEN = "labels seen"  #: fidelity of runs on features that have seen labels of the test domain or of the target
FIDELITY = {
    "exact": "exact (everything that the paper trains is trained here)",
    "adapter": "adapter (trainable layers on frozen features, where a paper may train the backbone as well)",
    "surrogate": "surrogate (another method that replaces the paper's, which cannot run on cached features)",
    SEEN: f"{SEEN} (the network behind the features was trained on labels of the test domain or of the target)",
}
PREPARED_ROWS = {"as-is": "", "sum": "rows at unit sum", "length": "rows at unit length"}
PREPARED_UNITS = {
    "none": "",
    "source": "entries standardised by mean and spread of the source",
    "domain": "entries of each domain standardised by its own mean and spread",
}
DAGGER = (
    "† trained on labels of the test domain, directly or in a run it starts from: a reference, not an adaptation "
    "method."
)

SWEPT = (
    "SWEEP: the table has a row for each setting. Taking the best of these rows, such as a marked one, is a choice by "
    "labels of the test rows (oracle), and its number is no result; `featcache choose` prints the settings that "
    "validators choose without such labels."
)

Clips = dict[str, dict[str, list[int]]]  #: shift -> method -> the different numbers of its test clips, sorted
RunIds = dict[tuple[str, str], dict[int, str]]  #: (method, shift) -> seed -> run id


def notes(
    experiment: Experiment,
    metric: str,
    shown: Sequence[Line],
    planned: RunIds,
    results: dict[str, Result],
    legend: Iterable[Note] = (),
    unlabelled: Mapping[str, Result] | None = None,
) -> list[Note]:
    """Return the notes of a table, loud ones first.

    shown: all lines of the table, with the quoted ones. planned: the runs of the experiment. results: run id ->
    result, of those that have one. legend: notes that explain marks and intervals. unlabelled: run id -> a result of
    another metric, of the runs whose test clips have no labels.
    """
    every = {**(unlabelled or {}), **results}
    lines, rows = [line for line in shown if not line.quoted], list(every.values())
    clips = _clips(planned, results)
    unequal = _unequal(clips)
    loud = [
        *([experiment.note] if experiment.note else []),
        *changed_settings(experiment),
        *([SWEPT] if experiment.swept else []),
        *_untrained(rows),
        *_seen(experiment, rows),
        *_leaks(rows),
        *mixed(rows),
        *unequal,
        *_limits(planned, every),
        *collapses(experiment, planned, every),
        *_by_domain(experiment),
        *_oracles(lines),
        *_unknown_start(experiment),
        *missing(experiment, planned, every),
    ]
    calm = [
        Note(_numbers(metric, lines, bool(unlabelled))),
        *legend,
        Note(f"Fidelity: {_per_line(lines, 'fidelity', FIDELITY)}."),
    ]
    calm += [Note(text) for text in experiment.task.notes]
    if instead := _stand_ins(metric, planned, results):
        calm.append(Note(f"{experiment.task.stand_in_words}: {', '.join(instead)}."))
    calm += _prepared(experiment, every)
    calm += _on_rows(experiment, shown, planned, every, {} if unequal else clips)
    calm += [Note(text) for text in _trained_on(experiment, rows)]
    return [*(Note(text, loud=True) for text in loud), *calm, *map(Note, _versions(rows))]


def _on_rows(
    experiment: Experiment, shown: Sequence[Line], planned: RunIds, results: dict[str, Result], clips: Clips
) -> Iterator[Note]:
    """The notes on some rows: surrogates, references, transductive, quoted and streamed ones, and their test clips."""
    lines = [line for line in shown if not line.quoted]
    if surrogates := _surrogates(experiment, [line.method for line in lines if line.measured]):
        yield Note(f"Surrogates: {'; '.join(surrogates)}.")
    if any(not line.label_free for line in lines):
        yield Note(DAGGER)
    if transductive := _transductive(experiment):
        names = ", ".join(transductive)
        yield Note(f"Transductive: {names} adapted to the test clips themselves, without their labels.")
    if clips:
        counts = {shift: counts[0] for shift, methods in clips.items() for counts in methods.values()}
        yield Note("Test clips: " + ", ".join(f"{shift} {n}" for shift, n in counts.items()) + ".")
    if has_published(shown):
        yield Note("In parentheses: published numbers, in the authors' own setting; see the column fidelity.")
    if quoted := [line.method for line in shown if line.quoted]:
        yield Note(f"Quoted from the paper only, and not run here: {', '.join(quoted)}.")
    if streamed := _streamed(planned, results):
        yield Note(
            f"Streamed: {', '.join(streamed)}. Features were larger than memory, so rows were shuffled within "
            "blocks only: batches have another order than in the other tiers."
        )


def _versions(rows: list[Result]) -> Iterator[str]:
    """The recipes of the features, and the versions of this program."""
    feeds = sorted({(feed, sha256[:8]) for row in rows for feed, sha256 in row.recipes.items()})
    if feeds:
        yield "Feature recipes: " + ", ".join(f"{feed} {sha256}" for feed, sha256 in feeds) + "."
    if rows:
        yield f"featcache {distinct(sorted({row.version for row in rows}))}."


def _numbers(metric: str, lines: list[Line], unlabelled: bool) -> str:
    """Return the note about the numbers themselves: metric, unit, seeds and selection rule."""
    measure = tasks.metric(metric)
    name, unit = measure.title, " in per cent" if measure.is_share else ""
    if metric.startswith("validator/"):
        name = f"{metric}: {name}"
    rows = "" if measure.unit == "a score" else " on the test rows"
    measured = {line.method: line.measured for line in lines if line.measured}
    seeds = set(measured.values())
    if not seeds:
        over = "no test clip has a label" if unlabelled else "no results yet"
    elif len(seeds) == 1:
        (shared,) = seeds
        over = f"seed {shared[0]} only, so without ±" if len(shared) == 1 else f"mean ± sample std over {_list(shared)}"
    else:
        by_row = "; ".join(f"{method}: {_list(its_seeds)}" for method, its_seeds in measured.items())
        over = f"mean ± sample std over seeds, which differ by row: {by_row}"
    return f"{name[0].upper()}{name[1:]}{unit}{rows}; {over}. Selection: {_per_line(lines, 'select', SELECT)}."


def _stand_ins(metric: str, planned: RunIds, results: dict[str, Result]) -> list[str]:
    """The rows that show the task's stand-in, because their runs do not have the metric itself."""
    instead = {run for run, row in results.items() if row.metric != metric}
    return list(dict.fromkeys(method for (method, _), seeds in planned.items() if instead & set(seeds.values())))


def _list(seeds: Iterable[int]) -> str:
    """Return seeds as text, such as "3 seeds (0, 1, 2)"."""
    seeds = list(seeds)
    return f"{len(seeds)} seed{'s' * (len(seeds) != 1)} ({', '.join(map(str, seeds))})"


def _per_line(lines: list[Line], name: str, explained: dict[str, str]) -> str:
    """Return the values of an attribute of the lines: the most frequent one, then each other with its methods."""
    methods: dict[str, list[str]] = {}
    for line in lines:
        methods.setdefault(getattr(line, name), []).append(line.method)
    most, *others = sorted(methods, key=lambda value: -len(methods[value]))
    exceptions = [f"{explained.get(value, value)}: {', '.join(methods[value])}" for value in others]
    return "; ".join([explained.get(most, most), *exceptions])


def damaged(rows: Iterable[Result]) -> list[Note]:
    """Return the note about damaged lines, if these are the results of a file that has some."""
    return [Note(f"DAMAGED RESULTS: {text}.", loud=True)] if (text := damage(rows)) else []


def changed_settings(experiment: Experiment) -> list[str]:
    """A warning about the settings that `--set` has changed: their old and new values, with the rows if they differ."""
    effects: dict[str, dict[str, dict[str, None]]] = {}  # setting -> "old -> new" -> rows
    every = dict.fromkeys(experiment.swept[row].row if row in experiment.swept else row for row in experiment.rows)
    for change in (change for change in experiment.changes if change.row in every):
        effect = change.new if change.old == change.new else f"{change.old} -> {change.new}"
        effects.setdefault(change.name, {}).setdefault(effect, {})[change.row] = None
    texts = []
    for name, of_rows in effects.items():
        parts = [
            effect if rows.keys() == every.keys() else f"{effect} ({first(rows)})" for effect, rows in of_rows.items()
        ]
        texts.append(f"{name}: {', '.join(parts)}")
    return [f"CHANGED SETTINGS: {'; '.join(texts)} (--set)."] * bool(texts)


def _untrained(rows: list[Result]) -> list[str]:
    """A warning about feeds whose networks were initialised at random."""
    feeds = sorted({feed for row in rows for feed in row.untrained})
    if not feeds:
        return []
    return [
        f"UNTRAINED WEIGHTS in {', '.join(feeds)}: these features come from randomly initialised networks; "
        "the numbers test the software, not the method."
    ]


def labels_seen(experiment: Experiment, row: Result) -> dict[str, list[str]]:
    """Return feed -> data with labels of the test domain or the target that the network behind it was trained on."""
    behind = experiment.data_behind(experiment.by_id[row.run])
    holding = {name for names in behind.values() for name in names or ()}
    seen_data = {
        feed: training_data.seen(training_data.parse(text), holding) for feed, text in (row.trained_on or {}).items()
    }
    return {feed: names for feed, names in seen_data.items() if names}


def of_training_data(experiment: Experiment, rows: list[Result]) -> list[Note]:
    """Return the notes on the data that the networks behind the features were trained on, a warning first."""
    return [
        *(Note(text, loud=True) for text in _seen(experiment, rows)),
        *map(Note, _trained_on(experiment, rows)),
    ]


def _seen(experiment: Experiment, rows: list[Result]) -> list[str]:
    """A warning about features whose network was trained on labels of the test domain or of the target."""
    domains: dict[tuple[str, str], dict[str, None]] = {}  # (feed, data) -> domains
    for row in rows:
        for feed, names in labels_seen(experiment, row).items():
            for name in names:
                domains.setdefault((feed, name), {})[row.test] = None
    if not domains:
        return []
    feeds = "; ".join(f"{feed}, by {name} ({', '.join(tested)})" for (feed, name), tested in domains.items())
    return [
        f"LABELS SEEN: {feeds}: the network behind these features was trained on labels of the tested clips or of the "
        "target's training clips, so these numbers are not results of adaptation. Extract with other weights "
        "(`featcache weights list`)."
    ]


def _trained_on(experiment: Experiment, rows: list[Result]) -> Iterator[str]:
    """The data that the networks behind the features were trained on, and the part of it that is not known."""
    feeds: dict[str, dict[str, None]] = {}
    for row in rows:
        for feed, text in (row.trained_on or {}).items():
            if text != training_data.words({}):
                feeds.setdefault(text, {})[feed] = None
    if feeds:
        yield "Features were trained on: " + "; ".join(f"{', '.join(by)}: {text}" for text, by in feeds.items()) + "."
    known = feeds.keys() - {training_data.words(None)}
    behind = [experiment.data_behind(experiment.by_id[row.run]).items() for row in rows]
    if known and (unknown := list(dict.fromkeys(domain for each in behind for domain, data in each if data is None))):
        yield (
            f"It is not known whether these data hold labels of the clips of {first(unknown)}; DATA of an experiment "
            "file names the data behind its domains."
        )
    if any(row.trained_on is None and row.read for row in rows):
        yield (
            "It is not known what the networks behind these features were trained on, because an earlier version made "
            "these results; `featcache evaluate` records it."
        )


def _leaks(rows: list[Result]) -> list[str]:
    """A warning about features that give a label away."""
    texts = sorted({text for row in rows for text in row.leaks})
    if not texts:
        return []
    return [
        f"{WARNING}: {first(texts, between='; ')}. These numbers may come from the labels "
        "and not from the clips: leave these columns or stores out."
    ]


def mixed(rows: list[Result]) -> list[str]:
    """Warnings about rows that are not comparable because their features or clips differ."""
    return [*_mixed_recipes(rows), *_mixed_contents(rows)]


def _mixed_recipes(rows: list[Result]) -> list[str]:
    """Warnings about feeds whose recipe differs between rows of a shift, or between runs that read the same store."""
    recipes: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        for feed, sha256 in row.recipes.items():
            m, _, view = feed.partition("/")
            store = view or row.config.get("feeds", {}).get(m, {}).get("store", "")
            for same in (("shift", *row.source, row.test), ("store", row.config.get("manifest", ""), store)):
                recipes.setdefault((feed, *same), set()).add(sha256[:8])
    mixed: dict[str, set[str]] = {}
    for (feed, *_), shas in recipes.items():
        if len(shas) > 1:
            mixed.setdefault(feed, set()).update(shas)
    return [
        f"DIFFERENT FEATURES: feed {feed} was made by {len(shas)} recipes ({', '.join(sorted(shas))}); "
        "the runs of this table are not comparable until all use the same recipe."
        for feed, shas in sorted(mixed.items())
    ]


def _mixed_contents(rows: list[Result]) -> Iterator[str]:
    """Warnings about a store or manifest that was read in different states.

    States of a store under different recipes are not compared: `_mixed_recipes` warns about these.
    """
    states: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        manifest = row.config.get("manifest", "")
        if "manifest" in row.read:
            states.setdefault((f"manifest {manifest}",), set()).add(row.read["manifest"][:8])
        for m, feed in row.config.get("feeds", {}).items():
            if f"store {m}" in row.read:
                folder = manifest if feed.get("captions", "") in ("", OWN) else feed["captions"]
                key = (f"store {folder}/{feed.get('store', '')}", row.recipes.get(m, ""))
                states.setdefault(key, set()).add(row.read[f"store {m}"][:8])
    for (name, *_), shas in states.items():
        if len(shas) > 1:
            yield (
                f"DIFFERENT CONTENT: {name} was read in {len(shas)} states ({', '.join(sorted(shas))}); the runs of "
                "this table are not comparable until all are trained and evaluated on the same state."
            )


def _clips(planned: RunIds, results: dict[str, Result]) -> Clips:
    """Return the numbers of the test clips."""
    clips: Clips = {}
    for (method, shift), seeds in planned.items():
        if counts := sorted({results[run].n for run in seeds.values() if run in results and results[run].n}):
            clips.setdefault(shift, {})[method] = counts
    return clips


def _unequal(clips: Clips) -> list[str]:
    """Warnings about columns whose methods were tested on different numbers of clips.

    This happens, for example, where clips that lack a modality are dropped.
    """
    return [
        f"DIFFERENT TEST CLIPS in {shift}: "
        + ", ".join(f"{method} {' or '.join(map(str, counts))}" for method, counts in methods.items())
        + "; these numbers are not comparable."
        for shift, methods in clips.items()
        if len({n for counts in methods.values() for n in counts}) > 1
    ]


def _limits(planned: RunIds, results: dict[str, Result]) -> Iterator[str]:
    """Warnings about shifts whose clips lack features, or whose classes limit the meaning of the numbers.

    Classes do not limit rows that are trained on the target.
    """
    shifts: dict[str, dict[str, None]] = {}
    for (_, shift), seeds in planned.items():
        for row in (results[run] for run in seeds.values() if run in results):
            for limit in row.limits:
                if row.test not in row.source or limit.startswith(NO_FEATURES):
                    shifts.setdefault(limit, {})[shift] = None
    for limit, names in shifts.items():
        kind, _, explanation = limit.partition(": ")
        yield f"{kind} in {first(names)}: {explanation}."


def collapses(experiment: Experiment, planned: RunIds, results: dict[str, Result]) -> Iterator[str]:
    """Warnings about cells whose features vanished in training, or whose test clips are all given one class."""
    told = {
        "COLLAPSED FEATURES": ("collapsed", "Their norm vanished in training, so nothing was left to align"),
        "ONE PREDICTED CLASS": ("one_class", "Every test clip is given that class"),
    }
    for kind, (name, explanation) in told.items():
        cells: dict[tuple[str, str], list[int]] = {}  # (method and shift, modality or class) -> seeds
        remedies: dict[str, None] = {}
        for (method, shift), seeds in planned.items():
            for seed, run in seeds.items():
                for value in getattr(results[run], name) if run in results else ():
                    cells.setdefault((f"{method} {shift}", value), []).append(seed)
                    remedies[remedy(experiment.by_id[run])] = None
        if cells:
            listed = first(
                [f"{cell} ({_seeds(seeds)}): {value}" for (cell, value), seeds in cells.items()], between="; "
            )
            yield f"{kind}: {listed}. {explanation}; {', or '.join(remedies)}."


def _prepared(experiment: Experiment, results: dict[str, Result]) -> Iterator[Note]:
    """The preparation of the features, and the rows that read the test domain only through its units."""
    rows: dict[str, dict[str, None]] = {}  # preparation as text -> table rows
    for run in experiment.runs:
        if run.row and run.id in results and run.preparation != Preparation():
            texts = [PREPARED_ROWS[run.preparation.rows], PREPARED_UNITS[run.preparation.units]]
            rows.setdefault(", ".join(filter(None, texts)), {})[run.row_shown] = None
    everything = {run.row_shown for run in experiment.runs if run.row and run.id in results}
    for text, names in rows.items():
        yield Note(f"Prepared features: {text}{'' if len(names) == len(everything) else f' ({first(list(names))})'}.")


def _by_domain(experiment: Experiment) -> list[str]:
    """A warning about rows that have no target, but whose features have the units of the test domain."""
    rows = dict.fromkeys(
        run.row_shown
        for run in experiment.runs
        if run.row and run.preparation.units == "domain" and run.test not in (*run.source, run.target)
    )
    if not rows:
        return []
    have = "has" if len(rows) == 1 else "have"
    return [
        f"UNITS BY DOMAIN: {', '.join(rows)} {have} seen unlabelled clips of the test domain, because their mean and "
        "spread standardise its features: unsupervised adaptation, not domain generalisation."
    ]


def _streamed(planned: RunIds, results: dict[str, Result]) -> list[str]:
    """The methods with runs in the tier `streaming`; the number of these runs, unless it is all of them."""
    streamed: dict[str, list[bool]] = {}
    for (method, _), seeds in planned.items():
        tiers = [results[run].tier for run in seeds.values() if run in results]
        streamed.setdefault(method, []).extend(tier == "streaming" for tier in tiers)
    return [
        method if all(runs) else f"{method} ({sum(runs)} of {len(runs)} runs)"
        for method, runs in streamed.items()
        if any(runs)
    ]


def _oracles(lines: list[Line]) -> list[str]:
    """A warning about rows whose outputs were chosen by labels of the test rows."""
    chosen = [line.method for line in lines if ORACLE in line.select.split(" / ")]
    if not chosen:
        return []
    return [
        f"ORACLE: {', '.join(chosen)} used the labels of the test rows to take the kept outputs that are best on them: "
        "an upper bound for choosing, not a result without target labels."
    ]


def _unknown_start(experiment: Experiment) -> list[str]:
    """Warnings about rows that start from a run outside the experiment."""
    starts: dict[str, dict[str, None]] = {}
    for run in experiment.runs:
        if run.row and (start := experiment.chain(run)[-1].init_from):
            starts.setdefault(run.row_shown, {})[start] = None
    return [
        f"UNKNOWN START: {row} starts from {first(list(runs))}, which is not a run of this experiment; labels of the "
        "test domain may have been used there."
        for row, runs in starts.items()
    ]


def _surrogates(experiment: Experiment, methods: list[str]) -> list[str]:
    """The rows whose method is a surrogate, each with an explanation of what replaces what."""
    rows = {run.row: method_class(run).surrogate for run in experiment.runs if run.row_shown in methods}
    return [f"{row}: {explanation}" for row, explanation in rows.items() if explanation]


def _transductive(experiment: Experiment) -> list[str]:
    """The rows whose test clips are the unlabelled target of their training, or of a run they start from."""
    return list(
        dict.fromkeys(
            run.row_shown
            for run in experiment.runs
            for stage in experiment.chain(run)
            if run.row and run.test in _unlabelled(stage) and stage.train_split == run.test_split
        )
    )


def _unlabelled(run: RunConfig) -> tuple[str | None, ...]:
    """The domains whose clips a run reads without their labels."""
    return (run.target, run.test) if run.preparation.units == "domain" else (run.target,)


def _seeds(seeds: Iterable[int]) -> str:
    """Return seeds as text, such as "seeds 0, 1"."""
    seeds = list(seeds)
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def missing(experiment: Experiment, planned: RunIds, results: Container[str]) -> list[str]:
    """A warning about missing results: per row their number, the number planned, and the first of them.

    results: ids of the runs that have one.
    """
    holes: dict[str, dict[tuple[int, ...], list[str]]] = {}  # method -> missing seeds -> shifts that lack these
    totals: dict[str, int] = {}
    for (method, shift), seeds in planned.items():
        totals[method] = totals.get(method, 0) + len(seeds)
        if lacking := tuple(seed for seed, run in seeds.items() if run not in results):
            holes.setdefault(method, {}).setdefault(lacking, []).append(shift)
    if not holes:
        return []
    rows = []
    for method, groups in holes.items():
        count = sum(len(lacking) * len(shifts) for lacking, shifts in groups.items())
        cells = first([f"{first(shifts, 3)} {_seeds(lacking)}" for lacking, shifts in groups.items()], 3, "; ")
        rows.append(
            f"{method} all {count}" if count == totals[method] else f"{method} {count} of {totals[method]} ({cells})"
        )
    return [f"MISSING: {first(rows, between='; ')}. To make them: {experiment.command}"]


def distinct(words: Iterable[str]) -> str:
    """Return the distinct words in their order, separated by slashes."""
    return " / ".join(dict.fromkeys(words))
