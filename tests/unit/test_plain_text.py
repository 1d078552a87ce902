"""What nobody sees is shown; what is markup elsewhere is none; what people write in any language stays as it is."""

import json
import sys
import unicodedata

import pytest

from whimbrel.plain_text import in_html, in_json, in_markdown, in_slack, one_line, plain_texts

HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_every_character_of_a_hidden_category_is_written_as_an_escape() -> None:
    left = [
        hex(point)
        for point in range(sys.maxunicode + 1)
        if unicodedata.category(chr(point)) in HIDDEN and one_line(chr(point)) == chr(point)
    ]
    assert left == []


@pytest.mark.parametrize(
    "text", ["plain", "naïve café", "Wāhine", "测试", "тест", "اختبار", "परीक्षण", "🔴 → ≥ 5%", "a b"]
)
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert one_line(text) == text
    assert in_html(text) == text
    assert in_json(json.dumps(text, ensure_ascii=False)) == json.dumps(text, ensure_ascii=False)


def test_a_line_break_an_escape_sequence_and_a_change_of_direction_are_seen() -> None:
    assert one_line("a\nb\r\t\x1b[31m\u202eevil\u200b\u2028\x85\x7f") == (
        "a\\nb\\r\\t\\u001b[31m\\u202eevil\\u200b\\u2028\\u0085\\u007f"
    )
    assert one_line("\U000e0041\ud800") == "\\U000e0041\\ud800"


def test_json_keeps_what_came() -> None:
    text = "a\u202e\U000e0041\x7f\u200b"
    encoded = json.dumps({"t": text}, ensure_ascii=False)
    assert in_json(encoded).isascii()
    assert json.loads(in_json(encoded)) == {"t": text}


def test_every_text_in_a_value_is_made_plain() -> None:
    assert plain_texts({"a\n": ["\x1b", 1, None, {"b": ("\u202e", 2.5, True)}]}) == {
        "a\\n": ["\\u001b", 1, None, {"b": ["\\u202e", 2.5, True]}]
    }


def test_markup_is_none() -> None:
    assert in_html('<b a="1">&\n') == "&lt;b a=&quot;1&quot;&gt;&amp;\\n"
    assert in_slack("<!channel> & <http://x|y>") == "&lt;!channel&gt; &amp; &lt;http://x|y&gt;"
    assert in_markdown("**a** [x](y) <b> `c` a|b _d_ latency_p99 &lt;") == (
        "\\*\\*a\\*\\* \\[x\\](y) \\<b\\> \\`c\\` a\\|b \\_d\\_ latency_p99 &amp;lt;"
    )
