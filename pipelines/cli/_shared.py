"""Parts that the commands share: error messages, progress bars, and the options of an experiment."""

import errno
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import wraps
from pathlib import Path
from typing import Any

import click

from featcache import plugins
from featcache.errors import ArgumentsError, FeatcacheError
from featcache.files import FULL, NO_LOCKS
from featcache.machine import cores
from featcache.progress import Bar
from featcache.remote.urls import show_fetching, url_of, with_urls
from featcache.stopping import Stopped, stoppable
from featcache.wording import visible
from pipelines.cli._completion import entries

CORES = cores()
OURS = tuple(os.path.join(Path(__file__).parents[2], package, "") for package in ("featcache", "heads", "pipelines"))
#: commands that continue after a full disk or Ctrl-C
RESUMING = ("extract", "merge", "import", "train-head", "sweep", "evaluate", "build", "fetch", "push", "pull")
RESUME = "finished work is kept, run the same command to resume"
_now: dict[str, str] = {}  #: "command": the innermost one; "done": its progress, for the sentence after Ctrl-C
_bars: list[Any] = []  #: the progress bars that are on the screen
BAR_SECONDS, LINE_SECONDS = 0.1, 30.0  #: between two states of a bar in a terminal, and between lines elsewhere
DELAY = 0.2  #: seconds of work that needs no bar
LAYOUT = "\n\t"  #: control characters that texts of several lines have
LINE = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
DISK = (*FULL, errno.EIO)  #: errors of a full or failing disk
WAY_OUT = {
    errno.ENOSPC: "; make room, and run the same command again",
    errno.EDQUOT: "; make room, and run the same command again",
    errno.EFBIG: "; raise the limit of file sizes (ulimit -f), and run the same command again",
    errno.EACCES: "; change its permissions, or name another folder",
    errno.EPERM: "; change its owner or permissions, or name another folder",
    errno.EROFS: "; name a folder that can be written to",
    errno.ENOTDIR: "; name a folder: a part of this path is a file",
    errno.EEXIST: "; name another folder, or move what is at this path away",
    errno.EISDIR: "; name a file: this is a folder",
    errno.ELOOP: "; correct the links of this path, which lead back to themselves",
    errno.EMFILE: "; raise the limit of open files (ulimit -n 4096)",
    errno.ENAMETOOLONG: "; shorten the name",
}


class _Path(click.Path):
    """A path that is not empty, because "" would mean the current folder, and not a URL unless those are allowed."""

    urls = False

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a Path; pathlib folds the slashes of a URL, and `featcache.remote.urls.url_of` unfolds them."""
        if value == "":
            self.fail("the path is empty; write . for the current folder", param, ctx)
        if value is not None and (url := url_of(value)) and not self.urls:
            self.fail(f"{url} is a URL, and this is a local path; name a file or folder", param, ctx)
        return super().convert(value, param, ctx)


class _Place(_Path):
    """A path, or a URL of an object store."""

    urls = True


PATH, PLACE = _Path(path_type=Path), _Place(path_type=Path)
Words = tuple[str, ...]  #: the values of an option that may be repeated


class Commands(click.Group):
    """A group whose commands report a user's mistake in one sentence with exit code 1, without a traceback.

    Ctrl-C and SIGTERM end a command within two seconds, with one sentence and exit code 130 or 143.
    """

    def __call__(self, args: Sequence[str] | None = None, *, standalone_mode: bool = True) -> Any:
        """Run a command; without `args`, those of the command line, as a program that Ctrl-C and SIGTERM stop."""
        with stoppable(_last_words) if args is None else nullcontext():
            return self.main(args, standalone_mode=standalone_mode)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Note the innermost command, and find it."""
        _now["command"] = args[0]
        return super().resolve_command(ctx, args)

    def _invoked(self, ctx: click.Context) -> click.Context:
        """Return a context of the command that was run, whose usage click prints."""
        name = ctx.invoked_subcommand or ""
        command = self.get_command(ctx, name)
        return click.Context(command, ctx, name) if command else ctx

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; convert our errors and those of the operating system into click's."""
        if ctx.parent is None:
            _open_streams()
            warnings.formatwarning = _warning_line
            show_fetching(progress_bar)
        try:
            return super().invoke(ctx)
        except Stopped:  # click would print "Aborted!"; `stoppable` prints the last words
            raise SystemExit from None
        except click.ClickException as error:
            vars(error)["message"] = visible(error.message, LAYOUT)
            raise
        except ArgumentsError as error:
            raise click.UsageError(visible(with_urls(str(error)), LAYOUT), self._invoked(ctx)) from error
        except FeatcacheError as error:
            raise click.ClickException(visible(with_urls(str(error)), LAYOUT)) from error
        except OSError as error:
            if error.errno is None or isinstance(error, BrokenPipeError):
                raise
            place = f": {error.filename}" if error.filename else ""
            resumes = ctx.invoked_subcommand in RESUMING and error.errno in DISK
            advice = f"; {RESUME}" if resumes else WAY_OUT.get(error.errno, "")
            raise click.ClickException(visible(f"{error.strerror}{place}{advice}", LAYOUT)) from error


def plugins_option() -> click.Option:
    """Return the option --plugins, which every command has: its folders count until the command ends."""

    def plug_in(context: click.Context, option: click.Parameter, folders: tuple[Path, ...]) -> None:
        if not folders:
            return
        named = context.meta.setdefault(plugins.VARIABLE, [])  # for completion, which begins after the block has ended
        named += folders
        try:
            context.with_resource(plugins.added(folders))
        except FeatcacheError as error:  # an option of the program itself is read before `Commands.invoke`
            raise click.ClickException(visible(str(error), LAYOUT)) from error

    return click.Option(
        ["--plugins"],
        type=PATH,
        multiple=True,
        metavar="FOLDER",
        expose_value=False,
        is_eager=True,
        callback=plug_in,
        help="Folder with methods, nets, extractors, builders, bridges or experiments of your own; may be repeated. "
        f"Plug-ins are programs that run with your rights: use only those that you trust.  [env: {plugins.VARIABLE}]",
    )


def no_locks_option() -> click.Option:
    """Return the option --no-locks, which all commands that write stores, runs or results have."""

    def allow(context: click.Context, option: click.Parameter, value: bool) -> None:
        if value:
            os.environ[NO_LOCKS] = "1"  # worker processes inherit it

    return click.Option(
        ["--no-locks"],
        is_flag=True,
        expose_value=False,
        callback=allow,
        help="Write without locks on a file system that has none. Use it only where no other process writes the same "
        f"files.  [env: {NO_LOCKS}]",
    )


def _last_words(stop: Stopped) -> None:
    """Print that the command was stopped, its finished work, and the way to continue."""
    resumes = _now.get("command") in RESUMING
    words = f"{stop}{_now.get('done', '')}; {RESUME}" if resumes else f"{stop}; run the same command again"
    with suppress(OSError):  # not `note`, because the main thread may hold the lock of a progress bar
        click.echo(words, err=True)


def _open_streams() -> None:
    """Make stdout and stderr writable: closed ones (`2>&-`) lead to the null device, and others write UTF-8.

    The numbers 0 to 2 are occupied, so that none of our own files gets one: decoders print their own messages on 2.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (it stays open)
        elif isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            if stream.isatty():
                stream.reconfigure(errors="replace")
            else:
                stream.reconfigure(encoding="utf-8")
    if (names := sys.getfilesystemencoding()) != "utf-8":
        note(f"Warning: this locale has file names in {names}; set PYTHONUTF8=1 for names with other characters")


def _warning_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Return the text of a warning: one of our own is a line for users, all others name their place in the code."""
    if category is UserWarning and filename.startswith(OURS):
        return f"Warning: {visible(str(message), LAYOUT)}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


class _Stream:
    """A stream that has all of another one."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Unfailing(_Stream):
    """A stream for people whose errors (a closed pipe, a full disk) are ignored, because they must not stop work."""

    def write(self, text: str) -> None:
        """Write the text if possible."""
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        """Flush the stream if possible."""
        with suppress(OSError):
            self._stream.flush()


class _Visible(_Stream):
    """A terminal that gets no control characters of names."""

    def write(self, text: str) -> None:
        """Write the text with its control characters escaped."""
        self._stream.write(visible(text, LAYOUT))


class _Lines(_Unfailing):
    """A stream for a progress bar outside a terminal: each state of the bar is a line without control characters."""

    def write(self, text: str) -> None:
        """Write a line, unless the bar only erases itself."""
        if line := re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).strip():
            super().write(f"{line}\n")


def stdout() -> Any:
    """Return the stream for results: in a terminal control characters are escaped, elsewhere nothing is changed."""
    return _Visible(sys.stdout) if sys.stdout.isatty() else sys.stdout


def echo(result: object, *, nl: bool = True) -> None:
    """Print a result on stdout, as `stdout` shows it."""
    click.echo(result, stdout(), nl=nl)


def note(text: str) -> None:
    """Print text for people, on stderr, above the progress bar; nothing if stderr cannot be written to.

    Control characters are escaped, except line ends; use `visible` on names where each line is about one of them.
    """
    shown = [bar for bar in _bars if sys.stderr.isatty() and bar.last_print_t >= bar.start_t + bar.delay]
    for bar in shown:
        bar.clear()
    with suppress(OSError):
        click.echo(visible(text, LAYOUT), err=True)
    for bar in shown:
        bar.refresh()


def quiet_option() -> click.Option:
    """Return the option --quiet, which all commands with a progress bar have."""

    def be_quiet(context: click.Context, option: click.Parameter, value: bool) -> None:
        context.meta["quiet"] = value

    words = "Print no progress, only the end, as for logs."
    return click.Option(["--quiet"], is_flag=True, expose_value=False, callback=be_quiet, help=words)


def is_quiet() -> bool:
    """Return True if the command that is running has --quiet."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get("quiet"))


def columns() -> int | None:
    """Return the width of the terminal; None if it is unknown."""
    with suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or None
    return None


class _Bar(Bar):
    """A bar that fits into the terminal, and whose state is in the sentence after Ctrl-C."""

    def __init__(self, bar: Any, unit: str) -> None:
        super().__init__(bar)
        self._unit, self._terminal = unit, sys.stderr.isatty()
        self.before = Bar.before if self._terminal else "{desc}: {percentage:3.0f}%, "

    def __call__(self, done: int, total: int) -> None:
        """Move the bar."""
        _now["done"] = f" after {done} of {total} {self._unit}s"
        super().__call__(done, total)

    def show(self, done: int, total: int, words: str, state: str = "", left: str = "{remaining}") -> None:
        """Move the bar, with words before and after the time."""
        _now["done"] = f" after {words.partition(',')[0]}"
        self.bar.ncols = columns() if self._terminal else None
        super().show(done, total, visible(words), visible(state), left)


@contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Bar]:
    """Yield a callback (done, total) that moves a bar with rate and time left in a terminal.

    Elsewhere it prints a line now and then. With --quiet it prints nothing.
    """
    from tqdm import tqdm

    where: dict[str, Any] = {"mininterval": LINE_SECONDS, "file": _Lines(sys.stderr), "bar_format": LINE}
    if sys.stderr.isatty():
        where = {"mininterval": BAR_SECONDS, "file": _Unfailing(sys.stderr), "ncols": columns()}
    with tqdm(desc=visible(title), unit=unit, miniters=0, delay=DELAY, disable=is_quiet(), **where) as bar:
        shown = [] if bar.disable else [bar]
        _bars.extend(shown)
        try:
            yield _Bar(bar, unit)
        finally:
            for each in shown:
                _bars.remove(each)


@contextmanager
def noting() -> Iterator[Callable[[str], None]]:
    """Yield `note`; with --quiet a function whose lines are noted at the end."""
    later: list[str] = []
    try:
        yield later.append if is_quiet() else note
    finally:
        for line in later:
            note(line)


#: the arguments that commands on an experiment share, by the names of the parameters of their functions
Given = dict[str, Any]
#: the option of commands on a sweep, whose experiment has a row for each setting
grid_option = click.option(
    "--grid",
    multiple=True,
    metavar="NAME=VALUES",
    help="Have a row for each of these values of a setting, as `featcache sweep` does, such as "
    "method.lambda_g=0.1,0.3,1; may be repeated.",
)


#: the options that choose the experiment of a folder of stores, see `pipelines.experiments.Choice`
CHOICE = (
    click.option(
        "--method",
        multiple=True,
        metavar="NAMES",
        help="In a folder of stores: methods or rows, such as dann,mcd,shot, or all; may be repeated.  [default: RNA]",
    ),
    click.option(
        "--feeds",
        multiple=True,
        metavar="STORES",
        help="In a folder of stores: the stores that a row reads together, such as hog,hof. Repeat it to compare: "
        "--feeds hog --feeds i3d-rgb.  [default: all]",
    ),
    click.option(
        "--net",
        default="",
        metavar="NAME",
        shell_complete=entries("net"),
        help="In a folder of stores: the net of all rows, one of `featcache list nets`.  [default: by task and row]",
    ),
    click.option(
        "--task",
        default="",
        metavar="NAME",
        shell_complete=entries("task"),
        help="In a folder of stores: classification, retrieval or clustering.  [default: by labels, net and methods]",
    ),
)
shift_option = click.option(
    "--shift",
    multiple=True,
    metavar="SOURCE:TARGET",
    help="In a folder of stores: a shift, such as kitchen_a:kitchen_b; may be repeated.  [default: all]",
)


def choice_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that choose the experiment of a folder of stores, without --shift."""
    for option in reversed(CHOICE):
        command = option(command)
    return command


def experiment_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of an experiment to a command; the command receives them as its first argument."""
    argument = click.argument("experiment", shell_complete=entries("experiment", paths=True))
    return _with_options(runs_python(_given_first(command)), argument)


def experiments_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of any number of experiments; the command receives them as its first argument."""
    argument = click.argument(
        "experiments", metavar="[EXPERIMENT]...", nargs=-1, shell_complete=entries("experiment", paths=True)
    )
    return _with_options(runs_python(_given_first(command)), argument)


def _given_first(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the options of an experiment gathered into its first argument."""
    shared = ["experiment", "experiments", "stores", "runs", "set", "seeds", "only", "grid"]
    shared += ["method", "feeds", "shift", "net", "task"]

    @wraps(command)
    def with_job(**own: Any) -> None:
        given = {name: own.pop(name) for name in shared if name in own}
        command(given, **own)

    return with_job


def runs_python(command: Callable[..., None]) -> Callable[..., None]:
    """Note in the help of a command, before its examples, that an experiment in a Python file is a program."""
    text, mark, examples = (command.__doc__ or "").rpartition("\n\n    \b\n")
    note = "A Python file given as EXPERIMENT is a program, and is run: give only files that you trust."
    command.__doc__ = f"{text}\n\n    {note}{mark}{examples}"
    return command


def _with_options(command: Callable[..., None], argument: Callable[..., Any]) -> Callable[..., None]:
    """Add the argument, then the options of an experiment."""
    own = [param.name for param in getattr(command, "__click_params__", ())]
    options = [
        argument,
        click.option(
            "--stores",
            type=PLACE,
            help="Folder of all stores, or its URL.  [default: stores; if EXPERIMENT is a folder, its parent]",
        ),
        click.option("--runs", type=PATH, default="runs", show_default=True, help="Folder of all runs."),
        *CHOICE[:2],
        *([] if "shift" in own else [shift_option]),  # those of tables may be columns as well
        *CHOICE[2:],
        click.option("--set", multiple=True, metavar="NAME=VALUE", help="Change a setting of every run."),
        click.option("--seeds", metavar="SEEDS", help="Use these seeds, such as 0,1,2 or 0..4, for all rows."),
        click.option("--only", multiple=True, metavar="ROW", help="Use only this row of the table; may be repeated."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a Ray cluster to a command; the command receives them as `engine`, `address` and `gpus`."""
    engine = click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="ray: compute on the nodes of a Ray cluster, which have the same folders (pip install 'featcache[ray]').",
    )
    address = click.option(
        "--address",
        metavar="HOST:PORT",
        help="With --engine ray: the head of the cluster, or auto for that of RAY_ADDRESS.  [default: this machine]",
    )
    gpus = click.option(
        "--gpus",
        type=float,
        help="With --engine ray: GPUs of each worker, or a share such as 0.5.  [default: 1 with --device cuda, else 0]",
    )
    return engine(address(gpus(command)))
