"""llama.cpp's diffusion program beside our engines: the same model in its own file format, its own step timed.

It is built by whoever measures; `--llama-diffusion-cli` says where it lies. It has no cache and asks for the logits of
all positions, as our step here does; what its sampler takes is not counted.
"""

from __future__ import annotations

import re
import resource
import statistics
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from diffulex_edge.errors import ArtefactError, BackendUnavailable, UsageError
from diffulex_edge.model.llada_edge import LLaDAEdge, sizes
from diffulex_edge.model.llama import LlamaSizes
from diffulex_edge.model.published import TensorNames, places

FEW, MANY = 2, 8  # steps of two runs, whose difference is steps alone
LIMIT_S = 600
TRIES = 5  # its last lines are lost now and then
_BLOCK = "blk.{i}."
NAMES = TensorNames(
    embed="token_embd",
    norm="output_norm",
    head="output",
    q=_BLOCK + "attn_q",
    k=_BLOCK + "attn_k",
    v=_BLOCK + "attn_v",
    out=_BLOCK + "attn_output",
    gate=_BLOCK + "ffn_gate",
    up=_BLOCK + "ffn_up",
    down=_BLOCK + "ffn_down",
    attn_norm=_BLOCK + "attn_norm",
    ff_norm=_BLOCK + "ffn_norm",
)
_STEP = re.compile(r"time per step: ([\d.]+)ms, sampling time per step: ([\d.]+)ms")


@dataclass
class LlamaCpp:
    """The program and a model's files, one a type of weights."""

    program: Path
    files: dict[str, Path]
    times: dict[tuple[int, str], list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, model: Any, program: Path | None, types: tuple[str, ...], folder: Path) -> Self | None:
        """None where there is no program. Raises UsageError for a model that is not a LLaDA."""
        if program is None:
            return None
        if not program.is_file():
            raise UsageError(f"llama_diffusion_cli={program}: no such file")
        if not isinstance(model, LLaDAEdge):
            raise UsageError(f"llama.cpp runs LLaDA here, not {type(model).__name__}: leave out --llama_diffusion_cli")
        return cls(program, {name: write_gguf(model, folder / f"{name}.gguf", name) for name in types})

    def turn(self, length: int, counts: bool) -> None:
        """One step of each type, timed by the difference of two runs."""
        for name in self.files:
            few, many = (self._run(name, length, steps) for steps in (FEW, MANY))
            step = (many[0] - few[0]) / (MANY - FEW) - many[2], many[1]
            self.times[length, name] += [step] if counts else []

    def _run(self, name: str, length: int, steps: int) -> tuple[float, float, float]:
        """Processor seconds of the run; seconds of a step less its sampling; seconds of that."""
        threads = str(torch.get_num_threads())
        words = ["-m", str(self.files[name]), "-p", "a", "-ub", str(length), "-b", str(length), "-c", str(length)]
        words += ["--diffusion-steps", str(steps), "--diffusion-eps", "0.001", "-t", threads, "-tb", threads]
        words += ["--temp", "0", "--top-k", "1"]
        for _ in range(TRIES):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run([self.program, *words], capture_output=True, timeout=LIMIT_S)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            said = (done.stdout + done.stderr).decode(errors="replace")  # it writes random bytes of text
            if found := _STEP.search(said):
                cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                whole, sampling = (float(value) / 1e3 for value in found.groups())
                return cpu, whole - sampling, sampling
        last = (said.strip().splitlines() or ["nothing said"])[-1]
        raise ArtefactError(f"{self.program}: exit {done.returncode}, and no time of a step: {last}")

    def rows(self, length: int) -> list[dict[str, Any]]:
        rows = []
        for (of, name), times in self.times.items():
            if of == length:
                cpu, wall = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
                rows.append({"engine": f"llama.cpp {name}", "step_cpu_ms": cpu, "step_wall_ms": wall})
        return rows


def write_gguf(model: LLaDAEdge, path: Path, name: str) -> Path:
    """The weights as llama.cpp reads them, in one of its types (F32, F16, BF16, Q8_0, Q4_0); norms stay in fp32."""
    try:
        import gguf
    except ImportError:
        raise BackendUnavailable("a file for llama.cpp needs gguf: pip install 'diffulex-edge[bench]'") from None
    if name not in gguf.GGMLQuantizationType.__members__:
        raise UsageError(f"llama_types: {name!r} is not one of {', '.join(gguf.GGMLQuantizationType.__members__)}")
    kind, network = gguf.GGMLQuantizationType[name], sizes(model.config)
    writer = gguf.GGUFWriter(path, "llada")
    _write_facts(writer, network, gguf)
    parameters = dict(model.named_parameters())
    for tensor, place in places(network, NAMES).items():
        value = parameters[place.parameter][place.start : place.start + place.n].detach().float().numpy()
        heads = {"attn_q": network.n_heads, "attn_k": network.n_kv_heads}.get(tensor.split(".")[-2])
        value = value if heads is None else _interleaved(value, heads)
        if value.ndim < 2:
            writer.add_tensor(tensor, value)
        else:
            writer.add_tensor(tensor, _typed(value, name, gguf), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _typed(value: Any, name: str, gguf: Any) -> Any:
    try:
        return gguf.quants.quantize(value, gguf.GGMLQuantizationType[name])
    except (NotImplementedError, gguf.quants.QuantError) as error:
        raise UsageError(f"llama_types: gguf's Python package does not write {name!r} here: {error}") from None


def _interleaved(rows: Any, heads: int) -> Any:
    """llama.cpp turns neighbouring rows of a head against each other, we those half a head apart."""
    return np.ascontiguousarray(rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape))


def _write_facts(writer: Any, network: LlamaSizes, gguf: Any) -> None:
    """Sizes, and a vocabulary of the 256 bytes and spare words."""
    writer.add_context_length(network.max_length)
    writer.add_embedding_length(network.width)
    writer.add_block_count(network.n_layers)
    writer.add_feed_forward_length(network.d_ff)
    writer.add_head_count(network.n_heads)
    writer.add_head_count_kv(network.n_kv_heads)
    writer.add_layer_norm_rms_eps(network.eps)
    writer.add_rope_dimension_count(network.head_dim)
    writer.add_rope_freq_base(network.rope_theta)
    writer.add_vocab_size(network.vocab_size)
    writer.add_causal_attention(False)
    writer.add_diffusion_shift_logits(False)
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = letters + [f"<spare{i}>" for i in range(network.vocab_size - len(letters))]
    kinds = [gguf.TokenType.NORMAL if i < 256 else gguf.TokenType.CONTROL for i in range(len(words))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{letters[0]} {letters[1]}"])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id):
        add(network.vocab_size - 2 if network.vocab_size - 2 != network.mask_id else network.vocab_size - 1)
    writer.add_mask_token_id(network.mask_id)
    writer.add_add_bos_token(True)
    writer.add_chat_template("{{ messages[0]['content'] }}")
