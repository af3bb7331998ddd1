"""Where runs are executed. The folder is the registry: `engines/local.py` is the engine `local`.

An engine file has `run_all(configs, stores, runs, *, workers, device, report) -> list[Outcome]`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.config import RunConfig


@dataclass(frozen=True)
class Outcome:
    """What became of one run."""

    config: RunConfig
    folder: Path | None  #: None when it failed
    status: str  #: trained | kept (was finished before) | failed
    tier: str = ""  #: where the features of a trained run lay (see pipelines/tiers.py)
    tier_why: str = ""
    note: str = ""  #: why it was trained again, or why it failed
    warnings: tuple[str, ...] = ()  #: what training warned of


Report = Callable[[Outcome, int, int], None]  #: (outcome, runs done, runs in all), after each run
