"""Tasks, tokenizers and the prompt stream."""
