"""Weights & Biases: a run in the project EXPERIMENT for each run; offline unless WANDB_MODE has another mode.

FOLDER/wandb/offline-run-* has the runs until `wandb sync` sends them. WANDB_DIR replaces FOLDER.
"""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any

from pipelines.config import RunConfig
from pipelines.tracking import Values

BLOCK, HEADER = 1 << 15, 7  #: bytes of a block of a .wandb file, and of its own header and each record's
LAST = (1, 4)  #: kinds of records: whole, and the last part of a longer one
TAIL = 1 << 15  #: bytes at the end of a file that are searched for its last records
PATIENCE = 5.0  #: seconds that writing the last records may take


class Record:
    """A run of wandb."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, values: Values) -> None:
        """Record values."""
        for step, named in values:
            self._run.log(named, step=step)

    def end(self, *, finished: bool) -> None:
        """Finish the run; an error if its file is not whole, because wandb does not notice a full disk."""
        self._run.finish(exit_code=0 if finished else 1)
        path, until = Path(self._run.settings.sync_file), time.monotonic() + PATIENCE
        while self._run.offline and not ends(path):  # another process writes it
            if time.monotonic() > until:
                raise OSError(f"{path} lacks its end")
            time.sleep(0.02)


def begin(folder: Path, experiment: str, config: RunConfig) -> Record:
    """Begin the record of a run, and remove an earlier one that has not been sent."""
    import wandb

    place = _place(folder)
    place.mkdir(parents=True, exist_ok=True)
    if not os.access(place, os.W_OK):  # wandb would take the system's folder for temporary files
        raise PermissionError(f"{place} cannot be written to")
    digest = config.id.rpartition("_")[2]
    for earlier in place.glob(f"wandb/offline-run-*-{digest}-*"):
        if not list(earlier.glob("*.synced")):
            shutil.rmtree(earlier)
    options: dict[str, Any] = {
        "project": experiment,
        "name": config.id,
        "id": f"{digest}-{time.time_ns():x}",
        "group": config.row or None,
        "config": config.all_settings,
        "dir": place,
        "mode": _mode(),
        "reinit": "create_new",  # several runs at a time
        "settings": wandb.Settings(silent=True, console="off"),
    }
    return Record(wandb.init(**options))


def ends(path: Path) -> bool:
    """Return whether a .wandb file has the record of its end. Its format is that of LevelDB's logs."""
    from wandb.proto.wandb_internal_pb2 import Record as Written

    data, at, parts = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in LAST:
            with suppress(Exception):  # protobuf's, for what is no record
                if len(data) - at < TAIL and Written.FromString(parts).HasField("exit"):
                    return True
            parts = b""
        if BLOCK - at % BLOCK < HEADER:  # too few bytes for another header: they are zero
            at += BLOCK - at % BLOCK
    return False


def view(folder: Path, experiment: str) -> str:
    """Return the command that sends the runs to the server; where they have been sent, the name of their project."""
    if _mode() not in ("offline", "dryrun"):
        return f"the project {experiment} at {os.environ.get('WANDB_BASE_URL') or 'https://wandb.ai'}"
    return f"wandb sync {quote(str(_place(folder) / 'wandb'))}/offline-run-*"


def _mode() -> str:
    return os.environ.get("WANDB_MODE") or "offline"


def _place(folder: Path) -> Path:
    return Path(os.environ.get("WANDB_DIR") or folder)
