"""Where training runs: devices, processes, precision. The only file that imports Lightning Fabric."""

from __future__ import annotations

import inspect
import logging
import os
from typing import Any, TypeVar

import torch

from seeall.data.pixels import cores
from seeall.training.distributed import leave
from seeall.types import SeeallError

T = TypeVar("T")

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


class Engine:
    """Where training runs: the device, this process's rank, how many there are, the precision."""

    def __init__(self, fabric: Any, precision: str) -> None:
        self.fabric, self.precision = fabric, precision
        self.device: torch.device = fabric.device
        self.rank: int = fabric.global_rank
        self.world: int = fabric.world_size

    def everyone(self, value: T) -> list[T]:
        """What every process holds, by rank."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(found, value)
        return found

    def part(self) -> None:
        """Wait until every process is here, and let go of each other.

        One that leaves early is taken for dead by what started it, which then ends the others, saving or not.
        """
        if self.world > 1:
            self.everyone(None)
            leave()


def rank() -> int:
    """This process's rank before anything was launched."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def check(devices: int, precision: str) -> tuple[str, int, int]:
    """Resolve what `launch` was asked for: a precision of `PRECISIONS`, the processes on this
    machine, and those on all machines.

    Raises: SeeallError for devices or a precision that this machine does not have.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    slurm = os.environ.get("SLURM_JOB_NAME") not in (None, "bash", "interactive") and "SLURM_PROCID" in os.environ
    if slurm and int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        raise SeeallError("several SLURM tasks: give every machine one task, and start torchrun in it")
    count = int(os.environ["LOCAL_WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else devices or max(gpus, 1)
    if devices < 0 or (gpus and count > gpus):
        raise SeeallError(f"--devices {count}: this machine has {gpus or 'no'} GPU{'s' * (gpus != 1)}")
    if not gpus and count > max(2, cores()):
        raise SeeallError(f"--devices {count}: this machine has no GPU, and {cores()} cores; choose at most so many")
    if precision == "auto":
        precision = "bf16" if gpus and torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    if precision not in PRECISIONS:
        raise SeeallError(f"--precision {precision}: choose from auto, {', '.join(PRECISIONS)}")
    if precision == "fp16" and not gpus:
        raise SeeallError("--precision fp16 needs a GPU; on a CPU use bf16 or 32")
    return precision, count, int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else count


def launch(*, devices: int = 0, precision: str = "auto") -> Engine:
    """Start as many processes as there are devices, or, under torchrun, join those it started.

    Processes that this starts run the whole command again, up to here.

    devices: GPUs, or processes on a CPU; 0 takes every GPU, or one process where there is none
    precision: "32", "bf16", "fp16" (mixed); "auto" is bf16 on a GPU that has it, else 32

    Raises: SeeallError for devices or a precision that this machine does not have.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    precision, count, world = check(devices, precision)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    known = inspect.signature(torch.nn.parallel.DistributedDataParallel.__init__).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    fabric = Fabric(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=count,
        num_nodes=world // count,
        strategy=DDPStrategy(**{buffers: False}) if world > 1 else "auto",
        precision=PRECISIONS[precision],
    )
    fabric.launch()
    torch.backends.cudnn.benchmark = True  # shapes stay the same, so the quickest kernel is worth looking for
    return Engine(fabric, precision)
