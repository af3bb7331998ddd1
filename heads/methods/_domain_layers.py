"""Batch normalisation layers of a net whose statistics are those of each row's domain.

Shapes: N domains, B rows, D features.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from torch import Tensor, nn

from heads.batch import Side
from heads.batch_norm import BatchNorm
from heads.nets import Net

KINDS = (BatchNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def batch_norms(net: Net) -> list[nn.Module]:
    """Return the batch normalisation layers of the net."""
    return [layer for layer in net.modules() if isinstance(layer, KINDS)]


class DomainLayers(nn.Module):
    """The statistics of the net's batch normalisation layers in each domain, (N, ...) for each buffer of a layer.

    In training each domain's rows are normalised by themselves, and update the running averages of their domain. A
    single row has no variance: it is normalised by the averages of its domain and does not update them. In tests every
    row is normalised by the averages of its domain. A layer that normalised no row of the domain in training
    has the mean over the domains of which it did: for a test domain that is not in training, or a new modality.
    """

    def __init__(self, net: Net, domains: int) -> None:
        super().__init__()
        self.layers = batch_norms(net)  # a list, because they are the net's
        for k, layer in enumerate(self.layers):
            for name, own in layer.named_buffers():
                self.register_buffer(f"{k}:{name}", own.expand(domains, *own.shape).clone())

    def start(self) -> None:
        """Start all averages from those of the net, which may come from an earlier run."""
        for k, layer in enumerate(self.layers):
            for name, own in layer.named_buffers():
                self.get_buffer(f"{k}:{name}").copy_(own)

    def encode(self, net: Net, side: Side) -> dict[str, Tensor]:
        """Return the net's features of the side (B, D), encoded domain by domain."""
        f: dict[str, Tensor] = {}
        for domain in side.domain.unique().tolist():
            rows = (side.domain == domain).nonzero().squeeze(1)
            with self.statistics(domain, single=len(rows) == 1):
                of_domain = net.encode(_pick(side, rows))
            for m, part in of_domain.items():
                f[m] = f.get(m, part.new_zeros(len(side.index), part.shape[1])).index_copy(0, rows, part)
        return f

    def settle(self, domain: int) -> None:
        """Give the layers the averages of a domain for good."""
        for k, layer in enumerate(self.layers):
            own = dict(layer.named_buffers())
            of_domains = {name: self.get_buffer(f"{k}:{name}") for name in own}
            for name, value in _averages(domain, of_domains, own).items():
                own[name].copy_(value)

    @contextmanager
    def statistics(self, domain: int, *, single: bool = False) -> Iterator[None]:
        """Give the layers the statistics of a domain, which training updates in place; then return their own.

        single: the domain has one row, so the layers are in eval mode.
        """
        own = [dict(layer.named_buffers()) for layer in self.layers]
        modes = [layer.training for layer in self.layers]
        for k, layer in enumerate(self.layers):
            of_domains = {name: self.get_buffer(f"{k}:{name}") for name in own[k]}
            buffers = _view(domain, of_domains) if self.training else _averages(domain, of_domains, own[k])
            for name, value in buffers.items():
                setattr(layer, name, value)
            layer.train(modes[k] and not single)
        try:
            yield
        finally:
            for layer, buffers, mode in zip(self.layers, own, modes, strict=True):
                layer.train(mode)
                for name, buffer in buffers.items():
                    setattr(layer, name, buffer)


def _view(domain: int, of_domains: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the buffers of a domain, as views."""
    return {name: every[domain] for name, every in of_domains.items()}


def _averages(domain: int, of_domains: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the buffers of a domain, or the mean over other domains if training has not moved them from the net's."""
    N = len(next(iter(of_domains.values())))
    moved = [d for d in range(N) if any(not every[d].equal(own[name]) for name, every in of_domains.items())]
    if domain in moved:
        return _view(domain, of_domains)
    if not moved:
        return own
    return {
        name: every[moved].mean(0) if every.is_floating_point() else every[moved[0]]
        for name, every in of_domains.items()
    }


def _pick(side: Side, rows: Tensor) -> Side:
    """Return the side with these rows only."""
    x, present, y = ({name: value[rows] for name, value in part.items()} for part in (side.x, side.present, side.y))
    return replace(side, x=x, present=present, y=y, domain=side.domain[rows], index=side.index[rows])
