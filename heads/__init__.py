"""heads: networks, losses and adaptation methods on frozen features. It works on tensors and opens no files."""
