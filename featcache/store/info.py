"""What a store says about itself: `featcache info`."""

from pathlib import Path
from typing import Any

from featcache.files import folder_size
from featcache.store import _format as fmt
from featcache.store.reader import FeatureStore, flat
from featcache.wording import size

NO_LICENCE = "not recorded"


def facts(path: Path) -> dict[str, Any]:
    """Everything but the features, as JSON values: counts, windows, sizes, recipe, licence, failures."""
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
        "facts": store.facts,
        "fingerprint": store.fingerprint,
        "failures": [
            {"clip_id": store.clip_ids[row], "state": fmt.STATES[store.state[row]], "reason": reason}
            for row, reason in store.failures.items()
        ],
    }


def text(found: dict[str, Any], shown: int) -> str:
    """The same for people; of the failures as many as `shown`."""
    states = ", ".join(f"{count} {state}" for state, count in found["states"].items() if count)
    low, high = found["windows_of_a_row"]
    windows = f"{found['windows']} per clip" if low == high == found["windows"] else f"{low} to {high} per clip"
    lines = {
        "clips": f"{found['rows']} of manifest {found['manifest']}: {states}",
        "windows": f"{windows}, plan {found['plan']}",
        "features": f"{tuple(found['row_shape'])} {found['dtype']} per window, {size(found['row_bytes'])} per clip",
        "size": f"{size(found['bytes'])} in {found['blocks']} blocks of up to {found['block_rows']} clips",
        "weights": f"{found['weights_sha256']}; licence: {found['licence']}",
        "recipe": found["recipe_sha256"],
        **{f"  {key}": str(value) for key, value in flat(found["recipe"]).items()},
        "made with": ", ".join(f"{key} {value}" for key, value in flat(found["facts"]).items() if key != "licence"),
        "fingerprint": found["fingerprint"],
    }
    width = max(map(len, lines))
    out = [found["store"], *(f"  {key:{width}}  {value}" for key, value in lines.items())]
    failures = found["failures"]
    out += [f"  {one['state']}: {one['clip_id']}: {one['reason']}" for one in failures[:shown]]
    if len(failures) > shown:
        out.append(f"  and {len(failures) - shown} more; --failures {len(failures)} shows all")
    return "\n".join(out)
