"""Rows and settings of MTRAN's tables [MTRAN: Huang et al. 2022, ACM MM], which differ only in their data and λ.

For the target's stage, the paper gives SGD, its rate and momentum, batch, epochs, λ, α and τ. It does not describe the
source's stage, which has the same settings here. Each stage sees one side, which fills the batch of 128. Our own
choices are: no weight decay, three seeds, and, where the paper refers to other papers, rivals on the same net and
schedule, with the loss weights of their own code (of 3C-GAN: ours).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from heads.methods import gan3c, hcl, mtran, sfda, source_only
from heads.nets import mtran as net
from pipelines.config import Feed, Optim
from pipelines.experiments._rows import Row

COMMON: dict[str, Any] = {
    "net": net.Params(),
    "feeds": {m: Feed(f"i3d-{m}") for m in ("rgb", "flow")},
    "batch": (128, 128),
    "optim": Optim(lr=0.01, weight_decay=0.0),
    "fidelity": "exact",
}
EPOCHS = 50
EPIC = mtran.Params(lambda_1=0.5, lambda_2=0.05)  #: on EPIC-Kitchens
ELSEWHERE = mtran.Params()
GENERATED: dict[str, Any] = {  # a surrogate is never exact
    "fidelity": "adapter",
    "optim_for": {player: Optim("adam", lr=1e-3, weight_decay=0.0) for player in "GD"},
}
SOURCE = {"source-only": Row(source_only.Params())}


def table(params: mtran.Params) -> dict[str, Row]:
    """Source-free methods on one net; the paper's SHOT is MTRAN without alignment."""
    return {
        **SOURCE,
        "SHOT": _adapted(replace(params, lambda_2=0.0, lambda_3=0.0)),
        "3C-GAN (surrogate)": _adapted(gan3c.Params(), GENERATED),
        "SFDA": _adapted(sfda.Params(), {"epoch": 100}),
        "HCL": _adapted(hcl.Params()),
        "MTRAN": _adapted(params),
    }


def ablations(params: mtran.Params) -> dict[str, Row]:
    """MTRAN without parts of its alignment (Tables 4 and 5), and with other alignments instead (Tables 6 and 7)."""
    return {
        **SOURCE,
        "w/o RA": _adapted(replace(params, lambda_2=0.0, lambda_3=0.0)),
        "w/o TRA": _adapted(replace(params, lambda_3=0.0)),
        "w/o MRA": _adapted(replace(params, lambda_2=0.0)),
        "M-MMD": _adapted(replace(params, align="mmd")),
        "MT-Absolute": _adapted(replace(params, align="absolute")),
        "MT-Mix": _adapted(replace(params, align="mix")),
        "MTRAN": _adapted(params),
    }


def _adapted(method: Any, changes: Mapping[str, Any] | None = None) -> Row:
    return Row(method, start="source-only", changes=changes or {})
