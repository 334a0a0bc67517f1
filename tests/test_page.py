"""docs/index.html in a real browser, without a network: its numbers against the library's.

With ``SARLAB_UPDATE_PICTURES=1`` the pictures of the page go to docs/pictures.
"""

from __future__ import annotations

import math
import os
import random
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser_lab import chromium_path, driver
from scipy.stats import chisquare

from sarlab import Policy, load_policy, load_task, score_answers
from sarlab.display.token_view import answer_view, payload
from sarlab.losses import group_advantages
from sarlab.prompts import conditioned_ids, standalone_ids
from sarlab.rewards import REWARDS, total_reward
from sarlab.rewards.answers import AnswerScore, TokenAlternatives, question_prefixes
from sarlab.rewards.dependence import copied_tokens, gold_logps, line_dependence, reward_extras
from sarlab.rollout import sample
from sarlab.scoring import Prefix, answer_block, answer_logps, token_report
from sarlab.tasks import judge
from sarlab.types import Question, RewardInputs, Rollouts

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "index.html"
ADAPTERS = ROOT / "data" / "page" / "adapters"
UPDATE = os.environ.get("SARLAB_UPDATE_PICTURES") == "1"
QUESTION = "Ada has 384 coins and gets 297 more. How many coins does Ada have now?"
TOKENS = (2, 20, 300, 669)
ODD_TEXTS = (
    "naïve café ½ ٣٤ ４５ Ⅷ x² ǅ",
    "\u200bzero\u202eRTL\ufeff\x85 a\u00a0b\u3000c\u2028d",
    "日本語のテキスト 你好 한국어",
    "👨‍👩‍👧‍👦 🇩🇪 ❤️‍🔥 🏽",
    "<|end|> and <|user|>then<|assistant|>",
    "I'll we've don't 'S 's\t\t  x",
    "\r\n\r\n  \n a",
    "\x00\x01\x7f\x1c",
    "e\u0301 \u0915\u094d\u0937 ſt ﬁ",
    "𝔘𝔫𝔦 𐍈 𞤀 𑁦",
    "lone \ud800 half \udc00",
    "   leading and trailing   ",
    "1+2=3\n+=\n12 34",
    "<img src=x onerror=alert(1)>",
)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = chromium_path()
    with driver().chromium.launch(executable_path=path, args=["--no-sandbox"]) as started:
        yield started


def open_page(browser: Any, *, width: int = 1400, theme: str = "light") -> tuple[Any, list[str]]:
    """The page from the disk, offline, and what it asked for beyond itself."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=theme, offline=True
    )
    page, asked = context.new_page(), list[str]()
    page.on("request", lambda r: asked.append(r.url))
    page.on("pageerror", lambda e: asked.append(f"error: {e}"))
    page.goto(PAGE.as_uri())
    page.wait_for_selector("html[data-ready]", timeout=60_000)
    page.wait_for_selector("#difference:not(:empty)", timeout=60_000)
    return page, asked


@pytest.fixture(scope="module")
def page(browser) -> Iterator[Any]:
    opened, _ = open_page(browser)
    yield opened
    opened.context.close()


def call(page: Any, name: str, *arguments: Any) -> Any:
    """A function of ``window.sarlab``. Texts go as units: JSON loses lone surrogates."""
    pack = [{"units": units(a)} if isinstance(a, str) else a for a in arguments]
    return page.evaluate(
        """async ([name, pack]) => {
            const text = (a) => (a && a.units ? String.fromCharCode(...a.units) : a);
            return await window.sarlab[name](...pack.map(text));
        }""",
        [name, pack],
    )


def units(text: str) -> list[int]:
    data = text.encode("utf-16-le", "surrogatepass")
    return [data[i] | data[i + 1] << 8 for i in range(0, len(data), 2)]


# --- the file -----------------------------------------------------------------------------------


def test_the_committed_page_is_that_of_its_sources(monkeypatch):
    """After a change of page/, of the token view or of the data: make page."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import build_page

    stamp = re.search(r'name="sarlab-sources" content="(\w+)"', PAGE.read_text("utf-8"))
    assert stamp and stamp[1] == build_page.digest(), "docs/index.html is old: run make page"


def test_the_page_is_one_small_file_that_forbids_itself_the_network():
    text = PAGE.read_text("utf-8")
    assert len(text.encode()) <= 8_000_000
    assert "default-src 'none'" in text
    outside = set(re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(https?://[^\"')\s>]+)", text))
    assert outside == {"https://arxiv.org/abs/2509.05489"}  # a link, followed only by a click


def test_it_opens_without_a_network_and_asks_for_nothing(browser):
    opened, asked = open_page(browser)
    outside = [url for url in asked if not url.startswith(("file:", "blob:", "data:"))]
    assert not outside
    assert [url for url in asked if url.startswith("file:")] == [PAGE.as_uri()]
    opened.context.close()


# --- numbers ------------------------------------------------------------------------------------


def sixty_pairs(policy: Policy) -> list[tuple[str, str, str | list[int]]]:
    """(kind, question, answer): texts and sampled ids."""
    questions = [q.text for q in load_task("word_problems").heldout(40)[20:]]
    rng = random.Random(0)
    pairs: list[tuple[str, str, str | list[int]]] = []
    for question in questions[:18]:
        numbers = re.findall(r"\d+", question)
        text = f"{'+'.join(numbers)}\nSo it is {rng.randint(100, 2000)}.\nAnswer: {numbers[0]}"
        pairs.append(("typed", question, text))
    for question in questions[:6]:
        prefix = question_prefixes(policy, question)[0]
        rollouts = sample(policy, [prefix], group_size=2, max_answer_tokens=200, seed=question)
        for ids, length in zip(rollouts.answer_ids, rollouts.lengths.tolist(), strict=True):
            pairs.append(("sampled", question, ids[:length].tolist()))
    pairs += [("odd Unicode", QUESTION, text) for text in ODD_TEXTS]
    pairs += [
        ("odd question", text.replace("\ud800", "").replace("\udc00", ""), "Answer: 1")
        for text in ODD_TEXTS[:4]
    ]
    pairs += [("empty turn", "", text) for text in ("Answer: 681", "384+297=681", *ODD_TEXTS[:2])]
    pairs += [
        ("one token", question, [token]) for question, token in zip(questions, TOKENS, strict=False)
    ]
    for question in questions[:4]:
        pairs.append(("250 tokens", question, [rng.randrange(5, 670) for _ in range(249)] + [2]))
    assert len(pairs) == 60
    return pairs


def expected_score(policy: Policy, question: str, answer: str | list[int]) -> Any:
    """What the library makes of a pair; an empty question is the empty turn itself."""
    if question.strip():
        return score_answers(policy, question, [answer])[0]
    (found,) = score_answers(policy, QUESTION, [answer])
    prefix = Prefix(tuple(conditioned_ids(policy.tokenizer, "", policy.prompt)))
    assert prefix.ids == tuple(standalone_ids(policy.tokenizer, policy.prompt))
    logps = tuple(answer_logps(policy, prefix, *answer_block([found.token_ids]))[0].tolist())
    return AnswerScore(
        question,
        found.answer,
        found.token_ids,
        found.tokens,
        logps,
        logps,
        0.0,
        math.exp(-statistics.fmean(logps)),
        math.exp(-statistics.fmean(logps)),
    )


def test_sixty_pairs_have_the_librarys_ids_log_probs_and_sar(page, frozen_tiny):
    worst = Counter[str]()
    for kind, question, answer in sixty_pairs(frozen_tiny):
        truth = expected_score(frozen_tiny, question, answer)
        found = call(page, "score", question, answer)
        assert found["ids"] == list(truth.token_ids), (kind, answer)
        for name in ("logps_conditioned", "logps_standalone"):
            pairs = zip(found[name], getattr(truth, name), strict=True)
            worst["logps"] = max(worst["logps"], *(abs(a - b) for a, b in pairs))
        worst["sar"] = max(worst["sar"], abs(found["sar"] - truth.sar))
        for name in ("ppl_conditioned", "ppl_standalone"):
            assert found[name] == pytest.approx(getattr(truth, name), rel=1e-4), (kind, name)
        if kind == "empty turn":
            assert found["sar"] == 0.0
    print(f"largest difference: log-prob {worst['logps']:.1e}, SAR {worst['sar']:.1e}")
    assert worst["logps"] <= 1e-4
    assert worst["sar"] <= 1e-5


@pytest.mark.parametrize("arm", sorted(p.name for p in ADAPTERS.iterdir()))
def test_an_adapter_gives_the_librarys_log_probs(page, arm):
    policy = load_policy("tiny", dtype="float32", device="cpu", adapter=ADAPTERS / arm)
    for text in ("384+297\n4+7=11\n8+9+1=18\n3+2+1=6\n384+297=681\nAnswer: 681", ODD_TEXTS[0]):
        truth = score_answers(policy, QUESTION, [text])[0]
        found = call(page, "score", QUESTION, text, {"policy": arm})
        assert found["logps_conditioned"] == pytest.approx(truth.logps_conditioned, abs=1e-4)
        assert found["logps_standalone"] == pytest.approx(truth.logps_standalone, abs=1e-4)
        assert found["sar"] == pytest.approx(truth.sar, abs=1e-5)


def test_an_edited_answer_scores_as_one_scored_from_nothing(page):
    """The kept part of an answer never goes stale: 40 random edits, ids against a fresh context."""
    rng = random.Random(1)
    text = "384+297\n4+7=11\n8+9+1=18\n3+2+1=6\n384+297=681\nAnswer: 681"
    for turn in range(40):
        at, cut = rng.randrange(len(text) + 1), rng.choice((0, 0, 1, 3))
        text = text[:at] + rng.choice(("7", " ", "é", "\n", "so ")) + text[at + cut :]
        question = QUESTION if turn % 5 else QUESTION.replace("384", str(100 + turn))
        kept = call(page, "score", question, text, {"slot": "edited"})
        fresh = call(page, "score", question, text, {"slot": f"fresh {turn}"})
        assert kept["ids"] == fresh["ids"]
        assert kept["logps_conditioned"] == pytest.approx(fresh["logps_conditioned"], abs=2e-5)
        assert kept["logps_standalone"] == pytest.approx(fresh["logps_standalone"], abs=2e-5)


@pytest.mark.slow
def test_every_character_of_unicode_gets_the_librarys_ids(page, frozen_tiny):
    """Each behind a letter, a digit and a space; texts are made on either side."""
    for start in range(0, 0x110000, 8192):
        points = [p for p in range(start, start + 8192) if not 0xD800 <= p < 0xE000]
        text = "".join(f"a{chr(p)}1 {chr(p)}!" for p in points)
        truth = frozen_tiny.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        ids = np.array(truth["input_ids"])
        found = page.evaluate(
            """async (points) => {
                const text = points.map((p) => String.fromCodePoint(p)).map((c) => `a${c}1 ${c}!`);
                const ids = await window.sarlab.encode(text.join(''));
                return [ids.length, ids.reduce((sum, id, i) => sum + id * (i % 9973 + 1), 0)];
            }""",
            points,
        )
        assert found == [len(ids), int((ids * (np.arange(len(ids)) % 9973 + 1)).sum())], hex(start)


@pytest.mark.parametrize("arm", ["tiny", *sorted(p.name for p in ADAPTERS.iterdir())])
def test_sampling_follows_the_policy(page, arm):
    """First tokens of 2,000 draws against the library's exact distribution (chi-square)."""
    adapter = None if arm == "tiny" else ADAPTERS / arm
    policy = load_policy("tiny", dtype="float32", device="cpu", adapter=adapter)
    prefix = question_prefixes(policy, QUESTION)[0]
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([list(prefix.ids)])).logits[0, -1]
    exact = torch.softmax(logits.double(), dim=-1).tolist()
    draws = 2_000
    argument = {"question": QUESTION, "policy": arm, "count": draws, "seed": 7}
    seen = Counter(ids[0] for ids in call(page, "draw", argument))
    often = [token for token, p in enumerate(exact) if p * draws >= 5]
    observed = [seen[token] for token in often]
    expected = [exact[token] * draws for token in often]
    rest = draws - sum(expected)
    if rest > 1e-6 * draws:
        observed.append(draws - sum(observed))
        expected.append(rest)
    if len(observed) == 1:  # a policy that has collapsed says one thing
        assert observed[0] == draws
        return
    scale = sum(observed) / sum(expected)
    test = chisquare(observed, [e * scale for e in expected])
    print(f"{arm}: {len(observed)} classes, chi-square p = {test.pvalue:.3f}")
    assert test.pvalue > 0.001


def test_sampled_log_probs_are_those_of_scoring(page):
    for seed in range(3):
        argument = {"question": QUESTION, "seed": seed, "count": 4}
        for answer in call(page, "write", argument):
            assert answer["logps"] == pytest.approx(answer["score"]["logps_conditioned"], abs=1e-4)
            assert answer["ended"] == (answer["ids"][-1] == 2)


def agree(found: dict[str, Any], name: str, truth: torch.Tensor, groups: torch.Tensor) -> None:
    assert found["rewards"] == pytest.approx(truth.tolist(), abs=1e-4), name
    advantages = group_advantages(truth, groups).tolist()
    assert found["advantages"] == pytest.approx(advantages, abs=1e-4), name


@pytest.mark.parametrize("right", ["1011010", "1111111", "0000000", "0001000"])
def test_rewards_and_advantages_are_the_librarys(page, right):
    """A group of random numbers under every design of the library's table."""
    generator = torch.Generator().manual_seed(int(right, 2))
    groups = torch.zeros(7, dtype=torch.long)
    for alpha, budget in ((0.0, 128), (0.2, 12), (1.0, 20)):
        lengths = torch.randint(1, 30, (7,), generator=generator)
        if alpha == 1.0:
            lengths[:] = 9  # all of one length
        mask = torch.arange(30)[None] < lengths[:, None]
        draw = [torch.rand(7, 30, generator=generator) * 3 for _ in range(4)]
        golds = [-torch.rand(7, 4, generator=generator) * 2 for _ in range(2)]
        lines = (torch.arange(30)[None] // 6).expand(7, -1).masked_fill(~mask, -1)
        inputs = RewardInputs(
            torch.tensor([float(c) for c in right]),
            groups,
            mask,
            -draw[0] * mask,
            -draw[1] * mask,
            copied=(torch.rand(7, 30, generator=generator) < 0.3) & mask,
            line_ids=lines,
            dependence=torch.rand(7, 5, generator=generator) * 10,
            entropy=draw[2] * mask,
            self_certainty=draw[3] * mask,
            gold_logps=golds[0],
            gold_logps_without=golds[1],
            gold_mask=torch.ones(7, 4, dtype=torch.bool),
            answer_keys=((None, "5", "6", "6", "", "5", None), (*"abcdef", None))[alpha == 0.0],
            budget=budget,
        )
        found = call(page, "rewards", answers_of(inputs), alpha, budget)
        missing = REWARDS.keys() - found.keys()
        assert not missing, f"page/sar.js has no twin of the designs {sorted(missing)}: add them"
        assert found.keys() == REWARDS.keys(), "page/sar.js has designs that the table has not"
        for name in REWARDS:
            agree(found[name], name, total_reward(inputs, name, alpha), groups)


def answers_of(inputs: RewardInputs) -> list[dict[str, Any]]:
    """A group of the library's as the page's records."""
    answers = []
    for row, n in enumerate(inputs.answer_mask.sum(dim=1).tolist()):
        lists = {
            name: getattr(inputs, name)[row, :n].tolist()
            for name in ("copied", "entropy", "self_certainty")
        }
        pair = inputs.logps_conditioned[row, :n], inputs.logps_standalone[row, :n]
        values = (pair[0] - pair[1]).double()
        golds = {"after": inputs.gold_logps[row], "without": inputs.gold_logps_without[row]}
        answers.append(
            {
                "correct": bool(inputs.correct[row]),
                "length": n,
                "sar": max(-1.0, 1 - math.exp(-values.mean())),
                "ppl_conditioned": math.exp(-pair[0].double().mean()),
                "ppl_standalone": math.exp(-pair[1].double().mean()),
                "values": values.tolist(),
                "lines": inputs.line_ids[row, :n].tolist(),
                "dependence": inputs.dependence[row].tolist(),
                "gold": {name: logps.tolist() for name, logps in golds.items()},
                "key": inputs.answer_keys[row],
                **lists,
            }
        )
    return answers


@pytest.mark.parametrize("arm", ["tiny", "sa_grpo_0.2"])
def test_the_group_on_the_page_is_paid_as_the_library_pays_it(browser, arm):
    """A, B and four sampled answers under every design, all numbers made anew from their ids."""
    opened, _ = open_page(browser)
    opened.select_option("#policy", arm)
    text = "So 165 and 245 are 410.\nAnswer: **949**\n"
    opened.fill("#text-b", text)
    opened.click("#write")
    opened.wait_for_selector("#write:not([disabled])", timeout=120_000)
    for _ in range(60):
        group = call(opened, "group")
        answers = group["answers"]
        if len(answers) == 6 and answers[1]["text"] == text:
            break
        opened.wait_for_timeout(500)  # B is still being scored
    opened.context.close()
    assert len(answers) == 6 and group["policy"] == arm and group["budget"] == 128
    adapter = None if arm == "tiny" else ADAPTERS / arm
    policy = load_policy("tiny", dtype="float32", device="cpu", adapter=adapter)
    question = Question(group["question"], group["gold"])
    prefix = question_prefixes(policy, question.text)
    ids, mask = answer_block([a["ids"] for a in answers])
    groups = torch.zeros(6, dtype=torch.long)
    rollouts = Rollouts(
        ids, mask, torch.zeros(mask.shape), groups, groups > 0, tuple(a["text"] for a in answers)
    )
    verdicts = [judge(a["text"], question.gold) for a in answers]
    correct = torch.tensor([float(v.correct) for v in verdicts])
    assert correct.tolist() == [a["correct"] for a in answers] and correct[0] > correct[1]
    logps = [answer_logps(policy, p, ids, mask).cpu() for p in prefix]
    for name in REWARDS:
        extras = reward_extras(policy, name, [question], prefix[:1], rollouts, logps[0], verdicts)
        inputs = RewardInputs(correct, groups, mask, *logps, budget=group["budget"], **extras)
        truth = total_reward(inputs, name, group["alpha"])
        assert group["rewards"][name] == pytest.approx(truth.tolist(), abs=1e-4), name


def test_the_right_values_log_probs_and_the_certainty_are_the_librarys(page, frozen_tiny):
    texts = [
        "384+297\n384+297=681\nAnswer: 681",
        "Answer: 1\nNo: 👍🏽Answer: 681",
        "no marker, 681",
        "answer: 681",
        "Answer:",
    ]
    question = Question(QUESTION, "681")
    prefix = question_prefixes(frozen_tiny, QUESTION)[:1]
    scores = score_answers(frozen_tiny, QUESTION, texts)
    ids, mask = answer_block([s.token_ids for s in scores])
    rows = torch.zeros(len(texts), dtype=torch.long)
    rollouts = Rollouts(ids, mask, torch.zeros(mask.shape), rows, rows > 0, tuple(texts))
    truth = gold_logps(frozen_tiny, [question] * len(texts), prefix, rollouts)
    report = token_report(frozen_tiny, prefix, ids, mask, prefix_index=rows)
    for row, score in enumerate(scores):
        argument = {"question": QUESTION, "gold": "681", "ids": list(score.token_ids)}
        n, gold = len(score.token_ids), truth["gold_mask"][row]
        found = call(page, "gold", argument)
        expected = truth["gold_logps"][row, gold].tolist()
        assert found["after"] == pytest.approx(expected, abs=1e-4)
        expected = truth["gold_logps_without"][row, gold].tolist()
        assert found["without"] == pytest.approx(expected, abs=1e-4)
        look = call(page, "look", QUESTION, list(score.token_ids))
        for name in ("entropy", "self_certainty"):
            expected = getattr(report, name)[row, :n].tolist()
            assert look[name] == pytest.approx(expected, abs=1e-4), name


def test_lines_and_what_the_rest_takes_from_them_are_the_librarys(page, frozen_tiny):
    question = frozen_tiny.tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
    worked = "384+297\n4+7=11\n\n8+9+1=18\n3+2+1=6\n384+297=681\nAnswer: 681"
    for text in (worked, f"{QUESTION}\nSo.\nAnswer: 1\n"):
        (truth,) = score_answers(frozen_tiny, QUESTION, [text])
        ids = list(truth.token_ids)
        prefix = question_prefixes(frozen_tiny, QUESTION)[0]
        logps = torch.tensor([truth.logps_conditioned])
        expected = line_dependence(frozen_tiny, [prefix], *answer_block([ids]), logps)
        found = call(page, "lines", {"question": QUESTION, "ids": ids})
        assert found["lines"] == expected.line_ids[0].tolist()
        assert found["dependence"] == pytest.approx(expected.nats[0].tolist(), abs=1e-3)
        copied = call(page, "copied", {"question": QUESTION, "ids": ids})
        assert copied == copied_tokens(question, ids)


@pytest.mark.parametrize(
    "text",
    [
        "384+297=681\nAnswer: 681",
        "Answer: 1\nAnswer: 681",
        "Answer: 681\nAnswer: 1",
        "Answer: 68",
        "no marker 681",
        "Answer:",
        "Answer: 681.",
        "Answer: **681**",
        "Answer: 681 or 682",
        "Answer: 0681",
        "answer: 681",
        "Answer: -681",
    ],
)
def test_right_and_wrong_as_the_library_judges(page, text):
    verdict = judge(text, "681")
    assert call(page, "judge", text, "681") == verdict.correct
    assert call(page, "value", text) == verdict.extracted


def test_the_view_says_what_the_librarys_says(page, frozen_tiny):
    """Words, colours, steps and notes of a card, made twice from one record."""
    texts = [
        "This is a nice little problem.\n384+297=671\nAnswer: 671",
        "Café 👍🏽 x.  Y\tz\u202e!",
    ]
    scores = score_answers(frozen_tiny, QUESTION, texts, alternatives=True)
    whole, values = scores[0], [(-1) ** j * 2.0 for j in range(scores[0].length)]
    nothing_left = [c - v for c, v in zip(whole.logps_conditioned, values, strict=True)]
    cancelled = replace(whole, logps_standalone=tuple(nothing_left))
    assert "cancel" in payload(answer_view(cancelled))["steps"][0][3]
    for score in [*scores, cancelled]:
        here = {
            "ids": score.token_ids,
            "tokens": score.tokens,
            "values": score.values,
            "sar": score.sar,
            "logps_conditioned": score.logps_conditioned,
            "logps_standalone": score.logps_standalone,
            "ppl_conditioned": score.ppl_conditioned,
            "ppl_standalone": score.ppl_standalone,
            "alternatives_conditioned": [alternatives(a) for a in score.alternatives_conditioned],
            "alternatives_standalone": [alternatives(a) for a in score.alternatives_standalone],
        }
        assert call(page, "payload", here) == payload(answer_view(score))


def alternatives(side: TokenAlternatives) -> dict[str, Any]:
    return {"rank": side.rank, "top": [list(pair) for pair in side.top]}


# --- what a reader does -------------------------------------------------------------------------


def test_what_is_typed_is_shown_as_text(browser):
    opened, asked = open_page(browser)
    evil = "<img src=x onerror=document.title='hit'><script>document.title='hit'</script>"
    opened.fill("#text-a", evil)
    opened.fill("#question", evil)
    opened.wait_for_selector("#panel-a .sarlab-steps:has-text('<img')")
    opened.wait_for_timeout(400)
    assert opened.locator("#panel-a img, #panel-a script, main img").count() == 0
    assert "hit" not in opened.title()
    assert not [line for line in asked if line.startswith("error")]
    opened.context.close()


def test_by_keyboard_alone(browser):
    """From the skip link into the tokens: arrows move, the card follows, Shift selects a span."""
    opened, _ = open_page(browser)
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.className") == "skip"
    opened.keyboard.press("Enter")
    for _ in range(30):
        opened.keyboard.press("Tab")
        if opened.evaluate("document.activeElement.closest('#panel-a .sarlab-token') !== null"):
            break
    else:
        pytest.fail("Tab does not reach the tokens of answer A")
    opened.keyboard.press("ArrowRight")
    assert "token 2 of" in opened.inner_text("#panel-a .sarlab-card")
    assert "likeliest 5" in opened.inner_text("#panel-a .sarlab-card")
    opened.keyboard.press("Shift+ArrowRight")
    opened.keyboard.press("Shift+ArrowRight")
    opened.wait_for_selector("#panel-a .sarlab-span:has-text('deleted, the rest scored again')")
    assert "Selected: 3 tokens (2–4)" in opened.inner_text("#panel-a .sarlab-span")
    name = opened.evaluate("document.activeElement.getAttribute('aria-label')")
    for part in (r"token 4 of", r"Δ log p = [+−]\d", r"with the question [+−]\d.*, without [+−]\d"):
        assert re.search(part, name), name
    opened.context.close()


def test_all_policies_write_and_the_group_is_paid(browser):
    opened, _ = open_page(browser)
    opened.click("#write-all")
    opened.wait_for_selector("#write-all:not([disabled])", timeout=120_000)
    arms = 1 + len(list(ADAPTERS.iterdir()))
    assert opened.locator("#written details").count() == arms
    opened.wait_for_selector("#group tbody tr[data-row=latro] td:nth-child(8)")
    assert opened.locator("#group tr[data-row]").count() == len(REWARDS)
    row = opened.locator("#group tr[data-row=sar] td:not(.about)")
    assert row.count() == 6  # A, B and the four of the chosen policy
    before = row.all_inner_texts()
    opened.focus("#alpha")
    opened.keyboard.press("End")
    assert opened.inner_text("#alpha-value") == "1.00"
    assert row.all_inner_texts() != before
    opened.check("input[value=advantage]")
    for name in REWARDS.keys() - {"filler_share"}:
        cells = opened.locator(f"#group tr[data-row={name}] td:not(.about)").all_inner_texts()
        paid = [float(text.replace("−", "-")) for text in cells]
        assert sum(paid) == pytest.approx(0, abs=0.004), name
    opened.click("#lines")
    opened.wait_for_selector("#group tr[data-row=filler_share] td:nth-child(8)", timeout=120_000)
    figures = opened.locator("#bars figure").count()
    opened.focus("[data-design=entropy]")
    opened.keyboard.press("Space")
    assert opened.locator("#bars figure").count() == figures + 1
    assert opened.evaluate("document.activeElement.dataset.design") == "entropy"
    opened.fill("#gold", "")
    opened.wait_for_selector("#group tr[data-row=latro] .missing")
    opened.context.close()


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def channels(css: str) -> tuple[float, ...]:
    numbers = [float(n) for n in re.findall(r"[\d.]+", css)]
    return (*(n / 255 for n in numbers[:3]), numbers[3] if len(numbers) > 3 else 1.0)


def over(colour: Sequence[float], cover: float, ground: Sequence[float]) -> tuple[float, ...]:
    """A colour laid over another."""
    return tuple(cover * c + (1 - cover) * g for c, g in zip(colour, ground, strict=True))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_on_every_token_colour_has_contrast(browser, theme):
    """4.5 to 1 at least: letters and marks on the strongest tints, and all text that is small."""
    opened, _ = open_page(browser, theme=theme)
    opened.fill("#text-a", "A B\tC.\nYes? 681 681 681 zebra 384+297=681\nAnswer: 681")
    opened.wait_for_selector("#panel-a .sarlab-token:has-text('z')")
    found = opened.evaluate(
        """() => [...document.querySelectorAll(
             '.sarlab-token, .sarlab-mark, .sarlab-label, .sarlab-note, .sarlab-sum, .note,'
             + '.status, .tick, .paid, a, .verdict, th, td, label, .readout,'
             + '.bar > :first-child, .bar b'
           )].map((e) => {
             const layers = [];
             let opacity = 1;
             for (let n = e; n; n = n.parentElement) {
               layers.push(getComputedStyle(n).backgroundColor);
               opacity *= getComputedStyle(n).opacity;
             }
             const style = getComputedStyle(e);
             const ink = e.namespaceURI.endsWith('svg') ? style.fill : style.color;
             return [e.className.toString(), ink, opacity, layers];
           })"""
    )
    low = {}
    for name, ink, opacity, layers in found:
        ground = (1.0, 1.0, 1.0)
        for css in reversed(layers):
            *colour, cover = channels(css)
            ground = over(colour, cover, ground)
        text = over(channels(ink)[:3], opacity, ground)
        light, dark = sorted((luminance(text), luminance(ground)), reverse=True)
        ratio = (light + 0.05) / (dark + 0.05)
        low[name] = min(ratio, low.get(name, 99.0))
    print(theme, {k: round(v, 1) for k, v in sorted(low.items(), key=lambda p: p[1])[:6]})
    assert min(low.values()) >= 4.5, low
    opened.context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1400])
def test_it_fits_and_looks(browser, tmp_path, width, theme):
    opened, _ = open_page(browser, width=width, theme=theme)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    folder = ROOT / "docs" / "pictures" if UPDATE and width == 1400 else tmp_path
    opened.locator("#panel-a .sarlab-token").nth(2).focus()
    box = opened.locator("#live").bounding_box()
    left, top = box["x"] - 12, box["y"] + opened.evaluate("scrollY")
    clip = {"x": left, "y": top, "width": box["width"] + 24, "height": box["height"] + 12}
    opened.screenshot(
        path=folder / f"page-{theme}.png", full_page=True, clip=clip, animations="disabled"
    )
    opened.context.close()


@pytest.mark.slow
def test_from_key_press_to_repainted_tokens(browser):
    """Answers of 70 tokens: median over keys. A busy machine gets slack."""
    opened, _ = open_page(browser)
    ready = float(opened.get_attribute("html", "data-ready"))
    text = (
        "384+297\n4+7=11\n8+9+1=18\n3+2+1=6\n384+297=681\nLet me think about this carefully. "
        "There is no need to hurry at all. Now let me go on.\nAnswer: 681"
    )
    opened.fill("#text-a", text)
    opened.wait_for_timeout(800)
    tokens = opened.locator("#panel-a .sarlab-token[data-index]").count()
    assert 65 <= tokens <= 80
    seconds = opened.evaluate(
        """async () => {
          const box = document.querySelector('#text-a'), times = [];
          const steps = document.querySelector('#panel-a .sarlab-steps');
          for (let k = 0; k < 30; k++) {
            const at = k % 2 ? box.value.length : Math.floor(box.value.length / 3);
            box.setRangeText(String(k % 10), at, at, 'end');
            const began = performance.now();
            const painted = new Promise((done) => {
              const observer = new MutationObserver(() => {
                observer.disconnect();
                requestAnimationFrame(() => setTimeout(() => done(performance.now()), 0));
              });
              observer.observe(steps, { childList: true, subtree: true });
            });
            box.dispatchEvent(new InputEvent('input', { bubbles: true }));
            times.push((await painted - began) / 1000);
            await new Promise((done) => setTimeout(done, 150));
          }
          return times;
        }"""
    )
    median = statistics.median(seconds)
    print(
        f"{tokens} tokens: median {median:.3f} s, most {max(seconds):.3f} s, ready {ready:.0f} ms"
    )
    slack = 1 if os.getloadavg()[0] < (os.cpu_count() or 1) else 4
    assert median < 0.3 * slack
    assert ready < 2000 * slack
    opened.context.close()


# --- the static site ----------------------------------------------------------------------------


@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import build_site

    build_site.build(tmp_path)
    assert build_site.broken_links(tmp_path) == []
    names = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.html")}
    assert {"index.html", "docs/index.html", "docs/SCALE.html"} <= names
    assert len([n for n in names if n.startswith("notebooks/")]) == 5
    for page in tmp_path.rglob("*.html"):  # styles, scripts and pictures come with the site
        text = page.read_text("utf-8")
        assert not re.findall(r"<(?:script|img|link)[^>]+(?:src|href)=[\"']https?://", text), page
    (tmp_path / "docs" / "SCALE.html").unlink()
    assert any("SCALE" in line for line in build_site.broken_links(tmp_path))
