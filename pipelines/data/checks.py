"""Checks of the device, and of stores against the windows that the feeds of a run draw."""

import numpy as np
import torch

from featcache import FeatureStore
from featcache.errors import ConfigError
from pipelines.config import RunConfig, parse_draw


def check_device(device: str) -> None:
    """Raise ConfigError unless torch can use this device here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"no device {device!r} here ({str(error).splitlines()[0]}); take device cpu") from None


def windows_text(store: FeatureStore, row: int) -> str:
    """Describe the windows of a row: "4 windows from 0 to 2 s", or the reason why it has none."""
    if row in store.failures:
        return store.failures[row]
    n = int(store.length[row])
    start, stop = store.window_start[row, 0], store.window_stop[row, n - 1]
    return f"{n} window{'s' * (n > 1)}" + (f" from {start:g} to {stop:g} s" if np.isfinite(start) else "")


def check_views(config: RunConfig, stores: dict[str, FeatureStore]) -> None:
    """Check that views have features of the same network and shape as the store of their feed."""
    for m, feed in config.feeds.items():
        for name, view in feed.stores(m).items():
            for fact in ("modality", "weights_sha256", "windows", "row_shape"):
                expected, actual = (getattr(stores[key], fact) for key in (m, name))
                if actual != expected:
                    raise ConfigError(
                        f"store {view!r} is not a view of {feed.store!r}, because its {fact} is {actual!r}, not "
                        f"{expected!r}; leave it out of feeds.{m}.views"
                    )


def check_windows(config: RunConfig, stores: dict[str, FeatureStore]) -> None:
    """Check that no draw takes more windows than its store has, and that shared draws have the same windows."""
    for when, together in (("train", "shared"), ("test", "each")):
        drawn = {m: getattr(feed, when) for m, feed in config.feeds.items()}
        for m, draw in drawn.items():
            if parse_draw(draw)[1] > stores[m].windows:
                raise ConfigError(
                    f"feeds.{m}.{when}={draw} draws more than the {stores[m].windows} windows of store "
                    f"{config.feeds[m].store!r}; draw fewer"
                )
        shared = {m: draw for m, draw in drawn.items() if parse_draw(draw)[0] == together}
        if len({(draw, stores[m].windows) for m, draw in shared.items()}) > 1:
            windows = ", ".join(f"{m} {draw} of {stores[m].windows}" for m, draw in shared.items())
            raise ConfigError(f"feeds with {when}={together} must draw the same windows, but they draw: {windows}")
