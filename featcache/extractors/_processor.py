"""The preprocessing of pictures that a Hugging Face model publishes in preprocessor_config.json, without its libraries.

The steps are resize, centre crop, rescale and normalise, as in transformers' own processors with torchvision: resizing
is in 8 bits with antialiasing, sides are rounded down, and a crop beyond the picture is filled with black.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from featcache import schema
from featcache.errors import ConfigError

FILES = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
NESTED = ("image_processor", "video_processor")  #: keys of the settings in the last of these files
MODES = {2: "bilinear", 3: "bicubic"}  #: Pillow's numbers of the interpolations

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
SQUARE = {"size": {"height": 224, "width": 224}, "do_center_crop": False}
CROPPED = {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": 224}
ALWAYS = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}

DEFAULTS: dict[str, dict[str, Any]] = {  #: settings that a processor's file leaves out, by the start of its name
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
#: processors by type of model, for files of 2021, which do not name their processor
NAMELESS = {"vit": "ViT", "deit": "DeiT", "beit": "Beit", "swin": "ViT", "clip": "CLIP", "videomae": "VideoMAE"}
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
    """The preprocessing of a picture. A size is (height, width), or one number: the shorter side."""

    size: int | tuple[int, int] | None
    mode: str
    crop: tuple[int, int] | None
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def picture(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """RGB (height, width, 3) -> (3, h, w), with the same h and w for all pictures."""
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
    """Read the pipeline of the model in a folder; ConfigError if there is none, or if it is not supported here."""
    settings, file = _settings(folder, model)
    kind = next((str(settings[key]) for key in settings if key.endswith(("processor_type", "extractor_type"))), "")
    family = kind.removesuffix("Fast")
    for ending in ENDINGS:
        family = family.removesuffix(ending)
    family = family or NAMELESS.get(model_type, "")
    if family not in DEFAULTS:
        raise ConfigError(
            f"hf: {file} of {model} names the processor {kind or 'of ' + model_type!r}, which is not supported; "
            f"choose a model with a processor of {', '.join(DEFAULTS)}"
        )
    options = ALWAYS | DEFAULTS[family] | {key: value for key, value in settings.items() if value is not None}
    for step in STEPS_WE_LACK:
        if options.get(step):
            raise ConfigError(f"hf: {file} of {model} has {step}={options[step]}, which is not supported")
    if options["do_resize"] and options["resample"] not in MODES:
        raise ConfigError(
            f"hf: {file} of {model} has resample={options['resample']}; supported: 2 (bilinear) and 3 (bicubic)"
        )
    shorter = "shortest_edge" in DEFAULTS[family]["size"]
    size = _size(options["size"], shorter, f"size in {file} of {model}") if options["do_resize"] else None
    crop = _size(options["crop_size"], False, f"crop_size in {file} of {model}") if options["do_center_crop"] else None
    if family == "ConvNext" and isinstance(size, int):
        size, crop = (int(size / options["crop_pct"]), (size, size)) if size < 384 else ((size, size), None)
    if not isinstance(crop, tuple) and not isinstance(size, tuple):
        raise ConfigError(f"hf: {file} of {model} lets pictures keep their shape; choose a model with one input size")
    normal = options["do_normalize"]
    return Pipeline(
        size,
        MODES.get(options["resample"], "bilinear"),
        crop if isinstance(crop, tuple) else None,
        float(options["rescale_factor"]) if options["do_rescale"] else 1.0,
        _three(options["image_mean"]) if normal else (0.0, 0.0, 0.0),
        _three(options["image_std"]) if normal else (1.0, 1.0, 1.0),
    )


def _settings(folder: Path, model: str) -> tuple[dict[str, Any], str]:
    for file in FILES:
        if (folder / file).is_file():
            place, fix = f"hf: {file} of {model}", "download the model again"
            content = schema.loads((folder / file).read_bytes(), place, fix=fix)
            if not isinstance(content, dict):
                raise ConfigError(f"hf: {file} of {model} holds no settings; download the model again")
            settings = next((content[key] for key in NESTED if key in content), content if file != FILES[-1] else None)
            if settings is not None:
                return settings, file
    raise ConfigError(f"hf: {model} has no {FILES[0]}, which describes its preprocessing; put it into {folder}")


def _size(value: Any, shorter: bool, label: str) -> int | tuple[int, int]:
    """Return a size as (height, width), or as the shorter side, which a bare number means if `shorter`."""
    if isinstance(value, int):
        return value if shorter else (value, value)
    if isinstance(value, list | tuple) and len(value) == 2:
        return int(value[0]), int(value[1])
    if isinstance(value, dict):
        sides = {key: size for key, size in value.items() if size is not None}
        if set(sides) == {"height", "width"}:
            return int(sides["height"]), int(sides["width"])
        if set(sides) == {"shortest_edge"}:
            return int(sides["shortest_edge"])
    raise ConfigError(f"hf: {label} is {value}; supported: height and width, or shortest_edge")


def _three(value: Any) -> tuple[float, float, float]:
    first, second, third = [float(value)] * 3 if isinstance(value, int | float) else value
    return float(first), float(second), float(third)


def _sides(shape: tuple[int, ...], shorter: int) -> tuple[int, int]:
    """Return the height and width with that shorter side; the longer one is rounded down."""
    height, width = shape
    return (shorter, int(shorter * width / height)) if height <= width else (int(shorter * height / width), shorter)


def _cropped(x: Tensor, crop: tuple[int, int]) -> Tensor:
    """Cut out the middle of pictures (1, 3, h, w), padded with zeros if they are smaller than the crop."""
    missing = [max(want - have, 0) for want, have in zip(crop, x.shape[-2:], strict=True)]
    if any(missing):
        rows, columns = missing
        x = functional.pad(x, (columns // 2, (columns + 1) // 2, rows // 2, (rows + 1) // 2))
    top, left = ((have - want) // 2 for want, have in zip(crop, x.shape[-2:], strict=True))
    return x[..., top : top + crop[0], left : left + crop[1]]
