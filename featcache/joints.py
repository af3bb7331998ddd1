"""Layouts of skeletons: the names of the joints in order, and the centre. Equal names are the same joint.

    ntu-25       Kinect 2, NTU RGB+D and PKU-MMD. The SDK calls `hip centre` SpineBase, `spine` SpineMid and
                 `shoulder centre` SpineShoulder; NTU's paper calls them base, middle and spine
    kinect-20    Kinect 1, UTKinect and MSR-Action3D; it has no `neck`
    shared-15    the joints that these layouts share with the first 15 of OpenPose's BODY_25 (and so with VIBE, from
                 which Skeletics-152 was made), in OpenPose's order: right before left. OpenPose calls `shoulder centre`
                 neck and places it in the middle between the shoulders; its `head` is the nose
    florence-15  files of Florence3D, which has a spine and no `hip centre`, in millimetres. A file of 15 joints is read
                 as shared-15 or florence-15, whichever has the joints of the rows
    kinect-15    rows of the joints that all Kinect layouts share: shared-15 with `spine` instead of `hip centre`
    coco-17      2D: HRNet and all other models trained on COCO
    openpose-18  files of OpenPose's older model, 2D: COCO's joints in another order, and `shoulder centre`, which
                 OpenPose calls neck

The papers give shared-15 as bones between numbers; its names are deduced from these bones and OpenPose's order.
Nets recognise a layout by its number of joints, so rows of 15 joints have one order: only files have florence-15, and
only rows have kinect-15.
A 2D joint is x, y and a score. x and y count from the picture's left and top edge, in units of its width and height.
The score is the estimator's confidence; it is 0 for a joint that was not found.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """A skeleton's joints."""

    names: tuple[str, ...]
    centre: str
    metres: float = 1.0  #: length of a file's unit, in metres; with skeleton.source, another unit is kept as it is
    plane: bool = False  #: True for 2D layouts, whose joints are x, y and a score

    def places(self, names: tuple[str, ...]) -> list[int]:
        """The positions of the joints with these names; KeyError for a joint that the layout does not have."""
        place = {name: number for number, name in enumerate(self.names)}
        return [place[name] for name in names]


def _limb(side: str, *joints: str) -> tuple[str, ...]:
    return tuple(f"{side} {joint}" for joint in joints)


_ARM, _LEG = ("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")
_KINECT_LIMBS = (
    *_limb("left", *_ARM, "hand"),
    *_limb("right", *_ARM, "hand"),
    *_limb("left", *_LEG, "foot"),
    *_limb("right", *_LEG, "foot"),
)


def _names_of_15(torso: str) -> tuple[str, ...]:
    arms, legs = ((*_limb("right", *joints), *_limb("left", *joints)) for joints in (_ARM, _LEG))
    return ("head", "shoulder centre", *arms, torso, *legs)


_SIDES = ("left", "right")

LAYOUTS = {
    "ntu-25": Layout(
        names=(
            *("hip centre", "spine", "neck", "head"),
            *_KINECT_LIMBS,
            "shoulder centre",
            *("left hand tip", "left thumb", "right hand tip", "right thumb"),
        ),
        centre="shoulder centre",
    ),
    "kinect-20": Layout(
        names=("hip centre", "spine", "shoulder centre", "head", *_KINECT_LIMBS),
        centre="shoulder centre",
    ),
    "shared-15": Layout(
        names=_names_of_15("hip centre"),
        centre="shoulder centre",
    ),
    "florence-15": Layout(
        names=(
            *("head", "shoulder centre", "spine"),
            *_limb("left", *_ARM),
            *_limb("right", *_ARM),
            *_limb("left", *_LEG),
            *_limb("right", *_LEG),
        ),
        centre="shoulder centre",
        metres=0.001,
    ),
    "kinect-15": Layout(names=_names_of_15("spine"), centre="shoulder centre"),
    "coco-17": Layout(
        names=("nose", *(f"{side} {joint}" for joint in ("eye", "ear", *_ARM, *_LEG) for side in _SIDES)),
        centre="nose",
        plane=True,
    ),
    "openpose-18": Layout(
        names=(
            *("nose", "shoulder centre"),
            *(joint for limb in (_ARM, _LEG) for side in ("right", "left") for joint in _limb(side, *limb)),
            *("right eye", "left eye", "right ear", "left ear"),
        ),
        centre="shoulder centre",
        plane=True,
    ),
}
FILES = tuple(name for name in LAYOUTS if name != "kinect-15")  #: layouts that files have
ROWS = tuple(name for name in LAYOUTS if name not in ("florence-15", "openpose-18"))  #: layouts that rows may have
