"""What may lie between an unlearned and a retrained model before they count as different; light to import."""

FA_MARGIN = 0.05
"""Of FA; more is not forgotten, and more below marks what was forgotten."""
