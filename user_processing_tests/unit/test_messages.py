"""What people read is written in whole sentences and in the field's words: every message in the source is read once."""

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from user_processing_tests.support.checkout import ROOT

WHOLE = {"Failure", "SkipReason", "RuntimeError", "UsageError", "echo", "info", "warning", "error"}
"""What is called with a message that stands by itself; besides, whatever is raised."""

REASONS = {"AttributeError", "ContractError", "HTTPException", "LoadError", "TruncatedError", "ValueError"}
"""What is raised with a reason, which becomes a part of such a message."""

NOT_OURS = {
    "at work": "in progress",
    "not so for": "say what is wrong",
    "e.g.": "for example",
    "i.e.": "that is",
    "oops": "say what is wrong",
    "abort": "stop",
    "illegal": "say what is allowed",
    "something went wrong": "say what",
    "unknown error": "say which",
}
"""Words that tire a reader, and what to write instead."""


class Message(NamedTuple):
    """A text in the source, with {} for what is put into it."""

    place: str
    text: str
    whole: bool


def text_of(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def messages() -> Iterator[Message]:
    for path in sorted((ROOT / "user_processing").rglob("*.py")):
        tree = ast.parse(path.read_text())
        raised = {id(node.exc) for node in ast.walk(tree) if isinstance(node, ast.Raise)}
        quiet = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # documents the code
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        whole = set()
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args or name_of(node.func) in REASONS:
                continue
            if name_of(node.func) in WHOLE or id(node) in raised:
                whole.add(id(node.args[0]))
        for node in ast.walk(tree):
            text = None if id(node) in quiet | parts else text_of(node)
            if text and len(text.split()) > 2:
                place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
                yield Message(place, text, whole=id(node) in whole)


MESSAGES = list(messages())


def test_the_messages_are_found() -> None:
    assert sum(message.whole for message in MESSAGES) > 40


@pytest.mark.parametrize("message", [message for message in MESSAGES if message.whole], ids=lambda found: found.place)
def test_a_message_that_stands_by_itself_is_made_of_sentences(message: Message) -> None:
    assert re.match(r"[A-Z0-9{`'\"]", message.text), message
    # The last words may be what to type, or what something else says.
    assert re.search(r"([.!?]|: \{\}|\{\})$", message.text.rstrip("\n")), message
    assert "  " not in message.text.strip(), message


@pytest.mark.parametrize("word", NOT_OURS)
def test_a_word_that_tires_is_not_used(word: str) -> None:
    found = [m for m in MESSAGES if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", m.text, re.IGNORECASE)]
    assert found == [], f"Write instead: {NOT_OURS[word]}"
