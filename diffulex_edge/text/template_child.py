"""Renders one chat template, in a process of its own that has little memory, little time and no files to write.

chat.py runs this file; it imports nothing of ours. A request comes in as JSON on standard input. The text leaves as
JSON on standard output; a fault leaves as the last line of standard error, and REFUSED as the exit code if the template
itself raised it. Jinja's sandbox keeps a template from reaching Python; the limits keep it from filling the machine.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import resource
import sys
from types import TracebackType
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

REFUSED = 3
LIMITS = {resource.RLIMIT_CPU: 1, resource.RLIMIT_AS: 256 << 20, resource.RLIMIT_FSIZE: 0}  # seconds, bytes, bytes
LONGEST_FAULT = 300  # characters of a message that a template can make


class Refused(jinja2.TemplateError):
    """The template called raise_exception."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's, but what it calls unsafe is an error at once instead of an undefined value."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:  # type: ignore[override]
        raise jinja2.exceptions.SecurityError(f"{attribute!r} of a {type(obj).__name__} is out of reach")


class Generation(Extension):
    """`{% generation %}` marks what the model is trained to write; here it is only its content."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(template: str, values: dict[str, Any], longest: int) -> str:
    """The template filled in, with the settings and functions that transformers gives chat templates."""
    sandbox = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    sandbox.filters["tojson"] = _to_json
    sandbox.globals["raise_exception"] = _raise_exception
    sandbox.globals["strftime_now"] = _strftime_now
    parts, length = [], 0
    for part in sandbox.from_string(template).generate(values):
        parts.append(part)
        length += len(part)
        if length > longest:
            raise ValueError(f"writes more than {longest:,} characters")
    return "".join(parts)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise Refused(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _last_words(kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
    told = " ".join(str(fault)[:LONGEST_FAULT].split())
    sys.stderr.write(told if kind is Refused else f"{kind.__name__}: {told}")


def main() -> None:
    """Reads the request, then gives up what a template must not have, then renders."""
    sys.excepthook = _last_words
    request = json.load(sys.stdin)
    for what, most in LIMITS.items():
        with contextlib.suppress(ValueError, OSError):  # macOS does not take each of them
            resource.setrlimit(what, (most, most))
    try:
        text = render(**request)
    except Refused as refused:
        _last_words(Refused, refused, None)
        sys.exit(REFUSED)
    json.dump(text, sys.stdout)


if __name__ == "__main__":
    main()
