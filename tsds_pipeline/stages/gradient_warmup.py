"""The adapters that gradients are taken at, trained on a sample of the pool, and the encoder that uses them.

Training is in ``encoders.warmup``. Adapters stay once they are made: records that come and go do not train them again,
as that would mean to encode every text again.
"""

import json
from collections.abc import Mapping

import polars as pl

from tsds_pipeline.content_hashes import content_hash
from tsds_pipeline.core.sampling import permanent_random_numbers
from tsds_pipeline.encoders import Encoder, PrecomputedVectors, Role, make_encoder
from tsds_pipeline.encoders.checkpoints import is_complete
from tsds_pipeline.encoders.warmup import FOLDER, warm_up
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import Observed, stored
from tsds_pipeline.progress import Progress
from tsds_pipeline.project import Project
from tsds_pipeline.storage import Artifact

ASSET = "gradient_warmup"


def stored_warmup(project: Project) -> Artifact | None:
    """What is stored of the warm-up of the encoder of ``project``; None where there is none, or none yet."""
    if not project.settings.encoder.warms_up:
        return None
    return stored(project.storage, project.of_encoder(ASSET))


def encoder_of(project: Project, role: Role) -> Encoder | PrecomputedVectors:
    """The encoder of ``project``, with its trained adapters where it has any.

    Raises :class:`TsdsError` for a model that is not there, or adapters that are gone.
    """
    made = stored_warmup(project)
    names = made.frame["checkpoint"] if made else ()
    folders = [project.storage / FOLDER / name for name in names]
    if made and not all(map(is_complete, folders)):
        raise TsdsError(
            f"adapters in {folders[0].parent} are gone: delete {made.path} and run `tsds refresh`"
        )
    return make_encoder(project.settings.encoder, project.root, role, folders)


def train_adapters(
    observed: Observed,
    project: Project,
    corpora: Mapping[str, Artifact],
    *,
    afresh: bool,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """A row for each checkpoint: epoch, step, learning_rate, loss, checkpoint (its folder in FOLDER), content.

    What is there already is kept as long as the same settings decided it, unless ``afresh`` asks for a new sample of
    the records in ``corpora`` (by source). A sample that was trained on before is not trained on again.
    """
    settings = project.settings.encoder
    decided_by = _decisive(observed.settings[project.of_encoder("encoder_settings")])
    if not afresh and (kept := _still_good(project, decided_by)) is not None:
        return kept
    sample = _sample(corpora, settings.warmup_examples, settings.seed)
    if sample.is_empty():
        raise TsdsError("there is nothing to train adapters on: the sources hold no records")
    name = content_hash(decided_by, sample["content_id"].to_list())
    texts = sample["text"].to_list()
    epochs = warm_up(settings, project.root, texts, project.storage / FOLDER / name, progress)
    return pl.DataFrame(
        {
            "epoch": range(1, len(epochs) + 1),
            "step": [one.step for one in epochs],
            "learning_rate": [one.checkpoint.learning_rate for one in epochs],
            "loss": [one.loss for one in epochs],
            "checkpoint": [f"{name}/{one.checkpoint.folder.name}" for one in epochs],
            "content": [one.checkpoint.identity for one in epochs],
        },
        schema_overrides={"epoch": pl.Int64, "step": pl.Int64},
    )


def _decisive(text: str) -> dict[str, object]:
    """What decides the adapters, of the text of "encoder_settings"."""
    said = json.loads(text)
    return {"model": said["model"], "warmup": said["warmup"]}


def _still_good(project: Project, decided_by: Mapping[str, object]) -> pl.DataFrame | None:
    last = stored_warmup(project)
    if last is None:
        return None
    before = last.header.settings.get(project.of_encoder("encoder_settings"), "{}")
    if not {"model", "warmup"} <= json.loads(before).keys() or _decisive(before) != decided_by:
        return None
    folders = (project.storage / FOLDER / name for name in last.frame["checkpoint"])
    return last.frame if all(map(is_complete, folders)) else None


def _sample(corpora: Mapping[str, Artifact], size: int, seed: int) -> pl.DataFrame:
    """``size`` of the different texts (content_id, text), by keyed hashes of their ids."""
    ids = pl.concat([one.scan().select("content_id").collect() for one in corpora.values()]).unique()
    drawn = ids.with_columns(number=permanent_random_numbers(ids["content_id"], f"gradient_warmup {seed}"))
    chosen = drawn.sort("number").head(size)["content_id"]
    found = [
        one.scan().select("content_id", "text").filter(pl.col("content_id").is_in(chosen.implode())).collect()
        for one in corpora.values()
    ]
    return pl.concat(found).unique("content_id").sort("content_id")
