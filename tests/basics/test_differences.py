"""How two nested mappings differ, in words."""

from basics.differences import differences


def test_equal_mappings_do_not_differ() -> None:
    assert differences({"a": {"b": [1, 2]}}, {"a": {"b": [1, 2]}}) == []


def test_every_leaf_that_differs_is_listed_once_in_order() -> None:
    before = {"eps": 1.1, "nested": {"same": 0, "x": 1, "deep": {"y": None}}, "gone": 3}
    now = {"eps": 0.5, "nested": {"same": 0, "x": 2, "deep": {"y": 0}}, "new": "n"}
    assert differences(before, now) == [
        "eps: 1.1 -> 0.5",
        "gone: 3 -> (absent)",
        "nested.deep.y: None -> 0",
        "nested.x: 1 -> 2",
        "new: (absent) -> n",
    ]


def test_none_and_absent_are_two_things() -> None:
    assert differences({"a": None}, {}) == ["a: None -> (absent)"]


def test_a_leaf_that_becomes_a_mapping() -> None:
    assert differences({"a": 1}, {"a": {"b": 1}}) == ["a: 1 -> (absent)", "a.b: (absent) -> 1"]
