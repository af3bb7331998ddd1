"""The captions of a retrieval run: the clip of each caption, and the captions of a side.

The caption feeds of a run name one manifest of captions, whose column `of` names the clip that a caption describes; or
"own": each row of the clips' manifest has its own caption. A caption belongs to the domain and the split of its clip.

Features of captions are always in memory, whatever the tier of the clips' features: 100,000 sentences of 768 numbers
take 0.3 GB.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache import FeatureStore, Manifest
from featcache.errors import ConfigError
from featcache.store import DONE
from pipelines.config import Feed
from pipelines.data.rows import Captions, load
from pipelines.data.tiers import Features, open_features


@dataclass(frozen=True)
class RunCaptions:
    """The captions of a run, each with its clip. Features are read when a side is loaded."""

    manifest: Manifest  #: the manifest of captions; if `own`, that of the clips
    clip: NDArray[np.int64]  #: (captions,) row of the clips' manifest that each caption describes
    feeds: dict[str, Feed]
    stores: dict[str, FeatureStore]  #: modality -> store
    absent: str  #: as in RunConfig
    device: str
    own: bool = False  #: True if each row of the clips' manifest has its own caption, or none

    @cached_property
    def features(self) -> Features:
        """The opened features."""
        return open_features(self.stores, [], self.device, tier="resident")

    @cached_property
    def usable(self) -> NDArray[np.bool_]:
        """True for captions that have features of every feed, or of one feed if `absent` is mask (captions,)."""
        extracted = np.stack([store.state == DONE for store in self.stores.values()])
        return np.asarray(extracted.any(0) if self.absent == "mask" else extracted.all(0))

    def captioned(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return True for each of these clips that has a usable caption."""
        return np.isin(rows, self.clip[self.usable])

    def unusable(self, rows: list[int]) -> tuple[tuple[str, ...], int]:
        """Return the ids of the captions of these clips that have no features, and the number of all their captions.

        A clip with an empty caption of its own has none.
        """
        clips, wanted = self.manifest.clips, np.isin(self.clip, rows)
        if self.own:
            wanted &= self.usable | np.array([bool(clip.caption.strip()) for clip in clips])
        return tuple(clips[row].clip_id for row in np.flatnonzero(wanted & ~self.usable)), int(wanted.sum())

    def load(self, role: str, rows: list[int], domain: Tensor, among: list[int] | None = None) -> Captions:
        """Load the captions of these clips, clip by clip: for sweeps, and unless the role is "test", for training.

        among: clips that include these, as in `rows.load`.
        """
        if self.absent == "refuse" and not self.own:
            self._refuse_lacking(np.flatnonzero(np.isin(self.clip, rows)).tolist())
        captions = self.of_clips(rows)
        if not captions:
            raise ConfigError(f"no clip of the {role} has a caption in manifest {self.manifest.name!r}")
        position = {row: k for k, row in enumerate(rows)}
        row = torch.tensor([position[clip] for clip in self.clip[captions].tolist()])
        domain, trained = domain[row.to(domain.device)], role != "test"
        of_all = among and self.of_clips(among)
        table = load(self.features, self.feeds, captions, {}, domain, trained=trained, among=of_all)
        return Captions(table, row.bincount(minlength=len(rows)))

    def of_clips(self, rows: list[int]) -> list[int]:
        """Return the usable captions of these clips, in the order of the clips."""
        position = {row: k for k, row in enumerate(rows)}
        captions = [c for c, row in enumerate(self.clip.tolist()) if row in position and self.usable[c]]
        return sorted(captions, key=lambda c: position[int(self.clip[c])])

    def _refuse_lacking(self, captions: list[int]) -> None:
        """Raise ConfigError if a caption has no features: each row of a caption manifest should have some."""
        lacking = [caption for caption in captions if not self.usable[caption]]
        for m, store in self.stores.items():
            for caption in lacking:
                if store.state[caption] != DONE:
                    raise ConfigError(
                        f"{len(lacking)} of {len(captions)} captions lack a modality: "
                        f"{self.manifest.clips[caption].clip_id!r} has no {m} "
                        f"({store.failures.get(caption, 'unknown reason')}); repair it and extract again, or set "
                        "absent=drop"
                    )


def clip_rows(captions: Manifest, clips: Manifest) -> NDArray[np.int64]:
    """Return the row of each caption's clip in the clips' manifest -> (captions,); ConfigError if a clip is missing."""
    row = {clip.clip_id: k for k, clip in enumerate(clips)}
    for caption in captions:
        if caption.of not in row:
            problem = f"describes clip {caption.of!r}, which does not exist" if caption.of else "names no clip"
            raise ConfigError(
                f"row {caption.clip_id!r} of caption manifest {captions.name!r} {problem}; its column `of` must be a "
                f"clip_id of manifest {clips.name!r}"
            )
    return np.array([row[caption.of] for caption in captions], np.int64)
