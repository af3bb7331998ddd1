"""Arrays of outputs and labels -> numbers: accuracies, validators, clusters, ranks. Nothing here knows a run."""
