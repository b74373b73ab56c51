"""Standard output and error as a tool should treat them: UTF-8 in any locale, silence where nobody reads."""

from __future__ import annotations

import io
import os
import sys


class Patient(io.TextIOWrapper):
    """A text stream whose reader may leave, as `head` does: what is said from then on is lost, the work is not."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            return self._let_go(len(text))

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._let_go(0)

    def _let_go(self, n: int) -> int:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, self.fileno())
        os.close(devnull)
        return n


def settle() -> None:
    """Opens what our caller has closed, and makes both outputs patient, and UTF-8 whatever the locale."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (as long as the process lives)
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            by_line, at_once = stream.line_buffering, stream.write_through
            patient = Patient(
                stream.detach(), "utf-8", "backslashreplace", line_buffering=by_line, write_through=at_once
            )
            setattr(sys, name, patient)
