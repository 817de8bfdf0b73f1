"""What is installed: Python, packages, the environment's variables, FAISS."""

import os
import sys
from importlib import metadata

from tsds_pipeline import logs
from tsds_pipeline.doctor.finding import OK, PROBLEM, WARNING, Found
from tsds_pipeline.project import AUTOMATION

_DISTRIBUTION = "tsds-pipeline"


def python() -> Found:
    from packaging.specifiers import SpecifierSet

    version = ".".join(map(str, sys.version_info[:3]))
    wanted = metadata.metadata(_DISTRIBUTION).get("Requires-Python") or ""
    if version in SpecifierSet(wanted):
        yield OK, f"{version} ({sys.executable})", None
    else:
        yield PROBLEM, f"{version}, and {wanted} is needed", "make a new environment with such a Python"


def packages() -> Found:
    from packaging.requirements import Requirement

    required = [Requirement(text) for text in metadata.requires(_DISTRIBUTION) or ()]
    required = [one for one in required if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = []
    for one in required:
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{one.name} is not installed")
        else:
            if not one.specifier.contains(version, prereleases=True):
                wrong.append(f"{one.name} is {version}, and {one.specifier} is needed")
    if wrong:
        yield PROBLEM, "; ".join(wrong), f"pip install --upgrade {_DISTRIBUTION}"
    else:
        yield (
            OK,
            f"tsds {metadata.version(_DISTRIBUTION)} and the {len(required)} packages that it needs",
            None,
        )


def environment() -> Found:
    known = {logs.VARIABLE: ("", "json", "text"), AUTOMATION: ("", "on", "off")}
    for name, values in known.items():
        if (given := os.environ.get(name, "")).strip().lower() not in values:
            allowed = " or ".join(filter(None, values))
            yield WARNING, f"{name}={given} means nothing", f"set it to {allowed}, or unset it"
    named = {name: os.environ[name] for name in ("TSDS_PROJECT", "DAGSTER_HOME") if os.environ.get(name)}
    if "DAGSTER_HOME" in named and "TSDS_PROJECT" not in named:
        yield (
            WARNING,
            f"DAGSTER_HOME={named['DAGSTER_HOME']} is not used, as TSDS_PROJECT does not say whose instance it is",
            "set both, or neither",
        )
    else:
        yield OK, ", ".join(f"{name}={value}" for name, value in named.items()) or "nothing is set", None


def faiss() -> Found:
    import faiss

    from tsds_pipeline.core.machine import cores

    threads, there = faiss.omp_get_max_threads(), cores()
    if threads > there:
        yield (
            WARNING,
            f"{threads} threads for {there} cores, which wait for each other",
            f"set OMP_NUM_THREADS={there}",
        )
    else:
        yield OK, f"{faiss.__version__}, {threads} of {there} cores", None
