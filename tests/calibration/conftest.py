"""A small project of texts, and the encoder that its vectors are from."""

from pathlib import Path

import pytest

from tests.texts import BagOfWords, make_text_project
from tsds_pipeline.calibration import pairs


@pytest.fixture(scope="session")
def text_project(tmp_path_factory) -> Path:
    """See ``texts.make_text_project``; not to be changed."""
    root = tmp_path_factory.mktemp("texts") / "project"
    make_text_project(root)
    return root


@pytest.fixture
def encoder(monkeypatch) -> BagOfWords:
    """Edited texts are encoded as the texts of the project were."""
    made = BagOfWords()
    monkeypatch.setattr(pairs, "encoder_of", lambda project, role: made)
    return made
