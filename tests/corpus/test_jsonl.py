"""JSON Lines, plain and packed: what is read, what is bad, and that one bad line costs no other."""

import gzip
import json
from pathlib import Path

import pytest

from tsds_pipeline.corpus.jsonl_files import read_jsonl
from tsds_pipeline.corpus.lines import SKIP_BYTES, import_zstd
from tsds_pipeline.errors import TsdsError

GOOD = {"text": "good"}
ARRAY = "a JSON array begins here, expected one JSON object a line"
PACKINGS = {"gzip": gzip, "zstd": import_zstd(Path("a.zst"))}
ENDINGS = {"gzip": "gz", "zstd": "zst"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a"', "invalid JSON: Expecting ',' delimiter (column 13)"),
        (b"not json", "invalid JSON: Expecting value (column 1)"),
        (b'{"text": "a"} {"text": "b"}', "invalid JSON: Extra data (column 15)"),
        (b'{"text": "a\tb"}', "invalid JSON: Invalid control character at (column 12)"),
        (b" [", f"{ARRAY} (jq -c '.[]' makes a file of those)"),
        (b'[{"text": "a"},', f"{ARRAY} (jq -c '.[]' makes a file of those)"),
        (b'["a"]', "expected one JSON object a line, found a list"),
        (b'"a"', "expected one JSON object a line, found a text"),
        (b"1", "expected one JSON object a line, found a number"),
        (b"null", "expected one JSON object a line, found null"),
        (b"true", "expected one JSON object a line, found true or false"),
        (b'{"text": "\xff"}', "not UTF-8: byte 0xff"),
        (b'{"text": "a", "x": NaN}', "invalid JSON: NaN is not a JSON number"),
        (b'{"text": "a", "x": [-Infinity]}', "invalid JSON: -Infinity is not a JSON number"),
        (b'{"text": "a", "x": 1e999}', "NaN or an infinite number stands in it, which JSON cannot hold"),
        (b'{"text": "a", "x": {"y": 1, "y": 2}}', 'invalid JSON: the key "y" stands 2 times in one object'),
        (b'{"text": "a", "x": ' + b"9" * 5000 + b"}", "invalid JSON: a whole number of thousands of digits"),
        (b'{"text": "a", "x": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", "nested more than 100 deep"),
        (b'{"text": "\\ud83d"}', "half a surrogate pair (\\ud83d) stands in it, which is no character"),
        (
            b'{"text": "a", "x": "\\udc00"}',
            "half a surrogate pair (\\udc00) stands in it, which is no character",
        ),
        (
            b'{"text": "a", "id": "\\udc00"}',
            "half a surrogate pair (\\udc00) stands in it, which is no character",
        ),
        (
            b'{"text": "a", "\\udc00": 1}',
            "half a surrogate pair (\\udc00) stands in it, which is no character",
        ),
        (b'{"text": "\\u0000\\u0007"}', "the text is empty: nothing but white space"),
        (b'{"text": "%s"}' % (b"x" * 1001), "the text has 1,001 characters, more than max_chars = 1000"),
    ],
    ids=range(24),
)
def test_a_bad_line_is_quarantined_and_the_others_stay(write, read, line, reason):
    records = read(write("a.jsonl", [GOOD, line, {"text": "more"}]), max_chars=1000)
    assert records.quarantine.select("line", "reason").rows() == [(2, reason)]
    assert sorted(records.corpus["text"]) == ["good", "more"]
    assert records.read == 3


def test_surrogate_pairs_and_large_numbers_are_fine(write, read):
    path = write("a.jsonl", [b'{"text": "\\ud83d\\ude00", "n": 123456789012345678901234567890, "f": 1e300}'])
    assert read(path).corpus["text"].to_list() == ["😀"]
    assert '"n":123456789012345678901234567890' in read(path).corpus["variants"][0][0]["record"]


def test_blank_lines_byte_order_mark_and_line_endings(write, read):
    path = write("a.jsonl", [b'\xef\xbb\xbf{"text": "a"}\r', b"", b"  \t\r", b'{"text": "b"}\r', b"oops"])
    records = read(path)
    assert records.corpus["text"].sort().to_list() == ["a", "b"]
    assert records.read == 3
    assert records.quarantine["line"].to_list() == [5]


def test_the_last_line_needs_no_end(tmp_path, read):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n{"text": "b"}')
    assert read(tmp_path / "a.jsonl").read == 2


@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_packed_is_read_like_plain(write, read, packing):
    lines = [{"text": f"t{i % 7}", "n": i} for i in range(100)] + [b"{"]
    plain, packed = read(write("a.jsonl", lines)), read(write(f"b.jsonl.{packing}", lines))
    assert plain.corpus.equals(packed.corpus)
    assert plain.quarantine.drop("file").equals(packed.quarantine.drop("file"))


@pytest.mark.parametrize("packing", PACKINGS)
def test_several_members_are_one_file(tmp_path, read, packing):
    path = tmp_path / f"a.jsonl.{ENDINGS[packing]}"
    path.write_bytes(b"".join(map(PACKINGS[packing].compress, (b'{"text": "a"}\n', b'{"text": "b"}\n'))))
    assert read(path).read == 2


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("damage", ["cut", "crc", "garbage", "plain"])
def test_a_damaged_packed_file_is_an_error_that_names_it(tmp_path, read, damage, packing):
    # Of zstd only the checksum, which the command writes, shows every damage.
    checked = (
        {"options": {PACKINGS["zstd"].CompressionParameter.checksum_flag: 1}} if packing == "zstd" else {}
    )
    lines = b"".join(b'{"text": "%d"}\n' % i for i in range(1000))
    whole = bytearray(PACKINGS[packing].compress(lines, **checked))
    if damage == "crc":
        whole[-8 if packing == "gzip" else -1] ^= 1
    data = {"cut": whole[: len(whole) // 2], "garbage": whole[:100] + b"\xff" * 50 + whole[150:]}
    path = tmp_path / f"a.jsonl.{ENDINGS[packing]}"
    path.write_bytes(data.get(damage, b'{"text": "a"}\n' if damage == "plain" else whole))
    with pytest.raises(TsdsError, match=rf"{path.name}: not a whole {packing} file"):
        read(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.csv", "a.parquet", "a.arrow"])
def test_a_missing_file_is_an_error_that_names_it(tmp_path, read, name):
    with pytest.raises(TsdsError, match=rf"{name}: cannot be read: No such file"):
        read(tmp_path / name)


def test_utf_16_is_an_error_that_says_so(tmp_path, read):
    (tmp_path / "a.jsonl").write_bytes('{"text": "a"}\n'.encode("utf-16"))
    with pytest.raises(TsdsError, match=r"a\.jsonl: is UTF-16"):
        read(tmp_path / "a.jsonl")


@pytest.mark.parametrize("length", [99, 100, 101, 102, 100 + SKIP_BYTES, 101 + SKIP_BYTES, 3 * SKIP_BYTES])
@pytest.mark.parametrize("end", [b"", b"\n", b'\n{"text": "next"}\n'])
def test_a_line_is_cut_at_the_limit_and_only_that_line(tmp_path, length, end):
    line = json.dumps({"text": "x" * (length - len('{"text": ""}'))}).encode()
    assert len(line) == length
    (tmp_path / "a.jsonl").write_bytes(line + end)
    first, *others = read_jsonl(tmp_path / "a.jsonl", 100)
    assert first.reason == (
        "" if length <= 100 else "the line is longer than 100 bytes (a limit that grows with max_chars)"
    )
    assert len(first.raw) <= 101
    assert [record.fields for record in others] == ([{"text": "next"}] if len(end) > 1 else [])


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_long_line_of_a_packed_bomb_is_never_held(tmp_path, reasons, packing):
    import tracemalloc

    path = tmp_path / f"a.jsonl.{ENDINGS[packing]}"
    with PACKINGS[packing].open(path, "wb") as file:
        file.write(b'{"text": "')
        for _ in range(100):
            file.write(b"x" * 2**20)
        file.write(b'"}\n{"text": "next"}\n')
    tracemalloc.start()
    found = reasons(path, max_chars=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [line for line, _ in found] == [1]
    assert peak < 30 * 2**20


@pytest.mark.parametrize(("depth", "bad"), [(100, 0), (101, 1), (500, 1), (990, 1), (10**6, 1)])
def test_how_deep_a_record_may_be(write, read, depth, bad):
    inner = b"[" * (depth - 1) + b"]" * (depth - 1)
    records = read(write("a.jsonl", [b'{"text": "a", "x": ' + inner + b"}"]), max_chars=10**6)
    assert len(records.quarantine) == bad


def test_what_a_reason_quotes_is_short_and_can_be_stored(write, read):
    lines = [{"\ud800": 1}, b'{"\\ud800": 1, "\\ud800": 2}', {"a\nb": 1}, {"x" * 10**6: 1}]
    found = read(write("a.jsonl", lines)).quarantine["reason"].to_list()
    assert "(found \\ud800)" in found[0]
    assert 'the key "\\ud800"' in found[1]
    assert "(found a b)" in found[2]
    assert len(found[3]) == 500


def test_any_limit_of_characters_is_possible(write, read):
    assert read(write("a.jsonl", [GOOD]), write("a.csv", [b"text", b"x"]), max_chars=2**63 - 1).read == 2


def test_the_excerpt_is_short_and_can_be_stored(write, read, tmp_path):
    lines = [b"\xff" + b"x" * 500, {"txt": "é\ud800" + "y" * 500}, b"short \x00"]
    excerpts = read(write("a.jsonl", lines)).quarantine
    excerpts.write_parquet(tmp_path / "q.parquet")
    assert excerpts["excerpt"].str.len_chars().to_list() == [200, 200, 7]
    assert excerpts["excerpt"][1].startswith('{"txt": "é\\ud800yyy')
