"""Checks of stores against the windows that the feeds of a run draw."""

import numpy as np

from featcache import FeatureStore
from featcache.errors import ConfigError
from pipelines.config import RunConfig, parse_draw


def windows_text(store: FeatureStore, row: int) -> str:
    """Which windows a row has, in words."""
    if row in store.failures:
        return store.failures[row]
    n = int(store.length[row])
    start, stop = store.window_start[row, 0], store.window_stop[row, n - 1]
    return f"{n} window{'s' * (n > 1)}" + (f" from {start:g} to {stop:g} s" if np.isfinite(start) else "")


def check_views(config: RunConfig, stores: dict[str, FeatureStore]) -> None:
    """Views have features of the same network and of the same shape as the store of their feed."""
    for m, feed in config.feeds.items():
        for name, view in feed.stores(m).items():
            for what in ("modality", "weights_sha256", "windows", "row_shape"):
                mine, theirs = (getattr(stores[of], what) for of in (m, name))
                if mine != theirs:
                    raise ConfigError(
                        f"store {view!r} is no view of {feed.store!r}, for its {what} is {theirs!r}, not {mine!r}; "
                        f"leave it out of feeds.{m}.views"
                    )


def check_windows(config: RunConfig, stores: dict[str, FeatureStore]) -> None:
    """No draw asks for more windows than a store has, and feeds that share their windows have the same ones."""
    for when, together in (("train", "shared"), ("test", "each")):
        drawn = {m: getattr(feed, when) for m, feed in config.feeds.items()}
        for m, draw in drawn.items():
            if parse_draw(draw)[1] > stores[m].windows:
                raise ConfigError(
                    f"feeds.{m}.{when}={draw} asks for more than the {stores[m].windows} windows of store "
                    f"{config.feeds[m].store!r}"
                )
        shared = {m: draw for m, draw in drawn.items() if parse_draw(draw)[0] == together}
        if len({(draw, stores[m].windows) for m, draw in shared.items()}) > 1:
            have = ", ".join(f"{m} {draw} of {stores[m].windows}" for m, draw in shared.items())
            raise ConfigError(f"feeds with {when}={together} must have the same windows; here: {have}")
