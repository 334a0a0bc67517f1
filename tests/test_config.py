"""A configuration that makes no sense cannot be made, and says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sarlab.config import PRESETS, TrainConfig, preset
from sarlab.runs.parameters import notebook_parameters, run_request, training_request

BAD = [
    ({"alhpa": 0.1}, "Unknown parameter 'alhpa'. Did you mean 'alpha'?"),
    ({"alpha": 5.5}, "alpha is 5.5; it must lie in [0, 5]"),
    ({"alpha": -0.1}, "alpha is -0.1"),
    ({"alpha": "0.1"}, "alpha is '0.1'; it must be a number"),
    ({"alpha": float("nan")}, "must be finite"),
    ({"alpha": True}, "alpha is True; it must be a number"),
    ({"group_size": 1}, "must be at least 2 for GRPO"),
    ({"group_size": 0}, "group_size is 0; it must be at least 1"),
    ({"steps": 0}, "steps is 0"),
    ({"steps": 3.5}, "steps is 3.5; it must be a whole number"),
    ({"steps": "3"}, "must be a whole number"),
    ({"seed": -1}, "seed is -1"),
    ({"questions": 4, "mini_batches": 5}, "must not exceed questions (4)"),
    ({"learning_rate": 0}, "learning_rate is 0.0; it must be above 0"),
    ({"learning_rate": float("inf")}, "must be finite"),
    ({"beta": -1.0}, "beta is -1.0"),
    ({"clip_low": 1.0}, "must lie in (0, 1)"),
    ({"clip_high": 0.1}, "must not be below clip_low"),
    ({"dual_clip": 1.0}, "must exceed 1 + clip_high"),
    ({"loss": "sum"}, "choose one of dr_grpo, grpo, dapo"),
    ({"kl": "k4"}, "choose one of k1, k2, k3"),
    ({"algorithm": "reinforce"}, "choose one of grpo, ppo"),
    ({"reward": "length"}, "Unknown reward 'length'"),
    ({"alpha_schedule": "cosine"}, "choose one of constant"),
    ({"standalone": "empty"}, "choose one of empty_turn, bare"),
    ({"log_sar": "true"}, "must be True or False (papermill reads -p log_sar True"),
    ({"dtype": "float16"}, "choose one of auto, float32, bfloat16"),
    ({"model": " "}, "must be a non-empty text"),
    ({"kl": "k1", "beta": 0.05}, "kl is 'k1'; it has an expected gradient of 0 in the loss"),
    ({"gamma": 1.2}, "gamma is 1.2; it must lie in [0, 1]"),
]


@pytest.mark.parametrize(("told", "message"), BAD, ids=[str(b[0]) for b in BAD])
def test_nonsense_is_refused(told: dict, message: str) -> None:
    with pytest.raises(ValueError) as error:
        TrainConfig.from_parameters(told)
    assert message in str(error.value)


def test_a_configuration_survives_the_way_through_its_file() -> None:
    config = TrainConfig(alpha=0.1, standalone="bare", loss="dapo", clip_high=0.28)  # type: ignore[arg-type]
    assert TrainConfig.from_parameters(config.to_dict()) == config


def test_presets_are_valid_for_both_algorithms() -> None:
    for name in PRESETS:
        for algorithm in ("grpo", "ppo"):
            assert preset(name, algorithm).algorithm == algorithm  # type: ignore[arg-type]
    assert preset("paper").learning_rate == 1e-6
    assert preset("paper", "ppo").critic_learning_rate == 2e-6
    with pytest.raises(ValueError, match="Unknown preset 'fast'"):
        preset("fast")


def test_ppo_takes_its_own_values_however_it_is_made() -> None:
    """It used to take the loss and the KL of GRPO unless it came from a preset."""
    plain = TrainConfig(algorithm="ppo")
    assert (plain.loss, plain.beta, plain.group_size) == ("dapo", 0.0, 1)
    assert (plain.questions, plain.mini_batches) == (128, 4)
    assert plain.learning_rate == 5e-4  # docs/RELIABILITY.md says what twice that did
    assert plain == preset("lora", "ppo") == TrainConfig.from_parameters({"algorithm": "ppo"})
    told = TrainConfig(algorithm="ppo", questions=32, beta=0.01)
    assert (told.questions, told.beta, told.loss) == (32, 0.01, "dapo")
    # An older run's config.json names every value, and keeps what it was made with.
    old = {**plain.to_dict(), "loss": "dr_grpo", "beta": 0.001}
    assert TrainConfig.from_parameters(old).loss == "dr_grpo"
    assert TrainConfig() == TrainConfig(questions=16, group_size=8, loss="dr_grpo", beta=0.001)


def test_the_paper_preset_is_the_authors_file() -> None:
    for algorithm in ("grpo", "ppo"):
        config = preset("paper", algorithm)  # type: ignore[arg-type]
        assert (config.weight_decay, config.warmup_steps) == (0.01, 0)


def cells(*sources: str) -> dict:
    """A notebook's namespace after these cells were run."""
    namespace: dict = {"In": ["", *sources]}
    for source in sources:
        exec(source, namespace)
    return namespace


def test_papermills_cell_overrides_and_a_typo_in_it_is_found() -> None:
    first = "alpha = 0.2  # weight\nsteps = 60\nname = 'a'\nout = 'runs'\nresume = False"
    told = notebook_parameters(cells(first, "# Parameters\nsteps = 3\n", "x = [i for i in 'ab']"))
    assert told == {"alpha": 0.2, "steps": 3, "name": "a", "out": "runs", "resume": False}
    with pytest.raises(ValueError, match="Unknown parameter 'alhpa'"):
        training_request(cells(first, "# Parameters\nalhpa = 0.1\n"))


def test_names_defined_elsewhere_in_the_notebook_are_no_parameters() -> None:
    told = notebook_parameters(cells("alpha = 0.2", "import math\nmine = 3"))
    assert told == {"alpha": 0.2}


def test_a_parameters_cell_that_was_edited_counts_as_it_stands_now() -> None:
    """A name that was taken out, and one that came in, in the same kernel."""
    told = notebook_parameters(cells("alpha = 0.2\ntest_questions = 6", "alpha = 0.3\nsteps = 5"))
    assert told == {"alpha": 0.3, "steps": 5}


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "a\\b"])
def test_a_run_cannot_leave_its_folder(name: str) -> None:
    with pytest.raises(ValueError, match="plain folder name"):
        training_request(cells(f"alpha = 0.2\nname = {name!r}\nout = 'runs'\nresume = False"))


@pytest.mark.parametrize(("inside", "expected"), [("notebooks", "."), ("elsewhere", "elsewhere")])
def test_runs_lie_beside_the_notebooks_folder_or_where_a_batch_starts(
    inside, expected, tmp_path: Path, monkeypatch
) -> None:
    """A notebook that was copied must not write beside the installed package."""
    (tmp_path / inside).mkdir()
    monkeypatch.chdir(tmp_path / inside)
    _, folder, _ = run_request({"name": "mine"})
    assert folder == tmp_path / expected / "runs" / "mine"
    _, folder, _ = run_request({"name": "mine", "out": str(tmp_path / "other")})
    assert folder == tmp_path / "other" / "mine"
