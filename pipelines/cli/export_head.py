"""The command `featcache export-head`."""

import json
from pathlib import Path

import click

from pipelines.cli._shared import PATH, PLACE, echo, note


@click.command("export-head")
@click.argument("run", type=PATH)
@click.argument("out", type=PATH)
@click.option("--stores", type=PLACE, default="stores", show_default=True, help="Folder of all stores, or its URL.")
@click.option("--runs", type=PATH, default="runs", show_default=True, help="Folder of all runs, for a run id.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def export_head(run: Path, out: Path, stores: Path, runs: Path, overwrite: bool) -> None:
    """Write the head of a finished RUN to OUT, for use without featcache.

    RUN is the folder or the id of a run. OUT ends in .pt2 (torch.export) or .onnx (pip install 'featcache[onnx]').

    The file takes rows as they are in the stores, any number of them, and returns what the run keeps of its test clips:
    scores of the classes, embeddings, or features and scores of the clusters. It draws windows and prepares features as
    the run does. It is for the run's test domain. What it takes and returns, the names of the classes, and the facts
    about run, features and licences are in the file, and are printed as JSON.

    The written file is compared with the run's own outputs before the command ends.

    \b
    Examples:
      featcache export-head RUN_ID head.pt2 --stores demo/stores --runs demo/runs
      featcache export-head demo/runs/RUN_ID head.onnx --stores demo/stores
    """
    from pipelines.exporting.export import export_head as export

    made = export(run, out, stores, runs=runs, overwrite=overwrite)
    echo(json.dumps(made.facts, indent=1, ensure_ascii=False))
    note(f"{out}: its outputs of {made.checked} test clips differ from the run's own by at most {made.difference:.2g}")
    if made.note:
        note(f"Note: {made.note}")
