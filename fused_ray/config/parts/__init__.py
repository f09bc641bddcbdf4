"""The parts that a run is made of, a file for each kind: its record, this package's own, and the door for others."""
