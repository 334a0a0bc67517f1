"""The sarlab command: what it prints, and what it does with wrong input."""

from __future__ import annotations

import pytest

from sarlab import load_policy, score_answers
from sarlab.job.command import main

QUESTION = "Ada has 112 coins and gets 205 more. How many coins does Ada have now?"


def test_score_prints_what_the_library_computes(capsys) -> None:
    assert main(["score", QUESTION, r"112+205=317\nAnswer: 317", "Answer: 317"]) == 0
    lines = capsys.readouterr().out.splitlines()
    scores = score_answers(
        load_policy("tiny"), QUESTION, ["112+205=317\nAnswer: 317", "Answer: 317"]
    )
    for line, score in zip(lines[1:], scores, strict=True):
        sar, conditioned, standalone, nats, tokens = line.split()[:5]
        assert float(sar) == pytest.approx(score.sar, abs=6e-4)
        assert float(conditioned) == pytest.approx(score.ppl_conditioned, abs=6e-4)
        assert float(standalone) == pytest.approx(score.ppl_standalone, abs=6e-4)
        v = sum(score.logps_conditioned) - sum(score.logps_standalone)
        assert float(nats) == pytest.approx(v, abs=6e-3)
        assert int(tokens) == len(score.token_ids)


def test_a_model_out_of_its_depth_is_said(capsys) -> None:
    assert main(["score", "What is the capital of France?", "It is Paris, of course."]) == 0
    assert "was never trained on texts like these" in capsys.readouterr().out
    assert main(["score", QUESTION, r"112+205=317\nAnswer: 317"]) == 0
    assert "never trained" not in capsys.readouterr().out


def test_train_leaves_its_run_in_the_current_folder(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = {"questions": 2, "group_size": 2, "eval_questions": 4, "validation_questions": 4}
    size = [word for name, n in sizes.items() for word in ("-p", name, str(n))]
    assert main(["train", "-p", "steps", "1", "-p", "name", "first", *size]) == 0
    assert (tmp_path / "runs" / "first" / "summary.json").exists()
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", " ", "Answer: 1"], "question"),
        (["train", "-p", "alhpa", "0.1"], "alpha"),
        (["inspect", "nowhere"], "does not exist"),
    ],
)
def test_wrong_input_is_explained_and_ends_with_2(arguments, message, capsys) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_audit_hands_on_its_arguments_and_its_exit_code(capfd) -> None:
    assert main(["audit", "no_such_reward"]) == 2
    assert "no_such_reward" in capfd.readouterr().err


def test_an_unknown_command_lists_those_there_are(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["tarin"])
    assert "choose from" in capsys.readouterr().err
