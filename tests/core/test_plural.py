"""Counts and the words that agree with them."""

from headstart.core.plural import plural


def test_the_words_after_a_count_agree_with_it():
    assert [plural(n, w) for n, w in ((1, "class"), (2, "class"), (0, "row"), (1200, "row"))] == [
        "1 class",
        "2 classes",
        "0 rows",
        "1,200 rows",
    ]
    assert [plural(n, "row has", "rows have") for n in (1, 2)] == ["1 row has", "2 rows have"]
