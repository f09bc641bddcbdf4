"""A model that declares no stages, cut where its graph is a chain: where one tensor alone leads on.

The graph comes from torch.fx, which follows a forward pass symbolically; a model whose course depends on its input has
none. Traced functions know the evaluation mode only, so they serve as parts of a frozen model, never in training.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx, nn

from fused_ray.models import Stage, layer_names


def traced(model: nn.Module) -> list[Stage]:
    """The finest chain of stages with a layer in each; empty if the model cannot be traced."""
    training = model.training
    model.eval()
    try:
        graph = fx.Tracer().trace(model)
    except Exception:  # torch.fx raises whatever the model's code raises on a symbolic value
        return []
    finally:
        model.train(training)
    source, nodes, last = _parts(graph)
    if source is None or not nodes or last is not nodes[-1]:
        return []
    stages: list[Stage] = []
    for segment in _joined(model, _segments(source, nodes)):
        stages.append(Stage(_layers(model, segment), _function(model, segment, source)))
        source = segment[-1]
    return stages


def _parts(graph: fx.Graph) -> tuple[fx.Node | None, list[fx.Node], object]:
    """The one input (None if there are several), the nodes between, and what is returned."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    nodes = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    returned = [node.args[0] for node in graph.nodes if node.op == "output"]
    return inputs[0] if len(inputs) == 1 else None, nodes, returned[0]


def _segments(source: fx.Node, nodes: Sequence[fx.Node]) -> list[list[fx.Node]]:
    """The nodes, parted wherever the rest needs nothing of what came before but the last node."""
    segments: list[list[fx.Node]] = [[]]
    for position, node in enumerate(nodes):
        segments[-1].append(node)
        needed = {argument for later in nodes[position + 1 :] for argument in later.all_input_nodes}
        if needed & {source, *nodes[: position + 1]} == {node}:
            segments.append([])
    return segments


def _joined(model: nn.Module, segments: Sequence[list[fx.Node]]) -> list[list[fx.Node]]:
    """The segments with a layer in each: one without goes with what precedes it, so that it is cached too."""
    joined: list[list[fx.Node]] = []
    for segment in segments:
        if joined and not (_layers(model, segment) and _layers(model, joined[-1])):
            joined[-1] = joined[-1] + segment
        else:
            joined.append(segment)
    return joined


def _layers(model: nn.Module, segment: Sequence[fx.Node]) -> tuple[str, ...]:
    """The layers that a segment uses: the modules it calls, what lies below them, and owners of weights it reads."""
    called = {str(node.target) for node in segment if node.op == "call_module"}
    read = {str(node.target).rpartition(".")[0] for node in segment if node.op == "get_attr"}
    return tuple(
        name
        for name in layer_names(model)
        if name in called | read or any(name.startswith(f"{module}.") for module in called)
    )


def _function(model: nn.Module, segment: Sequence[fx.Node], source: fx.Node) -> fx.GraphModule:
    """A segment as a function of its one input; it shares the model's modules and tensors."""
    graph = fx.Graph()
    known: dict[fx.Node, fx.Node] = {source: graph.placeholder("x")}
    for node in segment:
        known[node] = graph.node_copy(node, lambda argument: known[argument])
    graph.output(known[segment[-1]])
    return fx.GraphModule(model, graph)
