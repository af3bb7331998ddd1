"""The captions of a retrieval run: which clip each is of, and which of them a side has.

The caption feeds of a run name one manifest of captions, whose rows say in `of` which clip they describe; or "own":
each row of the clips' manifest has one caption itself. What counts is the clip's domain and split, not the caption's.

Features of captions always lie in memory, whatever the tier of the clips': 100,000 sentences of 768 numbers are 0.3 GB.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache import FeatureStore, Manifest
from featcache.errors import ConfigError
from pipelines.config import Feed
from pipelines.data.rows import Captions, load
from pipelines.data.stores import DONE
from pipelines.data.tiers import Features, open_features


@dataclass(frozen=True)
class RunCaptions:
    """The captions of a run, joined with its clips; features are read when a side is asked for."""

    manifest: Manifest  #: of the captions; where they are the clips' own, of the clips
    clip: NDArray[np.int64]  #: (captions,) row of the clips' manifest that each is a caption of
    feeds: dict[str, Feed]
    stores: dict[str, FeatureStore]  #: modality -> store
    absent: str  #: as in RunConfig
    device: str
    own: bool = False  #: each row of the clips' manifest has a caption, or none

    @cached_property
    def features(self) -> Features:
        """The opened features."""
        return open_features(self.stores, [], self.device, tier="resident")

    @cached_property
    def usable(self) -> NDArray[np.bool_]:
        """(captions,): those that have features, of every feed or, masked, of one."""
        there = np.stack([store.state == DONE for store in self.stores.values()])
        return np.asarray(there.any(0) if self.absent == "mask" else there.all(0))

    def captioned(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these clips have a caption that can be used."""
        return np.isin(rows, self.clip[self.usable])

    def load(self, role: str, rows: list[int], domain: Tensor) -> Captions:
        """The captions of these clips, clip by clip; for training too, where the role is not "test"."""
        position = {row: k for k, row in enumerate(rows)}
        mine = [caption for caption, row in enumerate(self.clip.tolist()) if row in position]
        if self.absent == "refuse" and not self.own:
            self._refuse_lacking(mine)
        mine = sorted((c for c in mine if self.usable[c]), key=lambda c: position[int(self.clip[c])])
        if not mine:
            raise ConfigError(f"no clip of the {role} has a caption in manifest {self.manifest.name!r}")
        row = torch.tensor([position[clip] for clip in self.clip[mine].tolist()])
        table = load(self.features, self.feeds, mine, {}, domain[row.to(domain.device)], trained=role != "test")
        return Captions(table, row.bincount(minlength=len(rows)))

    def _refuse_lacking(self, captions: list[int]) -> None:
        """Each row of a caption manifest is a caption, so one without features went wrong."""
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
    """Row of the clips' manifest that each caption is of -> (captions,); ConfigError where there is no such clip."""
    row = {clip.clip_id: k for k, clip in enumerate(clips)}
    for caption in captions:
        if caption.of not in row:
            what = (
                f"of clip {caption.of!r}, which manifest {clips.name!r} does not have" if caption.of else "of no clip"
            )
            raise ConfigError(
                f"row {caption.clip_id!r} of caption manifest {captions.name!r} is {what}; its column `of` names a "
                f"clip_id of {clips.name!r}"
            )
    return np.array([row[caption.of] for caption in captions], np.int64)
