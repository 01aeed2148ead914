"""GGUF files as models: what a Hugging Face folder of them would hold."""
