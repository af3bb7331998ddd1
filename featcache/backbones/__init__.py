"""The frozen networks whose features are cached, one network per file, each readable from top to bottom.

A backbone is a plain `nn.Module` without its classifier. It promises:

- Its state dict has the official names and shapes, in the official order, so that published weights fit as they are or
  after a renaming (`layouts.py`). The docstring lists the entries of the official file that it leaves out.
- `forward` takes normalised floating-point input, (B, C, H, W) or (B, C, T, H, W), and returns features (B, D), after
  the network's own global pooling. The extractor normalises the pictures.
- An input of the wrong rank, channels or size raises a ValueError that names what fits.

The caller chooses `eval()`, gradients, device, precision and weights.
"""
