"""Arrays of outputs and labels -> numbers: accuracies, validators, clusters, ranks. Nothing here reads a run."""
