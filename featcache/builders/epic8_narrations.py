"""EPIC-8 as text: the narrations without their verb, which is the label.

This benchmark of adaptation needs the annotation lists of EPIC-8 and a sentence encoder, but no video.
`data_manifests/epic8_narrations.md` is the dataset card.
"""

import os

from featcache.builders import _mmsada
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

NOTHING = "nothing"  #: text for a narration that is only a verb


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read MM-SADA's lists in `folder` and write `folder/epic8_narrations.csv`; the captions lack their first word.

    `progress(done, total)` is called at the end. Errors and warnings are those of `epic8`.
    """
    domains = {"D1": "D1", "D2": "D2", "D3": "D3"}
    return _mmsada.build("epic8_narrations", folder, domains, progress, without_verb)


def without_verb(narration: str) -> str:
    """The narration without its first word, the verb; a particle of the verb can stay.

    >>> without_verb("put down knife"), without_verb("mix")
    ('down knife', 'nothing')
    """
    return " ".join(narration.split()[1:]) or NOTHING
