"""The data that the network behind features was trained on, and whether it holds the clips that a run is tested on.

A network that was trained with labels of the target's clips makes features that have seen these labels: accuracies of
adaptation on them are no results of adaptation.

>>> text({"ImageNet": "labels", "IG-65M": "hashtags"})
'ImageNet (labels), IG-65M (hashtags)'
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from featcache.weights.catalogue import CATALOGUE, LABELS

NOTHING = {"none", "untrained"}  #: beginnings of `weights_sha256` of features without trained weights


def text(trained_on: Mapping[str, str]) -> str:
    """Return training data -> kind of supervision as text, in which stores record it."""
    return ", ".join(f"{data} ({supervision})" for data, supervision in trained_on.items())


def parse(text: str) -> dict[str, str]:
    """Return the training data -> kind of supervision of a text.

    >>> parse("ImageNet (labels), IG-65M (hashtags)")
    {'ImageNet': 'labels', 'IG-65M': 'hashtags'}
    """
    return dict(re.findall(r"(?:^|, )(.+?) \((\w+)\)", text))


def of(recipe: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str] | None:
    """Return training data -> kind of supervision of the network behind a store; None if it is not known.

    recipe, facts: those of the store. It is {} for features that are computed by a rule, or by a network with random
    weights. Without a record, the weights are known by their hash if it is in the catalogue; features that came from
    other files are known if each file holds its recipe.
    """
    if recorded := facts.get("trained_on"):
        return parse(str(recorded))
    if files := recipe.get("external", {}).get("files"):
        known = [of(file.get("recipe", {}), {}) for file in files]
        return None if None in known else {data: kind for part in known if part for data, kind in part.items()}
    sha256 = str(recipe.get("weights_sha256", ""))
    if sha256.partition(":")[0] in NOTHING:
        return {}
    for weights in CATALOGUE.values():
        if weights.sha256 and sha256.startswith(weights.sha256):
            return dict(weights.trained_on)
    return None


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
