"""What counts as a leak: a held-back text itself, or a long piece of one."""

import pytest

from tsds_pipeline.leaks import WORDS_IN_A_ROW, HeldBackTexts

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


def test_words_among_unspaced_characters_stay_whole():
    assert leaks(["用 Python3 写代码", "用python3写代码", "用python写代码"], ["用Python3写代码"]) == [0, 1]
