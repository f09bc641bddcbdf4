"""What may lie between an unlearned and a retrained model before they count as different; light to import."""

import math

FA_MARGIN = 0.05
"""Of FA; more is not forgotten, and more below marks what was forgotten."""
FLOORS = 3.0
"""A difference counts if it is larger than this many floors, too."""


def of_share(p: float, examples: int) -> float:
    """What may lie between two shares of so many examples, one of which is p: FA_MARGIN, or FLOORS binomial ones."""
    return max(FA_MARGIN, FLOORS * math.sqrt(p * (1 - p) / examples))
