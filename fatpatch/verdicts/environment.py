"""The circumstances of a load: the GPU, the driver, and what the environment variables ask of it."""

from __future__ import annotations

from fatpatch.base.records import NamedTuple
from fatpatch.gpus.amd import Override, override_for
from fatpatch.gpus.devices import Device
from fatpatch.gpus.drivers import Driver
from fatpatch.model.target import Target


class Environment(NamedTuple):
    """``driver`` is None when any may be meant: then what depends on it is said, not decided.

    ``force_ptx``: CUDA_FORCE_PTX_JIT; ``disable_ptx``: CUDA_DISABLE_PTX_JIT; ``eager``: CUDA_MODULE_LOADING=EAGER.
    ``cuda``: the CUDA release of the program, such as 12.6, by which it picks among alternatives.
    ``hsa_override``: the value of HSA_OVERRIDE_GFX_VERSION, which the target of ``device`` already follows; ``own_target``: the real one.
    """

    device: Device
    driver: Driver | None = None
    force_ptx: bool = False
    disable_ptx: bool = False
    eager: bool = False
    hsa_override: str | None = None
    own_target: str | None = None
    cuda: str | None = None

    @property
    def pretends(self) -> bool:
        """Whether an AMD GPU is told to be another processor."""
        return self.own_target is not None and Target(self.own_target).processor != Target(self.device.target).processor

    @property
    def override(self) -> Override | None:
        """What is known of such a GPU with code for the other processor; None when nothing is."""
        return None if self.own_target is None else override_for(self.own_target, [self.device.target])

    @property
    def driver_name(self) -> str:
        """The version, for messages."""
        return "any" if self.driver is None else self.driver.version
