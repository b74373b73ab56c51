"""Jobs by Ray: so many at once, here or on the machines of a cluster; one that measures speed has a machine to itself.

The machines of a cluster see the same suite_dir, data_dir, documents and checkout, under the same paths. Rows are
written by the process that asks for them, and by no other.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import replace
from functools import lru_cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from diffulex_edge.errors import BackendUnavailable, Interrupted
from diffulex_edge.suite.jobs import Job, Results, lacking, measure
from diffulex_edge.suite.workplace import SuiteConfig, Workplace

GRACE = 60.0  # seconds that a training has, when it is told to stop, to end its step and write its checkpoint
ROOT = Path(__file__).parents[2]  # where this checkout's package is imported from


def run_on_ray(jobs: Sequence[Job], place: Workplace) -> Iterator[tuple[Job, str]]:
    """As `run_here`, but `workers` jobs at once; they come in the order in which they end.

    Ctrl-C is Interrupted: the trainings in flight write their checkpoints, other rows in flight are lost.
    """
    if not jobs:
        return
    try:
        with _ray(place.config.workers) as ray:
            yield from _in_turn(jobs, place, ray)
    except KeyboardInterrupt as error:
        config = place.config
        raise Interrupted(
            f"stopped; the same command goes on with what is in {config.results} and {config.suite_dir}"
        ) from error


def _in_turn(jobs: Sequence[Job], place: Workplace, ray: Any) -> Iterator[tuple[Job, str]]:
    by_name, results, start = {job.name: job for job in jobs}, Results(place.config.results), _starter(ray, place)
    order = TopologicalSorter({job.name: [need for need in job.needs if need in by_name] for job in jobs})
    order.prepare()
    ready, failed, running = list[Job](), set[str](), dict[Any, Job]()
    try:
        while order.is_active():
            ready = [*ready, *(by_name[name] for name in order.get_ready())]
            ready.sort(key=lambda job: job.alone)  # one that waits for a whole machine would hold up the others
            if ready and len(running) < place.config.workers:
                job = ready.pop(0)
                why = lacking(job, failed)
                if not why:
                    running[start(job)] = job
                    continue
            else:
                (task,), _ = ray.wait([*running])
                job, (row, why) = running.pop(task), _arrived(ray, task)
                if not why:
                    results.put(row)
            if why:
                failed.add(job.name)
            order.done(job.name)
            yield job, why
    finally:
        for task in running:
            ray.cancel(task)  # in the worker it is a Ctrl-C
        if running:
            ray.wait([*running], num_returns=len(running), timeout=GRACE)


@contextmanager
def _ray(workers: int) -> Iterator[Any]:
    """The Ray that this process has joined, or that RAY_ADDRESS names; else one here, which ends with the block."""
    try:
        import ray
    except ImportError as error:
        raise BackendUnavailable("--workers needs ray: pip install 'diffulex-edge[ray]'") from error
    if ray.is_initialized():
        yield ray
        return
    own: dict[str, Any] = {}
    if "RAY_ADDRESS" not in os.environ:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
        own = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": 10**8}  # bytes; rows are small
    with chdir(ROOT):  # the folder it is started in comes first where its workers import from
        ray.init(os.environ.get("RAY_ADDRESS", "local"), log_to_driver=False, logging_level=logging.ERROR, **own)
    try:
        yield ray
    finally:
        ray.shutdown()


def _starter(ray: Any, place: Workplace) -> Callable[[Job], Any]:
    """Starts a job; gives the task whose result is what `measure` says of it."""
    config = replace(place.config, suite_dir=place.config.suite_dir.absolute())
    documents = tuple(path.absolute() for path in place.documents)
    where = (config, place.data_dir.absolute(), documents, time.time_ns())
    task = ray.remote(max_retries=0)(_measured)  # one that ran out of memory would be tried again for ever

    def start(job: Job) -> Any:
        cpus = _whole_machine(ray.nodes()) if job.alone else 1
        return task.options(num_cpus=cpus, scheduling_strategy="SPREAD", name=job.name).remote(job, where)

    return start


def _whole_machine(nodes: Sequence[Mapping[str, Any]]) -> float:
    """The CPUs of the largest machines: who asks for all of them shares none, and speeds are of one kind of machine."""
    return max(node["Resources"].get("CPU", 0) for node in nodes if node["Alive"])


def _measured(job: Job, where: tuple[SuiteConfig, Path, tuple[Path, ...], int]) -> tuple[dict[str, Any], str]:
    return measure(job, _workplace(*where))


@lru_cache(maxsize=1)
def _workplace(config: SuiteConfig, data_dir: Path, documents: tuple[Path, ...], run: int) -> Workplace:
    """A worker's own, kept from job to job: it loads a model once. Not from run to run: models may be trained anew."""
    return Workplace(config, data_dir, documents)


def _arrived(ray: Any, task: Any) -> tuple[dict[str, Any], str]:
    """What a task measured. Raises what it raised: Interrupted, or a bug."""
    gone = ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except gone as error:
        return {}, f"its worker died: {str(error).splitlines()[0]}"
