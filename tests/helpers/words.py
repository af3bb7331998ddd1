"""A text extractor that counts words: what is near what can be told by hand."""

from dataclasses import dataclass, replace

import numpy as np

from featcache.extractors import Extractor
from featcache.manifest import Clip, Manifest
from featcache.store import StoreWriter
from featcache.windows import Caption, Plan, Tokens
from heads.methods import source_only
from heads.nets import gated
from pipelines.config import Feed, Optim, RunConfig
from pipelines.extraction.extract import extract

WORDS = ("someone", "cuts", "peels", "a", "tomato", "carrot", "dog", "sleeps")
THINGS = [(verb, noun) for verb in ("cuts", "peels") for noun in ("tomato", "carrot", "dog")]


@dataclass(frozen=True)
class Params:
    scale: float = 1.0
    tokens: int = 0  #: rows of a caption, its first known words; 0: one row, their counts


class CountedWords(Extractor):
    name = "counted-words"
    modality = "text"
    window = Caption()
    row_shape = (len(WORDS),)

    def __init__(self, params):
        super().__init__(params)
        if params.tokens:
            self.window = Tokens(params.tokens)

    def prepare(self, window):
        if not self.params.tokens:
            return np.array([window.split().count(word) for word in WORDS], np.float32)
        known = [WORDS.index(word) for word in window.split() if word in WORDS][: self.params.tokens]
        rows = np.zeros((self.params.tokens, len(WORDS)), np.float32)
        rows[range(len(known)), known] = 1
        return rows

    def tokens(self, window):
        return int(window.sum()) if self.params.tokens else 0

    def __call__(self, windows):
        return self.params.scale * windows


EXTRACTOR = CountedWords


def register(monkeypatch):
    """Make `counted-words` an extractor by that name."""
    import featcache.extractors as registry
    import tests.helpers.words as here

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


def retrieval_stores(stores, copies=1, shift=0.0, sources=None, prefix="", extractor=None, ending="mp4"):
    """Clips `films` of two domains whose only expert counts what happens in them, and two captions of each.

    Train clips of the night have none. Each of six things happens in `copies` train and test clips of a domain.
    `shift` is added to the expert at night.
    sources: a folder with the pictures day.png and night.png, which all clips then are. prefix: of each caption.
    """
    clips, captions, rows = [], [], []
    for domain in ("day", "night"):
        for k, (verb, noun) in enumerate(copies * THINGS):
            for split in ("train", "test"):
                name = f"{domain}_{split}{k}"
                span = {} if sources else {"start": 10 * k, "stop": 10 * k + 8}
                clips.append(Clip(name, domain, split, f"{domain}.{'png' if sources else ending}", **span))
                rows.append([float(word in (verb, noun)) + shift * (domain == "night") for word in WORDS])
                if (domain, split) == ("night", "train"):
                    continue
                for number, text in enumerate((f"someone {verb} a {noun}", f"{verb} the {noun}")):
                    captions.append(Clip(f"{name}#{number}", domain, split, "-", caption=prefix + text, of=name))
    manifest = Manifest("films", tuple(clips), sources or stores)
    manifest.write(stores / "films" / "manifest.csv")
    recipe = {"extractor": "object", "version": 1, "modality": "rgb", "weights_sha256": "none", "dtype": "float32"}
    path = stores / "films" / "object.zarr"
    with StoreWriter.open(path, manifest, recipe, row_shape=(len(WORDS),), windows=1, facts={}) as writer:
        for row, counts in enumerate(rows):
            writer.done(row, np.array([counts], np.float32), np.zeros(1), np.ones(1))
    caption_store(stores, "films_captions", captions, extractor)


def retrieval_run(**changes):
    """A quick run from day to night on these stores."""
    feeds = {
        "object": Feed("object"),
        "text": Feed("counted-words", seen_by="source test", captions="films_captions"),
    }
    plain = RunConfig(
        "films", source_only.Params(), gated.Params(dim=16), feeds, row="gated", source=("day",), test="night",
        steps=60, epoch="source", batch=(6, 6), optim=Optim("adam", lr=0.02),
    )  # fmt: skip
    return replace(plain, **changes)
