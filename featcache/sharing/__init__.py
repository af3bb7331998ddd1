"""Sharing features: a folder of stores -> archives with a card at a URL or in a folder, and back.

    push.py         a folder of stores -> the shared folder
    pull.py         a shared folder -> a folder of stores
    content.py      the manifests and stores that are pushed, and the facts about them
    licences.py     the licence of the clips
    card.py         those facts -> README.md
    croissant.py    those facts -> croissant.json

A shared folder is a folder of stores, too, so `featcache train-head hf://datasets/OWNER/NAME` reads it as it is:

    README.md                    the card; its front matter is that of the Hugging Face Hub
    croissant.json               the same for programs: a Croissant 1.0 description
    MANIFEST/manifest.csv        the manifest, with sources relative to the folder that they all share
    MANIFEST/EXTRACTOR.zarr/     the archive of a store, with a SHA256SUMS of its own, see featcache/store/archive.py
    SHA256SUMS                   the digests of all files above; deleted before the first change and written last, so a
                                 push that was killed has none
"""

CARD, CROISSANT, MANIFEST = "README.md", "croissant.json", "manifest.csv"
