"""Layouts of skeletons: names of the joints in their order, and the centre. Equal names are the same joint.

    ntu-25       Kinect 2, NTU RGB+D and PKU-MMD. The SDK calls `hip centre` SpineBase, `spine` SpineMid and
                 `shoulder centre` SpineShoulder; NTU's paper calls them base, middle and spine
    kinect-20    Kinect 1, UTKinect and MSR-Action3D; it has no `neck`
    shared-15    what these have in common with the first 15 joints of OpenPose's BODY_25 (and so with VIBE, from which
                 Skeletics-152 was made), in OpenPose's order: right before left. There `shoulder centre` is called
                 neck, and lies in the middle between the shoulders, and `head` is the nose
    florence-15  files of Florence3D, which has a spine and no `hip centre`, in millimetres. Files of 15 joints are
                 taken for shared-15 or florence-15 by which of them has the joints of the rows
    kinect-15    rows of what all of Kinect's have in common: shared-15 with `spine` in the place of `hip centre`
    coco-17      in the plane: HRNet, and all else that is trained on COCO
    openpose-18  files of OpenPose's older model, in the plane: COCO's joints in another order, and `shoulder centre`,
                 which OpenPose calls neck

The papers give shared-15 as bones between numbers; its names are deduced from these bones and OpenPose's order.
Nets tell a layout by its number of joints, so rows of 15 have one order: florence-15 is of files, kinect-15 of rows.
A joint in the plane is x, y and a score: from the picture's left and top edge, of its width and height, both 1, and how
sure the estimator is; 0 is a joint that it did not find.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """A skeleton's joints."""

    names: tuple[str, ...]
    centre: str
    metres: float = 1.0  #: of the unit of files; those in another are taken as they are, where skeleton.source is named
    plane: bool = False  #: joints are x, y and a score

    def places(self, names: tuple[str, ...]) -> list[int]:
        """Where joints of these names stand; KeyError for one that the layout does not have."""
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
