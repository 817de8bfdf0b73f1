"""Sorts what pip would install (a report of ``pip install --report``) for ``make lock``, which adds the hashes.

torch and what only it brings (CUDA) stand apart in torch.in: they come from another index where that is wanted, and
are installed first. The hash of the torch that was found here is added, as PyPI knows no CPU builds for Linux.
"""

import json
import re
import sys
from pathlib import Path

OWN = "tsds-pipeline"
OF_TORCH = re.compile(r"torch|triton|(nvidia|cuda)-.*")


def main(report: str, folder: str) -> None:
    """Write requirements.in, torch.in and torch.hash to ``folder``."""
    found = {one["metadata"]["name"].lower(): one for one in json.loads(Path(report).read_text())["install"]}
    del found[OWN]
    pins = {
        name: f"{name}=={one['metadata']['version'].partition('+')[0]}\n"
        for name, one in sorted(found.items())
    }
    of_torch = [name for name in pins if OF_TORCH.fullmatch(name)]
    Path(folder, "torch.in").write_text("".join(pins[name] for name in of_torch))
    Path(folder, "requirements.in").write_text(
        "".join(pin for name, pin in pins.items() if name not in of_torch)
    )
    digest = found["torch"]["download_info"]["archive_info"]["hashes"]["sha256"]
    Path(folder, "torch.hash").write_text(f"    --hash=sha256:{digest} \\\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
