"""The data behind the domains of the manifests that we build: data with labels that hold a domain's clips.

Features of a network that was trained on these data have seen the labels of the domain (`featcache.training_data`).
"""

from collections.abc import Mapping

from featcache.weights.catalogue import EPIC55, EPIC100, KINETICS

Data = Mapping[str, tuple[str, ...]]  #: domain -> names of data that hold its clips, train and test, with their labels

#: P01, P08 and P22 of EPIC-KITCHENS-55's training set, whose videos EPIC-KITCHENS-100's training set holds as well
_EPIC8: Data = dict.fromkeys(("D1", "D2", "D3"), (EPIC55, EPIC100))

#: manifest -> its domains. A domain of another manifest is not known; an experiment's DATA names what is behind it
BEHIND: dict[str, Data] = {
    "actionsense": {f"S{subject:02}": ("ActionSense",) for subject in range(10)},
    "cogbeacon": dict.fromkeys(("V1", "V2", "V3"), ("CogBeacon",)),
    "epic100_uda": {"source": (EPIC55, EPIC100), "target": (EPIC100,)},
    "epic8": _EPIC8,
    "epic8_mtran": _EPIC8,
    "epic8_narrations": _EPIC8,
    "gym_skeletics": {"gym": ("FineGym",), "skeletics": ("Kinetics-700", KINETICS)},  # K700 has most clips of K400
    "kinect_actions": {"utk": ("UTKinect",), "msr": ("MSR-Action3D",), "florence": ("Florence3D",)},
    "kinetics_ntu60": {"kinetics": (KINETICS,), "ntu60": ("NTU-60",)},
    "kitchens": dict.fromkeys(("loft", "cottage"), ("kitchens",)),
    "lsmdc_msvd": {"lsmdc": ("LSMDC",), "msvd": ("MSVD",)},
    "msrvtt_msvd": {"msrvtt": ("MSR-VTT",), "msvd": ("MSVD",)},
    "narratives": {
        "coco": ("COCO captions",),
        "coco_narratives": ("Localized Narratives",),
        "open_narratives": ("Localized Narratives",),
    },
    "ntu60_skeletics": {"ntu60": ("NTU-60",), "skeletics": ("Kinetics-700", KINETICS)},
    "ntu60plus_pkummd": {"ntu60plus": ("NTU-120",), "pkummd": ("PKU-MMD",)},
    "pairs": dict.fromkeys(("source", "none", "mean", "rotation", "topics", "style", "swapped"), ("pairs",)),
    "shifts": dict.fromkeys(
        ("source", "none", "mean", "covariance", "norm", "missing", "cluster", "swapped"), ("shifts",)
    ),
    "skeletics_pkummd": {"skeletics": ("Kinetics-700", KINETICS), "pkummd": ("PKU-MMD",)},
    "synrod": {"synrod": ("synROD",), "rod": ("ROD",)},
    "ucf_hmdb": {"ucf": ("UCF101",), "hmdb": ("HMDB51",)},
    "ucf_hmdb_small": {"ucf": ("UCF101",), "hmdb": ("HMDB51",)},
    "ucf_olympic": {"ucf": ("UCF101",), "olympic": ("Olympic Sports",)},
}
