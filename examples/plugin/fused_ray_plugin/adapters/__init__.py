"""What the adapter of `fused` is made of: a kind, a selection of layers, a mask rule and a start."""
