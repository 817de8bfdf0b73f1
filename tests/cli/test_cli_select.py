"""`tsds select`."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.commands import tsds
from tsds_pipeline import SelectionConfig
from tsds_pipeline import select as select_rows
from tsds_pipeline.core.compat import CompatConfig, select_compat


@pytest.fixture
def arrays(tmp_path):
    rng = np.random.default_rng(0)
    queries, candidates = rng.normal(size=(4, 6)), rng.normal(size=(60, 6))
    np.save(tmp_path / "q.npy", queries)
    np.save(tmp_path / "c.npy", candidates)
    return tmp_path, queries, candidates


def run(folder, *more, size=5):
    given = ["--queries", folder / "q.npy", "--candidates", folder / "c.npy", "--size", size]
    return tsds("select", *given, "--out", folder / "out.npy", *more)


def test_as_the_library_does(arrays):
    folder, queries, candidates = arrays
    result = run(folder)
    assert result.exit_code == 0
    assert result.output.startswith(f"{folder}/out.npy: 5 of 60 candidates\nalpha 0.")
    assert "(auto)" in result.output
    assert "none truncated" in result.output
    expected = select_rows(queries, candidates, 5, rng=np.random.default_rng(0)).indices
    found = np.load(folder / "out.npy", allow_pickle=False)
    assert (found.dtype, found.shape) == (np.int64, (1, 5))
    np.testing.assert_array_equal(found, expected)


def test_every_option(arrays):
    folder, queries, candidates = arrays
    options = "--alpha 0.7 --algorithm knn_uniform --kernel-radius 0.2 --distance-scale 3 --max-neighbors 2 --epochs 3"
    more = f"--with-replacement --seed 4 --no-normalize --probabilities-out {folder}/p.npy"
    result = run(folder, *options.split(), *more.split())
    assert result.exit_code == 0
    assert "5 of 60 candidates in each of 3 epochs" in result.stdout
    assert "alpha 0.7, " in result.stdout
    assert result.stderr.startswith("warning: --max-neighbors cut neighbourhoods short")
    config = SelectionConfig(
        alpha=0.7,
        algorithm="knn_uniform",
        kernel_radius=0.2,
        distance_scale=3.0,
        max_neighbors=2,
        epochs=3,
        with_replacement=True,
        normalize=False,
    )
    expected = select_rows(queries, candidates, 5, config=config, rng=np.random.default_rng(4))
    np.testing.assert_array_equal(np.load(folder / "out.npy"), expected.indices)
    np.testing.assert_array_equal(np.load(folder / "p.npy"), expected.probabilities)


def test_alpha_0_is_asked_for_and_not_forgotten(arrays):
    folder, queries, candidates = arrays
    assert "alpha 0, 60 candidates with mass" in run(folder, "--alpha", "0").stdout
    config = SelectionConfig(alpha=0.0)
    expected = select_rows(queries, candidates, 5, config=config, rng=np.random.default_rng(0)).indices
    np.testing.assert_array_equal(np.load(folder / "out.npy"), expected)


def test_compat_has_the_defaults_of_the_script(arrays):
    folder, queries, candidates = arrays
    result = run(folder, "--compat", "--probabilities-out", folder / "p.npy")
    assert result.exit_code == 0, result.output
    expected = select_compat(queries, candidates, 5, CompatConfig(), np.random.default_rng(0))
    np.testing.assert_array_equal(np.load(folder / "p.npy"), expected.probabilities)
    found = np.load(folder / "out.npy", allow_pickle=False)
    assert (found.dtype, found.shape) == (np.int64, (1, 5))
    np.testing.assert_array_equal(found, expected.indices)
    assert "alpha 0.5, " in result.stdout
    assert f"{len(set(found.ravel()))} different ones" in result.stdout
    assert "of the 6 that each query sees" in result.stdout
    assert "4 of 4 queries ran out of the 6 candidates that they see" in result.stderr


def test_compat_with_every_option(arrays):
    folder, queries, candidates = arrays
    options = "--alpha 0.7 --kernel-radius 2 --distance-scale 1.5 --max-neighbors 5 --kde-neighbors 3"
    more = f"--epochs 2 --seed 4 --probabilities-out {folder}/p.npy"
    result = run(folder, "--compat", *options.split(), *more.split())
    assert result.exit_code == 0, result.output
    config = CompatConfig(
        alpha=0.7, kernel_radius=2.0, distance_scale=1.5, max_neighbors=5, kde_neighbors=3, epochs=2
    )
    expected = select_compat(queries, candidates, 5, config, np.random.default_rng(4))
    np.testing.assert_array_equal(np.load(folder / "out.npy"), expected.indices)
    np.testing.assert_array_equal(np.load(folder / "p.npy"), expected.probabilities)
    assert "in each of 2 epochs" in result.stdout

    run(folder, "--compat", "--algorithm", "knn_uniform", "--probabilities-out", folder / "uniform.npy")
    run(folder, "--compat", "--kernel-radius", "0", "--probabilities-out", folder / "zero.npy")
    np.testing.assert_array_equal(np.load(folder / "uniform.npy"), np.load(folder / "zero.npy"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--kde-neighbors 3", "--kde-neighbors needs --compat"),
        ("--compat --with-replacement", "--with-replacement has no meaning with --compat"),
        (
            "--compat --no-normalize",
            "--no-normalize has no meaning with --compat: the public script always takes",
        ),
        ("--compat --exact", "--exact has no meaning with --compat"),
        ("--compat --alpha auto", "--alpha auto has no meaning with --compat: give a number from 0 to 1"),
        ("--compat --algorithm knn_tv", "--algorithm knn_tv has no meaning with --compat"),
    ],
)
def test_options_of_the_other_way_to_select_are_refused(arrays, options, message):
    result = run(arrays[0], *options.split())
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {message}")
    assert not (arrays[0] / "out.npy").exists()


def test_where_the_script_stops_compat_says_why(arrays):
    folder, *_ = arrays
    result = run(folder, "--compat", "--alpha", "1", "--kernel-radius", "3")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {folder}/q.npy: queries[")
    assert "the public script stops there with a failed assertion. Lower alpha" in result.stderr
    np.save(folder / "c.npy", np.ones((19, 6)))
    result = run(folder, "--compat")
    assert result.stderr.startswith(f"error: {folder}/c.npy: candidates are 19")
    assert not (folder / "out.npy").exists()


def test_another_seed_another_sample(arrays):
    folder, *_ = arrays
    run(folder, "--alpha", "0.2")
    first = np.load(folder / "out.npy")
    run(folder, "--alpha", "0.2", "--seed", "1")
    assert set(first.ravel()) != set(np.load(folder / "out.npy").ravel())


def test_files_that_are_no_vectors(arrays):
    folder, *_ = arrays
    path = folder / "q.npy"
    wrong = {
        "has shape (4,), expected (rows, dimensions)": lambda: np.save(path, np.zeros(4)),
        "not a .npy file of numbers": lambda: np.save(path, np.array([[None]]), allow_pickle=True),
        "not a .npy file": lambda: path.write_text("hello"),
        "not a .npy file of": lambda: path.write_bytes(b""),
        "No such file or directory": path.unlink,
        "must hold real numbers": lambda: np.save(path, np.full((2, 6), "x")),
        "6": lambda: np.save(path, np.ones((2, 5))),
        "[1] has a value that is not finite": lambda: np.save(path, np.array([[1.0] * 6, [np.nan] * 6])),
    }
    for message, write in wrong.items():
        write()
        result = run(folder)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert str(path) in result.stderr
        assert message in result.stderr
        assert not (folder / "out.npy").exists()


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--alpha", "2"], 1, 'error: alpha must be "auto" or a number from 0 to 1, got 2.0'),
        (["--alpha", "high"], 2, "error: Invalid value for '--alpha': 'high' is neither"),
        (["--epochs", "0"], 1, "error: epochs must be a whole number from 1, got 0"),
        (["--alpha", "1"], 1, "error: 5 examples were asked for but at alpha = 1 only"),
        (
            ["--probabilities-out", "nowhere/p.npy"],
            1,
            "error: --probabilities-out nowhere/p.npy: must be a file",
        ),
    ],
)
def test_settings_that_make_no_sense(arrays, options, status, message):
    result = run(arrays[0], *options)
    assert result.exit_code == status
    assert result.stderr.startswith(message)


def test_what_is_no_file_is_not_replaced_by_one(arrays):
    folder, *_ = arrays
    pipe, link = folder / "pipe", folder / "link"
    os.mkfifo(pipe)
    assert "must be a file" in run(folder, "--out", pipe).stderr
    assert pipe.is_fifo()
    link.symlink_to(folder / "drawn.npy")
    assert run(folder, "--out", link).exit_code == 0
    assert link.is_symlink()
    assert (folder / "drawn.npy").exists()


def test_no_input_is_overwritten(arrays):
    folder, *_ = arrays
    before = (folder / "c.npy").read_bytes()
    assert "is named twice" in run(folder, "--out", folder / "c.npy").stderr
    assert (folder / "c.npy").read_bytes() == before


def test_dagster_is_not_needed(arrays):
    folder, *_ = arrays
    code = (
        "import sys\nsys.modules['dagster'] = sys.modules['torch'] = None\nfrom tsds_pipeline.cli import main\n"
        "main(['select', '--queries', 'q.npy', '--candidates', 'c.npy', '--size', '5', '--out', 'o.npy'])"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    assert np.load(folder / "o.npy").size == 5
