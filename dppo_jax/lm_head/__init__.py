"""The LM head in chunks: loss, statistics and gradients without [N, V]."""
