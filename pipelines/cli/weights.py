"""Commands for the weights of frozen networks: list, fetch, verify."""

import click

from pipelines.cli._shared import Commands, note, progress_bar


@click.group(cls=Commands)
def weights() -> None:
    """Get the weights of frozen networks, and see that they are what was published.

    They lie in $FEATCACHE_WEIGHTS, or in ~/.cache/featcache/weights. With FEATCACHE_MIRROR=PREFIX, https://HOST/PATH is
    fetched from PREFIX/HOST/PATH; with FEATCACHE_OFFLINE=1, nothing is.

    \b
    Example:
      featcache weights fetch i3d-rgb
    """


@weights.command("list")
def list_weights() -> None:
    """List all weights: name, network, licence, size, whether they are here.

    \b
    Example:
      featcache weights list
    """
    from featcache.weights import CATALOGUE, folder, state

    rows = [("NAME", "NETWORK", "LICENCE", "SIZE", "STATE")]
    for known in CATALOGUE.values():
        size = "unknown" if known.size is None else f"{known.size / 1e6:.1f} MB"
        rows.append((known.name, known.net, known.licence, size, state(known)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    note(f"folder: {folder()}")
    for known in CATALOGUE.values():
        if known.note:
            note(f"{known.name}: {known.note}")


@weights.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--timeout", default=30.0, show_default=True, type=click.FloatRange(0.1), help="Seconds without a byte.")
def fetch(names: tuple[str, ...], timeout: float) -> None:
    """Download weights (`featcache weights list`) and print where they are.

    A download that was interrupted goes on. The file gets its name when size and SHA-256 are right.

    \b
    Example:
      featcache weights fetch i3d-rgb i3d-flow
    """
    from featcache.weights import entry, verify
    from featcache.weights import fetch as run

    for name in names:
        entry(name)  # a wrong name is told before hours of downloads
    for name in names:
        with progress_bar(f"fetch {name}", "MB") as progress:
            path = run(name, lambda done, total: progress(done // 10**6, total // 10**6), timeout=timeout)
        found = verify(name)
        note(f"{name}: {_words(found.against)} sha256 {found.sha256}; licence: {entry(name).licence}")
        click.echo(path)


@weights.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
def verify(names: tuple[str, ...]) -> None:
    """Compare weights with their published SHA-256, and with the one recorded when they came.

    Without a NAME, all that are here. Exit code 1 if one differs.

    \b
    Example:
      featcache weights verify
    """
    from featcache.errors import WeightsError
    from featcache.weights import CATALOGUE, entry, place
    from featcache.weights import verify as run

    wrong = 0
    for name in names or [name for name, known in CATALOGUE.items() if place(known).is_file()]:
        entry(name)
        try:
            found = run(name)
        except WeightsError as error:
            wrong += 1
            click.echo(f"{name}: {error}")
        else:
            click.echo(f"{name}: {_words(found.against)} sha256 {found.sha256}")
    if wrong:
        raise SystemExit(1)


def _words(against: str) -> str:
    """What a comparison is worth."""
    return {
        "published": "verified, as published,",
        "recorded": "recorded, as when it came,",
        "nothing": "recorded, for the first time,",
    }[against]
