"""The section of a report about the features: their stores, recipes and failures."""

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path

from featcache import training_data
from featcache.errors import FeatcacheError
from featcache.store import FeatureStore
from pipelines.config import OWN
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.report import page


def provenance(experiment: Experiment, rows: Iterable[Result], stores: Path) -> str:
    """A table with a line per store, and every recipe in full."""
    rows = tuple(rows)
    used = dict.fromkeys(
        (run.manifest if feed.captions in ("", OWN) else feed.captions, name, modality)
        for run in experiment.runs
        for modality, feed in run.feeds.items()
        for name in (feed.store, *feed.views)
    )
    body, recipes, absent = [], [], []
    for manifest, name, modality in used:
        try:
            store = FeatureStore.open(stores / manifest / f"{name}.zarr")
            body.append(("", _store_cells(store, modality)))
        except FeatcacheError as error:
            absent.append(f"Store {manifest}/{name}: {error}.")
            continue
        title = f"Recipe of {manifest}/{name}, {store.recipe_sha256[:8]}"
        recipes.append(page.details(title, page.pre(json.dumps(store.recipe, indent=2, sort_keys=True), "recipe")))
        if store.failures:
            reasons = sorted(f"{store.clip_ids[row]}: {reason}" for row, reason in store.failures.items())
            recipes.append(page.details(f"{len(reasons)} clips without {name}", page.items(reasons, "columns")))
    heads = ["modality", "store", "weights", "trained on", "windows", "row"]
    heads += ["clips done", "failed", "absent", "recipe", "content"]
    none = page.cell("0")
    for column in (8, 7):  # failed and absent clips, where there are any
        if all(cells[column] == none for _, cells in body):
            heads.pop(column)
            body = [(kind, [*cells[:column], *cells[column + 1 :]]) for kind, cells in body]
    versions = sorted({row.version for row in rows})
    selection = sorted({run.select for run in experiment.runs})
    protocol = f"featcache {', '.join(versions) or '(no results)'}; selection rule: {', '.join(selection)}."
    tables = [page.table(heads, body, "words")] if body else []
    intro = "Frozen features. Equal recipe hashes: the same kind of features. Equal content hashes: the same bytes."
    parts = [*tables, *recipes, page.paragraph(protocol)] if tables else []
    return page.section("Features and recipes", intro, *parts, reasons=absent)


def _store_cells(store: FeatureStore, modality: str) -> list[str]:
    """The cells of a store's line; counts of clips without features are red."""
    counts = store.counts()
    return [
        page.cell(modality, head=True),
        page.cell(f"{store.manifest}/{store.name}"),
        _weights(store.weights_sha256),
        page.cell(training_data.words(training_data.of(store.recipe, store.facts))),
        page.cell(str(store.recipe.get("plan", f"{store.windows} per clip"))),
        page.cell(" × ".join(map(str, store.row_shape))),
        page.cell(f"{counts['done']} of {len(store)}", "red" if counts["not tried"] else ""),
        page.cell(str(counts["failed"]), "red" if counts["failed"] else ""),
        page.cell(str(counts["absent"])),
        f'<td><code class="hash">{escape(store.recipe_sha256[:8])}</code></td>',
        f'<td><code class="hash">{escape(store.fingerprint[:8])}</code></td>',
    ]


def _weights(weights: str) -> str:
    """The cell about the weights of a store's network."""
    if weights == "none":
        return page.cell("computed by rule")
    if weights.startswith("untrained"):
        return page.cell(f"UNTRAINED (seed {weights.partition(':')[2]})", "red")
    return f'<td>trained, <code class="hash">{escape(weights[:12])}</code></td>'
