"""The data that the network behind features was trained on, and whether it holds the clips that a run is tested on.

A network that was trained with labels of the target's clips makes features that have seen these labels. Accuracies on
such features do not measure adaptation.

>>> text({"ImageNet": "labels", "IG-65M": "hashtags"})
'ImageNet (labels), IG-65M (hashtags)'
"""

from collections.abc import Collection, Mapping
from typing import Any

from featcache.weights.catalogue import CATALOGUE, HASHTAGS, LABELS

KINDS = {LABELS, HASHTAGS}  #: kinds of supervision
NOTHING = {"none", "untrained"}  #: beginnings of `weights_sha256` of features without trained weights


def text(trained_on: Mapping[str, str]) -> str:
    """Return training data -> kind of supervision as text, in which stores record it."""
    return ", ".join(f"{data} ({supervision})" for data, supervision in trained_on.items())


def parse(recorded: str) -> dict[str, str] | None:
    """Return the training data -> kind of supervision of what `text` has written; None for any other text.

    >>> parse("ImageNet (labels), IG-65M (hashtags)")
    {'ImageNet': 'labels', 'IG-65M': 'hashtags'}
    """
    trained_on = {}
    for part in recorded.split(", "):
        name, _, kind = part.rpartition(" ")
        if not name or name != name.strip() or not name.isprintable() or any(f"({each})" in name for each in KINDS):
            return None
        trained_on[name] = kind.strip("()")
    return trained_on if text(trained_on) == recorded and KINDS.issuperset(trained_on.values()) else None


def of(recipe: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str] | None:
    """Return training data -> kind of supervision of the network behind a store; None if it is not known.

    recipe, facts: those of the store. It is {} for features that are computed by a rule, or by a network with random
    weights. Without a record, the weights are known by their hash if it is in the catalogue. Features that came from
    other files are known if each file holds its recipe, in which `featcache export` puts the record. Numbers of the
    user's own files may be the output of any network, so they are not known.
    """
    if recorded := facts.get("trained_on"):
        return parse(str(recorded))
    if external := recipe.get("external"):
        return _of_files(external)
    window = recipe.get("window")
    if recipe.get("extractor") == "vector" or (isinstance(window, Mapping) and window.get("kind") == "numbers"):
        return None
    sha256 = str(recipe.get("weights_sha256", ""))
    if sha256.partition(":")[0] in NOTHING:
        return {}
    for weights in CATALOGUE.values():
        if weights.sha256 and sha256.startswith(weights.sha256):
            return dict(weights.trained_on)
    return None


def _of_files(external: Any) -> dict[str, str] | None:
    """Return the same of features that came from files, by the part `external` of their recipe."""
    files = external.get("files") if isinstance(external, Mapping) else None
    trained_on: dict[str, str] = {}
    for file in files if isinstance(files, list) and files else [None]:
        recipe = file.get("recipe") if isinstance(file, Mapping) else None
        known = of(recipe, recipe) if isinstance(recipe, Mapping) else None
        if known is None:
            return None
        trained_on |= {data: kind for data, kind in known.items() if trained_on.get(data) != LABELS}
    return trained_on


def words(trained_on: Mapping[str, str] | None) -> str:
    """Return training data as text for people.

    >>> words(None), words({})
    ('not known', 'nothing')
    """
    return "not known" if trained_on is None else text(trained_on) or "nothing"


def seen(trained_on: Mapping[str, str] | None, holding: Collection[str]) -> list[str]:
    """Return the training data with labels that hold the clips of a domain.

    holding: names of the data that hold these clips with their labels.
    """
    return [data for data, supervision in (trained_on or {}).items() if supervision == LABELS and data in holding]
