"""Tasks, data sets, tokenizers and the prompt stream."""
