"""`tsds select`: arrays in, drawn rows out. No project, no Dagster."""

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tsds_pipeline.cli.terminal import Ticker, check_output, complain, say
from tsds_pipeline.errors import TsdsError

if TYPE_CHECKING:
    import numpy as np

    from tsds_pipeline.core.compat import CompatSelection
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
    metavar="A",
    help="1: only aligned, 0: only diverse, auto: as aligned as the size allows.  [default: auto; --compat: 0.5]",
)
@click.option(
    "--algorithm",
    type=click.Choice(["knn_kde", "knn_uniform", "knn_tv"]),
    help="knn_kde lets near-duplicates share the mass of one.  [default: knn_kde]",
)
@click.option(
    "--kernel-radius", type=float, help="Nearer is a near-duplicate.  [default: 0.1; --compat: 0.75]"
)
@click.option("--distance-scale", type=float, help="C of the method.  [default: 5; knn_tv: 0.3]")
@click.option(
    "--max-neighbors",
    type=int,
    help="At most so many candidates a query.  [default: as optimal; --compat: 5000]",
)
@click.option("--with-replacement", is_flag=True, help="A candidate may be drawn more than once.")
@click.option("--epochs", type=int, help="How many samples to draw.  [default: 1]")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another one, another sample."
)
@click.option("--no-normalize", is_flag=True, help="Do not scale the vectors to length 1.")
@click.option("--exact", is_flag=True, help="Never trade accuracy, measured on samples, for time.")
@click.option("--compat", is_flag=True, help="Select as the paper's public script does, see above.")
@click.option(
    "--kde-neighbors",
    type=int,
    help="With --compat: at most so many nearest ones count in a density.  [default: 1000]",
)
@click.pass_context
def select(
    ctx: click.Context,
    queries: Path,
    candidates: Path,
    size: int,
    out: Path,
    probabilities_out: Path | None,
    seed: int,
    compat: bool,
    **settings: Any,
) -> None:
    """Draw candidates whose distribution follows the queries: arrays in, row numbers out.

    OUT.npy holds an int64 array of shape (epochs, N): in each row the numbers of the candidates drawn for that
    epoch. The same seed and files give the same numbers.

    \b
    Example:
        tsds select --queries q.npy --candidates c.npy --size 1000 --out drawn.npy

    --compat is for who has to match earlier work: the definition of the paper's public script, with its defaults and
    exact search. A query sees only its --max-neighbors nearest candidates, and a tenth of the pool at most; densities
    count only what some query sees; vectors are taken as they are, and draws are with replacement. In the script's
    config.yaml the options are max_K (--max-neighbors), kde_K (--kde-neighbors), sigma (--kernel-radius; 0 is
    --algorithm knn_uniform), alpha and C (--distance-scale).

    \b
    Example:
        tsds select --queries q.npy --candidates c.npy --size 100 --out drawn.npy \\
            --compat --kernel-radius 0.2
    """
    import numpy as np

    given = {name: value for name, value in settings.items() if value is not None and value is not False}
    _check_mode(ctx, compat, given)
    outputs = {"--out": out, "--probabilities-out": probabilities_out}
    _check_outputs({name: path for name, path in outputs.items() if path}, (queries, candidates))
    started, ticker = time.monotonic(), Ticker()
    arrays = _vectors(queries, "--queries"), _vectors(candidates, "--candidates")
    try:
        ticker.show(f"selecting from {len(arrays[1]):,} candidates for {len(arrays[0]):,} queries")
        choose = _select_as_script if compat else _select
        found, report = choose(arrays, size, given, np.random.default_rng(seed))
    except ValueError as error:
        raise TsdsError(_named(str(error), queries, candidates)) from None
    finally:
        ticker.clear()
    _write(out, found.indices)
    if probabilities_out:
        _write(probabilities_out, found.probabilities)
    report(found, out, time.monotonic() - started)


_WITHOUT_MEANING = {
    "with_replacement": "the public script always draws with replacement",
    "no_normalize": "the public script always takes the vectors as they are",
    "exact": "its search is always exact",
}


def _check_mode(ctx: click.Context, compat: bool, given: dict[str, Any]) -> None:
    """Refuse options that belong to the other way of selecting."""
    if not compat:
        if "kde_neighbors" in given:
            raise click.UsageError("--kde-neighbors needs --compat: otherwise all near-duplicates count", ctx)
        return
    for name in _WITHOUT_MEANING.keys() & given.keys():
        option = "--" + name.replace("_", "-")
        raise click.UsageError(
            f"{option} has no meaning with --compat: {_WITHOUT_MEANING[name]}; drop it", ctx
        )
    if given.get("alpha") == "auto":
        raise click.UsageError("--alpha auto has no meaning with --compat: give a number from 0 to 1", ctx)
    if given.get("algorithm") == "knn_tv":
        raise click.UsageError(
            "--algorithm knn_tv has no meaning with --compat: the public script has knn_kde and knn_uniform",
            ctx,
        )


def _select(arrays: tuple, size: int, given: dict[str, Any], rng: "np.random.Generator") -> tuple:
    from tsds_pipeline.core.config import SelectionConfig
    from tsds_pipeline.core.selection import select as select_rows

    config = SelectionConfig(normalize=not given.pop("no_normalize", False), **given)
    found = select_rows(*arrays, size, config=config, rng=rng)
    return found, partial(_report, config.alpha)


def _select_as_script(arrays: tuple, size: int, given: dict[str, Any], rng: "np.random.Generator") -> tuple:
    from tsds_pipeline.core.compat import CompatConfig, select_compat

    config = CompatConfig(**given)
    return select_compat(*arrays, size, config, rng), partial(_report_as_script, config.alpha)


def _vectors(path: Path, option: str) -> "np.ndarray":
    """The array in ``path``, mapped from disk."""
    import numpy as np

    from tsds_pipeline.core.arrays import NPY_ERRORS

    try:
        with np.errstate(over="ignore"):
            array = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise TsdsError(f"{option} {path}: {error.strerror or 'cannot be read'}") from None
    except NPY_ERRORS:
        raise TsdsError(f"{option} {path}: not a .npy file of numbers: write it with numpy.save") from None
    if array.ndim != 2:
        raise TsdsError(f"{option} {path}: has shape {array.shape}, expected (rows, dimensions)")
    return array


def _check_outputs(outputs: dict[str, Path], inputs: tuple[Path, ...]) -> None:
    """Refuse before anything is computed what could not be written, or would overwrite something else."""
    taken = {path.resolve() for path in inputs}
    for option, path in outputs.items():
        if path.resolve() in taken:
            raise TsdsError(f"{option} {path}: is named twice: name a file of its own")
        check_output(option, path)
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

    write_atomically(path.resolve(), save)


def _report(asked_alpha: float | str, found: "Selection", out: Path, seconds: float) -> None:
    _report_draw(found, f"{found.alpha:.4g}{' (auto)' if asked_alpha == 'auto' else ''}", out)
    _report_neighborhoods(found, "truncated" if found.truncated else "none truncated", seconds)
    if found.density_error:
        say(
            f"densities within {found.density_error:.1g} of the exact ones, on a sample; --exact for those themselves"
        )
    if found.truncated:
        complain(
            "warning", "--max-neighbors cut neighbourhoods short: this is not the optimum; raise or drop it"
        )


def _report_as_script(alpha: float, found: "CompatSelection", out: Path, seconds: float) -> None:
    import numpy as np

    _report_draw(found, f"{alpha:.4g}", out)
    say(f"drawn with replacement as the public script does: {len(np.unique(found.indices)):,} different ones")
    _report_neighborhoods(found, f"of the {found.neighbors:,} that each query sees", seconds)
    if found.cut_rows:
        complain(
            "warning",
            f"{found.cut_rows:,} of {len(found.neighborhood_sizes):,} queries ran out of the {found.neighbors:,} "
            "candidates that they see: what is left goes to the last one, as in the script, which does not say so",
        )


def _report_draw(found: "Selection | CompatSelection", alpha: str, out: Path) -> None:
    import numpy as np

    from tsds_pipeline.core.transport import effective_sample_size

    (epochs, size), p = found.indices.shape, found.probabilities
    say(f"{out}: {size:,} of {len(p):,} candidates{f' in each of {epochs} epochs' if epochs > 1 else ''}")
    say(
        f"alpha {alpha}, {np.count_nonzero(p):,} candidates with mass, "
        f"effective size {effective_sample_size(p):,.1f}"
    )


def _report_neighborhoods(found: "Selection | CompatSelection", remark: str, seconds: float) -> None:
    import numpy as np

    sizes = found.neighborhood_sizes
    say(
        f"neighbourhoods {sizes.min():,} / {np.median(sizes):,.0f} / {sizes.max():,} (least, median, most), "
        f"{remark}; {seconds:.1f} s"
    )
