"""Whether every node can use the parts from elsewhere that a job's configurations name, before anything starts.

Without this the first worker that cannot would end what others have begun. Parts of this package need no question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fused_ray.config import RunConfig
from fused_ray.engine.cluster import cluster_nodes
from fused_ray.errors import ConfigError
from fused_ray.models import factory_of


def check_parts(configs: Iterable[RunConfig]) -> None:
    """Raises ConfigError, with the first part that cannot be used, why, and on which other node."""
    different = {tuple(config.outside.items()): config for config in configs}
    asked = [config for parts, config in different.items() if parts]
    if not asked:
        return
    if reason := _wrong(asked):
        raise ConfigError(reason)
    limit = asked[0].engine.start_timeout
    here = ray.get_runtime_context().get_node_id()
    answers = {
        node.name: _ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.name, soft=False)).remote(asked)
        for node in cluster_nodes()
        if node.name != here and max(node.cpus, node.gpus) > 0  # no client is placed on any other
    }
    for name, answer in answers.items():
        try:
            reason = ray.get(answer, timeout=limit)
        except RayError:
            continue  # a node that is lost meanwhile, or busy: its actors tell
        if reason:
            raise ConfigError(f"{reason} (asked on node {name[:12]})")


def _wrong(configs: Sequence[RunConfig]) -> str:
    """What is wrong with the parts in this process; empty if nothing is."""
    try:
        for config in configs:
            config.check_parts()
            if config.model.registered is None:
                factory_of(config.model)
    except ConfigError as error:
        return str(error)
    return ""


_ask = ray.remote(num_cpus=0, max_retries=0)(_wrong)
