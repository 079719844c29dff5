"""What a training's worker takes of Ray's nodes, and whether there is room for all of them."""

import math
from collections.abc import Mapping

from infra.cluster import ClusterConfig
from infra.errors import UserError

# Trainings on one machine share its processors: each worker's place is small enough for several.
_SHARED_CPUS = 0.25
_SLACK = 1e-6


def worker_resources(cluster: ClusterConfig, *, workers: int) -> dict[str, float]:
    """Return what each worker takes, by the name that Ray gives to it.

    Without a number of processors in the configuration that is a small fraction on this machine,
    and on a cluster a whole number: the smallest node's, shared evenly among the workers that a
    node holds when they are spread.

    Args:
        cluster: The running instance.
        workers: How many workers there are when all can be placed.
    """
    taken: dict[str, float] = {"GPU": cluster.gpus_per_worker} if cluster.gpus_per_worker else {}
    if cluster.cpus_per_worker is not None:
        return {"CPU": cluster.cpus_per_worker, **taken}
    if cluster.address is None:
        return {"CPU": _SHARED_CPUS, **taken}
    cpus = [int(node["CPU"]) for node in _nodes() if _room(node, {"CPU": 1.0, **taken})]
    share = min(cpus) // math.ceil(workers / len(cpus)) if cpus else 1
    return {"CPU": float(max(1, share)), **taken}


def check_room(resources: Mapping[str, float], *, name: str, workers: int) -> None:
    """Check that Ray's nodes are large enough for all workers, whoever uses them now.

    Args:
        resources: What each worker takes.
        name: Of the training.
        workers: How many must be placed.

    Raises:
        UserError: If they are not.
    """
    nodes = _nodes()
    for resource, each in sorted(resources.items(), reverse=True):
        room = sum(_room(node, {resource: each}) for node in nodes)
        if room < workers:
            has = sum(node.get(resource, 0.0) for node in nodes)
            raise _too_many(
                f"training {name} asks for {workers} workers, and at most {room} can be placed "
                f"({each:g} {resource} each, {has:g} {resource}s in Ray)",
                resource=resource,
                room=room,
            )
    both = sum(_room(node, resources) for node in nodes)
    if both < workers:
        raise _too_many(
            f"training {name} asks for {workers} workers, and at most {both} can be placed: no "
            "node has enough of both processors and accelerators for more",
            resource="CPU",
            room=both,
        )


def _too_many(problem: str, *, resource: str, room: int) -> UserError:
    fewer = "set RANKLAKE_WORKERS lower, or " if room else "set "
    more = {
        "GPU": "RANKLAKE_GPUS_PER_WORKER=0 to train on the processors",
        "CPU": "RANKLAKE_CPUS_PER_WORKER lower, or RANKLAKE_THREADS higher",
    }
    return UserError(problem, remedy=fewer + more[resource])


def own_threads(local_workers: int) -> int:
    """Return a worker's share of the processors that Ray counts on its node, at least one.

    Args:
        local_workers: How many of the training's workers are on this node.
    """
    import ray

    own = ray.get_runtime_context().get_node_id()
    cpus = next(node["Resources"].get("CPU", 1) for node in ray.nodes() if node["NodeID"] == own)
    return max(1, int(cpus) // local_workers)


def _room(node: Mapping[str, float], resources: Mapping[str, float]) -> int:
    """Return how many workers a node can hold."""
    return min(int(node.get(name, 0.0) / each + _SLACK) for name, each in resources.items())


def _nodes() -> list[dict[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
