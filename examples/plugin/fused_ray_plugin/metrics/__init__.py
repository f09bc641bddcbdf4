"""Metrics of the audit."""
