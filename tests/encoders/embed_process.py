"""Run by tests as a process of its own: embeds numbered texts and says after each chunk how many are kept.

Usage: embed_process.py CACHE START STOP SECONDS_PER_TEXT
"""

import sys
from pathlib import Path

from hash_encoder import HashEncoder, records_of, texts_of

from tsds_pipeline.encoders import cache, embed

cache.FLUSH_SECONDS = 0.0
cache.MERGE_AT = 4
HashEncoder.encoded_at_once = 10


def say(done: int, total: int) -> None:
    print(done, flush=True)


if __name__ == "__main__":
    root, start, stop, seconds = sys.argv[1:]
    records = records_of(texts_of(int(start), int(stop)))
    embed(records, HashEncoder(seconds=float(seconds)), Path(root), "source numbers", say)
