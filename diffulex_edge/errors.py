"""The error tree. The CLI turns each into one line and the exit code given here.

DiffulexEdgeError
├── UsageError          2  the request makes no sense; also a ValueError
├── BackendUnavailable  2  an optional package is missing; the message says which extra to install
├── ArtefactError       3  a file is missing, corrupt, or not what it says it is; the message names it
├── ResourceError       4  the disk or the memory ran out; nothing that was there before is lost
└── Interrupted         5  stopped by a signal; the message names the checkpoint to go on from
"""


class DiffulexEdgeError(Exception):
    exit_code = 2


class UsageError(DiffulexEdgeError, ValueError):
    exit_code = 2


class BackendUnavailable(DiffulexEdgeError):
    exit_code = 2


class ArtefactError(DiffulexEdgeError):
    exit_code = 3


class ResourceError(DiffulexEdgeError):
    exit_code = 4


class Interrupted(DiffulexEdgeError):
    exit_code = 5
