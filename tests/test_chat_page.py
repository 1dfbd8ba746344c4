"""helpers.chat_page in a real browser: a question goes to both servers, and nothing goes anywhere else."""

import pytest

from helpers import serve
from helpers.chat_page import answering, chat_page, plain
from tests.browser import Browser
from tests.test_serve import break_the_stream, vllm  # noqa: F401, a fixture

PAGE_TEXT = "document.body.innerText"


@pytest.mark.notebook
def test_a_question_is_answered_in_both_columns(vllm, tmp_path):  # noqa: F811
    with (
        serve.Server("before", vllm) as one,
        serve.Server("after", vllm, {"refuse": "secret"}) as other,
        Browser() as browser,
    ):
        page = chat_page({"base model": one, "tuned, 4 bits": other}, ["What is new?"], title="Before and after")
        try:
            _, address, public = page.launch(prevent_thread_lock=True, quiet=True, inline=False)
            assert not public
            browser.open(address)
            browser.wait("document.querySelector('textarea')")
            browser.wait(f"{PAGE_TEXT}.includes('What is new?') && {PAGE_TEXT}.includes('tuned, 4 bits')")
            for asked, answered in (("first question", "after heard first question"), ("the secret one", "is refused")):
                browser.wait("(document.querySelector('textarea').focus(), document.activeElement.value === '')")
                browser.type(asked)
                browser.enter()
                browser.wait(f"{PAGE_TEXT}.includes('before heard {asked}')")
                browser.wait(f"{PAGE_TEXT}.includes('{answered}')")
            assert "after heard first question" in browser.run(PAGE_TEXT)
            assert "after heard the secret one" not in browser.run(PAGE_TEXT)
            browser.picture(tmp_path / "page.png")
        finally:
            page.close()
    assert browser.hosts <= {"127.0.0.1", "localhost", None, ""}, "nothing is asked of the outside"


def test_the_history_is_sent_along(vllm):  # noqa: F811
    with serve.Server("m", vllm) as server:
        steps = list(
            answering(server, 9, 0.0)("again", [{"role": "user", "content": [{"text": "once", "type": "text"}]}])
        )
    assert [turn["content"] for turn in steps[-1]] == ["once", "again", "m heard again"]
    assert len(steps) > 3, "it grows as it is written"


def test_an_answer_that_breaks_off_is_told_in_its_column(vllm):  # noqa: F811
    break_the_stream(vllm)
    with serve.Server("m", vllm) as server:
        *_, last = answering(server, 9, 0.0)("a broken one", [])
    assert last[-1]["content"].startswith("m heard a broken one\n\nJSONDecodeError: ")


@pytest.mark.parametrize("content", ["text", [{"type": "text", "text": "te"}, {"text": "xt"}], ["te", "xt"]])
def test_plain(content):
    assert plain(content) == "text"
