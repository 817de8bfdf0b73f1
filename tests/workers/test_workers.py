"""Work over two Ray nodes: the same bytes as here, also when one of them is killed; and what workers may lack."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hash_encoder import HashEncoder, records_of, texts_of

from tests.workers.cluster import TwoNodes, two_nodes
from tests.workers.pieces import import_what_is_not_there, refuse, scaled, search_and_tell, where
from tsds_pipeline import workers as workers_module
from tsds_pipeline.core.neighbors import ExactSearch
from tsds_pipeline.core.row_stack import RowStack
from tsds_pipeline.encoders import embed
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.stages import spread_search
from tsds_pipeline.stages.index import build_index, open_index
from tsds_pipeline.stages.spread_search import SpreadSearch
from tsds_pipeline.storage import Draft, Header, artifact_path, write_artifact
from tsds_pipeline.workers import RayWorkers

DIM = 24


@pytest.fixture(scope="module")
def cluster() -> Iterator[TwoNodes]:
    with two_nodes() as nodes:
        yield nodes


@pytest.fixture
def workers(cluster) -> RayWorkers:
    return RayWorkers(cluster.address)


class SmallCalls(HashEncoder):
    """Few texts a call, so that a small test has many."""

    encoded_at_once = 10

    def afresh(self) -> HashEncoder:
        return HashEncoder(self.fingerprint, self.seconds)


class UntilBoth:
    """Numbers to hand out until both nodes have computed one, however late a node starts a worker, and some more."""

    def __init__(self, more: int):
        self.asked: list[int] = []
        self.done: list[tuple[int, str]] = []
        self._more = more

    @property
    def both(self) -> bool:
        return len({node for _, node in self.done}) == 2

    def __iter__(self) -> Iterator[tuple[int]]:
        left = self._more
        while left or not self.both:
            assert len(self.asked) < 300, "one node does everything"
            left -= self.both
            self.asked.append(len(self.asked))
            yield (self.asked[-1],)


def test_pieces_come_in_order_and_both_nodes_compute_some(workers):
    assert workers.at_once() == 2
    numbers = UntilBoth(more=0)
    for piece in workers.map(where, numbers, shared=(0.3,)):
        numbers.done.append(piece)
    assert [number for number, _ in numbers.done] == numbers.asked == list(range(len(numbers.asked)))
    assert numbers.both


def test_arrays_come_back_as_they_are_computed(workers):
    factor = np.random.default_rng(0).normal(size=(300, 200))
    pieces = [np.full(200, number, np.float64) for number in range(5)]
    made = list(workers.map(scaled, ((piece,) for piece in pieces), shared=(factor,)))
    assert [one.tobytes() for one in made] == [(factor * piece).tobytes() for piece in pieces]


def test_texts_get_the_vectors_that_they_get_here(workers, tmp_path):
    records, calls = records_of(texts_of(0, 95)), []
    here = embed(records, HashEncoder(), tmp_path / "here", "source a")
    spread = embed(
        records, SmallCalls(), tmp_path / "there", "source a", lambda *call: calls.append(call), workers
    )
    assert spread.vectors.tobytes() == here.vectors.tobytes()
    assert (spread.encoded, spread.reused) == (95, 0)
    assert calls == [(done, 95) for done in (*range(10, 91, 10), 95)]
    # They are kept: nothing is left to encode, here or there.
    assert embed(records, HashEncoder(), tmp_path / "there", "source a").reused == 95


def test_what_is_one_call_is_made_here(tmp_path):
    nowhere = RayWorkers("127.0.0.1:9")
    encoder = SmallCalls()
    embed(records_of(texts_of(0, 10)), encoder, tmp_path, "source a", workers=nowhere)
    assert len(encoder.texts) == 10


def test_a_worker_with_another_encoder_is_refused(workers, tmp_path):
    class Elsewhere(SmallCalls):
        def afresh(self):
            return HashEncoder("of another version")

    with pytest.raises(
        TsdsError, match="a worker has another encoder, of another version, than hash: put the"
    ):
        embed(records_of(texts_of(0, 30)), Elsewhere(), tmp_path, "source a", workers=workers)


def vectors(n: int, seed: int) -> np.ndarray:
    """Whole numbers, so that many are equally far from a query, and copies."""
    rows = np.random.default_rng(seed).integers(-1, 2, size=(n, DIM)).astype(np.float32)
    rows[n // 2 : n // 2 + 20] = rows[:20]
    return rows


def stored_index(folder: Path, rows: np.ndarray):
    table = pl.DataFrame({"content_id": [str(i) for i in range(len(rows))], "count": [1] * len(rows)})
    draft = Draft(table, Header("v" * 32, "1"), {"index": build_index(rows, "Flat")})
    return write_artifact(artifact_path(folder, "faiss_index", "a"), draft)


@pytest.mark.parametrize("k", [1, 40, 700, 5000])
def test_a_search_over_shards_finds_what_one_over_all_finds(k, workers, tmp_path, monkeypatch):
    monkeypatch.setattr(spread_search, "WORTH", 0)
    monkeypatch.setattr(spread_search, "LEAST_ROWS", 300)
    # A few queries at a time.
    monkeypatch.setattr(spread_search, "_FOUND_BYTES", 48 * 4 * 700 * 10)
    rows, queries = vectors(1201, 0), vectors(60, 1)
    index = open_index(stored_index(tmp_path, rows), workers)
    assert isinstance(index.search, SpreadSearch)
    found, expected = index.search.search(queries, k), ExactSearch(RowStack([rows])).search(queries, k)
    assert found.distances.tobytes() == expected.distances.tobytes()
    assert found.indices.tobytes() == expected.indices.tobytes()


def test_a_small_search_is_made_here(tmp_path):
    rows = vectors(1201, 0)
    index = open_index(stored_index(tmp_path, rows), RayWorkers("127.0.0.1:9"))
    assert index.search.search(rows[:3], 1).distances.tolist() == [[0.0]] * 3


def test_a_file_that_a_worker_does_not_see_is_named(workers, tmp_path, monkeypatch):
    monkeypatch.setattr(spread_search, "WORTH", 0)
    gone = tmp_path / "elsewhere.faiss"
    search = SpreadSearch(RowStack([vectors(50, 0)]), gone, workers)
    with pytest.raises(
        TsdsError, match=r"elsewhere\.faiss: a Ray worker on .* does not find it: the project"
    ):
        search.search(vectors(60, 1), 3)


def test_what_a_piece_raises_is_raised_here(workers):
    pieces = workers.map(refuse, [(7,)])
    with pytest.raises(TsdsError) as caught:
        next(pieces)
    assert str(caught.value) == "number 7 is not to be had"


def test_a_package_that_workers_lack_is_named(workers):
    with pytest.raises(TsdsError, match='a worker lacks the package "no_such_package": install the same'):
        list(workers.map(import_what_is_not_there, [()]))


def test_more_than_any_node_has_is_told(cluster, monkeypatch, caplog):
    monkeypatch.setattr(workers_module, "_LOOK_SECONDS", 0.2)
    monkeypatch.setattr(workers_module, "_PATIENCE_SECONDS", 0.5)
    large = RayWorkers(cluster.address, cpus=3, gpus=0.5)
    problem = "no node has the 3 CPUs and 0.5 GPUs that each piece takes"
    with pytest.raises(TsdsError, match=rf"{problem}: add one, or lower \[ray\] cpus and gpus"):
        list(large.map(where, [(1,)], shared=(0,)))
    assert problem in caplog.text


def test_a_killed_node_changes_nothing(cluster, workers, tmp_path):
    numbers = UntilBoth(more=6)
    killed = False
    for piece in workers.map(where, numbers, shared=(0.5,)):
        numbers.done.append(piece)
        if numbers.both and not killed:
            cluster.kill_second()
            killed = True
    assert killed
    assert [number for number, _ in numbers.done] == numbers.asked
    records = records_of(texts_of(0, 95))
    spread = embed(records, SmallCalls(), tmp_path, "source a", workers=workers)
    assert (spread.vectors == embed(records, HashEncoder(), tmp_path / "2", "source a").vectors).all()
    cluster.mend()
    assert workers.at_once() == 2


def test_a_node_killed_in_the_midst_of_a_search_changes_nothing(cluster, workers, tmp_path, monkeypatch):
    monkeypatch.setattr(spread_search, "WORTH", 0)
    monkeypatch.setattr(spread_search, "LEAST_ROWS", 100)
    monkeypatch.setattr(spread_search, "_PIECES_PER_WORKER", 6)
    monkeypatch.setattr(spread_search, "search_rows", search_and_tell)
    rows, queries = vectors(1201, 0), vectors(60, 1)
    index = open_index(stored_index(tmp_path, rows), workers)
    lost = []

    def kill_once_it_searches():
        while not lost and not over.is_set():
            time.sleep(0.01)
            lost.extend(tmp_path.rglob(f"*-{cluster.second}.begun"))
        cluster.kill_second()

    killer, over = threading.Thread(target=kill_once_it_searches), threading.Event()
    killer.start()
    found = index.search.search(queries, 40)
    over.set()
    killer.join()
    expected = ExactSearch(RowStack([rows])).search(queries, 40)
    assert found.distances.tobytes() == expected.distances.tobytes()
    assert found.indices.tobytes() == expected.indices.tobytes()
    [begun] = lost
    piece, _, _ = begun.name.partition("-")
    assert len(list(begun.parent.glob(f"{piece}-*.begun"))) == 2, "by the other node again"
    cluster.mend()
