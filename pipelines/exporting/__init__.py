"""A finished run and its stores -> its head as one file of torch.export or ONNX, for use without featcache."""
