"""`tsds select`: arrays in, drawn rows out. No project, no Dagster."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tsds_pipeline.cli.terminal import Ticker, complain, say
from tsds_pipeline.errors import TsdsError

if TYPE_CHECKING:
    import numpy as np

    from tsds_pipeline.core.selection import Selection

_NPY = click.Path(path_type=Path)


class _Alpha(click.ParamType):
    name = "alpha"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value == "auto" or isinstance(value, float):
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f'{value!r} is neither "auto" nor a number', param, ctx)


@click.command()
@click.option("--queries", type=_NPY, required=True, metavar="Q.npy", help="Vectors of the task, (M, dim).")
@click.option(
    "--candidates", type=_NPY, required=True, metavar="C.npy", help="Vectors to choose from, (N, dim)."
)
@click.option("--size", type=click.IntRange(min=1), required=True, metavar="N", help="How many to draw.")
@click.option("--out", type=_NPY, required=True, metavar="OUT.npy", help="The drawn rows: int64 (epochs, N).")
@click.option(
    "--probabilities-out", type=_NPY, metavar="P.npy", help="Also write p of every candidate, float64."
)
@click.option(
    "--alpha",
    type=_Alpha(),
    default="auto",
    metavar="A",
    help="1: only aligned, 0: only diverse, auto: as aligned as the size allows.  [default: auto]",
)
@click.option(
    "--algorithm",
    type=click.Choice(["knn_kde", "knn_uniform", "knn_tv"]),
    default="knn_kde",
    show_default=True,
    help="knn_kde lets near-duplicates share the mass of one.",
)
@click.option(
    "--kernel-radius", type=float, default=0.1, show_default=True, help="Nearer is a near-duplicate."
)
@click.option("--distance-scale", type=float, help="C of the method.  [default: 5; knn_tv: 0.3]")
@click.option("--max-neighbors", type=int, help="At most so many candidates a query.  [default: as optimal]")
@click.option("--with-replacement", is_flag=True, help="A candidate may be drawn more than once.")
@click.option("--epochs", type=int, default=1, show_default=True, help="How many samples to draw.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another one, another sample."
)
@click.option("--no-normalize", is_flag=True, help="Do not scale the vectors to length 1.")
@click.option("--exact", is_flag=True, help="Never trade accuracy, measured on samples, for time.")
def select(
    queries: Path,
    candidates: Path,
    size: int,
    out: Path,
    probabilities_out: Path | None,
    seed: int,
    no_normalize: bool,
    **settings: Any,
) -> None:
    """Draw candidates whose distribution follows the queries: arrays in, row numbers out.

    OUT.npy holds an int64 array of shape (epochs, N): in each row the numbers of the candidates drawn for that
    epoch. The same seed and files give the same numbers.

    \b
    Example:
        tsds select --queries q.npy --candidates c.npy --size 1000 --out drawn.npy
    """
    import numpy as np

    from tsds_pipeline.core.config import SelectionConfig
    from tsds_pipeline.core.selection import select as select_rows

    outputs = {"--out": out, "--probabilities-out": probabilities_out}
    _check_outputs({name: path for name, path in outputs.items() if path}, (queries, candidates))
    started, ticker = time.monotonic(), Ticker()
    arrays = _vectors(queries, "--queries"), _vectors(candidates, "--candidates")
    try:
        config = SelectionConfig(**settings, normalize=not no_normalize)
        ticker.show(f"selecting from {len(arrays[1]):,} candidates for {len(arrays[0]):,} queries")
        found = select_rows(*arrays, size, config=config, rng=np.random.default_rng(seed))
    except ValueError as error:
        raise TsdsError(_named(str(error), queries, candidates)) from None
    finally:
        ticker.clear()
    _write(out, found.indices)
    if probabilities_out:
        _write(probabilities_out, found.probabilities)
    _report(found, settings["alpha"], out, time.monotonic() - started)


def _vectors(path: Path, option: str) -> "np.ndarray":
    """The array in ``path``, mapped from disk."""
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise TsdsError(f"{option} {path}: {error.strerror or 'cannot be read'}") from None
    except (ValueError, EOFError):
        array = None
    if not isinstance(array, np.ndarray):
        raise TsdsError(f"{option} {path}: not a .npy file of numbers: write it with numpy.save")
    if array.ndim != 2:
        raise TsdsError(f"{option} {path}: has shape {array.shape}, expected (rows, dimensions)")
    return array


def _check_outputs(outputs: dict[str, Path], inputs: tuple[Path, ...]) -> None:
    """Refuse before anything is computed what could not be written, or would overwrite something else."""
    taken = {path.resolve() for path in inputs}
    for option, path in outputs.items():
        if path.resolve() in taken:
            raise TsdsError(f"{option} {path}: is named twice: name a file of its own")
        if path.is_dir() or not path.resolve().parent.is_dir():
            raise TsdsError(f"{option} {path}: must be a file in a folder that exists")
        taken.add(path.resolve())


def _named(message: str, queries: Path, candidates: Path) -> str:
    """What the core says of "queries" and "candidates", with the names of their files."""
    for word, path in (("queries", queries), ("candidates", candidates)):
        if message.startswith(word):
            return f"{path}: {message}"
    return message


def _write(path: Path, array: "np.ndarray") -> None:
    import numpy as np

    from tsds_pipeline.storage import write_atomically

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)

    write_atomically(path, save)


def _report(found: "Selection", asked_alpha: float | str, out: Path, seconds: float) -> None:
    import numpy as np

    epochs, size = found.indices.shape
    sizes, n = found.neighborhood_sizes, len(found.probabilities)
    alpha = f"{found.alpha:.4g}{' (auto)' if asked_alpha == 'auto' else ''}"
    say(f"{out}: {size:,} of {n:,} candidates{f' in each of {epochs} epochs' if epochs > 1 else ''}")
    say(
        f"alpha {alpha}, {np.count_nonzero(found.probabilities):,} candidates with mass, effective size "
        f"{found.effective_size:,.1f}"
    )
    say(
        f"neighbourhoods {sizes.min():,} / {np.median(sizes):,.0f} / {sizes.max():,} (least, median, most), "
        f"{'truncated' if found.truncated else 'none truncated'}; {seconds:.1f} s"
    )
    if found.density_error:
        say(
            f"densities within {found.density_error:.1g} of the exact ones, on a sample; --exact for those themselves"
        )
    if found.truncated:
        complain(
            "warning", "--max-neighbors cut neighbourhoods short: this is not the optimum; raise or drop it"
        )
