"""What it costs to spread encoding and search over Ray nodes, and what it brings; all on this machine.

    python benchmarks/many_machines.py [--texts 4096] [--candidates 500000] [--queries 1000] [--rounds 3]

Nodes are processes here, with one core each, so two of them have what one process with two threads has: what is lost
against that is what Ray costs. Encoding: texts of the built-in demo corpus with the packaged MiniLM; search: the 128
nearest of generated vectors of 384 dimensions, whose file every worker maps. "one core" and "two cores" are one process
without Ray; they, one node and two nodes take turns in every round, and a time is the median of the rounds. Every
result is compared with that of one core: the bytes have to be the same. Memory is what a process keeps to itself, the
largest seen.

Prints Markdown tables.
"""

import argparse
import importlib
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import machine
import tsds_pipeline
import workload
from tsds_pipeline.core.machine import use_cores
from tsds_pipeline.core.neighbors import ExactSearch
from tsds_pipeline.core.row_stack import RowStack
from tsds_pipeline.corpus.demo import write_demo
from tsds_pipeline.corpus.sources import read_source
from tsds_pipeline.encoders import make_encoder, sentence_transformers
from tsds_pipeline.encoders.base import ENCODED_AT_ONCE
from tsds_pipeline.encoders.embedding import encode_chunk
from tsds_pipeline.settings import CorpusSettings, EncoderSettings
from tsds_pipeline.stages import spread_search
from tsds_pipeline.stages.index import build_index
from tsds_pipeline.stages.spread_search import SpreadSearch, mapped_vectors
from tsds_pipeline.workers import RayWorkers

DEPTH = 128
_EMPTY_PIECES = 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=4 * ENCODED_AT_ONCE)
    parser.add_argument("--candidates", type=int, default=500_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{machine.in_words(machine.describe())}\n", flush=True)
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", PYTHONPATH=str(Path(tsds_pipeline.__file__).parent.parent))
    spread_search.WORTH = 0
    imported, _ = timed(lambda: importlib.import_module("ray"))
    with tempfile.TemporaryDirectory() as folder, nodes() as (cluster, workers):
        seconds = {
            "import Ray": imported,
            "connect to the cluster": timed(workers.at_once)[0],
            "first piece: a worker starts": timed(lambda: no_pieces(workers, 1))[0],
            "each further piece, empty": timed(lambda: no_pieces(workers, _EMPTY_PIECES))[0] / _EMPTY_PIECES,
        }
        print("| start | seconds |\n| --- | ---: |")
        for what, took in seconds.items():
            print(f"| {what} | {took:.3f} |")
        node, worker = node_memory(cluster)
        print(f"\nA node takes {node / 2**20:.0f} MiB, a worker without work {worker / 2**20:.0f} MiB.\n")
        texts = demo_texts(Path(folder), options.texts)
        file = index_file(Path(folder), options.candidates)
        queries = workload.Mixture(384).queries(options.queries)
        for name, work in (("texts", encoding(texts)), ("search", searching(file, queries))):
            compare(name, work, workers, cluster, options.rounds)


@contextmanager
def nodes() -> Iterator[tuple[Any, RayWorkers]]:
    """A cluster whose head has no core for pieces, and one node with one."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", PYTHONPATH=str(Path(tsds_pipeline.__file__).parent.parent))
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    try:
        yield cluster, RayWorkers(cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()


def no_pieces(workers: RayWorkers, number: int) -> None:
    # Of the standard library, which every worker has.
    list(workers.map(os.path.basename, [("",)] * number))


def demo_texts(folder: Path, number: int) -> list[str]:
    write_demo(folder / "demo")
    read = {"template": None, "max_chars": CorpusSettings().max_chars, "vector_field": None}
    found = [
        text
        for path in sorted((folder / "demo" / "sources").iterdir())
        for text in read_source([path], **read).table.lazy().select("text").collect()["text"]
    ]
    assert len(found) >= number, f"there are {len(found)} texts"
    return [found[place] for place in np.random.default_rng(0).permutation(len(found))[:number]]


def index_file(folder: Path, candidates: int) -> Path:
    import faiss

    path = folder / "pool.faiss"
    vectors = np.concatenate(list(workload.Mixture(384).candidates(candidates)))
    faiss.write_index(build_index(vectors, "Flat"), str(path))
    return path


Work = Callable[[RayWorkers | None, int], np.ndarray]
"""What is timed: over workers, or here on so many cores."""


def encoding(texts: list[str]) -> Work:
    encoder = make_encoder(EncoderSettings())
    chunks = [texts[start : start + ENCODED_AT_ONCE] for start in range(0, len(texts), ENCODED_AT_ONCE)]

    def work(workers: RayWorkers | None, cores: int) -> np.ndarray:
        if workers is None:
            sentence_transformers.threads = lambda: cores
            return np.concatenate([encoder.encode(chunk) for chunk in chunks])
        shared = (encoder.afresh(), encoder.fingerprint)
        return np.concatenate(list(workers.map(encode_chunk, [(chunk,) for chunk in chunks], shared)))

    return work


def searching(file: Path, queries: np.ndarray) -> Work:
    import faiss

    rows = RowStack([mapped_vectors(faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC))])

    def work(workers: RayWorkers | None, cores: int) -> np.ndarray:
        use_cores(cores)
        search = ExactSearch(rows) if workers is None else SpreadSearch(rows, file, workers)
        return search.search(queries, DEPTH).distances

    return work


def compare(name: str, work: Work, workers: RayWorkers, cluster: Any, rounds: int) -> None:
    """Time ``work`` here and there. The first time that a worker does it is told by itself."""
    import torch

    torch.set_num_threads(1)  # of each thread that encodes
    expected = work(None, 1)
    kinds = ("one core", "two cores", "one node", "two nodes")
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    processor: dict[str, list[float]] = {kind: [] for kind in kinds}
    with largest_workers() as memory:
        first, found = timed(lambda: work(workers, 1))
        assert found.tobytes() == expected.tobytes()
        for _ in range(rounds):
            for kind in kinds:
                if kind == "two nodes":
                    second = cluster.add_node(num_cpus=1)
                    cluster.wait_for_nodes()
                    work(workers, 1)  # it loads what the first has loaded
                where, cores = None if "core" in kind else workers, 2 if "two" in kind else 1
                before = processor_seconds()
                took, found = timed(lambda where=where, cores=cores: work(where, cores))
                assert found.tobytes() == expected.tobytes(), kind
                seconds[kind].append(took)
                processor[kind].append(processor_seconds() - before)
            cluster.remove_node(second)
    print(f"| {name} | seconds | times one core | processor seconds |\n| --- | ---: | ---: | ---: |")
    alone = statistics.median(seconds["one core"])
    for kind, times in seconds.items():
        took = statistics.median(times)
        print(f"| {kind} | {took:.2f} | {alone / took:.2f} | {statistics.median(processor[kind]):.2f} |")
    print(
        f"\nThe first time on one node: {first:.2f} s. A worker took {memory[0] / 2**20:.0f} MiB at most.\n"
    )


def processor_seconds() -> float:
    """What this process and all of Ray's have used so far: on a busy machine it says more than the clock."""
    used = time.process_time()
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        used += times.user + times.system
    return used


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def own_memory(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().uss
    except psutil.Error:
        return 0


def node_memory(cluster: Any) -> tuple[int, int]:
    """That of a node without its workers, and that of a worker that has nothing to do."""
    [info] = next(iter(cluster.worker_nodes)).all_processes["raylet"]
    raylet = psutil.Process(info.process.pid)
    sizes = {process: own_memory(process) for process in [raylet, *raylet.children(recursive=True)]}
    idle = [size for process, size in sizes.items() if _words(process)[:1] == ["ray::IDLE"]]
    return sum(sizes.values()) - sum(idle), max(idle)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@contextmanager
def largest_workers() -> Iterator[list[int]]:
    """The largest size of a worker while it is at a piece, as the one item of a list."""
    found, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.5):
            busy = [
                p
                for p in psutil.Process().children(recursive=True)
                if _words(p)[:1] and _words(p)[0].startswith("ray::")
            ]
            found[0] = max([found[0], *map(own_memory, busy)])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    main()
