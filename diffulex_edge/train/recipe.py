"""Recipes: model, objective and optimiser of a run as one frozen value; and the flags that change one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from diffulex_edge.errors import UsageError
from diffulex_edge.model.eco_hybrid import EcoHybridConfig
from diffulex_edge.model.families import ALIASES, SETTINGS, config_class
from diffulex_edge.train.objective import ObjectiveConfig
from diffulex_edge.train.optim import OptimConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    model: Any = EcoHybridConfig()  # config of the denoiser
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    seq_len: int = 256  # tokens
    batch_size: int = 16  # sequences a micro-batch
    grad_accum: int = 1  # micro-batches a step
    max_steps: int = 5000
    sample_steps: int = 12  # reverse steps a block that decoding takes by default
    repeats: dict[str, float] = field(
        default_factory=dict
    )  # source or script -> how often a document comes in an epoch

    def __post_init__(self) -> None:
        for name in ("seq_len", "batch_size", "grad_accum", "max_steps", "sample_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be at least 1")
        if self.seq_len < 2:
            raise UsageError(f"seq_len={self.seq_len} must be at least 2: a block, and text before it")


def phone() -> Recipe:
    """3 M parameters."""
    return Recipe(model=EcoHybridConfig(d_model=160, n_layers=4, d_ff=384, memory_slots=8), batch_size=8)


def pi() -> Recipe:
    """4 M parameters."""
    return Recipe(model=EcoHybridConfig(d_model=192, n_layers=6, d_ff=384, head_dim=24), batch_size=8)


def laptop() -> Recipe:
    """7 M parameters."""
    return Recipe(model=EcoHybridConfig(local_attn_layers=(2, 4)))


def maximal() -> Recipe:
    """Seed 002's first real run: 10 layers of width 512."""
    model = EcoHybridConfig(d_model=512, n_layers=10, n_heads=8, head_dim=64, d_ff=1536)
    return Recipe(model=model, seq_len=512, batch_size=4, grad_accum=8)


_LESSONS = ("edgeai_lessons", "azd_lessons", "iot_lessons", "security_lessons")
_HINDI = {"roman": 2.0, "mixed": 2.0, **dict.fromkeys(_LESSONS, 0.75)}


def aria_hindi_tiny() -> Recipe:
    """The model that ships. Roman and mixed text twice an epoch, the machine-translated lessons three times in four."""
    return replace(laptop(), batch_size=24, max_steps=4000, repeats=_HINDI)


def matched() -> Recipe:
    """4 M parameters and 15 M tokens of the same text: what `bench --suite seeds` compares the families at."""
    model = EcoHybridConfig(d_model=192, n_layers=6, head_dim=24, d_ff=384, local_attn_layers=(2, 4))
    return Recipe(model=model, batch_size=24, max_steps=2450, repeats=_HINDI)


def demo() -> Recipe:
    """Learns the generated corpus, with a vocabulary of 2048, to within a seventh of its entropy in minutes."""
    model = EcoHybridConfig(d_model=128, n_layers=4, d_ff=256, memory_slots=8)
    return Recipe(model=model, seq_len=128, batch_size=32, max_steps=1300)


EDGE_PROFILES: dict[str, Callable[[], Recipe]] = {"phone": phone, "pi": pi, "laptop": laptop, "max": maximal}
RECIPES: dict[str, Callable[[], Recipe]] = {
    **EDGE_PROFILES,
    "aria-hindi-tiny": aria_hindi_tiny,
    "matched": matched,
    "demo": demo,
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The flags of `train`. None: as the recipe says."""

    data_dir: Path = Path("data/processed")  # folder that `prepare` wrote
    output_dir: Path = Path(
        "checkpoints/eco_hybrid_hi"
    )  # the run: checkpoints and log.jsonl; an unfinished run there goes on
    model: str = "primary"  # primary (EcoHybrid); of as many parameters backup (bidirectional Transformer), or causal
    recipe: str | None = None  # aria-hindi-tiny, demo, or an edge profile; laptop where neither is given
    edge_profile: str | None = None  # phone, pi, laptop or max: the size of the model and of the batch
    init: str | None = None  # start from the weights of this run, checkpoint or shipped model
    overwrite: bool = False  # forget the run that output_dir holds
    max_steps: int | None = None
    seq_len: int | None = None  # tokens
    batch_size: int | None = None  # sequences a micro-batch
    grad_accum: int | None = None  # micro-batches a step
    d_model: int | None = None
    n_layers: int | None = None
    n_heads: int | None = None
    d_ff: int | None = None
    memory_slots: int | None = None
    memory_update: str | None = None  # gated, or accumulate: keep the memories of the last memory_blocks blocks
    memory_blocks: int | None = None
    memory_timescales: tuple[float, ...] | None = None  # gated: shares of the gate, slot by slot in turn
    latent_self_cond: bool = False  # slots start from those of the reverse step before; for block_frozen alone
    conv_kernel: int | None = None
    mask_schedule: str | None = None  # linear (the NELBO) or cosine (seed 002)
    timesteps: int | None = None  # condition on this many discrete noise levels
    sample_steps: int | None = None  # reverse steps that decoding takes by default
    full_only: float | None = None  # share of the steps, at first, that denoise whole sequences alone
    exit_share: float | None = None  # share of the steps that train early exits as well, for SEDAC; 0 where not given
    optimizer: str | None = None  # muon or adamw
    lr: float | None = None  # peak learning rate of AdamW
    muon_lr: float | None = None  # peak learning rate of Muon
    warmup_steps: int | None = None
    decay_fraction: float | None = None  # share of the steps, at the end, in which the learning rate falls to zero
    save_interval: int = 250  # steps between checkpoints
    log_interval: int = 10  # steps between lines of the log
    keep: int = 3  # checkpoints kept
    seed: int = 0
    threads: int | None = None  # None: one a core or one alone, as is faster now
    device: str = "auto"  # auto (a GPU where there is one), cpu, cuda or cuda:N
    precision: str = "auto"  # auto (measured), fp32 or bf16
    compile: bool = False  # torch.compile the layers
    json: str | None = None  # write the outcome as JSON to this path; - for standard output

    def __post_init__(self) -> None:
        for name in ("save_interval", "log_interval", "keep"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be at least 1")
        if self.output_dir.name == "latest.pt":
            raise UsageError(f"output_dir={self.output_dir}: latest.pt names a run's newest checkpoint, not a run")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed={self.seed} must be from 0 to 2^63 - 1")
        known = ", ".join(RECIPES)
        for name, choices in (("recipe", RECIPES), ("edge_profile", EDGE_PROFILES), ("model", ALIASES)):
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise UsageError(f"{name}={value!r} is not one of {', '.join(choices) if name != 'recipe' else known}")


def resolve(config: TrainConfig, *, vocab_size: int, mask_id: int) -> Recipe:
    """The recipe that the flags name, with each flag that was given put where it belongs."""
    recipe = RECIPES[config.recipe or config.edge_profile or "laptop"]()
    given = {f.name: getattr(config, f.name) for f in fields(config) if getattr(config, f.name) is not None}
    flags = _flags_for(recipe.model, {name: value for name, value in given.items() if name not in _SAVED_WITH_MODEL})
    kept = tuple(i for i in recipe.model.local_attn_layers if i < (config.n_layers or recipe.model.n_layers))
    model = replace(recipe.model, vocab_size=vocab_size, mask_id=mask_id, local_attn_layers=kept, **flags)
    if config.d_model or config.n_heads:
        model = replace(model, head_dim=max(1, model.d_model // model.n_heads))
    sized = config_class(config.model).matched(model, d_ff=config.d_ff)
    model = replace(sized, **SETTINGS.get(config.model, {}))
    return replace(
        recipe,
        model=model,
        objective=replace(recipe.objective, **_flags_for(recipe.objective, given)),
        optim=replace(recipe.optim, **_flags_for(recipe.optim, given)),
        **{name: value for name, value in given.items() if name in _RUN_FLAGS},
    )


_SAVED_WITH_MODEL = ("mask_schedule", "sample_steps")  # of objective and recipe: in the model's config once it is saved
_RUN_FLAGS = ("max_steps", "seq_len", "batch_size", "grad_accum", "sample_steps")


def _flags_for(part: Any, given: dict[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(part)}
    return {name: value for name, value in given.items() if name in names}
