"""The drawn life cycle is the life cycle."""

from ops.lifecycle import DOCUMENT, with_diagram


def test_the_diagram_in_the_architecture_page_is_the_table_of_today() -> None:
    text = DOCUMENT.read_text()
    assert with_diagram(text) == text, "run: python -m ops.lifecycle"
