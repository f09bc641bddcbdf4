"""What to do about a verdict and its findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fused_ray.audit.rules import outdated
from fused_ray.pages.parts import Section, Table, Words
from fused_ray.runs.report import OUTDATED

_ON_VERDICT = {
    "unjudged": "Have a retrained model to compare with: leave retrain.rounds unset, or fused-ray audit --full.",
    "vacuous": "Pre-train longer (pretrain.rounds), or forget what the model knows better than a retrained one.",
    "damaged": "Change less: fewer layers (unlearn.layers), a higher unlearn.sparsity, a lower unlearn.lr; or give "
    "what stays more rounds to recover (unlearn.rounds). A sweep finds out which: fused-ray sweep.",
    "not forgotten": "Change more: further layers (unlearn.layers), a lower unlearn.sparsity, more unlearn.rounds, or "
    "another unlearn.start. A sweep finds out which: fused-ray sweep.",
    "shallow": "Change layers below the output layer (unlearn.layers, unlearn.selection), or more of their entries "
    "(unlearn.sparsity); docs/depth.md shows how deep each adapter reaches.",
    "forgotten": "Nothing has to be done. Other seeds tell how far this is luck: fused-ray run --seeds.",
}
_ON_FINDING = {
    "worse than before": "Compare with retraining: leave retrain.rounds unset.",
    "still known": "More unlearn.rounds, further layers, or a lower unlearn.sparsity.",
    "head only": "Choose a layer below the output layer, by name: unlearn.layers.",
    "relearns fast": "Change more of the layers that the data moves most; docs/depth.md compares adapters.",
    "known inside": "Change earlier layers as well: the chart of the index shows at which stage it is still known.",
    "head recovers": "Change layers below the output layer: a new output layer brings it back.",
    "below retraining": "More unlearn.rounds may win it back.",
    "over-forgotten": "Fewer unlearn.rounds, or a start that is less harsh (unlearn.start).",
    "leaky": "Look at shadow models before it is believed: fused-ray audit --full.",
    "trivial": "Go by relearning, index and head recovery, not by RA and FA alone.",
    "undertrained": "Train longer: pretrain.rounds and retrain.rounds.",
    "not reversible": "Run it again; if it comes back, it is a fault of this program.",
    "not comparable": "Use one kind of machine, and engine.numerics=strict says so at once.",
    "blind": "That check tells nothing here; go by the others.",
}


def diagnosis(result: Mapping[str, Any], path: object) -> Section:
    """Verdict and findings, each with what to do about it, and what the user was told."""
    word, body = result.get("verdict"), []
    if word:
        body.append((word, _sentence(result["verdict_sentence"]), _ON_VERDICT.get(word, "")))
    for finding in result.get("findings", ()):
        body.append((finding["name"], _sentence(finding["sentence"]), _ON_FINDING.get(finding["name"], "")))
    parts: list[Any] = []
    if body:
        parts.append(
            Table(
                "What the figures say, and what to do",
                ("finding", "why", "what to do"),
                body,
                left=("why", "what to do"),
            )
        )
    else:
        parts.append(Words([f"Not audited. To judge it: fused-ray audit {path}"]))
    if lines := list(_notes(result, path)):
        parts.append(Words(lines, listed=True))
    return Section("Diagnosis", parts)


def _notes(result: Mapping[str, Any], path: object) -> Iterator[str]:
    if result.get("verdict") and outdated(result):
        yield f"{OUTDATED}fused-ray audit {path}"
    yield from result.get("notes", ())


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
