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

from diffulex_edge.cli.streams import settle
from diffulex_edge.cli.verbs import VERBS, usage
from diffulex_edge.errors import DiffulexEdgeError, ResourceError, UsageError

OUT_OF_MEMORY = ("can't allocate memory", "calculation overflowed", "out of memory")  # PyTorch's words for it


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and gives its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except (DiffulexEdgeError, ValueError) as error:
        return _fail(error, getattr(error, "exit_code", UsageError.exit_code))
    except MemoryError as error:
        return _fail(f"out of memory: {error}", ResourceError.exit_code)
    except RuntimeError as error:
        if not any(said in str(error) for said in OUT_OF_MEMORY):
            raise
        return _fail(f"out of memory: {error}", ResourceError.exit_code)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)
        return _fail(error, ResourceError.exit_code if full else UsageError.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)


def script(*first: str) -> NoReturn:
    """The entry point; `first` are words to put before those of the command line."""
    settle()
    sys.exit(main([*first, *sys.argv[1:]]))


def _run(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        print(f"diffulex-edge {import_module('diffulex_edge').__version__}")
    elif words[:1] in (["--help"], ["-h"]) or not words:
        print(usage(), flush=True)
        return 0 if words else UsageError.exit_code
    elif words[0] not in VERBS:
        raise UsageError(f"{words[0]!r} is not a verb; the verbs are {', '.join(VERBS)}")
    else:
        if words[0] in ("train", "colab"):
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads
        verb, parsing = import_module(f"diffulex_edge.cli.{words[0]}"), import_module("diffulex_edge.cli.parse")
        flags = parsing.parse(verb.Flags, words[1:], prog=f"diffulex-edge {words[0]}")
        parsing.check_place(flags.json)
        parsing.report(verb.run(flags), flags.json)
    return 0


def _fail(message: object, code: int) -> int:
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    script()
