"""The card of a shared folder: README.md, with the front matter of the Hugging Face Hub."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import featcache
from featcache import training_data
from featcache.leaks import WARNING
from featcache.manifest import SPLITS
from featcache.remote.urls import is_hub
from featcache.sharing import CROISSANT, licences
from featcache.sharing.content import Part, Store
from featcache.store.reader import flat
from featcache.weights.catalogue import LABELS
from featcache.wording import first, visible

STATES = ("done", "failed", "absent", "not tried")
TAGS = ("featcache", "features", "video", "domain-adaptation", "zarr", "croissant")
MARKS = re.compile(r"[\\`*_~#<>&!|\[\]]")  #: characters that Markdown or HTML reads, which texts of stores may have
HEADING = re.compile(r"#{1,5}(?=\s|$)")  #: that can be one level lower
FENCE = re.compile(r" {0,3}(?P<marks>`{3,}|~{3,})")  #: the first or last line of a block of code


def readme(parts: list[Part], url: str) -> bytes:
    """The content of README.md. url: the place of the shared folder; "" for a local one."""
    stores = [store for part in parts for store in part.stores]
    names = first([part.manifest.name for part in parts])
    lines = [
        *_front_matter(parts, names),
        f"# Features of {_text(names)}",
        "",
        f"Features that frozen networks and descriptors made of videos, packed by featcache {featcache.__version__}. "
        f"Each folder `*.zarr` is the archive of a feature store: a zarr group with its recipe, its windows and its "
        f"failures. `SHA256SUMS` has the digests of all files, and `{CROISSANT}` describes them for programs.",
        "",
        *_use(parts, url),
        *_warnings(stores),
        *_overview(stores),
        *_licences(parts),
        *(line for part in parts for line in _clips(part)),
        "## Recipes",
        "",
        *(line for store in stores for line in _recipe(store)),
        *(line for part in parts for line in _failures(part)),
        *(line for part in parts for line in _dataset(part)),
    ]
    return ("\n".join(lines).rstrip("\n") + "\n").encode()


def _front_matter(parts: list[Part], names: str) -> list[str]:
    same = {part.licence for part in parts}
    extractors = dict.fromkeys(store.name.split("/")[1].removesuffix(".zarr") for p in parts for store in p.stores)
    return [
        "---",
        *(licences.front_matter(same.pop()) if len(same) == 1 else licences.front_matter("several, see below")),
        f"pretty_name: {_yaml(f'Features of {names}: {first(list(extractors))}')}",
        "tags:",
        *(f"- {tag}" for tag in TAGS),
        "---",
        "",
    ]


def _use(parts: list[Part], url: str) -> list[str]:
    place = url or "FOLDER"
    heads = [place] if url and len(parts) == 1 else [f"{place}/{part.manifest.name}" for part in parts]
    extra = f"    pip install 'featcache[{'hub' if is_hub(url) else 's3'}]'"
    return [
        "## Use",
        "",
        *([extra] if url else []),
        f"    featcache pull {place} stores",
        *(f"    featcache train-head {head}" for head in heads),
        "",
        "`pull` verifies every file and restores the stores byte for byte. Any program that reads zarr can read the "
        "archives.",
        "",
    ]


def _warnings(stores: list[Store]) -> list[str]:
    """The section on what makes numbers on these features worthless; [] if there is nothing."""
    lines = [f"- {WARNING}: {_text(store.name)}: {_text(leak)}." for store in stores for leak in store.leaks]
    if names := [store.name for store in stores if store.untrained]:
        lines.append(
            f"- UNTRAINED WEIGHTS in {_text(', '.join(names))}: these features come from randomly initialised "
            "networks; they test software, not methods."
        )
    for store in stores:
        if seen := [data for data, kind in (store.facts["trained_on"] or {}).items() if kind == LABELS]:
            lines.append(
                f"- LABELS SEEN: {_text(store.name)}: its network was trained with the labels of "
                f"{_text(', '.join(seen))}. On clips of these data, numbers are not results of adaptation."
            )
    return ["## Warnings", "", *lines, ""] if lines else []


def _overview(stores: list[Store]) -> list[str]:
    head = ["store", "features", "windows", "plan", "weights", "trained on", *STATES]
    rows = []
    for store in stores:
        facts = store.facts
        low, high = facts["windows_of_a_row"]
        rows.append(
            [
                store.name,
                f"{tuple(facts['row_shape'])} {facts['dtype']}",
                str(low) if low == high else f"{low} to {high}",
                facts["plan"],
                facts["weights_sha256"],
                training_data.words(facts["trained_on"]),
                *(str(facts["states"][state]) for state in STATES),
            ]
        )
    return ["## Stores", "", *_table(head, rows), ""]


def _licences(parts: list[Part]) -> list[str]:
    rows = [["clips", part.manifest.name, part.licence] for part in parts]
    rows += [["weights", store.name, store.facts["licence"]] for part in parts for store in part.stores]
    return ["## Licences", "", *_table(["of", "name", "licence"], rows), ""]


def _clips(part: Part) -> list[str]:
    """The number of clips per domain and split, and the classes."""
    manifest = part.manifest
    counts = Counter((clip.domain, clip.split) for clip in manifest)
    rows = [[domain, *(str(counts[domain, split]) for split in SPLITS)] for domain in manifest.domains]
    kinds = [
        f"- {_text(kind)}: {len(names)} classes: {_text(first(list(names), 20))}"
        for kind, names in manifest.classes.items()
    ]
    return [f"## Clips of {_text(manifest.name)}", "", *_table(["domain", *SPLITS], rows), "", *kinds, ""]


def _recipe(store: Store) -> list[str]:
    facts = store.facts
    made = {key: value for key, value in flat(facts["facts"]).items() if key not in ("licence", "trained_on")}
    rows = [[key, str(value)] for key, value in {**flat(facts["recipe"]), **made}.items()]
    rows += [["recipe", facts["recipe_sha256"]], ["fingerprint", facts["fingerprint"]]]
    return [f"### {_text(store.name)}", "", *_table(["key", "value"], rows), ""]


def _failures(part: Part) -> Iterator[str]:
    """The failures of all stores of a manifest, with their reasons."""
    rows = [
        [store.name, each["clip_id"], each["state"], each["reason"]]
        for store in part.stores
        for each in store.facts["failures"]
    ]
    if rows:
        yield from (f"## Clips of {_text(part.manifest.name)} without features", "")
        yield from (*_table(["store", "clip", "state", "reason"], rows), "")


def _dataset(part: Part) -> list[str]:
    """The dataset card, without front matter, below a heading of its own."""
    lines = part.card.removeprefix("\ufeff").strip().splitlines()
    rulers = [number for number, line in enumerate(lines) if line.rstrip() == "---"]
    if len(rulers) > 1 and rulers[0] == 0:
        lines = "\n".join(lines[rulers[1] + 1 :]).strip().splitlines()
    if lines and lines[0].startswith("# "):
        lines = "\n".join(lines[1:]).strip().splitlines()
    return [f"## Data set {_text(part.manifest.name)}", "", *_lower(lines), ""] if lines else []


def _lower(lines: list[str]) -> Iterator[str]:
    """Give the lines of Markdown with headings one level lower, except in blocks of code."""
    fence = ""
    for line in lines:
        found = FENCE.match(line)
        if not fence:
            fence = found["marks"] if found else ""
            yield HEADING.sub(r"#\g<0>", line, count=1) if HEADING.match(line) else line
        else:
            fence = "" if found and found["marks"].startswith(fence) and line.strip() == found["marks"] else fence
            yield line


def _table(head: list[str], rows: list[list[Any]]) -> list[str]:
    """The lines of a table; no cell can end it."""
    cells = [[_text(str(cell)) for cell in row] for row in [head, *rows]]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], "|" + " --- |" * len(head), *lines[1:]]


def _text(text: str) -> str:
    r"""Return a text that a renderer of Markdown shows as it is: no picture, link or tag, and one line.

    >>> print(_text("![t](http://a/b.png)"), _text("<img>"))
    \!\[t\](http://a/b.png) \<img\>
    """
    return MARKS.sub(r"\\\g<0>", visible(text))


def _yaml(text: str) -> str:
    """A text in YAML, which reads the texts of JSON."""
    return json.dumps(text, ensure_ascii=False)
