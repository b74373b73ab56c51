"""Static ranges from what decoding really meets: trajectories of the decode loop, then texts hidden in all shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from diffulex_edge.errors import UsageError
from diffulex_edge.quant.calibration import Calibration, calibrating
from diffulex_edge.quant.observers import Observers
from diffulex_edge.quant.static import replay
from diffulex_edge.runtime.decode import decode, finish
from diffulex_edge.runtime.plan import Plan


def calibrate(
    denoiser: Any,
    prompts: Sequence[Sequence[int]],
    plan: Plan,
    texts: Sequence[Sequence[int]] = (),
    observers: Observers | None = None,
) -> Calibration:
    """What the layers see while each prompt (ids) is continued by the plan, and the texts (ids) are walked.

    texts: real ones, of the kind that the model is for; none: what it has just written. Seconds a prompt: decode few.
    Raises UsageError where there is neither prompt nor text.
    """
    if not prompts and not texts:
        raise UsageError("calibration needs a prompt or a text")
    with calibrating(denoiser, observers) as seen:
        written = [finish(decode(denoiser, [list(prompt)], plan)).texts[0] for prompt in prompts]
        replay(denoiser, [torch.tensor(text) for text in texts or written if len(text)])
    return seen
