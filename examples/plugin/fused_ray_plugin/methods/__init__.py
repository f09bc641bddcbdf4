"""Unlearning methods. Each file ends with its `Method`, which is what a configuration names."""
