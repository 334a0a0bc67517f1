"""Text of models on the page: everything visible, nothing executed, nothing lost."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sarlab.display.text import mark_of, number, plain, segments, signed, tint, visible
from sarlab.display.token_view import answer_view
from sarlab.rewards.answers import AnswerScore, token_name, token_pieces
from sarlab.widgets.html import RANKING, answer_html, page, pair_html, records_html

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</span></div></td></table>",
    "<think>so 2 < 3 & 4 > 1</think>",
    '" onmouseover="alert(1)" x="',
    "&lt;b&gt; &amp;amp;",
    "left \u202eright\u202c and \u2066isolate\u2069",
    "שלום 12 عالم",
    "\ud83d lone surrogate \udc00",
    "zero\x00byte\x07bell\x1b[31m",
    "🙂👨\u200d👩\u200d👧🏽 naïve ﬁ Å",
    "tab\there\r\nnew  line\n\n",
    "no\u00a0break\u2028line\ufeff\ue000",
    "``` `a` $x$ <!-- c --> ]]>",
]


class _Reader(HTMLParser):
    """Collects tags, attributes and the text that the token spans hold."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.titles: list[str] = []
        self.text: list[tuple[bool, str]] = []
        self.stack: list[tuple[str, bool, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.attributes |= set(found)
        if tag == "wbr" or tag == "meta":
            return
        token = "title" in found
        if token:
            self.titles.append(found["title"] or "")
        inside = token or (bool(self.stack) and self.stack[-1][1])
        mark = inside and not token
        self.stack.append((tag, inside, mark))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop()[0] == tag  # tags nest: nothing in the text closed one

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1][1]:
            self.text.append((self.stack[-1][2], data))


def fake_score(pieces: list[str], values: list[float] | None = None) -> AnswerScore:
    values = values or [0.5] * len(pieces)
    return AnswerScore(
        question="q <script>alert(2)</script>",
        answer="".join(pieces),
        token_ids=tuple(range(len(pieces))),
        tokens=tuple(pieces),
        logps_conditioned=tuple(v - 2.0 for v in values),
        logps_standalone=tuple(-2.0 for _ in values),
        sar=0.25,
        ppl_conditioned=2.0,
        ppl_standalone=4.0,
    )


def read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader


def shown_text(reader: _Reader) -> str:
    return "".join(data for _, data in reader.text)


ALLOWED_TAGS = {
    *("div", "span", "b", "bdi", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"),
    "wbr",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_only_shown(text: str) -> None:
    pieces = [text[i : i + 3] for i in range(0, len(text), 3)]
    reader = read(answer_html(answer_view(fake_score(pieces)), heading=text))
    assert reader.tags <= ALLOWED_TAGS
    assert reader.attributes <= {"style", "title", "class", "open"}
    assert shown_text(reader) == visible(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_the_original_can_be_read_back_from_the_marks(text: str) -> None:
    # Nothing lost: marks stand in runs of their own, so a mark and the same character typed by
    # the model are told apart.
    runs = segments(text)
    assert len(runs) >= 1
    rebuilt, position = [], 0
    for k, run in enumerate(runs):
        if k % 2 == 0:
            rebuilt.append(run)
            position += len(run)
        else:
            rest = run
            while rest:
                character = text[position]
                mark = mark_of(character)
                assert mark is not None and rest.startswith(mark)
                rest = rest[len(mark) :]
                rebuilt.append(character)
                position += 1
    assert "".join(rebuilt) == text


@given(st.text(st.characters(), max_size=40))
def test_any_text_survives(text: str) -> None:
    reader = read(answer_html(answer_view(fake_score(["x", text, "y"]))))
    assert shown_text(reader) == "x" + (visible(text) if text else "◌") + "y"
    answer_html(answer_view(fake_score([text or "x"]))).encode("utf-8")  # no surrogate is left


def test_marks() -> None:
    assert segments(" a\n") == ["", "␣", "a", "⏎"]
    assert segments("") == ["", "◌"]
    assert visible("a\tb\x00\u202e\ud800") == "a⇥b␀⟨U+202E⟩⟨U+D800⟩"
    assert plain("a <b>\n\u202e") == "a &lt;b&gt;\n⟨U+202E⟩"


def test_numbers() -> None:
    assert (signed(0.6323), signed(-0.5), signed(-0.0001), signed(2.0, 1)) == (
        *("+0.632", "−0.500", "+0.000"),
        "+2.0",
    )
    assert [number(x) for x in (2.309, 1234.5, 1234567.0)] == ["2.31", "1,234", "1.23e+06"]


def test_colours_share_one_scale_for_all_answers() -> None:
    assert tint(4.0) == tint(9.0) == "rgba(0, 114, 178, 0.50)"
    assert tint(-4.0) == tint(-9.0) == "rgba(230, 159, 0, 0.50)"
    assert tint(1.0) == "rgba(0, 114, 178, 0.12)"
    assert tint(0.0) == "rgba(0, 114, 178, 0.00)"


def test_the_second_channel_needs_no_colour() -> None:
    html = answer_html(answer_view(fake_score(["a", "b", "c"], [1.0, -1.0, 0.9])), legend=False)
    assert html.count("2px solid") == 1 and html.count("2px dotted") == 1


def test_long_answers_are_folded_by_step_and_nothing_is_missing() -> None:
    pieces = [f" word{i}" + (".\n" if i % 10 == 9 else "") for i in range(4000)]
    html = answer_html(answer_view(fake_score(pieces)))
    reader = read(html)
    assert html.count("<details") == 400
    assert html.count("<details open") == 3
    assert shown_text(reader) == visible("".join(pieces))
    assert len(html) < 3_500_000


def test_views_of_several_answers_escape_too() -> None:
    score = fake_score(["<img onerror=x>"])
    views = pair_html([("A <b>", answer_view(score)), ("B", answer_view(score))])
    document = page("t <script>", views)
    assert "<script" not in document and "<img" not in document
    assert records_html(RANKING, []).count("<tr") == 1


def byte_level() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<e>"])
    tokenizer.train_from_iterator(["the cat sat on the mat. Answer: 72"] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<e>")


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """BPE over ▁-marked words with byte fallback, as Llama 2 and Gemma have."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = ["<unk>", "<e>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special)
    tokenizer.train_from_iterator(["the cat sat on the mat. Answer: 72"] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<e>", unk_token="<unk>")


TEXTS = [
    "the cat\nsat on the mat.\n\nAnswer: 72",
    "  two leading spaces, and  two inside ",
    "🙂 naïve ﬁ Å 👨\u200d👩\u200d👧🏽 日本語",
    "<script>alert(1)</script> </span> <think>",
    "שלום \u202eabc\u202c",
    "nul\x00 tab\t cr\r end",
]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_of_a_byte_level_tokenizer_join_to_the_text(text: str) -> None:
    tokenizer = byte_level()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(token_pieces(tokenizer, ids)) == text


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_of_the_embedded_tokenizer_join_to_the_text(text: str, frozen_tiny) -> None:
    tokenizer = frozen_tiny.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(token_pieces(tokenizer, ids)) == text


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_of_a_sentencepiece_tokenizer_join_to_the_text(text: str) -> None:
    tokenizer = sentencepiece_like()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(token_pieces(tokenizer, ids)) == text


def test_a_character_of_several_ids_stands_with_its_last() -> None:
    tokenizer = byte_level()
    ids = tokenizer("a🙂b", add_special_tokens=False)["input_ids"]
    assert token_pieces(tokenizer, ids) == ["a", "", "", "", "🙂", "b"]
    reader = read(answer_html(answer_view(fake_score(token_pieces(tokenizer, ids)))))
    assert shown_text(reader) == "a◌◌◌🙂b"


def test_names_of_alternatives_keep_their_space() -> None:
    for tokenizer in (byte_level(), sentencepiece_like()):
        (the,) = tokenizer(" the", add_special_tokens=False)["input_ids"]
        assert token_name(tokenizer, the) == " the"
    tokenizer = byte_level()
    first = tokenizer("🙂", add_special_tokens=False)["input_ids"][0]
    assert "\ufffd" not in token_name(tokenizer, first)
