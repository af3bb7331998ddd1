"""Names of files and folders: paths in sentences that are kept, and names of users that become folders."""

import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from featcache.errors import ConfigError, FeatcacheError
from featcache.wording import UNSEEN, alike

LONGEST = 200  #: maximum number of bytes of a folder's name; most file systems allow 255
#: the address of an object in memory, as printed by Python and ffmpeg: "<_io.BytesIO object at 0x7f12>", "[mov @ 0x55]"
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+(?=>)| @ 0x[0-9a-fA-F]+(?=\])")


def folder_name(name: str, noun: str, fix: str, error: type[FeatcacheError] = ConfigError) -> str:
    """Return a name that becomes a folder; raise an error unless it is one part of a path, and a visible one.

    noun: the thing that has the name. fix: what the user does to rename it.

    >>> folder_name("P01 (day 2)", "manifest", "rename its file")
    'P01 (day 2)'
    """
    faults = {
        "is blank": not alike(name),
        "begins with a dot": name.startswith("."),
        "has a /": "/" in name,
        "has control or invisible characters, or bytes that are not UTF-8": any(
            unicodedata.category(c) in UNSEEN for c in name
        ),
        f"is longer than {LONGEST} bytes": len(name.encode(errors="surrogateescape")) > LONGEST,
    }
    for fault, is_so in faults.items():
        if is_so:
            shown = ascii(name if len(name) <= LONGEST else f"{name[:LONGEST]}…")
            raise error(f"the name of {noun} {shown} {fault}, so it cannot be a folder; {fix}")
    return name


def spellings(path: Path) -> list[str]:
    """Return the texts by which messages may name a path: as typed, absolute, without .. and links; quoted and not."""
    absolute = os.path.abspath(path)
    plain = dict.fromkeys([os.fspath(path), os.fspath(path.absolute()), absolute, os.path.realpath(path)])
    texts = [form for text in plain for form in (text, repr(text)[1:-1], ascii(text)[1:-1], " ".join(text.split()))]
    return [text for text in dict.fromkeys(texts) if text not in ("", ".", "/")]


def renamed(text: str, names: Mapping[Path, str]) -> str:
    """Return the text with other names for these paths, however it spells them, and without addresses in memory.

    So a sentence that is kept does not depend on the folder in which a command ran. The name "" is for a folder: it
    removes the folder in front of the paths in it.

    >>> renamed("media/a.mp4: no frames in 'media/b'", {Path("media/a.mp4"): "a.mp4", Path("media"): ""})
    "a.mp4: no frames in 'b'"
    """
    new: dict[str, str] = {}
    for path, name in names.items():
        for spelling in spellings(path):
            new.setdefault(spelling if name else f"{spelling}/", name)
    patterns = []
    for old in sorted(new, key=len, reverse=True):
        before = r"(?<![\w.])" if old.startswith("/") else r"(?<![\w./-])"
        patterns.append(before + re.escape(old) + ("" if old.endswith("/") else r"(?!\w)"))
    if patterns:
        text = re.sub("|".join(patterns), lambda match: new[match[0]], text)
    return ADDRESS.sub("", text)
