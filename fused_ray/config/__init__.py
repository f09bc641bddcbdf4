"""A run's configuration: frozen, validated at birth, from YAML and dotted overrides.

Neither torch nor Ray is imported here, so that a wrong configuration is answered at once.
"""

from fused_ray.config.execution import AuditConfig as AuditConfig
from fused_ray.config.execution import EngineConfig as EngineConfig
from fused_ray.config.execution import OutputConfig as OutputConfig
from fused_ray.config.fields import Section as Section
from fused_ray.config.parts.methods import EraseClientConfig as EraseClientConfig
from fused_ray.config.parts.methods import FedQuitConfig as FedQuitConfig
from fused_ray.config.reference import describe as describe
from fused_ray.config.run_config import RunConfig as RunConfig
from fused_ray.config.sections import DataConfig as DataConfig
from fused_ray.config.sections import FederationConfig as FederationConfig
from fused_ray.config.sections import ForgetConfig as ForgetConfig
from fused_ray.config.sections import ModelConfig as ModelConfig
from fused_ray.config.sections import UnlearnConfig as UnlearnConfig
from fused_ray.config.training import TrainConfig as TrainConfig
