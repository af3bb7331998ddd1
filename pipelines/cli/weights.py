"""The commands `featcache weights list`, `fetch` and `verify`, for the weights of frozen networks."""

import click

from featcache.wording import size
from pipelines.cli import _completion as completion
from pipelines.cli._shared import Commands, echo, note, progress_bar


@click.group(cls=Commands)
def weights() -> None:
    """Download and verify the weights of frozen networks.

    Weights are stored in $FEATCACHE_WEIGHTS, or else in ~/.cache/featcache/weights. With FEATCACHE_MIRROR=PREFIX,
    https://HOST/PATH is downloaded from PREFIX/HOST/PATH. With FEATCACHE_OFFLINE=1, nothing is downloaded.

    \b
    Example:
      featcache weights fetch i3d-rgb
    """


@weights.command("list")
def list_weights() -> None:
    """List all weights with network, licence, size and state.

    \b
    Example:
      featcache weights list
    """
    from featcache import training_data
    from featcache.weights import CATALOGUE, folder, listed

    rows = [("NAME", "NETWORK", "LICENCE", "SIZE", "STATE")]
    for name, state in listed().items():
        weights = CATALOGUE[name]
        length = "unknown" if weights.size is None else size(weights.size)
        rows.append((name, weights.net, weights.licence, length, state))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    note(f"folder: {folder()}")
    for weights in CATALOGUE.values():
        trained = f"trained on {training_data.words(weights.trained_on)} ({weights.source})"
        note(f"{weights.name}: {'; '.join(filter(None, [weights.note, trained]))}")


@weights.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=completion.weights)
@click.option(
    "--timeout", default=30.0, show_default=True, type=click.FloatRange(0.1), help="Longest wait for data, in seconds."
)
def fetch(names: tuple[str, ...], timeout: float) -> None:
    """Download weights and print their paths.

    `featcache weights list` shows the names. An interrupted download is resumed. The file gets its final name only
    after its size and SHA-256 were verified.

    \b
    Example:
      featcache weights fetch i3d-rgb i3d-flow
    """
    from featcache import training_data
    from featcache.weights import entry, verify
    from featcache.weights import fetch as run

    for name in names:
        entry(name)  # raises for a wrong name before hours of downloads
    for name in names:
        with progress_bar(f"fetch {name}", "MB") as progress:
            path = run(name, lambda done, total: progress(done // 10**6, total // 10**6), timeout=timeout)
        verified = verify(name)
        note(f"{name}: {_words(verified.against)} sha256 {verified.sha256}; licence: {entry(name).licence}")
        note(f"{name}: trained on {training_data.words(entry(name).trained_on)}")
        echo(path)


@weights.command()
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=completion.weights)
def verify(names: tuple[str, ...]) -> None:
    """Compare weights with their SHA-256.

    It is the published SHA-256, or else the SHA-256 that was recorded after the download. Without a NAME, all
    downloaded weights are compared. The exit code is 1 if any of them differ.

    \b
    Example:
      featcache weights verify
    """
    from featcache.errors import WeightsError
    from featcache.weights import CATALOGUE, entry, place
    from featcache.weights import verify as run

    wrong = 0
    for name in names or [name for name, listed in CATALOGUE.items() if place(listed).is_file()]:
        entry(name)
        try:
            verified = run(name)
        except WeightsError as error:
            wrong += 1
            echo(f"{name}: {error}")
        else:
            echo(f"{name}: {_words(verified.against)} sha256 {verified.sha256}")
    if wrong:
        raise SystemExit(1)


def _words(against: str) -> str:
    """Return the result of a comparison as text."""
    return {
        "published": "verified against the published",
        "recorded": "verified against the recorded",
        "nothing": "recorded for the first time:",
    }[against]
