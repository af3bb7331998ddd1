"""Everything that needs both features and heads: commands, the training loop, evaluation, tables."""
