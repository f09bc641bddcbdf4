"""A line of JSON per finished round, in rounds.jsonl of the run's directory, and one with the verdict."""

import json

from fused_ray.api import AuditOver, Callback, RoundOver, RunBegins


class Lines(Callback):
    """Appends to the file, so that a run that goes on continues it."""

    def on_run(self, event: RunBegins) -> None:
        """The file is in the run's directory."""
        self.file = event.directory / "rounds.jsonl"

    def on_round(self, event: RoundOver) -> None:
        """A line with the round's accuracies, bytes and seconds."""
        about = {"phase": event.phase, "round": event.round, "bytes_up": event.bytes_up, "seconds": event.seconds}
        self._write(about | {name: event.metrics.get(name) for name in ("ra", "fa")})

    def on_audit(self, event: AuditOver) -> None:
        """In a comparison or a sweep this comes after the run, to a new object."""
        self.file = event.directory / "rounds.jsonl"
        self._write({"verdict": event.report["verdict"]})

    def _write(self, line: dict) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
