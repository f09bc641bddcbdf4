"""Further figures of an audit, one a file (config.parts.metrics)."""
