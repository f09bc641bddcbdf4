"""The doors: what a part from another package is made of, and what it works with.

A part is named in a run's configuration as `package.module:object`, or by the name of an entry point of an installed
package; docs/extend.md walks through one of each kind. What stands here is stable, but for what is marked provisional.
Everything that travels to a worker must be importable there.

Provisional: AdapterKind, Aggregate, ClientOptimiser, MaskRule, Schedule, Selection, ServerOptimiser, Start, and what
their functions take (Adapter, Attached, Candidates, Made, Making, Mask, Masks,
Reparametrised, scheduled, served).
"""

from fused_ray.audit.evidence import Evidence as Evidence
from fused_ray.audit.evidence import Known as Known
from fused_ray.config import Section as Section
from fused_ray.config import TrainConfig as TrainConfig
from fused_ray.config.parts.adapters import AdapterKind as AdapterKind
from fused_ray.config.parts.adapters import MaskRule as MaskRule
from fused_ray.config.parts.adapters import Selection as Selection
from fused_ray.config.parts.adapters import Start as Start
from fused_ray.config.parts.aggregates import Aggregate as Aggregate
from fused_ray.config.parts.client_optimisers import ClientOptimiser as ClientOptimiser
from fused_ray.config.parts.datasets import DataSet as DataSet
from fused_ray.config.parts.methods import Method as Method
from fused_ray.config.parts.metrics import Answer as Answer
from fused_ray.config.parts.metrics import Metric as Metric
from fused_ray.config.parts.partitions import Partitioning as Partitioning
from fused_ray.config.parts.scenarios import Request as Request
from fused_ray.config.parts.schedules import Schedule as Schedule
from fused_ray.config.parts.server_optimisers import ServerOptimiser as ServerOptimiser
from fused_ray.core.adapter import Adapter as Adapter
from fused_ray.core.adapter import Attached as Attached
from fused_ray.core.adapter import Mask as Mask
from fused_ray.core.adapter import Masks as Masks
from fused_ray.core.gradient import cross_entropy as cross_entropy
from fused_ray.core.gradient import model_gradient as model_gradient
from fused_ray.core.layers import Candidates as Candidates
from fused_ray.core.layers import layer_parameters as layer_parameters
from fused_ray.core.layers import layer_vector as layer_vector
from fused_ray.core.making import Made as Made
from fused_ray.core.making import Making as Making
from fused_ray.core.methods import Unlearned as Unlearned
from fused_ray.core.methods import whole_model as whole_model
from fused_ray.core.methods.fedavg import FullTraining as FullTraining
from fused_ray.core.methods.fedavg import fedavg as fedavg
from fused_ray.core.methods.fedavg import finetune as finetune
from fused_ray.core.methods.fedavg import initial as initial
from fused_ray.core.methods.usual import Message as Message
from fused_ray.core.methods.usual import ask_once as ask_once
from fused_ray.core.methods.usual import go_on as go_on
from fused_ray.core.numerics import norm as norm
from fused_ray.core.remaining import used as used
from fused_ray.core.reparametrised import Reparametrised as Reparametrised
from fused_ray.core.rounds import Federation as Federation
from fused_ray.core.rounds import Phase as Phase
from fused_ray.core.rounds import Round as Round
from fused_ray.core.rounds import Saved as Saved
from fused_ray.core.schedules import scheduled as scheduled
from fused_ray.core.server import served as served
from fused_ray.core.state import Arrays as Arrays
from fused_ray.core.state import flatten as flatten
from fused_ray.core.state import unflatten as unflatten
from fused_ray.core.work import ModelEvaluation as ModelEvaluation
from fused_ray.core.work import Update as Update
from fused_ray.core.work import Work as Work
from fused_ray.core.workspace import Workspace as Workspace
from fused_ray.data.partitions import Partition as Partition
from fused_ray.errors import Interrupted as Interrupted
from fused_ray.runs.events import AuditOver as AuditOver
from fused_ray.runs.events import Callback as Callback
from fused_ray.runs.events import ClientOver as ClientOver
from fused_ray.runs.events import PhaseBegins as PhaseBegins
from fused_ray.runs.events import RoundOver as RoundOver
from fused_ray.runs.events import RunBegins as RunBegins
from fused_ray.runs.events import RunEnds as RunEnds
from fused_ray.seeding import derive as derive
from fused_ray.seeding import generator as generator
from fused_ray.types import Forgotten as Forgotten
from fused_ray.types import ImageData as ImageData
from fused_ray.types import Loaded as Loaded
from fused_ray.types import On as On
from fused_ray.types import PartialSum as PartialSum
from fused_ray.types import Payload as Payload
from fused_ray.types import Scenario as Scenario
from fused_ray.types import TestView as TestView
