"""The preprocessing of pictures that a Hugging Face model publishes in preprocessor_config.json, without its libraries.

Resize, centre crop, rescale, normalise, in that order, as transformers' own processors do with torchvision: resized in
8 bits with antialiasing, sides rounded down, a crop beyond the picture filled with black.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from featcache.errors import ConfigError

FILES = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
NESTED = ("image_processor", "video_processor")  #: where the last of these files has it
MODES = {2: "bilinear", 3: "bicubic"}  #: Pillow's numbers of interpolations

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
SQUARE = {"size": {"height": 224, "width": 224}, "do_center_crop": False}
CROPPED = {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": 224}
ALWAYS = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}

DEFAULTS: dict[str, dict[str, Any]] = {  #: what a processor does where its file is silent, by the start of its name
    "ViT": SQUARE | HALF | {"resample": 2},
    "DeiT": SQUARE
    | HALF
    | {"size": {"height": 256, "width": 256}, "do_center_crop": True, "crop_size": 224, "resample": 3},
    "Beit": SQUARE | HALF | {"crop_size": 224, "resample": 3},
    "Siglip": SQUARE | HALF | {"resample": 3},
    "DINOv3ViT": SQUARE | IMAGENET | {"resample": 2},
    "CLIP": CROPPED | CLIP | {"resample": 3},
    "ChineseCLIP": CROPPED | CLIP | {"resample": 3},
    "Bit": CROPPED | CLIP | {"resample": 3},
    "VideoMAE": CROPPED | HALF | {"resample": 2},
    "VJEPA2": CROPPED | IMAGENET | {"size": {"shortest_edge": 292}, "crop_size": 256, "resample": 2},
    "ConvNext": {"size": {"shortest_edge": 384}, "do_center_crop": False, "crop_pct": 224 / 256, "resample": 3} | HALF,
}
NAMELESS = {"vit": "ViT", "deit": "DeiT", "beit": "Beit", "swin": "ViT", "clip": "CLIP", "videomae": "VideoMAE"}
#: files of 2021 do not name their processor: by type of model
ENDINGS = ("ImageProcessor", "FeatureExtractor", "VideoProcessor")
STEPS_WE_LACK = (
    "do_pad",
    "do_flip_channel_order",
    "do_image_splitting",
    "do_thumbnail",
    "do_align_long_axis",
    "offset",
)


@dataclass(frozen=True)
class Pipeline:
    """What is done to a picture. A size is (height, width), or one number: the shorter side."""

    size: int | tuple[int, int] | None
    mode: str
    crop: tuple[int, int] | None
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def picture(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """RGB (height, width, 3) -> (3, h, w), always of the same h and w."""
        x = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None]
        if self.size is not None:
            size = _sides(rgb.shape[:2], self.size) if isinstance(self.size, int) else self.size
            x = functional.interpolate(x, size=size, mode=self.mode, antialias=True, align_corners=False)
        if self.crop is not None:
            x = _cropped(x, self.crop)
        return np.ascontiguousarray(x[0].numpy())

    def normalised(self, pictures: Tensor) -> Tensor:
        """uint8 (..., 3, h, w) -> float32."""
        mean = torch.tensor(self.mean, device=pictures.device)[:, None, None]
        std = torch.tensor(self.std, device=pictures.device)[:, None, None]
        return (pictures.float() * self.scale - mean) / std


def read(folder: Path, model: str, model_type: str) -> Pipeline:
    """The pipeline of the model in that folder; ConfigError where there is none, or one that is not known here."""
    settings, file = _settings(folder, model)
    kind = next((str(settings[key]) for key in settings if key.endswith(("processor_type", "extractor_type"))), "")
    family = kind.removesuffix("Fast")
    for ending in ENDINGS:
        family = family.removesuffix(ending)
    family = family or NAMELESS.get(model_type, "")
    if family not in DEFAULTS:
        raise ConfigError(
            f"hf: {file} of {model} asks for the processor {kind or 'of ' + model_type!r}, whose steps are not known "
            f"here; known are those of {', '.join(DEFAULTS)}"
        )
    known = ALWAYS | DEFAULTS[family] | {key: value for key, value in settings.items() if value is not None}
    for step in STEPS_WE_LACK:
        if known.get(step):
            raise ConfigError(f"hf: {file} of {model} asks for {step}={known[step]}, a step that is not known here")
    if known["do_resize"] and known["resample"] not in MODES:
        raise ConfigError(
            f"hf: {file} of {model} has resample={known['resample']}; known are 2, bilinear, and 3, bicubic"
        )
    shorter = "shortest_edge" in DEFAULTS[family]["size"]
    size = _size(known["size"], shorter, f"size in {file} of {model}") if known["do_resize"] else None
    crop = _size(known["crop_size"], False, f"crop_size in {file} of {model}") if known["do_center_crop"] else None
    if family == "ConvNext" and isinstance(size, int):
        size, crop = (int(size / known["crop_pct"]), (size, size)) if size < 384 else ((size, size), None)
    if not isinstance(crop, tuple) and not isinstance(size, tuple):
        raise ConfigError(f"hf: by {file} of {model}, pictures keep their shape; only models with one input size work")
    normal = known["do_normalize"]
    return Pipeline(
        size,
        MODES.get(known["resample"], "bilinear"),
        crop if isinstance(crop, tuple) else None,
        float(known["rescale_factor"]) if known["do_rescale"] else 1.0,
        _three(known["image_mean"]) if normal else (0.0, 0.0, 0.0),
        _three(known["image_std"]) if normal else (1.0, 1.0, 1.0),
    )


def _settings(folder: Path, model: str) -> tuple[dict[str, Any], str]:
    for file in FILES:
        if (folder / file).is_file():
            found = json.loads((folder / file).read_text("utf-8"))
            found = next((found[key] for key in NESTED if key in found), found if file != FILES[-1] else None)
            if found is not None:
                return found, file
    raise ConfigError(f"hf: {model} has no {FILES[0]}, which says how its pictures are made; put it into {folder}")


def _size(value: Any, shorter: bool, what: str) -> int | tuple[int, int]:
    """As (height, width), or as the shorter side. shorter: what one bare number means."""
    if isinstance(value, int):
        return value if shorter else (value, value)
    if isinstance(value, list | tuple) and len(value) == 2:
        return int(value[0]), int(value[1])
    if isinstance(value, dict):
        there = {key: size for key, size in value.items() if size is not None}
        if set(there) == {"height", "width"}:
            return int(there["height"]), int(there["width"])
        if set(there) == {"shortest_edge"}:
            return int(there["shortest_edge"])
    raise ConfigError(f"hf: {what} is {value}; known are a height and width, and a shortest_edge")


def _three(value: Any) -> tuple[float, float, float]:
    first, second, third = [float(value)] * 3 if isinstance(value, int | float) else value
    return float(first), float(second), float(third)


def _sides(shape: tuple[int, ...], shorter: int) -> tuple[int, int]:
    """Height and width with that shorter side; the longer one rounded down."""
    height, width = shape
    return (shorter, int(shorter * width / height)) if height <= width else (int(shorter * height / width), shorter)


def _cropped(x: Tensor, crop: tuple[int, int]) -> Tensor:
    """The middle of pictures (1, 3, h, w)."""
    missing = [max(want - have, 0) for want, have in zip(crop, x.shape[-2:], strict=True)]
    if any(missing):
        rows, columns = missing
        x = functional.pad(x, (columns // 2, (columns + 1) // 2, rows // 2, (rows + 1) // 2))
    top, left = ((have - want) // 2 for want, have in zip(crop, x.shape[-2:], strict=True))
    return x[..., top : top + crop[0], left : left + crop[1]]
