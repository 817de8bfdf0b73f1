"""What Dagster remembers of one test is forgotten before the next."""

from collections.abc import Iterator

import pytest
from dagster._core.storage.defs_state.base import set_defs_state_storage


@pytest.fixture(autouse=True)
def no_instance_of_another_test() -> Iterator[None]:
    """Dagster keeps the storage of the last instance at hand when definitions are loaded, even a closed one."""
    with set_defs_state_storage(None):
        yield
