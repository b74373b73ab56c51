"""How a model's text is best drawn, as its makers say it: generation_config.json beside the weights.

Name and keys are those of Hugging Face's transformers; `keep_script` is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from diffulex_edge.errors import ArtefactError
from diffulex_edge.files import read_object

NAME = "generation_config.json"
_RULES: dict[str, tuple[type | tuple[type, ...], Callable[[Any], bool], str]] = {
    "temperature": ((int, float), lambda value: 0 <= value < float("inf"), "a number from 0 on"),
    "top_k": (int, lambda value: value >= 0, "a whole number from 0 on"),
    "top_p": ((int, float), lambda value: 0 < value <= 1, "a number above 0, at most 1"),
    "keep_script": (bool, lambda value: True, "true or false"),
    "do_sample": (bool, lambda value: True, "true or false"),
}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The defaults are for models whose makers say nothing: what small models trained here were judged best with."""

    temperature: float = 1.2  # 0: the likeliest token
    top_k: int = 0  # tokens drawn from; 0: all
    top_p: float = 0.9  # probability mass drawn from
    keep_script: bool = False  # write in the script of the prompt alone; where that has both, in either

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What the folder's file says; of one that says nothing about it, or is not there, the defaults.

        Where it says a part, the rest cuts nothing off. Raises ArtefactError for a value that breaks its rule.
        """
        path = folder / NAME
        values = read_object(path) if path.exists() else {}
        told = {name: values[name] for name in _RULES if values.get(name) is not None}
        for name, value in told.items():
            kind, holds, rule = _RULES[name]
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool) or not holds(value):
                raise ArtefactError(f"{path}: {name}={value!r} must be {rule}")
        if told.pop("do_sample", True) is False:
            told["temperature"] = 0.0
        drawn = {"temperature": 1.0, "top_p": 1.0} if told.keys() & {"temperature", "top_k", "top_p"} else {}
        return cls(**{**drawn, **told})

    def document(self) -> dict[str, Any]:
        """What `read` reads, and transformers too."""
        return {"do_sample": self.temperature > 0, **asdict(self)}

    def override(self, **wishes: Any) -> Self:
        """With the wishes that are not None in the place of its own; they may have other names beside."""
        own = {field.name for field in fields(self)}
        return replace(self, **{name: value for name, value in wishes.items() if name in own and value is not None})
