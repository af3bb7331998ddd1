"""The facts about a store that `featcache info` prints."""

from typing import Any

from featcache import training_data
from featcache.arguments import PathLike
from featcache.files import folder_size
from featcache.remote.urls import url_of
from featcache.store import _format as fmt
from featcache.store.places import local
from featcache.store.reader import FeatureStore, flat
from featcache.wording import quoted, size, visible

NO_LICENCE = "not recorded"
SHOWN_APART = ("licence", "trained_on")  #: facts with lines of their own


def info(store: PathLike | FeatureStore) -> dict[str, Any]:
    """Everything except the features, as JSON values: counts, windows, sizes, recipe, licence, failures.

    store: a store, or its path or URL. StoreError when there is no store, or its metadata is damaged.
    """
    url = "" if isinstance(store, FeatureStore) else url_of(store)
    store = store if isinstance(store, FeatureStore) else FeatureStore.open(local(store))
    layout = store.layout
    lengths = store.length[store.length > 0]
    return {
        "store": url or str(store.path),
        "manifest": store.manifest,
        "rows": len(store),
        "states": store.counts(),
        "windows": store.windows,
        "windows_of_a_row": [int(lengths.min()), int(lengths.max())] if len(lengths) else [0, 0],
        "plan": store.recipe.get("plan", ""),
        "row_shape": list(store.row_shape),
        "dtype": layout.dtype,
        "row_bytes": layout.row_bytes,
        "blocks": layout.blocks,
        "block_rows": layout.block_rows,
        "bytes": folder_size(store.path),
        "recipe_sha256": store.recipe_sha256,
        "recipe": store.recipe,
        "weights_sha256": store.weights_sha256,
        "licence": store.facts.get("licence", NO_LICENCE),
        "trained_on": training_data.of(store.recipe, store.facts),
        "facts": store.facts,
        "fingerprint": store.fingerprint,
        "failures": [
            {"clip_id": store.clip_ids[row], "state": fmt.STATES[store.state[row]], "reason": reason}
            for row, reason in store.failures.items()
        ],
        **({"notes": _notes(store)} if store.notes else {}),
    }


def _notes(store: FeatureStore) -> dict[str, list[str]]:
    """Note -> ids of the clips that it is about."""
    clips: dict[str, list[str]] = {}
    for row, note in store.notes.items():
        clips.setdefault(note, []).append(store.clip_ids[row])
    return clips


def text(facts: dict[str, Any], shown: int) -> str:
    """The facts as text for people, with the first `shown` failures."""
    states = ", ".join(f"{count} {state}" for state, count in facts["states"].items() if count)
    low, high = facts["windows_of_a_row"]
    windows = f"{facts['windows']} per clip" if low == high == facts["windows"] else f"{low} to {high} per clip"
    blocks = f"{facts['blocks']} block{'' if facts['blocks'] == 1 else 's'}"
    others = {key: value for key, value in flat(facts["facts"]).items() if key not in SHOWN_APART}
    lines = {
        "clips": f"{facts['rows']} of manifest {facts['manifest']}: {states}",
        "windows": f"{windows}, plan {facts['plan']}",
        "features": f"{tuple(facts['row_shape'])} {facts['dtype']} per window, {size(facts['row_bytes'])} per clip",
        "size": f"{size(facts['bytes'])} in {blocks} of up to {facts['block_rows']} clips",
        "weights": f"{facts['weights_sha256']}; licence: {facts['licence']}",
        "trained on": training_data.words(facts["trained_on"]),
        "recipe": facts["recipe_sha256"],
        **{f"  {key}": str(value) for key, value in flat(facts["recipe"]).items()},
        "made with": ", ".join(f"{key} {value}" for key, value in others.items()),
        "fingerprint": facts["fingerprint"],
    }
    width = max(map(len, lines))
    out = [facts["store"], *(f"  {key:{width}}  {value}" for key, value in lines.items())]
    out += [f"  note: {note}: {quoted(clips)}" for note, clips in facts.get("notes", {}).items()]
    failures = facts["failures"]
    out += [f"  {failure['state']}: {failure['clip_id']}: {failure['reason']}" for failure in failures[:shown]]
    if len(failures) > shown:
        out.append(f"  and {len(failures) - shown} more; --failures {len(failures)} shows all")
    return "\n".join(map(visible, out))
