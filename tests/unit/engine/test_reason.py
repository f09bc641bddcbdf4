"""Why an actor died, in one line: Ray's own words without the ids that it puts before them."""

from __future__ import annotations

from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError, RayTaskError

from fused_ray.engine.reason import reason


def test_what_killed_an_actor_is_told() -> None:
    context = ActorDiedErrorContext(
        class_name="ClientActor",
        actor_id=bytes(16),
        pid=7,
        node_ip_address="10.0.0.1",
        error_message="The actor is dead because its node was out of memory.",
    )
    found = reason(ActorDiedError(context))
    assert found.endswith("its node was out of memory.")
    assert "\n" not in found
    assert "actor_id" not in found


def test_what_a_constructor_raised_is_told() -> None:
    trace = 'Traceback:\n  File "client.py", line 3\n    raise PlacementError\nPlacementError: set it to 0'
    cause = RayTaskError("__init__", trace, ValueError("set it to 0"))
    assert reason(ActorDiedError(cause)) == "PlacementError: set it to 0"
