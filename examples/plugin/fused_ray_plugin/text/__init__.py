"""A task that is not images: documents as bags of words, who holds them, whose are forgotten, and a model."""
