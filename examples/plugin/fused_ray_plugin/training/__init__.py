"""Parts of training: each file ends with the record that a configuration names."""
