"""Names of columns and keys in feature files: those that describe clips (class, frame, time, index) are no features.

Files are not asked what a column means, so its name decides. Every bridge, `vector` and the default experiment use
`describes_clips`; a column or key that it leaves out is named, and is taken where the user asks for it by name.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: words that describe clips wherever they are in a name, such as `video_label` or `class_walk`
STRONG = _set(
    "label labelled labeled class gt gnd groundtruth onehot logit softmax prob proba probability posterior timestamp "
    "fps unnamed"
)
#: words that describe clips in names that have only these words, QUALIFIERS and digits
WEAK = _set(
    "target cls category y ytrue ypred yhat ytest ytrain truth annotation split fold subset partition domain index idx "
    "id uid uuid indices row rownum line samplerate samplingrate framerate frame start stop end begin onset offset "
    "duration time date datetime epoch pred prediction predicted score subject participant session is verb noun"
)
QUALIFIERS = _set(
    "name no nr num number n count total true hat ms us ns s sec second msec usec millisecond min minute hour hz unix "
    "utc rate sample video clip segment window action activity gesture event file train test val valid validation eval "
    "dev first last original orig raw ground code encoded int str text level t path set source data"
)
#: words of features: `class_token` and `frame_features` are some
FEATURES = _set(
    "feature feat embedding embed emb token vector vec descriptor hidden pooled map representation latent activation"
)
IDS = _set("id ids idx uid uuid")  #: last words of ids of anything
GLUE = {word for word in STRONG | WEAK | QUALIFIERS if len(word) > 2} | {"id", "no", "ms", "gt"}
LEVELS = 3  #: as many columns level_0, level_1, ... come from pandas' reset_index; more are features
LONGEST = 200  #: characters of a name that are looked at


def describes_clips(name: str, among: Collection[str] = ()) -> bool:
    """Return True if a column or key of this name describes clips, so that it is no feature.

    among: the names of all columns or keys in lower case; y is a coordinate where x is next to it.

    >>> [describes_clips(name) for name in ("Label", "start_frame", "timestampMs", "Unnamed: 0", "prob_3", "y_true")]
    [True, True, True, True, True, True]
    >>> [describes_clips(name) for name in ("f0", "I3D", "class_token", "index_finger_x", "time_domain_energy")]
    [False, False, False, False, False]
    """
    words, numbered = _words(name[:LONGEST])
    if not words:
        return not numbered  # "" is pandas' index; 0, 1, ... number features
    if FEATURES & set(words):
        return False
    joined = re.sub(r"[\W_]|\d+$", "", name.lower())  # sample rate, time_stamp
    if STRONG & set(words) or words[-1] in IDS or joined in STRONG | WEAK - {"y"}:
        return not _coordinate(name, words, numbered, among)
    if words == ["t"]:
        return not numbered
    if words == ["level"]:
        return numbered and re.sub(r"\d+", str(LEVELS), name.lower()) not in among
    describing = WEAK & set(words) and set(words) <= WEAK | QUALIFIERS
    return bool(describing) and not _coordinate(name, words, numbered, among)


def features_of(names: Iterable[str]) -> list[str]:
    """Return the names that do not describe clips, in their order."""
    names = list(names)
    among = frozenset(name.lower() for name in names)
    return [name for name in names if not describes_clips(name, among)]


def _words(name: str) -> tuple[list[str], bool]:
    """Return a name's words in lower case and the singular, and True if there are digits beside them."""
    name = unicodedata.normalize("NFKC", name)
    name = re.sub("(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).lower()
    words = []
    for word in re.findall(r"[^\W\d_]+", name):
        words += [_singular(word)] if _singular(word) in STRONG | WEAK | QUALIFIERS else _parts(word) or [word]
    return ["onehot", *words] if re.search(r"one[\W_]*hot", name) else words, bool(re.search(r"\d", name))


def _singular(word: str) -> str:
    known = STRONG | WEAK | QUALIFIERS | FEATURES
    endings = (word, word.removesuffix("s"), word.removesuffix("es"), f"{word.removesuffix('ies')}y")
    return next((form for form in endings if form in known), word)


def _parts(word: str) -> list[str] | None:
    """Return the words of which one word consists, as in `frameidx`; None if it has other parts."""
    ends: dict[int, list[str]] = {0: []}
    for stop in range(2, len(word) + 1):
        for start in range(max(0, stop - 16), stop - 1):
            if start in ends and _singular(word[start:stop]) in GLUE:
                ends.setdefault(stop, [*ends[start], _singular(word[start:stop])])
    return ends.get(len(word)) if len(word) > 2 else None


def _coordinate(name: str, words: list[str], numbered: bool, among: Collection[str]) -> bool:
    """Return True for y beside x and z, and for y_12 or score_12 beside x_12, which are coordinates of a joint."""

    def beside(word: str, other: str) -> bool:
        changed = re.sub(rf"(?<![a-z]){word}(?![a-z])", other, name.lower())
        return changed != name.lower() and changed in among

    if words == ["y"] and not numbered:
        return beside("y", "x") and beside("y", "z")
    return ("y" in words and beside("y", "x")) or (
        words in (["score"], ["prob"]) and numbered and beside(words[0], "x")
    )
