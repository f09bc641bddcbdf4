"""Further figures of an audit, one a file (config.metrics)."""
