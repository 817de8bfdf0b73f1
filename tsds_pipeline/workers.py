"""Heavy work in pieces, over the workers of a Ray cluster: what ``[ray]`` in tsds.toml is about.

A piece is a call of a pure function of this package, so it does not matter where, or how often, one is computed: the
piece of a worker that dies is computed again by another. Only the process that asked writes anything.
"""

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import RaySettings

RETRIES = 5
"""How often a piece is computed again whose worker died."""
_AHEAD = 2
"""Pieces that are handed out, for each that the cluster computes at one time: enough that no worker waits."""
_LOOK_SECONDS, _PATIENCE_SECONDS = 30.0, 600.0
_CONNECT_SECONDS = 10.0

logger = logging.getLogger(__name__)


def workers_of(settings: RaySettings) -> "RayWorkers | None":
    """The workers that [ray] names; None where it names none, and everything is done here."""
    if settings.address is None:
        return None
    return RayWorkers(settings.address, settings.cpus, settings.gpus)


@dataclass(frozen=True)
class RayWorkers:
    """The Ray cluster at ``address``, on which every piece takes so many ``cpus`` and ``gpus``."""

    address: str
    cpus: float = 1.0
    gpus: float = 0.0

    def at_once(self) -> int:
        """How many pieces the cluster computes at one time, at least 1."""
        return max(1, sum(self._room(node["Resources"]) for node in self._nodes()))

    def map(
        self, function: Callable[..., Any], pieces: Iterable[tuple], shared: Sequence[Any] = ()
    ) -> Iterator[Any]:
        """``function(*shared, *piece)`` for each of ``pieces``, in order; ``shared`` goes to every machine once.

        Raises what ``function`` raises, and :class:`TsdsError` for a cluster that cannot do it.
        """
        ray = self._connected()
        call = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=RETRIES)(function)
        common = [ray.put(value) for value in shared]
        handed_out = _AHEAD * self.at_once()
        waiting: deque = deque()
        try:
            for piece in pieces:
                waiting.append(call.remote(*common, *piece))
                if len(waiting) >= handed_out:
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            for abandoned in waiting:
                ray.cancel(abandoned, force=True)

    def _result(self, reference: Any) -> Any:
        import ray
        from ray.exceptions import RayError, RayTaskError

        since = time.monotonic()
        try:
            while not ray.wait([reference], timeout=_LOOK_SECONDS)[0]:
                self._look_for_room(time.monotonic() - since)
            return ray.get(reference)
        except RayTaskError as error:
            # Its cause is what was raised over there; the rest is where.
            cause = error.cause if isinstance(error.cause, Exception) else error
            if isinstance(cause, ModuleNotFoundError):
                raise TsdsError(
                    f'{self._said}: a worker lacks the package "{cause.name}": install the same packages there as here'
                ) from None
            raise cause from None
        except RayError as error:
            raise TsdsError(
                f"{self._said}: a piece was lost {RETRIES + 1} times ({_first_line(error)}): give its workers more "
                "memory, or look into the logs of the cluster"
            ) from None

    def _look_for_room(self, seconds: float) -> None:
        """Tell, and in the end raise, that no node is there that could compute a piece; one may be starting."""
        if any(self._room(node["Resources"]) for node in self._nodes()):
            return
        needs = f"{self.cpus:g} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")
        problem = f"{self._said}: no node has the {needs} that each piece takes"
        if seconds >= _PATIENCE_SECONDS:
            raise TsdsError(f"{problem}: add one, or lower [ray] cpus and gpus")
        logger.warning("%s: waiting for one", problem)

    def _room(self, resources: dict[str, float]) -> int:
        """How many pieces a node with these ``resources`` computes at one time."""
        by_cpu = resources.get("CPU", 0.0) // self.cpus
        return int(min(by_cpu, resources.get("GPU", 0.0) // self.gpus) if self.gpus else by_cpu)

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._connected().nodes() if node["Alive"]]

    def _connected(self) -> Any:
        """Ray, connected to the cluster for as long as this process lives."""
        # Before it is imported: it tells its maker of every use otherwise.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise TsdsError(f'{self._said} needs Ray: pip install "tsds-pipeline[ray]"') from None
        if not ray.is_initialized():
            self._reach()
            try:
                ray.init(self.address, log_to_driver=False, logging_level=logging.ERROR)
            except Exception as error:  # of many classes, its own and those of gRPC
                raise TsdsError(
                    f"{self._said}: cannot be reached ({_first_line(error)}): start the cluster, or correct the address"
                ) from None
        return ray

    def _reach(self) -> None:
        """Raise at once where nothing listens: Ray would try for minutes."""
        host, colon, port = self.address.removeprefix("ray://").rpartition(":")
        if not (colon and port.isdigit()):
            return
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        except OSError as error:
            raise TsdsError(
                f"{self._said}: nothing answers there ({error.strerror or error}): start the cluster, or correct the "
                "address"
            ) from None

    @property
    def _said(self) -> str:
        return f'[ray] address = "{self.address}"'


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
