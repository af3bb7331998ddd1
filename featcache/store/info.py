"""The facts about a store that `featcache info` prints."""

from pathlib import Path
from typing import Any

from featcache import training_data
from featcache.files import folder_size
from featcache.store import _format as fmt
from featcache.store.reader import FeatureStore, flat
from featcache.wording import quoted, size

NO_LICENCE = "not recorded"
SHOWN_APART = ("licence", "trained_on")  #: facts with lines of their own


def facts(path: Path) -> dict[str, Any]:
    """Everything except the features, as JSON values: counts, windows, sizes, recipe, licence, failures."""
    store = FeatureStore.open(path)
    layout = store.layout
    lengths = store.length[store.length > 0]
    return {
        "store": str(path),
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
        "bytes": folder_size(path),
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


def text(info: dict[str, Any], shown: int) -> str:
    """The facts as text for people, with the first `shown` failures."""
    states = ", ".join(f"{count} {state}" for state, count in info["states"].items() if count)
    low, high = info["windows_of_a_row"]
    windows = f"{info['windows']} per clip" if low == high == info["windows"] else f"{low} to {high} per clip"
    blocks = f"{info['blocks']} block{'' if info['blocks'] == 1 else 's'}"
    others = {key: value for key, value in flat(info["facts"]).items() if key not in SHOWN_APART}
    lines = {
        "clips": f"{info['rows']} of manifest {info['manifest']}: {states}",
        "windows": f"{windows}, plan {info['plan']}",
        "features": f"{tuple(info['row_shape'])} {info['dtype']} per window, {size(info['row_bytes'])} per clip",
        "size": f"{size(info['bytes'])} in {blocks} of up to {info['block_rows']} clips",
        "weights": f"{info['weights_sha256']}; licence: {info['licence']}",
        "trained on": training_data.words(info["trained_on"]),
        "recipe": info["recipe_sha256"],
        **{f"  {key}": str(value) for key, value in flat(info["recipe"]).items()},
        "made with": ", ".join(f"{key} {value}" for key, value in others.items()),
        "fingerprint": info["fingerprint"],
    }
    width = max(map(len, lines))
    out = [info["store"], *(f"  {key:{width}}  {value}" for key, value in lines.items())]
    out += [f"  note: {note}: {quoted(clips)}" for note, clips in info.get("notes", {}).items()]
    failures = info["failures"]
    out += [f"  {failure['state']}: {failure['clip_id']}: {failure['reason']}" for failure in failures[:shown]]
    if len(failures) > shown:
        out.append(f"  and {len(failures) - shown} more; --failures {len(failures)} shows all")
    return "\n".join(out)
