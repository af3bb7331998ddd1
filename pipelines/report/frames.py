"""What a report takes from folders: what the domains look like, what the features are, which run stands for a cell."""

import base64
from collections import Counter
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.errors import FeatcacheError
from featcache.extractors import Extractor
from featcache.manifest import Clip, Manifest
from featcache.media import read_clip
from featcache.windows import Pictures, Plan
from pipelines.experiments import Experiment
from pipelines.report import page

LABELS = 8  # most frequent ones are shown, a picture per label and domain
DOMAINS = 6
PICTURE = 216  # width in pixels
QUALITY = 74  # of JPEG


# ------------------------------------------------------------------------------------------------------------ frames


def frames(experiment: Experiment, stores: Path) -> str:
    """The middle picture of one clip per label and domain; what cannot be shown says why."""
    parts: list[str] = []
    for name in dict.fromkeys(run.manifest for run in experiment.runs):
        try:
            manifest = Manifest.read(stores / name / "manifest.csv")
        except FeatcacheError as error:
            parts.append(page.paragraph(f"No pictures: {error}."))
            continue
        used = {domain for run in experiment.runs for domain in (*run.source, run.target, run.test)}
        domains = [domain for domain in manifest.domains if domain in used][:DOMAINS]
        labels = _labels(manifest, domains)
        if not labels:
            parts.append(page.paragraph(f"The clips of {name} have no classes to show pictures of."))
            continue
        parts += [_strip(manifest, domain, labels) for domain in domains]
    intro = "The middle picture of one clip per class. The classes are the same; all else may differ."
    return page.section("What the shift looks like", intro, *parts)


def _labels(manifest: Manifest, domains: list[str]) -> list[str]:
    """The most frequent class names of the first task, in sorted order."""
    task = next(iter(manifest.classes), "")
    counts = Counter(clip.labels[task] for clip in manifest if clip.domain in domains and task in clip.labels)
    return sorted(sorted(counts, key=lambda label: (-counts[label], label))[:LABELS])


def _strip(manifest: Manifest, domain: str, labels: list[str]) -> str:
    pictures, reasons = [], []
    for label in labels:
        clip = next((c for c in manifest if c.domain == domain and label in c.labels.values()), None)
        if clip is None:
            continue
        try:
            image = thumbnail(manifest, clip, f"A picture of {label} in {domain}")
        except (FeatcacheError, OSError) as error:
            reasons.append(str(error))
            continue
        pictures.append(f"<figure>{image}<figcaption>{escape(label)}</figcaption></figure>")
    missing = f"Pictures not at hand: {len(reasons)} of {len(labels)}. The first: {reasons[0]}" if reasons else ""
    strip = f'<div class="strip">{"".join(pictures)}</div>' if pictures else ""
    return f"<h3>{escape(domain)}</h3>{strip}{page.paragraph(missing)}"


class _Middle(Extractor):
    """The picture in the middle of a clip, made small. Read as features are, so seeks, rotation and folders work."""

    name = "middle"
    modality = "rgb"
    window = Pictures(count=1, rate=25.0)

    def prepare(self, window: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """One RGB picture -> the same, PICTURE pixels wide at most."""
        import cv2

        (picture,) = window
        height, width = picture.shape[:2]
        size = (min(PICTURE, width), max(1, round(height * min(PICTURE, width) / width)))
        return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def thumbnail(manifest: Manifest, clip: Clip, alt: str) -> str:
    """The clip's middle as an image inside the page; MediaError when there is nothing to decode."""
    import cv2

    middle = _Middle(None)
    take = read_clip(manifest.path(clip), clip, Plan("segments", 1), [middle])[middle.name]
    if isinstance(take, FeatcacheError):
        raise take
    _, jpeg = cv2.imencode(".jpg", take.windows[0][..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(bytes(jpeg)).decode()}" alt="{escape(alt)}">'
