"""Parts that the commands share: error messages, progress bars, and the options of an experiment."""

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from featcache.errors import FeatcacheError
from featcache.machine import cores
from featcache.progress import Progress

if TYPE_CHECKING:
    from pipelines.experiments import Experiment

CORES = cores()
RESUMING = ("extract", "train-head", "evaluate", "build")  #: commands that can be resumed after a full disk
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  #: errors of a full or failing disk


class _Path(click.Path):
    """A path that is not empty, because "" would mean the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a Path."""
        if value == "":
            self.fail("the path is empty; write . for the current folder", param, ctx)
        return super().convert(value, param, ctx)


PATH = _Path(path_type=Path)


class Commands(click.Group):
    """A group whose commands report a user's mistake in one sentence with exit code 1, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; convert our errors and those of the operating system into click's."""
        try:
            return super().invoke(ctx)
        except FeatcacheError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno is None or isinstance(error, BrokenPipeError):
                raise
            place = f": {error.filename}" if error.filename else ""
            resumes = ctx.invoked_subcommand in RESUMING and error.errno in DISK
            advice = "; finished work is kept, run the same command to resume" if resumes else ""
            raise click.ClickException(f"{error.strerror}{place}{advice}") from error


def note(text: str) -> None:
    """Print a line for people, on stderr."""
    click.echo(text, err=True)


@contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Progress]:
    """Yield a callback (done, total) that moves a bar with rate and time left. Outside a terminal it prints rarely."""
    from tqdm import tqdm

    seconds = 0.1 if sys.stderr.isatty() else 10.0
    with tqdm(desc=title, unit=unit, mininterval=seconds, leave=True, delay=0.2) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


@dataclass(frozen=True)
class Job:
    """The arguments that train-head, evaluate, table and report share: the experiment, or a part of it, and folders."""

    experiment: "Experiment"
    stores: Path
    runs: Path

    @property
    def results(self) -> Path:
        """The file that `evaluate` appends to and `table` reads."""
        return self.runs / "results.jsonl"


def experiment_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a Job to a command; the command receives the Job as its first argument."""

    @wraps(command)
    def with_job(
        experiment: str,
        stores: Path | None,
        runs: Path,
        settings: tuple[str, ...],
        seeds: str | None,
        only: tuple[str, ...],
        **own_options: Any,
    ) -> None:
        from pipelines import experiments

        chosen = experiments.load(experiment).changed(settings, seeds, only)
        if stores is None:
            is_folder = experiment not in experiments.names() and (Path(experiment) / "manifest.csv").exists()
            stores = Path(experiment).parent if is_folder else Path("stores")
        typed = {"stores": [stores], "runs": [runs], "set": settings, "seeds": [seeds] if seeds else [], "only": only}
        words = [f"--{name} {quote(str(v))}" for name, values in typed.items() for v in values if str(v) != name]
        chosen = replace(chosen, arguments=" ".join([quote(experiment), *words]))
        command(Job(chosen, stores, runs), **own_options)

    options = [
        click.argument("experiment"),
        click.option(
            "--stores",
            type=PATH,
            help="Folder of all stores.  [default: stores; if EXPERIMENT is a folder, its parent]",
        ),
        click.option("--runs", type=PATH, default="runs", show_default=True, help="Folder of all runs."),
        click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Change a setting of every run."),
        click.option("--seeds", metavar="0,1,2", help="Use these seeds instead of the experiment's."),
        click.option("--only", multiple=True, metavar="ROW", help="Use only this row of the table; may be repeated."),
    ]
    for option in reversed(options):
        with_job = option(with_job)
    return with_job
