"""Three clusters around the origin, the target's turned; and the loop that trains a method on whole sides."""

import math

import torch

from heads.batch import Batch, Side, Spec
from heads.nets import adapter

N = 60
SPEC = Spec(
    shapes={"rgb": (2,)}, windows={"rgb": 1}, classes={"label": 3}, rows={"source": N, "target": N}, domains=("a", "b")
)


def side(x, y=None, domain=0):
    """Rows of one window each; labelled if y is given."""
    return Side(
        x={"rgb": x[:, None]},
        present={"rgb": torch.ones(len(x), 1, dtype=torch.bool)},
        y={} if y is None else {"label": y},
        domain=torch.full((len(x),), domain),
        index=torch.arange(len(x)),
    )


def take(whole, rows):
    """These rows of a side."""
    cut = lambda of: {name: value[rows] for name, value in of.items()}  # noqa: E731
    return Side(cut(whole.x), cut(whole.present), cut(whole.y), whole.domain[rows], whole.index[rows])


def clusters(degrees, generator, spread=0.4, share=(1, 1, 1)):
    """(x, y): clusters at 0, 120 and 240 degrees, turned further by `degrees`; share: rows of each class."""
    y = torch.tensor([k for k, rows in enumerate(share) for _ in range(rows)]).repeat(-(-N // sum(share)))[:N]
    angle = (120.0 * y + degrees) * math.pi / 180
    return 2 * torch.stack([angle.cos(), angle.sin()], 1) + spread * torch.randn(N, 2, generator=generator), y


def problem(degrees=50, seed=0, share=(1, 1, 1)):
    """(source, target, labels of the target)."""
    generator = torch.Generator().manual_seed(seed)
    x_s, y_s = clusters(0, generator)
    x_t, y_t = clusters(degrees, generator, share=share)
    return side(x_s, y_s), side(x_t, domain=1), y_t


def build(module, seed=0, **params):
    """The method on a small adapter without dropout."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    return module.METHOD(module.Params(**params), SPEC, adapter.NET(adapter.Params(dim=16, dropout=0.0), SPEC))


def train(method, source, target, *, steps=60, epoch=20, lr=0.1):
    """The loop, on all rows of the source and of the target's pool in every step."""
    whole, rows = {"source": source, "target": target}, torch.arange(len(target.index))
    players = {who: torch.optim.SGD(p, lr=lr, momentum=0.9) for who, p in method.players().items() if p}
    for step in range(steps):
        if step % epoch == 0:
            method.eval()
            with torch.no_grad():
                pools = method.begin_epoch(step // epoch, lambda name: iter([whole[name]]))
            method.train()
            if pools:
                (rows,) = pools["target"]
        seen = Batch(source, take(target, rows) if "target" in method.needs else None)
        for who, terms in method.rounds(seen, step / steps):
            method.zero_grad()
            sum(terms.values()).backward()
            for player in who.split():
                players[player].step()
    return method.eval()


def accuracy(method, target, y):
    """Share of rows that are right."""
    with torch.no_grad():
        return (method.predict(target)["label"].argmax(1) == y).float().mean().item()
