"""TensorBoard: FOLDER/tensorboard/EXPERIMENT/RUN has an event file of each run.

The file is written here, in this thread, because the writers of torch and TensorBoard print a traceback from their
own thread when a disk is full, and cost more per step than a small head.
"""

import json
import os
import socket
import time
from pathlib import Path
from shlex import quote
from typing import Any

from pipelines.config import RunConfig
from pipelines.tracking import Values

OURS = "events.out.tfevents.*.featcache"


class Events:
    """The event file of a run."""

    def __init__(self, path: Path, config: RunConfig) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        self._records = RecordWriter(path.open("wb"))
        settings = json.dumps(config.all_settings, indent=1)
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(summary=text_pb("config", f"```json\n{settings}\n```")))
        self._write(Event(summary=hparams_pb(flat(config.all_settings), trial_id=config.id)))
        self._records.flush()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())

    def log(self, values: Values) -> None:
        """Record values."""
        for step, named in values:
            parts = [self._summary.Value(tag=name, simple_value=value) for name, value in named.items()]
            self._write(self._event(step=step, summary=self._summary(value=parts)))
        self._records.flush()

    def end(self, *, finished: bool) -> None:
        """Close the file."""
        self._records.close()


def begin(folder: Path, experiment: str, config: RunConfig) -> Events:
    """Begin the record of a run, and remove an earlier one."""
    place = folder / "tensorboard" / experiment / config.id
    place.mkdir(parents=True, exist_ok=True)
    for earlier in place.glob(OURS):
        earlier.unlink()
    name = OURS.replace("*", f"{time.time_ns() // 10**9}.{socket.gethostname()}.{os.getpid()}")
    return Events(place / name, config)


def view(folder: Path, experiment: str) -> str:
    """Return the command that shows the experiment."""
    return f"tensorboard --logdir {quote(str(folder / 'tensorboard' / experiment))}"


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, bool | float | str]:
    """Return settings as one level of names, such as method.lambda_g; lists and None are text."""
    values: dict[str, bool | float | str] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            values |= flat(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    return values
