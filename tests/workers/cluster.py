"""A Ray cluster of two nodes on this machine: processes of their own, a processor each."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parent.parent.parent
_OBJECT_STORE = 100 * 2**20
MEMORY = 2**30
"""What the pieces or runs of one node may reserve together."""


class TwoNodes:
    """The head and a second node. ``address`` is what [ray] takes, ``jobs`` what the run launcher takes."""

    def __init__(self, cluster: Any, node: dict[str, Any]):
        self._cluster, self._node = cluster, node
        self.address: str = cluster.address
        self.jobs: str = f"http://{cluster.head_node.webui_url}"
        self._start_second()

    def _start_second(self) -> None:
        self._second = self._cluster.add_node(**self._node)
        self._cluster.wait_for_nodes()

    @property
    def second(self) -> str:
        """The id of the second node."""
        return self._second.node_id

    @property
    def second_raylet(self) -> int:
        """The process that is the second node; its workers are its children."""
        [info] = self._second.all_processes["raylet"]
        return info.process.pid

    def kill_second(self) -> None:
        """SIGKILL to the second node and all that runs on it, as when a machine dies."""
        node = psutil.Process(self.second_raylet)
        for process in (node, *node.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def mend(self) -> None:
        """Another second node, where the last one was killed."""
        self._cluster.remove_node(self._second, allow_graceful=False)
        self._start_second()


@contextmanager
def two_nodes(dashboard: bool = False, **environment: str) -> Iterator[TwoNodes]:
    """A cluster whose workers see this repository and, beside this process's own, the variables of ``environment``."""
    import ray
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ.update(
        {
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests' / 'encoders'}",
            "RAY_USAGE_STATS_ENABLED": "0",
            # Whoever is killed is missed after a second or two.
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_failure_threshold": "3",
            **environment,
        }
    )
    node = {"num_cpus": 1, "object_store_memory": _OBJECT_STORE, "memory": MEMORY}
    head = node | {"include_dashboard": dashboard, "dashboard_port": 0}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield TwoNodes(cluster, node)
    finally:
        ray.shutdown()
        cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)
