"""Names of extractors, settings and weights, or a recipe -> extractors that are ready to run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import Any

from featcache.errors import ConfigError, MediaError, WeightsError
from featcache.extractors import (
    UNTRAINED,
    Extractor,
    Runtime,
    complete,
    completes,
    default_params,
    load,
    params_type,
    ready,
    split_view,
)
from featcache.manifest import Manifest
from pipelines.settings import assign, from_json, to_json

RUNTIME = Runtime()


@dataclass(frozen=True)
class Order:
    """Extractors as plain values: every process that loads them gets the same ones, if it has their files."""

    names: tuple[str, ...]  #: in their order, with views, such as `i3d-rgb@flip`
    params: dict[str, dict[str, Any]]  #: name without a view -> its parameters as JSON values
    weights: dict[str, str]  #: name without a view -> a file, a name of weights, "untrained", or "": its own
    runtime: Runtime  #: of all networks; its own weights are not used

    def load(self) -> list[Extractor]:
        """Return the extractors, ready to run; ConfigError and WeightsError as `load_extractors` raises them."""
        made = {}
        for name, values in self.params.items():
            params = from_json(values, params_type(name.partition(":")[0]), name)
            made[name] = ready(load(name, params), replace(self.runtime, weights=self.weights[name]))
        views = [split_view(name) for name in self.names]
        loaded = [made[name].seen(view) if view else made[name] for name, view in views]
        for first, second in combinations(loaded, 2):
            if first.store == second.store:
                raise ConfigError(
                    f"{first.name} and {second.name} would both fill {first.store}.zarr; "
                    "extract them into two --stores folders"
                )
        return loaded


def load_extractors(
    names: Sequence[str],
    settings: Sequence[str] = (),
    weights: Sequence[str] = (),
    runtime: Runtime = RUNTIME,
    manifest: Manifest | None = None,
) -> list[Extractor]:
    """Return the named extractors, ready to run; see `order_of`.

    Raises ConfigError for unknown names and parameters, and for values of a wrong type; WeightsError for weights that
    are not available.
    """
    return order_of(names, settings, weights, runtime, manifest).load()


def order_of(
    names: Sequence[str],
    settings: Sequence[str] = (),
    weights: Sequence[str] = (),
    runtime: Runtime = RUNTIME,
    manifest: Manifest | None = None,
) -> Order:
    """Return the named extractors as plain values.

    names: an extractor, or a view of it: `i3d-rgb@flip` receives mirrored pictures (`featcache.windows.VIEWS`), with
    the parameters and weights of `i3d-rgb`.
    settings: parameters as "EXTRACTOR.NAME=VALUE". weights: "EXTRACTOR=NAME OR FILE", or "untrained" for all of them.
    manifest: its first readable source determines parameters that were left open, such as `vector.dims`.
    Raises ConfigError for unknown names and parameters, and for values of a wrong type.
    """
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(f"extractor {repeated[0]!r} is named twice; name it once")
    views = [split_view(name) for name in names]
    params: dict[str, Any] = {name: default_params(name) for name, _ in views}
    choices = ", ".join(params)
    changed = {name: to_json(default, type(default)) for name, default in params.items()}
    for setting in settings:
        key, equals, value = setting.partition("=")
        name, _, parameter = key.rpartition(".")
        if name not in params or not parameter or not equals:
            raise ConfigError(f"--set {setting}: write EXTRACTOR.NAME=VALUE, with one of {choices}")
        changed[name] = assign(changed[name], type(params[name]), parameter, value, name)
    chosen = dict.fromkeys(params, "")
    for choice in sorted(
        weights, key=lambda choice: choice != UNTRAINED
    ):  # `untrained` first: named weights override it
        name, equals, file = choice.partition("=")
        if choice == UNTRAINED:
            chosen = dict.fromkeys(params, UNTRAINED)
        elif name in params and file:
            chosen[name] = file
        else:
            raise ConfigError(f"--weights {choice}: write untrained, or EXTRACTOR=FILE with one of {choices}")
    if manifest:
        for name, default in params.items():
            values = _completed(name, from_json(changed[name], type(default), name), manifest)
            changed[name] = to_json(values, type(default))
    return Order(tuple(names), changed, chosen, runtime)


def _completed(name: str, params: Any, manifest: Manifest) -> Any:
    """Fill in the parameters that were left open, from the first source that can be read."""
    errors = []
    for clip in manifest if completes(name) else ():
        try:
            if clip.source:
                return complete(name, params, manifest.path(clip))
        except MediaError as error:
            errors.append(error)
    if errors or completes(name):
        raise errors[0] if errors else no_source(manifest, [name])
    return params


def no_source(manifest: Manifest, names: Sequence[str]) -> ConfigError:
    """Make the error of extractors that read sources, on a manifest without any."""
    return ConfigError(
        f"no clip of manifest {manifest.name!r} has a source, so {', '.join(names)} cannot read it; name the files in "
        "its column `source`, or import features with `featcache import`"
    )


def remade(recipe: Mapping[str, Any], weights: str = "", device: str = "cpu") -> Extractor:
    """Return the extractor that a recipe describes, ready to run, with the weights that it names by their SHA-256.

    weights: a file of the user with these weights, or the folder of a model (default: a file of the catalogue, or the
    model of that name, if it is on this machine; a recipe may come from anywhere, so only a model that the user names
    is downloaded). The caller compares the extractor's own recipe with this one: weights and versions may differ.
    ConfigError for parameters that this version does not have; WeightsError, with the name and the SHA-256, if the
    weights are not available.
    """
    name, sha256 = recipe["extractor"], recipe["weights_sha256"]
    base, view = split_view(name)
    kind, values = params_type(base.partition(":")[0]), dict(recipe.get("params", {}))
    has_model, named = any(each.name == "model" for each in fields(kind)), bool(weights)
    if weights and has_model:
        values, weights = values | {"model": weights}, ""
    extractor = load(base, from_json(values, kind, base))
    known, _, seed = sha256.partition(":")
    seed = seed if seed.isascii() and seed.isdecimal() and len(seed) < 19 else "0"
    if known == UNTRAINED:
        weights = UNTRAINED
    elif not weights and (own := str(getattr(extractor, "weights", ""))):  # those of a model are in its folder
        weights = _in_catalogue(base, own, sha256)
    runtime = Runtime(weights, int(seed), device, recipe.get("precision", "fp32"), offline=not named)
    try:
        extractor = ready(extractor, runtime)
    except (ConfigError, WeightsError) as error:
        if not has_model:
            raise
        raise WeightsError(
            f"{error}; the model whose SHA-256 is {sha256} is needed: name its folder with --weights {base}=FOLDER"
        ) from error
    return extractor.seen(view) if view else extractor


def _in_catalogue(name: str, own: str, sha256: str) -> str:
    """Return the name in the catalogue of the weights with this SHA-256; WeightsError if they are not here.

    name: of the extractor. own: name of its usual weights.
    """
    from featcache import weights

    if own not in weights.CATALOGUE:  # a file that an extractor outside the repository names
        return own
    usual = weights.place(weights.CATALOGUE[own])
    if usual.is_file() and weights.digest(usual) == sha256:  # so that the other files are not read
        return own
    entry = weights.CATALOGUE.get(weights.named(sha256))
    if entry and weights.place(entry).is_file():
        return entry.name
    fetch = f"get them with `featcache weights fetch {entry.name}`, or " if entry and entry.urls else ""
    called = f" ({entry.name})" if entry else ""
    raise WeightsError(
        f"{name} needs the weights{called} whose SHA-256 is {sha256}, which are not in {weights.folder()}; "
        f"{fetch}name their file with --weights {name}=FILE"
    )
