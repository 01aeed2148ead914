"""Commands before anything heavy is imported: names, help, lists, mistakes."""
