"""The section of a report with pictures of the domains: a frame per class."""

import base64
from collections import Counter
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.endings import ARRAY
from featcache.errors import FeatcacheError
from featcache.extractors import Extractor
from featcache.manifest import Clip, Manifest
from featcache.media import read_clip
from featcache.windows import Pictures, Plan
from pipelines.experiments import Experiment
from pipelines.report import page

CLASSES = 8  #: most classes shown, the most frequent ones
DOMAINS = 6  #: most domains shown
PICTURE = 216  #: width in pixels
QUALITY = 74  #: JPEG quality


def frames(experiment: Experiment, stores: Path) -> str:
    """The middle picture of one clip per class and domain, or the reason why there is none."""
    parts: list[str] = []
    for name in dict.fromkeys(run.manifest for run in experiment.runs):
        try:
            manifest = Manifest.read(stores / name / "manifest.csv")
        except FeatcacheError as error:
            parts.append(page.paragraph(f"No pictures: {error}."))
            continue
        used = {domain for run in experiment.runs for domain in (*run.source, run.target, run.test)}
        domains = [domain for domain in manifest.domains if domain in used][:DOMAINS]
        classes = _classes(manifest, domains)
        if not classes:
            parts.append(page.paragraph(f"No pictures: the clips of {name} have no classes."))
            continue
        parts += [_strip(manifest, domain, classes) for domain in domains]
    intro = "The middle picture of one clip per class. Domains share the classes and may differ in everything else."
    return page.section("Pictures of the domains", intro, *parts)


def _classes(manifest: Manifest, domains: list[str]) -> list[str]:
    """The most frequent classes of the first label, in sorted order."""
    label = next(iter(manifest.classes), "")
    counts = Counter(clip.labels[label] for clip in manifest if clip.domain in domains and label in clip.labels)
    return sorted(sorted(counts, key=lambda name: (-counts[name], name))[:CLASSES])


def _strip(manifest: Manifest, domain: str, classes: list[str]) -> str:
    """The pictures of one domain, a figure per class."""
    pictures, reasons = [], []
    for name in classes:
        clip = next((c for c in manifest if c.domain == domain and name in c.labels.values()), None)
        if clip is None:
            continue
        try:
            image = thumbnail(manifest, clip, f"A picture of {name} in {domain}")
        except (FeatcacheError, OSError) as error:
            reasons.append(str(error))
            continue
        pictures.append(f"<figure>{image}<figcaption>{escape(name)}</figcaption></figure>")
    missing = f"Missing pictures: {len(reasons)} of {len(classes)}. The first reason: {reasons[0]}" if reasons else ""
    strip = f'<div class="strip">{"".join(pictures)}</div>' if pictures else ""
    return f"<h3>{escape(domain)}</h3>{strip}{page.paragraph(missing)}"


class _Middle(Extractor):
    """The picture in the middle of a clip, made small.

    It is an extractor, so that seeking, rotation and folders of images work as they do for features.
    """

    name = "middle"
    modality = "rgb"
    window = Pictures(count=1, rate=25.0)

    def prepare(self, window: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Shrink an RGB picture to at most PICTURE pixels of width."""
        import cv2

        (picture,) = window
        height, width = picture.shape[:2]
        size = (min(PICTURE, width), max(1, round(height * min(PICTURE, width) / width)))
        return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def thumbnail(manifest: Manifest, clip: Clip, alt: str) -> str:
    """The middle picture of a clip as an <img> with its data inside; MediaError if it cannot be decoded."""
    import cv2

    middle = _Middle(None)
    outcome = read_clip(manifest.path(clip), clip, Plan("segments", 1), [middle])[middle.name]
    if isinstance(outcome, FeatcacheError):
        raise outcome
    _, jpeg = cv2.imencode(".jpg", outcome.windows[0][..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(bytes(jpeg)).decode()}" alt="{escape(alt)}">'


class Thumbnails:
    """Pictures of the clips of a manifest, each decoded once."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.images: dict[str, str] = {}
        self.reasons: dict[str, str] = {}  # id of a clip -> why it has no image
        self.arrays = True  # the clips without an image are arrays

    def figure(self, clip: Clip, text: str, kind: str) -> str:
        """A figure of a CSS class: the clip's thumbnail, if it can be decoded, and a text below."""
        if clip.clip_id not in self.images and clip.clip_id not in self.reasons:
            try:
                self.images[clip.clip_id] = thumbnail(self.manifest, clip, f"A picture of clip {clip.clip_id}")
            except (FeatcacheError, OSError) as error:
                self.reasons[clip.clip_id] = str(error)
                self.arrays &= Path(clip.source).suffix.lower() in ARRAY
        image = self.images.get(clip.clip_id, "")
        return f'<figure class="{kind}">{image}<figcaption>{escape(text)}</figcaption></figure>'

    def missing(self) -> str:
        """A sentence about the missing pictures, with the first reason; "" if none is missing."""
        if not self.reasons:
            return ""
        if self.arrays:
            return page.paragraph("No pictures: the sources of the clips are arrays, not media.")
        first, total = next(iter(self.reasons.values())), len(self.reasons) + len(self.images)
        return page.paragraph(f"Missing pictures: {len(self.reasons)} of {total}. The first reason: {first}")
