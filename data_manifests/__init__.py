"""The dataset cards: one Markdown page per benchmark, which `featcache show benchmark NAME` prints."""
