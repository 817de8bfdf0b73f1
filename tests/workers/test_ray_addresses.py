"""Which cluster [ray] names, and what is said where there is none."""

import sys

import pytest

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import RaySettings
from tsds_pipeline.workers import RayWorkers, workers_of


def test_no_address_means_here():
    assert workers_of(RaySettings()) is None
    assert workers_of(RaySettings(address="auto", cpus=2, gpus=0.5)) == RayWorkers("auto", 2.0, 0.5)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "no.such.host.invalid:6379"])
def test_where_nothing_answers(address):
    with pytest.raises(TsdsError) as caught:
        RayWorkers(address).at_once()
    assert str(caught.value).startswith(f'[ray] address = "{address}": nothing answers there (')
    assert str(caught.value).endswith("): start the cluster, or correct the address")


@pytest.mark.parametrize(
    ("address", "reason"),
    [("somewhere://x", "Module: somewhere does not exist"), ("x", "Invalid address format")],
)
def test_an_address_of_no_kind(address, reason):
    with pytest.raises(TsdsError, match=rf'address = "{address}": cannot be reached \({reason}'):
        RayWorkers(address).at_once()


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TsdsError, match=r'needs Ray: pip install "tsds-pipeline\[ray\]"'):
        RayWorkers("127.0.0.1:9").at_once()
