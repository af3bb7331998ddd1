"""heads: networks, losses and adaptation methods on frozen features. Knows tensors, and no file of any kind."""
