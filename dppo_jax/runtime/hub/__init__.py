"""Published models and adapters: configs, tensors, names, files."""
