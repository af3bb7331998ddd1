"""Images with one-sentence captions (COCO) and with long ones (Localized Narratives of COCO and Open Images).

`data_manifests/narratives.md` is the dataset card, with the protocol. The domains are `coco`, `coco_narratives` and
`open_narratives`. A domain is built if its files are in the folder.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from featcache.builders._captions import entries, lines, publish
from featcache.errors import ManifestError
from featcache.manifest import Clip, Manifest
from featcache.progress import Progress, silent

PARTS = {  # (domain, split) -> files, folder of the pictures, number of captions
    ("coco", "train"): ("captions_train2017.json", "train2017", 591_753),
    ("coco", "test"): ("captions_val2017.json", "val2017", 25_014),
    ("coco_narratives", "train"): ("coco_train_localized_narratives*.jsonl", "train2017", 134_272),
    ("coco_narratives", "test"): ("coco_val_localized_narratives*.jsonl", "val2017", 8573),
    ("open_narratives", "train"): ("open_images_train_v6_localized_narratives*.jsonl", "open_images/train", 507_444),
    ("open_narratives", "val"): (
        "open_images_validation_localized_narratives*.jsonl",
        "open_images/validation",
        41_691,
    ),
    ("open_narratives", "test"): ("open_images_test_localized_narratives*.jsonl", "open_images/test", 126_020),
}
ORIGINS = "cocodataset.org/#download and google.github.io/localized-narratives"


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read the available annotation files; write `folder/narratives.csv` and `folder/narratives_captions.csv`.

    `progress(done, total)` is called at the end. ManifestError if no file is there or one is damaged; a warning
    for each available part that does not have the published number of captions.
    """
    folder, clips, captions = Path(folder), dict[str, Clip](), dict[str, list[str]]()
    published = {}
    for (domain, split), (name, pictures, size) in PARTS.items():
        paths = sorted({*folder.glob(name), *folder.glob(f"annotations/{name}")})
        if paths:
            published[domain, split] = size
        for path in paths:
            for image, text in _captions(path):
                number = image.zfill(12) if domain != "open_narratives" else image
                clip_id = f"{domain}/{pictures.removeprefix('open_images/')}/{number}"
                clips.setdefault(clip_id, Clip(clip_id, domain, split, f"{pictures}/{number}.jpg"))
                captions.setdefault(clip_id, []).append(text)
    if not published:
        names = ", ".join(name for name, _, _ in PARTS.values())
        raise ManifestError(f"no {names} in {folder}; get them from {ORIGINS}")
    return publish(
        "narratives",
        list(clips.values()),
        captions,
        folder,
        progress,
        clips_published={},
        captions_published=published,
    )


def _captions(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (image, caption); COCO's file is one JSON object, narratives are one object per line."""
    fields = ("image_id", "caption")
    for entry in entries(path, "annotations", fields) if path.suffix == ".json" else lines(path, fields):
        yield str(entry["image_id"]), str(entry["caption"])
