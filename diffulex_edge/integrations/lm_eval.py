"""The model `diffulex` for lm-eval, EleutherAI's harness, and its command line with that model at hand.

    python -m diffulex_edge.integrations.lm_eval --tasks belebele_hin_Deva --model_args pretrained=aria-hindi-tiny

lm-eval is imported when it is asked for: `pip install 'diffulex-edge[eval]'`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any

from diffulex_edge.api import SHIPPED, load
from diffulex_edge.errors import BackendUnavailable, DiffulexEdgeError, UsageError
from diffulex_edge.integrations.answers import AnswerConfig, Answers
from diffulex_edge.machine import set_threads

NAME = "diffulex"
Ask = Callable[[Any], Iterator[tuple[int, Any]]]  # requests -> (number, answer), as they are found


@functools.cache
def register() -> type:
    """Makes the class DiffusionLM, a `lm_eval.api.model.LM`, known to lm-eval as `diffulex`, and gives it.

    Raises BackendUnavailable where lm-eval is not installed.
    """
    try:
        from lm_eval.api.model import LM
        from lm_eval.api.registry import register_model
        from tqdm import tqdm
    except ImportError as error:
        raise BackendUnavailable(f"the harness needs lm-eval ({error}): pip install 'diffulex-edge[eval]'") from None

    @register_model(NAME)
    class DiffusionLM(LM):
        """Every `--model_args` of `open_answers`, and what lm-eval itself passes on."""

        def __init__(self, **said: Any) -> None:
            super().__init__()
            self.answers = open_answers(**said)

        def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[Any]:
            return self._collect("loglikelihood", self.answers.likelihoods, requests, disable_tqdm)

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[Any]:
            def ask(arguments: Sequence[tuple[str]]) -> Iterator[tuple[int, float]]:
                return self.answers.rolling([text for (text,) in arguments])

            return self._collect("loglikelihood_rolling", ask, requests, disable_tqdm)

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[Any]:
            return self._collect("generate_until", self.answers.continuations, requests, disable_tqdm)

        def _collect(self, name: str, ask: Ask, requests: Sequence[Any], disable_tqdm: bool) -> list[Any]:
            """The answers in the order of the requests; each is kept in lm-eval's cache as soon as it is there."""
            found: list[Any] = [None] * len(requests)
            arguments = [request.args for request in requests]
            for i, answer in tqdm(ask(arguments), desc=name, total=len(requests), disable=disable_tqdm):
                found[i] = answer
                self.cache_hook.add_partial(name, arguments[i], answer)
            return found

    return DiffusionLM


def open_answers(
    *,
    pretrained: str = SHIPPED,
    tokenizer: str | None = None,
    threads: int | None = None,
    device: str = "cpu",
    batch_size: int | str = AnswerConfig.batch_size,
    max_batch_size: int | None = None,
    **said: Any,
) -> Answers:
    """The model that `--model_args` describe: pretrained=PATH_OR_NAME, tokenizer, threads, and fields of AnswerConfig.

    lm-eval's own flags are the rest: `--batch_size auto` is `--max_batch_size`, or 8.
    Raises UsageError for what is none of these.
    """
    unknown = sorted(set(said) - {field.name for field in fields(AnswerConfig)})
    if unknown:
        raise UsageError(f"model_args: {', '.join(unknown)}: not known; there are {', '.join(_arguments())}")
    if device != "cpu":
        raise UsageError(f"{device=}: this model is asked on the CPU")
    rows = (max_batch_size or 8) if str(batch_size).startswith("auto") else int(batch_size)
    config = AnswerConfig(batch_size=rows, **said)
    set_threads(threads)
    return Answers(*load(pretrained, tokenizer=tokenizer), config)


def _arguments() -> list[str]:
    return ["pretrained", "tokenizer", "threads", *(field.name for field in fields(AnswerConfig))]


def main(argv: Sequence[str] | None = None) -> int:
    """lm-eval's command line, all of it; what it runs is `diffulex` on the CPU, unless a flag names another model."""
    words = list(sys.argv[1:] if argv is None else argv)
    flags = words[1:] if words[:1] == ["run"] else words
    if flags and flags[0].startswith("-") and not {"-h", "--help"} & set(flags):
        words = ["run", "--model", NAME, "--device", "cpu", *flags]  # of two the last counts; lm-eval's own is cuda:0
    try:
        register()
        from lm_eval.__main__ import cli_evaluate

        sys.argv = ["lm-eval", *words]
        cli_evaluate()
    except DiffulexEdgeError as error:
        print("error:", error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
