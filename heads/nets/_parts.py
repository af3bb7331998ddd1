"""How several tasks share the features of a net."""


def parts(dim: int, tasks: tuple[str, ...]) -> dict[str, slice]:
    """Equal slices of range(dim), the last one to its end; all of it for a single task.

    >>> parts(7, ("verb", "noun"))
    {'verb': slice(0, 3, None), 'noun': slice(3, 7, None)}
    """
    if dim < len(tasks):
        raise ValueError(f"net.dim {dim} cannot be cut into {len(tasks)} tasks")
    if len(tasks) == 1:
        return {tasks[0]: slice(None)}
    step = dim // len(tasks)
    stops = [step * (k + 1) for k in range(len(tasks) - 1)] + [dim]
    return {task: slice(step * k, stop) for k, (task, stop) in enumerate(zip(tasks, stops, strict=True))}


def widths(dim: int, of: dict[str, slice]) -> dict[str, int]:
    """Task -> entries of its slice."""
    return {task: len(range(*part.indices(dim))) for task, part in of.items()}
