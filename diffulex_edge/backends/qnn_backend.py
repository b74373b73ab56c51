"""QNN: Qualcomm's NPU. Graphs are rounded here; what makes a program of them is the vendor's SDK, never fetched by us.

With an SDK in QNN_SDK_ROOT the graph goes on to ExecuTorch's QnnPartitioner. That last step was never run by us.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffulex_edge.backends.base import Availability, installed

SDK, ROOT = "Qualcomm's AI Engine Direct SDK (QAIRT 2.37)", "QNN_SDK_ROOT"
LIBRARY = Path("lib/x86_64-linux-clang/libQnnHtp.so")
CHIP = "SM8650"  # Snapdragon 8 Gen 3


@dataclass(frozen=True)
class QnnBackend:
    name: str = "qnn"
    about: str = "Qualcomm's NPU: Android, in 16-bit activations and 8-bit weights"
    tested: str = "rounded by its quantiser, within 5 % of the model; not lowered without the SDK, never run"
    vectors: bool = False
    integers: bool = False  # its own quantiser rounds the graph
    allowed: frozenset[str] = frozenset()

    def available(self) -> Availability:
        root = os.environ.get(ROOT, "")
        if not root:
            return Availability(reason=f"qnn needs {SDK}, which its maker alone gives away: set {ROOT} to its folder")
        if not (Path(root) / LIBRARY).is_file():
            return Availability(reason=f"{ROOT}={root} holds no {LIBRARY}: it must be the folder of {SDK}")
        return installed("executorch", "qnn", "export")

    def runs(self) -> Availability:
        return Availability(reason="qnn runs on Qualcomm's chips, this is none")

    def quantizer(self) -> Any:
        """Static: 16-bit activations by the least and greatest seen, 8-bit weights, a scale for each output channel."""
        os.environ.setdefault(ROOT, "")  # else importing the quantiser downloads the SDK
        from executorch.backends.qualcomm.quantizer.quantizer import QnnQuantizer, QuantDtype
        from torchao.quantization.pt2e import MinMaxObserver

        made = QnnQuantizer()
        # Its own choice averages the ranges, so that what is seen first, a text without masks, counts nearly alone.
        made.set_default_quant_config(
            QuantDtype.use_16a8w, is_linear_per_channel=True, is_conv_per_channel=True, act_observer=MinMaxObserver
        )
        return made

    def partitioners(self) -> list[Any]:
        self.available().need()
        from executorch.backends.qualcomm.partition.qnn_partitioner import QnnPartitioner
        from executorch.backends.qualcomm.serialization.qc_schema import QcomChipset
        from executorch.backends.qualcomm.utils import utils

        options = utils.generate_htp_compiler_spec(use_fp16=False)
        chip = getattr(QcomChipset, CHIP)
        return [QnnPartitioner(utils.generate_qnn_executorch_compiler_spec(soc_model=chip, backend_options=options))]
