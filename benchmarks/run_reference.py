"""One run of the paper's public script, from a clone, on the same arrays, as a process that ``compare`` starts.

The script runs unchanged, as a program of its own in a temporary folder. What it calls is watched from outside: the
index for the seconds of the stages, the final draw for its plan, which is left in the variables of its caller. Keeping
the plan counts neither in time nor in memory.

Two results are widened, or it would end without one: its densities are handed on in float64, as float32 fails its own
check of the plan, and the draw gets probabilities that sum to 1 in float64, as numpy demands.
"""

import heapq
import runpy
import sys
import time
from pathlib import Path

import numpy as np
import yaml

import measured

# What the script has computed when it draws.
OF_CALLER = ("top_indices", "top_kdes", "lastK", "s", "global_probs")
STAGES = ("index", "search", "densities", "transport", "draw")


class Watch:
    """Ends stages, in order, at calls of the script."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = 0.0

    def start(self) -> None:
        self._since = time.perf_counter()

    def end(self, stage: str) -> None:
        """The next call that could end a stage does so only when all before it have ended."""
        if stage in self.seconds or STAGES.index(stage) != len(self.seconds):
            return
        now = time.perf_counter()
        self.seconds[stage], self._since = now - self._since, now


def main() -> None:
    spec = measured.spec()
    clone = Path(spec["clone"])
    Path("config.yaml").write_text(yaml.safe_dump(spec["settings"]))
    sys.dont_write_bytecode = True  # nothing is written to the clone
    sys.path.insert(0, str(clone))
    watch, caller = Watch(), {}
    watch_index(watch)
    watch_assignment(watch, caller)
    runpy.run_path(str(clone / "tsds.py"), run_name="__main__")
    result = {"stages": watch.seconds, "peak": caller["peak"]}
    measured.report(result | {"rebuilt_differs": keep_plan(spec["plan"], caller)})


def watch_index(watch: Watch) -> None:
    import faiss_helper

    kind = faiss_helper.FaissIndexIVFFlat
    build, search = kind.__init__, kind.search

    def timed_build(self, *args, **kwargs):
        if not watch.seconds:
            watch.start()
        build(self, *args, **kwargs)
        watch.end("index")

    def timed_search(self, *args, **kwargs):
        found = search(self, *args, **kwargs)
        watch.end("search")
        return found

    kind.__init__, kind.search = timed_build, timed_search


def watch_assignment(watch: Watch, caller: dict) -> None:
    vectorize, heapify, multinomial = np.vectorize, heapq.heapify, np.random.multinomial

    def in_float64(function):  # the densities of the neighbours
        return lambda values: vectorize(function)(values).astype(np.float64)

    def timed_heapify(heap):
        watch.end("densities")
        heapify(heap)

    def accepting_multinomial(n, probabilities):
        watch.end("transport")
        probabilities = np.asarray(probabilities, dtype=np.float64)
        drawn = multinomial(n, probabilities / probabilities.sum())
        watch.end("draw")
        caller["peak"] = measured.peak()
        frame = sys._getframe(1).f_locals
        caller.update({name: frame[name] for name in OF_CALLER})
        return drawn

    np.vectorize, heapq.heapify = in_float64, timed_heapify
    np.random.multinomial = accepting_multinomial


def keep_plan(path: str, caller: dict) -> float:
    """Write the plan, entry by entry; how far its column sums are from the script's probabilities in total variation.

    A query gives each of its nearest candidates mass in proportion to 1 / density, up to the last, which takes
    what is left.
    """
    n = len(caller["global_probs"])
    # An inverted file that found too few leaves -1, which the script takes for the last candidate.
    indices, densities = caller["top_indices"] % n, caller["top_kdes"]
    m, rows, last = len(indices), np.arange(len(indices)), np.asarray(caller["lastK"]) + 1
    mass = 1.0 / (m * float(caller["s"]) * densities)
    mass[np.arange(indices.shape[1]) >= last[:, None]] = 0.0
    mass[rows, last] = np.maximum(1.0 / m - mass.sum(axis=1), 0.0)
    entries = np.nonzero(mass)
    candidate, mass = indices[entries], mass[entries]
    np.savez(path, query=entries[0], candidate=candidate, mass=mass, density=densities[entries])
    p = np.bincount(candidate, weights=mass, minlength=n)
    return float(np.abs(p - caller["global_probs"]).sum() / 2)


if __name__ == "__main__":
    main()
