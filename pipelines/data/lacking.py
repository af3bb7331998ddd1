"""Clips that a run leaves out because they have no features or labels, and the sentences about them in tables."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache import FeatureStore
from featcache.store import DONE
from featcache.wording import first

NO_FEATURES = "NO FEATURES"  #: kind of these sentences among the limits of a result
NO_LABELS = "NO LABELS"  #: kind of the sentence about test clips of which none has a label, in the same place
SOME_LABELS = "SOME LABELS"  #: kind of the sentences about clips of which some have labels
ENDS = {"test": "scored", "captions": "queries"}  #: role -> what its clips are not; clips of other roles train nothing


@dataclass(frozen=True)
class LeftOut:
    """The clips of one role and domain that a run leaves out."""

    role: str  #: source, target, test, or captions: of the test clips
    domain: str
    ids: tuple[str, ...]  #: of the clips that are left out
    count: int  #: number of clips that there are
    whole: bool = True  #: True if the clips have no feature at all, False if they lack a modality

    def __str__(self) -> str:
        """Describe the clips: "NO FEATURES: 2 of 19 test clips have no features, so they are not scored: a, b"."""
        kind = {"test": "test clips", "captions": "captions of test clips"}.get(
            self.role, f"train clips of {self.domain}"
        )
        has, they = ("has", "it is") if len(self.ids) == 1 else ("have", "they are")
        lack = f"{has} no features" if self.whole else f"{'lacks' if has == 'has' else 'lack'} a modality"
        end = ENDS.get(self.role, "trained on")
        return f"{NO_FEATURES}: {len(self.ids)} of {self.count} {kind} {lack}, so {they} not {end}: {first(self.ids)}"


def without_labels(domain: str, split: str, lacking: int, count: int) -> tuple[str, ...]:
    """Return "KIND: explanation" of the test clips of a domain that have no label; () if there is none."""
    if not lacking:
        return ()
    if lacking == count:
        return (
            f"{NO_LABELS}: none of the {count} {split} clips of {domain} has a label, so there is nothing to compare "
            "predictions with; `featcache predict` writes them",
        )
    return (f"{SOME_LABELS}: {lacking} of {count} {split} clips of {domain} have no label, so they are not scored",)


def nothing_to_compare(limits: Iterable[str]) -> str:
    """Return the explanation of `NO_LABELS` among the limits of a result; "" if its test clips have labels."""
    return next((text.partition(": ")[2] for text in limits if text.startswith(f"{NO_LABELS}: ")), "")


def featureless(stores: Iterable[FeatureStore], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return True for each of these rows that no store has features of (rows,)."""
    return np.logical_and.reduce([store.state[rows] != DONE for store in stores])
