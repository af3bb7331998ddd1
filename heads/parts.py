"""Slices of a net's features, one for each label kind."""


def parts(dim: int, labels: tuple[str, ...]) -> dict[str, slice]:
    """Cut range(dim) into equal slices, of which the last takes the remainder; one label kind gets slice(None).

    >>> parts(7, ("verb", "noun"))
    {'verb': slice(0, 3, None), 'noun': slice(3, 7, None)}
    """
    if dim < len(labels):
        raise ValueError(
            f"net.dim {dim} cannot be cut into {len(labels)} parts, one for each label kind ({', '.join(labels)}); "
            f"take {len(labels)} or more"
        )
    if len(labels) == 1:
        return {labels[0]: slice(None)}
    step = dim // len(labels)
    stops = [step * (k + 1) for k in range(len(labels) - 1)] + [dim]
    return {label: slice(step * k, stop) for k, (label, stop) in enumerate(zip(labels, stops, strict=True))}


def widths(dim: int, parts: dict[str, slice]) -> dict[str, int]:
    """Return label -> number of entries in its slice."""
    return {label: len(range(*part.indices(dim))) for label, part in parts.items()}
