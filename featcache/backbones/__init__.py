"""The frozen networks whose features are cached, one to a file, each to be read top to bottom.

A backbone is a plain `nn.Module` without its classifier. What it promises:

- its state dict has the official names and shapes, in the official order, so that published weights fit as they are or
  through a table of names (`layouts.py`); the docstring says which entries of the official file it leaves out;
- `forward` takes normalised floating-point input, (B, C, H, W) or (B, C, T, H, W), and gives features (B, D), after the
  network's own global pooling; how pictures are normalised is the extractor's business;
- an input of the wrong rank, channels or size is a ValueError that says what fits.

`eval()`, gradients, device, precision and weights are the caller's.
"""
