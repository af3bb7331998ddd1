"""Checks of what many runs need, once and before the first of them begins."""

import json
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from featcache.errors import ConfigError, FeatcacheError
from featcache.wording import first
from pipelines.config import RunConfig
from pipelines.data.checks import check_device, check_windows
from pipelines.data.opening import Opened, open_run


def check_ahead(configs: Iterable[RunConfig], stores: Path, device: str = "cpu") -> None:
    """Raise the error that keeps all runs from being made or measured: of the device, manifests, stores or rows.

    A fault of some runs only is left to these runs, as are settings that no method or net can be built with. Nothing
    but labels, and the states and windows of rows, is read, and no store twice.
    """
    check_device(device)
    if not stores.is_dir():
        raise ConfigError(
            f"no folder {stores}; name the folder of all stores with --stores, or run `featcache extract`"
        )
    opened: dict[str, Opened] = {}  # feeds -> manifest and stores
    errors: dict[str, FeatcacheError] = {}
    for config in {reads(config): config for config in configs}.values():
        content = config.to_json()
        feeds = json.dumps([content["manifest"], content["feeds"]])
        try:
            if feeds not in opened:
                opened[feeds] = open_run(config, stores, device)
            _check_rows(replace(opened[feeds], config=config))
        except FeatcacheError as error:
            errors.setdefault(str(error), error)
        else:
            return  # at least one run can be made
    if len(errors) == 1:
        raise next(iter(errors.values()))
    if errors:
        raise ConfigError("no run can be made:\n  " + first(errors, 3, "\n  "))


def check_writable(folder: Path) -> None:
    """Raise OSError with the folder's name if no file can be made in it; the folder is made if needed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None


def reads(config: RunConfig) -> str:
    """Return the settings that decide which rows of which stores a run reads."""
    content = config.to_json()
    names = ("manifest", "feeds", "source", "target", "test", "train_split", "test_split", "absent", "holdout")
    units = config.preparation.units
    return json.dumps([config.task.name, units, *(content[name] for name in names)], sort_keys=True)


def _check_rows(opened: Opened) -> None:
    """Check that the run has rows to train on, to measure units on and to test, with the labels and windows needed."""
    config = opened.config
    config.task.check_manifest(config, opened.manifest)
    check_windows(config, opened.stores)
    for side, rows in opened.side_rows.items():
        role = "target" if side == "target" else "source"
        opened.check_rows(role, rows)
        if role == "source":
            opened.labels(rows)
    if opened.measures_test_domain:
        opened.test_domain_rows()
    opened.check_rows("test", opened.check_test())
