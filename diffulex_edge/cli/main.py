"""The command line: finds the verb, reads its flags, runs it, writes its JSON; an error becomes one line and a code.

A verb is a module of this folder with `Flags`, a frozen dataclass (field = flag, its comment = help), and `run(flags)`,
which prints for people and returns what `--json` writes. Only the module of the verb asked for is imported.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from diffulex_edge.errors import DiffulexEdgeError, ResourceError, UsageError

VERBS = {
    "prepare": "text files, hub data sets or the built-in grammar -> train.bin, val.bin, meta.json and a tokenizer",
    "train": "prepared data -> a run folder with checkpoints and a log; goes on where it stopped",
    "sample": "a prompt -> text, denoised before your eyes",
    "infill": "a text with ___ in it -> the same text with the gaps filled",
    "eval": "a model and held-out documents -> bits a character in each mode, calibration, judged samples",
    "bench": "a model -> tokens a second in each mode, with the quality beside it; or the speed of training",
    "doctor": "what this machine and this installation can do",
    "colab": "all in one: prepares Hindi text if there is none, then trains the primary model on it",
}
USAGE = "usage: diffulex-edge VERB [FLAGS]      diffulex-edge VERB --help      diffulex-edge --version"
CODES = "exit codes: 0 done, 2 usage, 3 bad artefact, 4 out of disk or memory, 5 stopped with a checkpoint, 130 Ctrl-C"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and gives its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except (DiffulexEdgeError, ValueError) as error:
        return _fail(error, getattr(error, "exit_code", UsageError.exit_code))
    except MemoryError as error:
        return _fail(f"out of memory: {error}", ResourceError.exit_code)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)
        return _fail(error, ResourceError.exit_code if full else UsageError.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)


def script(*first: str) -> NoReturn:
    """The entry point; `first` are words to put before those of the command line."""
    sys.exit(main([*first, *sys.argv[1:]]))


def _run(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        print(f"diffulex-edge {import_module('diffulex_edge').__version__}")
    elif words[:1] in (["--help"], ["-h"]) or not words:
        print(usage())
        return 0 if words else UsageError.exit_code
    elif words[0] not in VERBS:
        raise UsageError(f"{words[0]!r} is not a verb; the verbs are {', '.join(VERBS)}")
    else:
        if words[0] in ("train", "colab"):
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads
        verb, parsing = import_module(f"diffulex_edge.cli.{words[0]}"), import_module("diffulex_edge.cli.parse")
        flags = parsing.parse(verb.Flags, words[1:], prog=f"diffulex-edge {words[0]}")
        parsing.report(verb.run(flags), flags.json)
    return 0


def usage() -> str:
    return "\n".join([USAGE, "", *(f"  {verb:8} {about}" for verb, about in VERBS.items()), "", CODES])


def _fail(message: object, code: int) -> int:
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    script()
