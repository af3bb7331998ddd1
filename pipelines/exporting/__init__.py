"""Heads for use without featcache: a finished run as one file of torch.export or ONNX."""
