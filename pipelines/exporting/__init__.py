"""A finished run and its stores -> its head in one file of torch.export or ONNX, for use without featcache."""
