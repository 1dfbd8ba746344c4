"""Taking thinking and answer apart, whatever a model writes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.reasoning import TAGS, Split, agrees, key_of, split_thinking

ANY_TAG = re.compile(rf"<\s*/?\s*(?:{'|'.join(TAGS)})\s*>", re.IGNORECASE)
# Texts made of tags and their pieces find more than plain random ones.
pieces = st.sampled_from(
    ["<think>", "</think>", "<思考>", "</思考>", "< / THINK >", "<", ">", "think", "a", " ", "\n", "é"]
)
tagged = st.lists(st.one_of(pieces, st.text(max_size=4)), max_size=12).map("".join)
plain = st.text(max_size=40).filter(lambda text: text.strip() and not re.search("[<>]", text))


def test_the_well_formed_case():
    assert split_thinking("<think>\nfirst\n\nthen\n</think>\n\nIt is gout.") == Split(
        "first\n\nthen", "It is gout.", None
    )
    assert split_thinking("first\n</think>\n\nIt is gout.", opened=True) == Split("first", "It is gout.", None)


@pytest.mark.parametrize(
    ("text", "opened", "thinking", "answer", "fault"),
    [
        ("It is gout.", False, "", "It is gout.", "no thinking"),
        ("", False, "", "", "no thinking"),
        ("hm, hm", True, "hm, hm", "", "never closed"),
        ("", True, "", "", "never closed"),
        ("<think>hm", False, "hm", "", "never closed"),
        ("hm</think>gout", False, "hm", "gout", "never opened"),
        ("<think>hm</think>gout", True, "hm", "gout", "opened 2 times"),
        ("<think><think>hm</think>gout", False, "hm", "gout", "opened 2 times"),
        ("<think>hm</think>well</think>gout", False, "hmwell", "gout", "closed 2 times"),
        ("hm</think>\n<think>gout", True, "hm", "gout", "opened 2 times"),
        ("</think>gout<think>", False, "", "gout", "closed before it was opened"),
        ("<思考>hm</think>gout", False, "hm", "gout", "opened with <思考>, closed with </think>"),
        ("Sure! <think>hm</think>gout", False, "hm", "gout", "text before the thinking"),
        ("<think> \n</think>gout", False, "", "gout", "nothing was thought"),
        ("<think>hm</think> \n", False, "hm", "", "no answer"),
    ],
)
def test_what_is_broken_is_named_and_the_rest_is_kept(text, opened, thinking, answer, fault):
    split = split_thinking(text, opened=opened)
    assert (split.thinking, split.answer) == (thinking, answer)
    assert split.fault.startswith(fault) and not split.well_formed


@pytest.mark.parametrize("tag", [*TAGS, "THINK", "Thinking"])
def test_delimiters_of_several_kinds(tag):
    assert split_thinking(f"<{tag}>hm</{tag}>gout") == Split("hm", "gout", None)
    assert split_thinking(f"< {tag} >hm< / {tag}>gout") == Split("hm", "gout", None)


def test_only_the_tags_asked_for_count():
    assert split_thinking("hm</think>gout", opened=True, tags=["思考"]) == Split("hm</think>gout", "", "never closed")
    assert split_thinking("<a.b>hm</a.b>gout", tags=["a.b"]).well_formed
    assert not split_thinking("<axb>hm</axb>gout", tags=["a.b"]).well_formed


@given(plain, plain)
def test_what_is_put_together_comes_apart(thinking, answer):
    wanted = Split(thinking.strip(), answer.strip(), None)
    assert split_thinking(f"<think>\n{thinking}\n</think>\n\n{answer}") == wanted
    assert split_thinking(f"{thinking}\n</think>\n\n{answer}", opened=True) == wanted


@given(tagged, st.booleans())
def test_any_text_comes_apart_without_tags_left(text, opened):
    split = split_thinking(text, opened=opened)
    for part in (split.thinking, split.answer):
        assert not ANY_TAG.search(part) and part == part.strip()
    tags = ANY_TAG.findall(text)
    closing = [tag for tag in tags if "/" in tag]
    if split.well_formed:
        assert split.thinking and split.answer
        assert len(closing) == 1 and len(tags) - len(closing) + opened == 1
    if not tags:
        assert split.thinking + split.answer == text.strip()


def test_the_key_is_the_first_bold_text():
    assert key_of("It is **gout**, not **a stone**.") == "gout"
    assert key_of("one **key\nover two lines** here") == "key\nover two lines"
    assert key_of("none, 2 * 3 ** 4") is None
    assert key_of("**  **") is None


@pytest.mark.parametrize(
    ("answer", "key", "found"),
    [
        ("It is **Gout**.", "gout", True),
        ("A high TSH, and a low\nfree T4.", "a low free T4", True),
        ("The pulse is slow.", "low", False),
        ("The post-void residual is normal.", "residual volume is normal|post void residual is normal", True),
        ("nothing of it", "a stone|gout", False),
        ("检查显示：残余尿量正常，没有逼尿肌不自主收缩。", "残余尿量正常，没有逼尿肌不自主收缩", True),
        ("ＴＳＨ升高", "TSH升高", True),
        ("", "gout", False),
        ("anything", "", False),
        ("anything", "…|!", False),
    ],
)
def test_agreement_is_about_words(answer, key, found):
    assert agrees(answer, key) is found


@given(plain, st.text(max_size=20), st.text(max_size=20))
def test_an_answer_that_quotes_the_key_agrees(key, before, after):
    if re.search(r"[^\W_]", key) and "|" not in key:
        assert agrees(f"{before} {key} {after}", key)
