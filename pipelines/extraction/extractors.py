"""Names of extractors, settings and weights -> extractors that are ready to run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from featcache.errors import ConfigError, MediaError
from featcache.extractors import (
    UNTRAINED,
    Extractor,
    Runtime,
    complete,
    default_params,
    load,
    split_view,
)
from featcache.manifest import Manifest
from pipelines.settings import assign, from_json, to_json

RUNTIME = Runtime()


def load_extractors(
    names: Sequence[str],
    settings: Sequence[str] = (),
    weights: Sequence[str] = (),
    runtime: Runtime = RUNTIME,
    manifest: Manifest | None = None,
) -> list[Extractor]:
    """The extractors of these names, ready to run.

    names: `i3d-rgb@flip` sees mirrored pictures, see `featcache.windows.VIEWS`; with `i3d-rgb`, it has the same
    parameters and weights.
    settings: parameters as "EXTRACTOR.NAME=VALUE". weights: "EXTRACTOR=NAME OR FILE", or "untrained" for all of them.
    manifest: its first source that can be read completes parameters that were left open, such as `vector.dims`.
    Raises ConfigError for unknown names and parameters, and for values of a wrong type; WeightsError for weights that
    are not to be had.
    """
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(f"extractor {twice[0]!r} is named twice")
    views = [split_view(name) for name in names]
    params: dict[str, Any] = {name: default_params(name) for name, _ in views}
    known = ", ".join(params)
    changed = {name: to_json(of, type(of)) for name, of in params.items()}
    for setting in settings:
        key, equals, value = setting.partition("=")
        name, _, parameter = key.rpartition(".")
        if name not in params or not parameter or not equals:
            raise ConfigError(f"--set {setting}: write EXTRACTOR.NAME=VALUE, with one of {known}")
        changed[name] = assign(changed[name], type(params[name]), parameter, value, name)
    chosen = dict.fromkeys(params, "")
    for choice in sorted(weights, key=lambda choice: choice != UNTRAINED):  # which is for those not named
        name, equals, which = choice.partition("=")
        if choice == UNTRAINED:
            chosen = dict.fromkeys(params, UNTRAINED)
        elif name in params and which:
            chosen[name] = which
        else:
            raise ConfigError(f"--weights {choice}: write untrained, or EXTRACTOR=FILE with one of {known}")
    ready = {}
    for name, default in params.items():
        of = from_json(changed[name], type(default), name)
        of = _completed(name, of, manifest) if manifest else of
        ready[name] = load(name, of).ready(replace(runtime, weights=chosen[name]))
    loaded = [ready[name].seen(view) if view else ready[name] for name, view in views]
    for one, other in combinations(loaded, 2):
        if one.store == other.store:
            raise ConfigError(
                f"{one.name} and {other.name} would both fill {one.store}.zarr; extract them into two --stores folders"
            )
    return loaded


def _completed(name: str, params: Any, manifest: Manifest) -> Any:
    """Parameters with what was left open filled in, as the first source has it that is not broken."""
    errors = []
    for clip in manifest:
        try:
            return complete(name, params, manifest.path(clip))
        except MediaError as error:
            errors.append(error)
    raise errors[0]
