"""A text extractor that counts words: what is near what can be told by hand."""

from dataclasses import dataclass

import numpy as np

from featcache.extractors import Caption, Extractor
from featcache.manifest import Clip, Manifest
from featcache.windows import Plan
from pipelines.extract import extract

WORDS = ("someone", "cuts", "peels", "a", "tomato", "carrot", "dog", "sleeps")


@dataclass(frozen=True)
class Params:
    scale: float = 1.0


class CountedWords(Extractor):
    name = "counted-words"
    modality = "text"
    window = Caption()
    row_shape = (len(WORDS),)

    def prepare(self, window):
        return np.array([window.split().count(word) for word in WORDS], np.float32)

    def __call__(self, windows):
        return self.params.scale * windows


EXTRACTOR = CountedWords


def register(monkeypatch):
    """Make `counted-words` an extractor by that name."""
    import featcache.extractors as registry
    import tests._words as here

    others = registry._module
    monkeypatch.setattr(registry, "_module", lambda name: here if name == CountedWords.name else others(name))


def caption_store(stores, name, clips, extractor=None):
    """STORES/name with a manifest of these clips and the store of their captions; returns the store's path."""
    manifest = Manifest(name, tuple(clips), stores)
    extractor = extractor or CountedWords(Params())
    extract(manifest, [extractor], stores, plan=Plan())
    return stores / name / f"{extractor.store}.zarr"


def captioned(captions, **others):
    """A clip per caption, ten seconds each."""
    return [
        Clip(f"c{k}", "d", "test", "video.mp4", start=10 * k, stop=10 * k + 9.5, caption=caption, **others)
        for k, caption in enumerate(captions)
    ]
