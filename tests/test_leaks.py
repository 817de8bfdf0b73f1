"""What counts as a leak: a held-back text itself, or a long piece of one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsds_pipeline import leaks as module
from tsds_pipeline.leaks import COMMON_SHARE, COMMON_TEXTS, WORDS_IN_A_ROW, HeldBackTexts, Match

LONG = " ".join(f"word{i}" for i in range(30))


def leaks(texts: list[str], held_back: list[str]) -> list[int]:
    return sorted(HeldBackTexts(held_back).leaks(texts))


def piece(start: int, length: int) -> str:
    return " ".join(f"word{i}" for i in range(start, start + length))


def test_the_same_text_up_to_case_punctuation_and_space():
    assert leaks(["What is it?", "what  IS it", "what is that"], ["What is it"]) == [0, 1]


def test_a_long_piece_but_no_shorter_one():
    assert leaks([f"Before. {piece(3, WORDS_IN_A_ROW)}, after"], [LONG]) == [0]
    assert leaks([f"Before. {piece(3, WORDS_IN_A_ROW - 1)}, after"], [LONG]) == []


def test_nothing_to_leak():
    assert leaks(["a"], []) == []
    assert leaks([], ["a"]) == []


def test_texts_without_words_are_compared_as_they_are():
    assert leaks(["?!", "..."], ["a"]) == []
    assert leaks(["!!!", "😀", "hello", "", "???", " ??? "], ["???"]) == [4, 5]
    assert leaks(["? ? ?", "?  ?\n?", "😀"], ["? ? ?", "😀"]) == [0, 1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "请写一个函数返回列表中最大的两个数字并按照降序排列",
        "リストのなかでいちばんおおきいカズを二つかえす関数をかいてください",
        "เขียนฟังก์ชันที่คืนค่าตัวเลขที่มากที่สุดสองตัวในรายการ",
        "ຂຽນຟັງຊັນທີ່ສົ່ງຄືນຕົວເລກທີ່ໃຫຍ່ທີ່ສຸດ",
        "សរសេរមុខងារដែលផ្តល់លេខធំជាងគេពីរ",
        "စာရင်းထဲမှအကြီးဆုံးဂဏန်းနှစ်ခုကိုပြန်ပေးပါ",
    ],
)
def test_where_there_are_no_spaces_a_character_is_a_word(text):
    assert leaks([f"前{text}后", text[3 : 3 + WORDS_IN_A_ROW], text[3 : 2 + WORDS_IN_A_ROW]], [text]) == [
        0,
        1,
    ]
    assert leaks([f"{text}。!"], [text]) == [0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("क्या आप मेरी मदद कर सकते हैं?", 7),
        ("مَا هِيَ عَاصِمَةُ فَرَنْسَا", 4),
        ("می\u200cخواهم بروم", 2),
        ("cafe\u0301 au lait", 3),
        ("שָׁלוֹם עוֹלָם", 2),
        ("❤\ufe0f ok", 1),
    ],
)
def test_accents_and_vowel_signs_are_of_their_words(text, words):
    assert len(module._words(text)) == words


def test_words_among_unspaced_characters_stay_whole():
    assert leaks(["用 Python3 写代码", "用python3写代码", "用python写代码"], ["用Python3写代码"]) == [0, 1]


def slowly(texts: list[str], held_back: list[str]) -> dict[int, Match]:
    """The definition, piece by piece."""
    distinct = {module._words(text): number for number, text in reversed(list(enumerate(held_back)))}
    owners: dict[tuple[str, ...], set[int]] = {}
    for words, number in distinct.items():
        for piece in in_a_row(words):
            owners.setdefault(piece, set()).add(number)
    common = {
        piece
        for piece, numbers in owners.items()
        if len(numbers) >= COMMON_TEXTS and len(numbers) > COMMON_SHARE * len(distinct)
    }
    found = {}
    for number, text in enumerate(texts):
        words = module._words(text)
        known = [piece for piece in in_a_row(words) if piece in owners and piece not in common]
        if words in distinct:
            found[number] = Match(distinct[words], "")
        elif known:
            found[number] = Match(min(owners[known[0]]), " ".join(known[0]))
    return found


def in_a_row(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [words[i : i + WORDS_IN_A_ROW] for i in range(len(words) - WORDS_IN_A_ROW + 1)]


# Long runs of few words, so that pieces are shared, and common, often.
TEXTS = st.lists(
    st.lists(
        st.sampled_from([piece(0, 13), piece(1, 13), piece(0, 20), piece(40, 14), "a", "b B", "c, d", "字"]),
        max_size=3,
    ).map(" ".join),
    max_size=7,
)


@given(TEXTS, TEXTS, st.sampled_from([1, 30, 2**20]), st.sampled_from([1, 3, 2**14]))
def test_the_rolling_hash_finds_what_the_definition_says(texts, held_back, words_at_once, texts_at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BATCH", words_at_once)
        patch.setattr(module, "_TEXTS", texts_at_once)
        found = HeldBackTexts(held_back).matches(texts)
        assert found == slowly(texts, held_back)
        assert list(found) == sorted(found)


def test_a_common_instruction_is_no_evidence():
    tests = [f"{piece(0, 15)} question {i}" for i in range(10)]
    assert leaks([f"{piece(0, 15)} something else"], tests) == []
    assert leaks([f"{piece(0, 15)} question 3", tests[3]], tests) == [0, 1], "the texts themselves are"
    assert leaks([f"{piece(0, 15)} something else"], tests[:2]) == [0], "two are too few to tell"
    others = [f"{i} {piece(100 * i, 15)}" for i in range(1, 40)]
    assert leaks([f"{piece(0, 15)} something else"], [*tests[:4], *others]) == [0], "few of many"
