"""Bones of every layout by the names of their joints, from a joint to its neighbour on the way to the centre."""

from itertools import pairwise

from featcache.joints import LAYOUTS

SIDES = ("left", "right")


def chains(*of):
    """Bones of chains that are written from the centre outwards: "a b c" with _ in the place of blanks."""
    for chain in of:
        for near, far in pairwise(chain.split()):
            yield far.replace("_", " "), near.replace("_", " ")


def limbs(*of):
    """The same of both sides."""
    for side in SIDES:
        yield from chains(*(chain.replace("*", side) for chain in of))


KINECT = (
    *chains("shoulder_centre spine hip_centre"),
    *limbs("shoulder_centre *_shoulder *_elbow *_wrist *_hand", "hip_centre *_hip *_knee *_ankle *_foot"),
)
PLANE = (  # in ST-GCN's and PYSKL's graphs alike, hips hang on the shoulders
    *limbs("nose *_eye *_ear", "*_shoulder *_elbow *_wrist", "*_shoulder *_hip *_knee *_ankle"),
)


def of_15(torso):
    arm, leg = "shoulder_centre *_shoulder *_elbow *_wrist", f"{torso} *_hip *_knee *_ankle"
    return (*chains("shoulder_centre head", f"shoulder_centre {torso}"), *limbs(arm, leg))


BONES = {
    "ntu-25": (
        *KINECT,
        *chains("shoulder_centre neck head"),
        *limbs("*_hand *_thumb *_hand_tip"),  # as NTU's graphs have it
    ),
    "kinect-20": (*KINECT, *chains("shoulder_centre head")),
    "shared-15": of_15("hip_centre"),
    "florence-15": of_15("spine"),
    "kinect-15": of_15("spine"),
    "coco-17": (*PLANE, *limbs("nose *_shoulder")),
    "openpose-18": (*PLANE, *limbs("shoulder_centre *_shoulder"), *chains("shoulder_centre nose")),
}


def edges(name):
    """The bones of a layout as numbers of joints, in the order of the first."""
    names = LAYOUTS[name].names
    return sorted((names.index(far), names.index(near)) for far, near in BONES[name])
