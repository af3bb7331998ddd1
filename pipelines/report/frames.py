"""The section of a report with pictures of the domains: a frame per class."""

import base64
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.endings import ARRAY, SKELETON
from featcache.errors import FeatcacheError, MediaError
from featcache.extractors import Extractor
from featcache.manifest import Clip, Manifest
from featcache.media import read_clip
from featcache.windows import Pictures, Plan
from pipelines.experiments import Experiment
from pipelines.report import page
from pipelines.report.steps import steps

CLASSES = 8  #: most classes shown, the most frequent ones
DOMAINS = 6  #: most domains shown
PICTURE = 216  #: width in pixels
QUALITY = 74  #: JPEG quality


def frames(experiment: Experiment, stores: Path) -> str:
    """The middle picture of one clip per class and domain, or the reason why there is none."""
    parts, reasons = list[str](), list[str]()
    for name in dict.fromkeys(run.manifest for run in experiment.runs):
        try:
            manifest = Manifest.read(stores / name / "manifest.csv")
        except FeatcacheError as error:
            reasons.append(f"No pictures: {error}.")
            continue
        used = {domain for run in experiment.runs for domain in (*run.source, run.target, run.test)}
        domains = [domain for domain in manifest.domains if domain in used][:DOMAINS]
        classes = _classes(manifest, domains)
        if not classes:
            reasons.append(f"No pictures: the clips of {name} have no classes.")
        for domain in steps(domains):
            pictures = Thumbnails(manifest)
            parts.append(_strip(pictures, domain, classes))
            reasons.append(pictures.missing())
    reasons = list(dict.fromkeys(reasons))
    intro = "The middle picture of one clip per class. Domains share the classes and may differ in everything else."
    return page.section("Pictures of the domains", intro, *parts, reasons=reasons)


def _classes(manifest: Manifest, domains: list[str]) -> list[str]:
    """The most frequent classes of the first label, in sorted order."""
    label = next(iter(manifest.classes), "")
    counts = Counter(clip.labels[label] for clip in manifest if clip.domain in domains and label in clip.labels)
    return sorted(sorted(counts, key=lambda name: (-counts[name], name))[:CLASSES])


def _strip(pictures: "Thumbnails", domain: str, classes: list[str]) -> str:
    """The pictures of one domain, a figure per class; nothing without pictures."""
    figures = []
    for name in classes:
        clip = next((c for c in pictures.manifest if c.domain == domain and name in c.labels.values()), None)
        if clip and (image := pictures.image(clip, f"A picture of {name} in {domain}")):
            figures.append(f"<figure>{image}<figcaption>{escape(name)}</figcaption></figure>")
    return f'<h3>{escape(domain)}</h3><div class="strip">{"".join(figures)}</div>' if figures else ""


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

    if not has_pictures(clip):
        raise MediaError(f"{clip.source} is no video or picture")
    middle = _Middle(None)
    outcome = read_clip(manifest.path(clip), clip, Plan("segments", 1), [middle])[middle.name]
    if isinstance(outcome, FeatcacheError):
        raise outcome
    _, jpeg = cv2.imencode(".jpg", outcome.windows[0][..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(bytes(jpeg)).decode()}" alt="{escape(alt)}">'


def has_pictures(clip: Clip) -> bool:
    """False if the clip's source is an array or a skeleton, by its ending; no decoder is given these."""
    return Path(clip.source).suffix.lower() not in ARRAY | SKELETON


class Thumbnails:
    """Pictures of the clips of a manifest, each decoded once."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.clips = {clip.clip_id: clip for clip in manifest}
        self.images: dict[str, str] = {}
        self.reasons: dict[str, str] = {}  # id of a clip -> why it has no image
        self.media = False  # a clip without an image has a source that could have one

    def image(self, clip: Clip, alt: str = "") -> str:
        """The clip's thumbnail, or "" if it has none."""
        if clip.clip_id not in self.images and clip.clip_id not in self.reasons:
            try:
                alt = alt or f"A picture of clip {clip.clip_id}"
                self.images[clip.clip_id] = thumbnail(self.manifest, clip, alt)
            except (FeatcacheError, OSError) as error:
                self.reasons[clip.clip_id] = str(error)
                self.media |= has_pictures(clip)
        return self.images.get(clip.clip_id, "")

    def figure(self, clip: Clip, text: str, kind: str) -> str:
        """A figure of a CSS class: the clip's thumbnail, if it can be decoded, and a text below."""
        return f'<figure class="{kind}">{self.image(clip)}<figcaption>{escape(text)}</figcaption></figure>'

    def missing(self) -> str:
        """A sentence about the missing pictures, with the first reason; "" if none is missing."""
        if not self.reasons:
            return ""
        if not self.media:
            kinds = {Path(self.clips[clip].source).suffix.lower() in ARRAY: None for clip in self.reasons}
            names = " or ".join("arrays" if is_array else "skeletons" for is_array in kinds)
            return f"No pictures: the sources of the clips are {names}, not media."
        first, total = next(iter(self.reasons.values())), len(self.reasons) + len(self.images)
        return f"Missing pictures: {len(self.reasons)} of {total}. The first reason: {first}"


Card = tuple[str, Sequence[tuple[Clip, str, str]]]  #: a text, and figures: (clip, text, CSS class) each


def cards(pictures: Thumbnails, entries: Iterable[Card]) -> str:
    """A card per entry with its figures; narrow ones if no clip has a picture, because these are lists of texts."""
    entries = list(entries)
    seen = any(pictures.image(clip) for _, figures in entries for clip, _, _ in figures)
    kind = "strip" if seen else "strip texts"
    return page.panels(
        (
            page.figure(text, f'<div class="{kind}">{"".join(pictures.figure(*shown) for shown in figures)}</div>')
            for text, figures in entries
        ),
        "wide" if seen else "thirds",
    )
