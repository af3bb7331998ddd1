"""The Croissant 1.0 description of a shared folder: JSON-LD that programs and search engines read.

The specification is https://docs.mlcommons.org/croissant/docs/croissant-spec.html. Each file is a FileObject with its
SHA-256, and each manifest is a record set with a field for each of its columns. Two properties that the specification
requires are left out where they are not known: `creator`, and in a local folder `url`.
"""

import csv
import io
import json
import os
from collections.abc import Mapping
from typing import Any

import featcache
from featcache.manifest import NUMBERS
from featcache.remote.hub import FORM
from featcache.sharing import MANIFEST, licences
from featcache.sharing.content import Part
from featcache.wording import first

CONFORMS = "http://mlcommons.org/croissant/1.0"
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
FORMATS = {"csv": "text/csv", "json": "application/json", "jsonl": "application/jsonlines", "md": "text/markdown"}


def description(
    parts: list[Part], url: str, digests: Mapping[str, str], sizes: Mapping[str, int], published: str
) -> bytes:
    """The content of croissant.json.

    url: the place of the shared folder; "" for a local one. digests, sizes: SHA-256 and bytes of each file. published:
    the date.
    """
    names = first([part.manifest.name for part in parts])
    stores = [store for part in parts for store in part.stores]
    page = _page(url)
    terms = [_licence(text) for text in dict.fromkeys(part.licence for part in parts)]
    document: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS,
        "name": f"Features of {names}",
        "description": f"Features of {sum(len(part.manifest) for part in parts)} clips in {len(stores)} stores of "
        f"featcache {featcache.__version__}: {first([store.name for store in stores], 20)}. README.md is the card.",
        "license": terms if len(terms) > 1 else terms[0],
        **({"url": page} if page else {}),
        "datePublished": published,
        "keywords": ["featcache", "features", "video", "domain adaptation"],
        "distribution": [_file(name, digest, sizes[name]) for name, digest in digests.items()],
        "recordSet": [_records(part) for part in parts],
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def _page(url: str) -> str:
    """Return the page of a URL of the hub; any other URL is itself."""
    if not (hub := FORM.fullmatch(url)):
        return url
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    folder = f"/tree/{hub['revision'] or 'main'}" if hub["revision"] or hub["path"] else ""
    return f"{endpoint}/datasets/{hub['repo']}{folder}" + (f"/{hub['path']}" if hub["path"] else "")


def _licence(text: str) -> str | dict[str, str]:
    """Return the page of a licence, or the work that a text names."""
    return licences.page(text) or {"@type": "sc:CreativeWork", "name": text}


def published(data: bytes) -> str:
    """Return the date in an earlier description; "" if there is none."""
    try:
        document = json.loads(data)
    except ValueError:
        return ""
    date = document.get("datePublished") if isinstance(document, dict) else None
    return date if isinstance(date, str) else ""


def _file(name: str, digest: str, size: int) -> dict[str, Any]:
    ending = name.rpartition("/")[2].rpartition(".")[2]
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{size} B",
        "encodingFormat": FORMATS.get(ending, "application/octet-stream"),
        "sha256": digest,
    }


def _records(part: Part) -> dict[str, Any]:
    """The record set of a manifest."""
    name = part.manifest.name
    columns = next(csv.reader(io.StringIO(part.manifest.text, newline="")))
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/clips/{column}",
            "name": column,
            "dataType": "sc:Float" if column in NUMBERS else "sc:Text",
            "source": {"fileObject": {"@id": f"{name}/{MANIFEST}"}, "extract": {"column": column}},
        }
        for column in columns
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": f"{name}/clips",
        "name": f"{name}/clips",
        "description": f"The clips of {name}; row i of each of its stores is clip i.",
        "key": {"@id": f"{name}/clips/clip_id"},
        "field": fields,
    }
