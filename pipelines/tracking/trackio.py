"""Trackio: a run in the project EXPERIMENT for each run; on this machine unless TRACKIO_SPACE_ID or _SERVER_URL is set.

FOLDER/trackio/EXPERIMENT.db has the runs. TRACKIO_DIR replaces FOLDER/trackio.
"""

import importlib
import io
import os
import warnings
from contextlib import redirect_stdout
from contextvars import Context
from pathlib import Path
from shlex import quote
from typing import Any

from pipelines.config import RunConfig
from pipelines.tracking import Values


class Record:
    """A run of trackio."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self._last = -1  # the highest step

    def log(self, values: Values) -> None:
        """Record values."""
        for step, named in values:
            self._run.log(named, step=step)
            self._last = max(self._last, step)

    def end(self, *, finished: bool) -> None:
        """Wait until all values are written; an error if they are not, because trackio itself only warns."""
        from trackio.sqlite_storage import SQLiteStorage

        with redirect_stdout(io.StringIO()):
            self._run.finish()
        path = SQLiteStorage.get_project_db_path(self._run.project)
        written = SQLiteStorage.get_max_step_for_run(self._run.project, self._run.name, run_id=self._run.id)
        if _is_local() and (-1 if written is None else written) < self._last:
            raise OSError(f"{path} lacks the last steps of {self._run.name}")


def begin(folder: Path, experiment: str, config: RunConfig) -> Record:
    """Begin the record of a run, and remove an earlier one."""
    place = _place(folder)
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    if _is_local() and place.resolve() != (used := Path(trackio.utils.TRACKIO_DIR)).resolve():
        raise FileExistsError(f"it writes to {used} in this process, not to {place}; restart Python")
    place.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", module=r"trackio\.")  # of each run; `end` finds what is lacking
    if _is_local() and SQLiteStorage.get_project_db_path(experiment).exists():
        for earlier in trackio.Api().runs(experiment):
            if earlier.name == config.id:
                earlier.delete()
    options: dict[str, Any] = {"group": config.row or None, "config": config.all_settings, "embed": False}
    with redirect_stdout(io.StringIO()):  # a context of its own, because trackio ends the run before in the same one
        return Record(Context().run(trackio.init, experiment, config.id, **options))


def view(folder: Path, experiment: str) -> str:
    """Return the command that shows the experiment."""
    return f"TRACKIO_DIR={quote(str(_place(folder)))} trackio show --project {experiment}"


def _place(folder: Path) -> Path:
    """Return the folder of trackio, which reads the variable only once, when it is imported."""
    theirs = os.environ.get("TRACKIO_DIR")
    place = Path(theirs or folder / "trackio")
    os.environ["TRACKIO_DIR"] = str(place)
    try:
        importlib.import_module("trackio.utils")
    finally:
        if theirs is None:
            del os.environ["TRACKIO_DIR"]
        else:
            os.environ["TRACKIO_DIR"] = theirs
    return place


def _is_local() -> bool:
    return not os.environ.get("TRACKIO_SPACE_ID") and not os.environ.get("TRACKIO_SERVER_URL")
