"""Where a figure was measured: processor, threads, versions, load."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from diffulex_edge.machine import cpu_model


def environment(dtype: torch.dtype) -> dict[str, Any]:
    """What a reader needs to repeat a measurement, as JSON."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,  # which only training uses
        "threads": torch.get_num_threads(),
        "load_average": [round(x, 2) for x in load] if load else None,  # over 1, 5 and 15 minutes
        "number_type": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def number_type_of(denoiser: object) -> torch.dtype:
    """That of the weights; fp32 where there are none."""
    parameters = denoiser.parameters() if isinstance(denoiser, torch.nn.Module) else iter(())
    return next((parameter.dtype for parameter in parameters), torch.float32)
