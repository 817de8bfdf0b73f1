"""What counts as a leak: a held-back text itself, or a long piece of one."""

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


def test_texts_without_words():
    assert leaks(["?!", "..."], ["a"]) == []
