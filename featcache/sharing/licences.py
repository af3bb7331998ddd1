"""The licence of a data set: from its card, and as the Hugging Face Hub and SPDX name it.

>>> stated("| licence | CC BY-NC 4.0 |"), known("CC BY-NC 4.0"), page("CC BY-NC 4.0")
('CC BY-NC 4.0', 'cc-by-nc-4.0', 'https://spdx.org/licenses/CC-BY-NC-4.0.html')
"""

import json
import re

_CC = [f"CC-BY{kind}-{version}" for kind in ("", "-SA", "-NC", "-ND", "-NC-SA", "-NC-ND") for version in ("3.0", "4.0")]
_SPDX = ["MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "GPL-3.0", "LGPL-3.0", "AGPL-3.0", "Unlicense", *_CC]
_SPDX += ["CC0-1.0", "CDLA-Permissive-2.0", "CDLA-Sharing-1.0"]
#: identifiers of the hub for licences of data and code -> those of SPDX, which mostly differ in case only; "" for none
KNOWN = {name.lower(): name for name in _SPDX}
KNOWN |= {"odbl": "ODbL-1.0", "pddl": "PDDL-1.0", "odc-by": "ODC-By-1.0", "c-uda": "C-UDA-1.0", "openrail": ""}
LINE = re.compile(
    r"^[ \t]*(?:\|[ \t]*)?licen[cs]e[ \t]*[|:][ \t]*(?P<text>[^|\n]*[^|\s])[ \t]*\|?\s*$", re.IGNORECASE | re.MULTILINE
)
#: texts that state no licence: words in their place, and beginnings of sentences
PLACEHOLDER = re.compile(
    r"[\W_]*(no|not|yes|true|false|null|nil|n\W?a|tba|other|x+|text|licen[cs]e|)[\W_]*|"
    r"[\W_]*(none|unknown|todo|tbd|fixme|not (stated|known|given|specified|yet)|no licen[cs]e)\b.*",
    re.IGNORECASE | re.DOTALL,
)
LONGEST = 40  #: characters of a name; longer texts are sentences


def stated(card: str) -> str:
    """Return the value of the line `licence: ...` or `| licence | ... |` of a dataset card; "" without such a line."""
    found = LINE.search(card)
    return found["text"].strip("\"' ") if found else ""


def is_placeholder(text: str) -> bool:
    """Return whether a text states no licence.

    >>> is_placeholder("N/A"), is_placeholder("not stated in the files"), is_placeholder("Not for commercial use")
    (True, True, False)
    """
    return bool(PLACEHOLDER.fullmatch(text))


def known(licence: str) -> str:
    """Return the identifier of the hub for a licence; "" if there is none."""
    name = re.sub(r"[\s_]+", "-", licence.strip().lower())
    return name if name in KNOWN else ""


def page(licence: str) -> str:
    """Return the page of SPDX on a licence; "" if there is none."""
    name = KNOWN.get(known(licence))
    return f"https://spdx.org/licenses/{name}.html" if name else ""


def front_matter(licence: str) -> list[str]:
    """Return the lines on a licence for the front matter of a card: the hub knows other licences by a name only."""
    if name := known(licence):
        return [f"license: {name}"]
    slug = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-.")
    return ["license: other", f"license_name: {json.dumps(slug if 0 < len(slug) <= LONGEST else 'see-below')}"]
