"""What a SELECT reads."""

import pytest

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.sql.lineage import parse_select


def reads(text: str) -> list[str]:
    return [table.name for table in parse_select("x.sql", text).tables]


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        ("SELECT 1", []),
        ("FROM a", ["a"]),
        ("SELECT * FROM a, main.b", ["a", "main.b"]),
        ("SELECT * FROM a JOIN b USING (x) LEFT JOIN c ON c.y = b.y", ["a", "b", "c"]),
        ("SELECT * FROM A JOIN a AS again USING (x)", ["a", "a"]),
        ('SELECT * FROM "Odd name" AS a', ["odd name"]),
        ("SELECT (SELECT max(x) FROM a) FROM b WHERE EXISTS (FROM c WHERE c.x = b.x) AND x IN (FROM d)", list("abcd")),
        ("SELECT * FROM (SELECT * FROM (FROM a))", ["a"]),
        ("FROM a UNION ALL FROM b EXCEPT FROM c", ["a", "b", "c"]),
        ("SELECT * FROM a SEMI JOIN b USING (x) ORDER BY (SELECT 1 FROM c)", ["a", "b", "c"]),
        ("FROM range(3), unnest([1, 2])", []),
        ("WITH a AS (FROM b), c AS (FROM a) SELECT * FROM c JOIN d USING (x)", ["b", "d"]),
        ("WITH A AS (FROM b) FROM a", ["b"]),
        # In its own definition the name is still the table.
        ("WITH a AS (FROM a) FROM a", ["a"]),
        ("WITH RECURSIVE a AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM a WHERE n < 3) FROM a", []),
        # Known inside only.
        ("SELECT * FROM (WITH a AS (FROM b) FROM a) JOIN a USING (x)", ["b", "a"]),
        ("WITH a AS (FROM b) SELECT * FROM c WHERE x IN (WITH c AS (FROM a) FROM c)", ["b", "c"]),
        # Not the table that WITH defines, but the one of a schema.
        ("WITH a AS (FROM b) FROM main.a", ["b", "main.a"]),
    ],
)  # fmt: skip
def test_tables(text, tables):
    assert reads(text) == tables


def test_lines_count_in_bytes_of_utf_8():
    select = parse_select("x.sql", "-- größer\nSELECT 'é'\nFROM a\nJOIN\n b USING (x)")
    assert [(table.name, table.line) for table in select.tables] == [("a", 3), ("b", 5)]


@pytest.mark.parametrize(
    "end", [";", " ;\n", ";\n-- done;\n", "\n-- x;\n;\n/* ; */", "; -- it's over", " -- no semicolon;\n", ""]
)
def test_the_text_ends_before_the_semicolon(end):
    text = parse_select("x.sql", f"-- é;\nSELECT ';' AS a -- x;\n FROM b{end}").text
    assert text.startswith("-- é;\nSELECT ';' AS a -- x;\n FROM b")
    assert ";" not in text.partition("FROM b")[2].replace("-- x;", "").replace("-- no semicolon;", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.sql: is empty: write one SELECT"),
        ("-- nothing\n;", "x.sql: is empty: write one SELECT"),
        ("SELECT 1\nFROM a\n WHERE WHERE x", 'x.sql:3: Parser Error: syntax error at or near "WHERE"'),
        ("SELEC 1", 'x.sql:1: Parser Error: syntax error at or near "SELEC"'),
        ("SELECT 'a\n", "x.sql:1: Parser Error: unterminated string literal"),
        ("SELECT 1;\n\nSELECT 2", "x.sql:3: a second statement begins here: one SELECT a file"),
        ("INSERT INTO a VALUES (1)", "x.sql: is no SELECT but INSERT: write one SELECT"),
        ("DROP TABLE a", "x.sql: is no SELECT but DROP: write one SELECT"),
        ("COPY a TO 'b'", "x.sql: is no SELECT but COPY: write one SELECT"),
        ("PIVOT a ON b USING sum(c)", "x.sql: is no SELECT but PIVOT without IN: write one SELECT"),
        ("DESCRIBE a", "x.sql: DESCRIBE, SHOW and SUMMARIZE are for the prompt: write one SELECT"),
        ("SUMMARIZE a", "x.sql: DESCRIBE, SHOW and SUMMARIZE are for the prompt: write one SELECT"),
        (
            "SELECT 1\nFROM read_csv('a.csv')",
            "x.sql:2: read_csv reads what no lineage sees: read relations and models only",
        ),
    ],
)
def test_what_is_no_select(text, message):
    with pytest.raises(TsdsError) as caught:
        parse_select("x.sql", text)
    assert str(caught.value) == message
