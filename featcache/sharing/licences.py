"""The licence of a data set: from its card, and as the Hugging Face Hub names it.

>>> stated("| licence | CC BY-NC 4.0 |"), known("CC BY-NC 4.0"), stated("licence: not stated in the files")
('CC BY-NC 4.0', 'cc-by-nc-4.0', '')
"""

import re

#: identifiers of the hub for licences of data and code, which are those of SPDX in lower case
KNOWN = {
    *("mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "unlicense"),
    *(f"cc-by{kind}-{version}" for kind in ("", "-sa", "-nc", "-nd", "-nc-sa", "-nc-nd") for version in ("3.0", "4.0")),
    *("cc0-1.0", "odbl", "pddl", "odc-by", "cdla-permissive-2.0", "cdla-sharing-1.0", "c-uda", "openrail"),
}
LINE = re.compile(r"^\s*(?:\|\s*)?licen[cs]e\s*[|:]\s*(?P<text>[^|\n]*[^|\s])\s*\|?\s*$", re.IGNORECASE | re.MULTILINE)
NONE = re.compile(r"(none|not|no|unknown)\b", re.IGNORECASE)  #: beginnings of lines that state no licence


def stated(card: str) -> str:
    """Return the licence in a dataset card, a line `licence: ...` or `| licence | ... |`; "" if it states none."""
    found = LINE.search(card)
    text = found["text"].strip("\"' ") if found else ""
    return "" if NONE.match(text) else text


def known(licence: str) -> str:
    """Return the identifier of the hub for a licence, or for what is after its last colon; "" if there is none."""
    for text in (licence, licence.rpartition(": ")[2]):
        name = re.sub(r"[\s_]+", "-", text.strip().lower())
        if name in KNOWN:
            return name
    return ""


def front_matter(licence: str) -> list[str]:
    """Return the lines on a licence for the front matter of a card: the hub knows other licences by a name only."""
    if name := known(licence):
        return [f"license: {name}"]
    slug = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")[:60].strip("-.")
    return ["license: other", f"license_name: {slug or 'other'}"]
