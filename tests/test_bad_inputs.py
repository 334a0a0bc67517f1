"""Bad inputs in one table: each has a clear error, and leaves every file as it was.

The data files and the parameters are those of test_tasks_files.py and test_config.py; here they go
the whole way, to where a run folder would be made.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crash_lab import CONFIG
from policies import random_policy
from safetensors.torch import load_file, save_file
from test_config import BAD as BAD_PARAMETERS
from test_runs import ROW
from test_tasks_files import BAD_FILES

from sarlab import StandaloneContext, load_policy, run_training, score_answers
from sarlab.config import TrainConfig
from sarlab.models import REPOSITORY, Policy, add_lora, export_policy
from sarlab.runs.folder import Run, check_run_name, read_metrics, read_rollouts


@dataclass
class Place:
    """A folder to be harmed: a model, an adapter for it, a run; ``target`` must never be made."""

    root: Path

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def adapter(self) -> Path:
        return self.root / "adapter"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def target(self) -> Path:
        return self.root / "target"

    def train(self, **told: Any) -> Callable[[], Any]:
        return lambda: run_training(replace(CONFIG, **told), self.target)

    def with_model(self, path: Path | None = None) -> Callable[[], Any]:
        return self.train(model=str(path or self.model))

    def resume(self, folder: Path | None = None, **told: Any) -> Callable[[], Any]:
        return lambda: run_training(replace(CONFIG, **told), folder or self.run, resume=True)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A small model, an adapter on it, and a run folder, all in good order."""
    root = tmp_path_factory.mktemp("made")
    policy = random_policy("llama")
    policy.model.save_pretrained(root / "model")
    policy.tokenizer.save_pretrained(root / "model")
    export_policy(add_lora(load_policy(root / "model"), rank=2), root / "adapter")
    run = Run.create(root / "run", CONFIG.to_dict())
    run.log({"step": 1})
    run.log({"step": 2})
    run.write_rollouts(1, "train", [ROW] * 50)
    run.close()
    return root


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Place:
    shutil.copytree(made, tmp_path / "place")
    config = tmp_path / "place" / "adapter" / "adapter_config.json"
    edit(config, base_model_name_or_path=str(tmp_path / "place" / "model"))
    return Place(tmp_path / "place")


def edit(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; None takes one away."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def drop(path: Path, part: str) -> None:
    """Leave out the tensors whose names hold ``part``."""
    kept = {k: v for k, v in load_file(path).items() if part not in k}
    save_file(kept, path, metadata={"format": "pt"})


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def state(root: Path) -> dict[str, str]:
    """Every file with its digest."""
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


Case = tuple[Callable[[Place], Callable[[], Any]], str]
CASES: dict[str, Case] = {}


def case(name: str, message: str) -> Callable[[Callable[[Place], Any]], Callable[[Place], Any]]:
    """Register a function that does the harm and returns the call that must fail."""

    def register(harm: Callable[[Place], Any]) -> Callable[[Place], Any]:
        CASES[name] = (harm, message)
        return harm

    return register


# --- data files and parameters ------------------------------------------------------------------


def _data(text: str) -> Callable[[Place], Callable[[], Any]]:
    def harm(place: Place) -> Callable[[], Any]:
        (place.root / "bad.jsonl").write_text(text)
        return place.train(task=str(place.root / "bad.jsonl"))

    return harm


def _parameters(told: dict[str, Any]) -> Callable[[Place], Callable[[], Any]]:
    return lambda place: lambda: run_training(TrainConfig.from_parameters(told), place.target)


CASES |= {f"data: {name}": (_data(text), message) for name, (text, message) in BAD_FILES.items()}
CASES |= {
    f"parameter: {told}": (_parameters(told), re.escape(message))
    for told, message in BAD_PARAMETERS
}


@case("data: not UTF-8", "is not UTF-8. Save the file as UTF-8")
def _(place: Place) -> Any:
    (place.root / "bad.jsonl").write_bytes(b'{"question": "\xe9?", "answer": "1"}\n')
    return place.train(task=str(place.root / "bad.jsonl"))


@case("data: a parquet file that is none", "cannot be read as parquet")
def _(place: Place) -> Any:
    (place.root / "gsm.parquet").write_bytes(b"PAR1 no")
    return place.train(task=f"gsm8k:{place.root / 'gsm.parquet'}")


@case("data: a missing file", "does not exist")
def _(place: Place) -> Any:
    return place.train(task=str(place.root / "nothing.jsonl"))


@case("data: a question longer than the context", "exceeds the context of 'tiny'")
def _(place: Place) -> Any:
    rows = [{"question": f"{i} " + "and one " * 2000, "answer": "1"} for i in range(40)]
    (place.root / "long.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return place.train(task=str(place.root / "long.jsonl"))


# --- models -------------------------------------------------------------------------------------


@case("model: empty reference", "model is ' '; it must be a non-empty text")
def _(place: Place) -> Any:
    return place.train(model=" ")


for _name, _reference in {
    "typo": "tinny",
    "missing folder": "./no/such/folder",
    "URL": "https://example.org/owner/model",
    "way out of the hub": "../../etc",
    "absolute path": "/no/such/model",
}.items():
    CASES[f"model: {_name}"] = (
        lambda place, reference=_reference: place.train(model=reference),
        "is not known and no such path exists",
    )
CASES["model: not in the cache"] = (
    lambda place: place.train(model="no-owner/no-model"),
    "could not be loaded.*without a network only local ones",
)


@case("model: empty folder", "holds no weights")
def _(place: Place) -> Any:
    (place.root / "empty").mkdir()
    return place.with_model(place.root / "empty")


for _file in ("pytorch_model.bin", "model.pt", "weights.pth", "model.pkl", "last.ckpt"):

    def _pickled(place: Place, file: str = _file) -> Any:
        (place.model / "model.safetensors").unlink()
        (place.model / file).write_bytes(b"cos\nsystem\n(S'touch PWNED'\ntR.")
        return place.with_model()

    CASES[f"model: pickle {_file}"] = (_pickled, f"only pickled weights .{_file}.*can run code")


@case("model: another kind of file", r"is a file but not \.gguf")
def _(place: Place) -> Any:
    (place.root / "model.onnx").write_bytes(b"x")
    return place.with_model(place.root / "model.onnx")


@case("model: GGUF that is none", "could not be loaded.*GGUF")
def _(place: Place) -> Any:
    (place.root / "a.gguf").write_bytes(b"hello, I am no model")
    return place.with_model(place.root / "a.gguf")


@case("model: GGUF cut off", "could not be loaded")
def _(place: Place) -> Any:
    (place.root / "a.gguf").write_bytes(b"GGUF\x03\0\0\0")
    return place.with_model(place.root / "a.gguf")


@case("model: a layer without weights", "lack the weights model.layers.1.mlp.*random numbers")
def _(place: Place) -> Any:
    drop(place.model / "model.safetensors", "layers.1.mlp")
    return place.with_model()


@case("model: no language-model head", "lack the weights lm_head.weight")
def _(place: Place) -> Any:
    drop(place.model / "model.safetensors", "lm_head")
    return place.with_model()


@case("model: an encoder", "lack the weights")
def _(place: Place) -> Any:
    edit(place.model / "config.json", model_type="bert")
    return place.with_model()


@case("model: another size than its weights", "could not be loaded")
def _(place: Place) -> Any:
    edit(place.model / "config.json", hidden_size=64)
    return place.with_model()


@case("model: weights cut off", "could not be loaded.*SafetensorError")
def _(place: Place) -> Any:
    cut(place.model / "model.safetensors", 5000)
    return place.with_model()


@case("model: weights empty", "could not be loaded.*SafetensorError")
def _(place: Place) -> Any:
    cut(place.model / "model.safetensors", 0)
    return place.with_model()


@case("model: config not JSON", "could not be loaded.*not a valid JSON")
def _(place: Place) -> Any:
    (place.model / "config.json").write_text("{")
    return place.with_model()


@case("model: config a list", "could not be loaded")
def _(place: Place) -> Any:
    (place.model / "config.json").write_text("[]")
    return place.with_model()


@case("model: no config", "could not be loaded.*Unrecognized model")
def _(place: Place) -> Any:
    (place.model / "config.json").unlink()
    return place.with_model()


@case("model: unknown architecture", "could not be loaded.*wonder")
def _(place: Place) -> Any:
    edit(place.model / "config.json", model_type="wonder")
    return place.with_model()


@case("model: code of its own", "would run code that comes with it, and sarlab never does")
def _(place: Place) -> Any:
    own = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    edit(place.model / "config.json", model_type="wonder", auto_map=own)
    (place.model / "evil.py").write_text("open('PWNED', 'w')\n")
    return place.with_model()


# --- tokenizers ---------------------------------------------------------------------------------


@case("tokenizer: none", "could not be loaded")
def _(place: Place) -> Any:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (place.model / name).unlink()
    return place.with_model()


@case("tokenizer: not JSON", "could not be loaded")
def _(place: Place) -> Any:
    (place.model / "tokenizer.json").write_text("{")
    return place.with_model()


@case("tokenizer: empty", "could not be loaded")
def _(place: Place) -> Any:
    (place.model / "tokenizer.json").write_text("{}")
    return place.with_model()


@case("tokenizer: no end token anywhere", "names an end token, so answers could not end")
def _(place: Place) -> Any:
    edit(place.model / "tokenizer_config.json", eos_token=None)
    for name in ("config.json", "generation_config.json"):
        content = json.loads((place.model / name).read_text())
        (place.model / name).write_text(json.dumps({**content, "eos_token_id": None}))
    return place.with_model()


@case("tokenizer: larger than the model", "do not belong together. Load both from one folder")
def _(place: Place) -> Any:
    content = json.loads((place.model / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {f"<more {i}>": len(vocabulary) + i for i in range(200)}
    (place.model / "tokenizer.json").write_text(json.dumps(content))
    return place.with_model()


# --- adapters -----------------------------------------------------------------------------------


@case("adapter: pickled", "only pickled weights .adapter_model.bin.*can run code")
def _(place: Place) -> Any:
    (place.adapter / "adapter_model.safetensors").unlink()
    (place.adapter / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'touch PWNED'\ntR.")
    return place.with_model(place.adapter)


@case("adapter: no weights", "holds no weights")
def _(place: Place) -> Any:
    (place.adapter / "adapter_model.safetensors").unlink()
    return place.with_model(place.adapter)


@case("adapter: names no base", "names no base model under 'base_model_name_or_path'")
def _(place: Place) -> Any:
    edit(place.adapter / "adapter_config.json", base_model_name_or_path=None)
    return place.with_model(place.adapter)


@case("adapter: config not JSON", "names no base model")
def _(place: Place) -> Any:
    (place.adapter / "adapter_config.json").write_text("{")
    return place.with_model(place.adapter)


@case("adapter: its own base", "names itself as its base")
def _(place: Place) -> Any:
    edit(place.adapter / "adapter_config.json", base_model_name_or_path=str(place.adapter))
    return place.with_model(place.adapter)


@case("adapter: tokenizer not JSON", "could not be loaded")
def _(place: Place) -> Any:
    (place.adapter / "tokenizer.json").write_text("{")
    return place.with_model(place.adapter)


@case("adapter: another vocabulary than the base", "trained with another vocabulary")
def _(place: Place) -> Any:
    content = json.loads((place.adapter / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    (one, first), (two, second) = list(vocabulary.items())[300:302]
    vocabulary |= {one: second, two: first}  # of the same size, so no shape would tell
    (place.adapter / "tokenizer.json").write_text(json.dumps(content))
    return place.with_model(place.adapter)


@case("adapter: another width than the base", "does not fit the model")
def _(place: Place) -> Any:
    edit(place.adapter / "adapter_config.json", r=3)
    return place.with_model(place.adapter)


@case("adapter: layers missing", "lacks weights for")
def _(place: Place) -> Any:
    drop(place.adapter / "adapter_model.safetensors", "layers.1.")
    return place.with_model(place.adapter)


@case("adapter: cut off", "does not fit the model .* or is damaged")
def _(place: Place) -> Any:
    cut(place.adapter / "adapter_model.safetensors", 3000)
    return place.with_model(place.adapter)


@case("adapter: of a run that was not finished", "holds no adapter.*trained to its end")
def _(place: Place) -> Any:
    return place.with_model(place.run)


@case("adapter: of a run that names itself", "names itself as its base")
def _(place: Place) -> Any:
    edit(place.run / "config.json", model=str(place.run))
    return place.with_model(place.run)


# --- run folders --------------------------------------------------------------------------------


@case("run: the folder holds something", "exists already. Choose another name")
def _(place: Place) -> Any:
    return lambda: run_training(CONFIG, place.model)


@case("run: the folder is a file", "is a file, and a run needs a folder")
def _(place: Place) -> Any:
    (place.root / "file").write_text("mine")
    return lambda: run_training(CONFIG, place.root / "file")


@case("run: nothing to resume", "no run to resume")
def _(place: Place) -> Any:
    return place.resume(place.target)


@case("run: a folder of something else to resume", "no run to resume")
def _(place: Place) -> Any:
    (place.model / "config.json").unlink()
    return place.resume(place.model)


@case("run: config.json cut off", "config.json is not JSON")
def _(place: Place) -> Any:
    cut(place.run / "config.json", 40)
    return place.resume()


@case("run: config.json a list", "holds a list, expected an object")
def _(place: Place) -> Any:
    (place.run / "config.json").write_text("[]")
    return place.resume()


@case("run: config.json of another version", "Unknown parameter 'temperature'")
def _(place: Place) -> Any:
    edit(place.run / "config.json", temperature=1.0)
    return place.resume()


@case("run: a model where a run is expected", "Unknown parameter 'architectures'")
def _(place: Place) -> Any:
    return place.resume(place.model)


@case("run: other parameters than its own", "was made with other parameters: alpha")
def _(place: Place) -> Any:
    return place.resume(alpha=0.3)


@case("run: fewer steps than it has", "it can only grow")
def _(place: Place) -> Any:
    return place.resume(steps=2)


@case("run: run.json cut off", "run.json is not JSON")
def _(place: Place) -> Any:
    cut(place.run / "run.json", 30)
    return lambda: Run.reopen(place.run)


@case("run: metrics broken in the middle", "line 1: not valid JSON.*Repair or remove it")
def _(place: Place) -> Any:
    (place.run / "metrics.jsonl").write_text('{"ste\n{"step": 2}\n')
    return lambda: read_metrics(place.run)


@case("run: no rollouts of this split", "no rollouts of split 'probe'")
def _(place: Place) -> Any:
    return lambda: read_rollouts(place.run, "probe")


@case("run: rollouts of another version", "columns of another version.*temperature")
def _(place: Place) -> Any:
    part = place.run / "rollouts.parquet" / "train-000001.parquet"
    table = pq.read_table(part)
    pq.write_table(table.append_column("temperature", pa.array([1.0] * len(table))), part)
    return lambda: read_rollouts(place.run)


@case("run: rollouts of other types", "columns of another version.*differ in type")
def _(place: Place) -> Any:
    part = place.run / "rollouts.parquet" / "train-000001.parquet"
    table = pq.read_table(part)
    steps = table.column("step").cast(pa.int64())
    pq.write_table(table.set_column(0, "step", steps), part)
    return lambda: read_rollouts(place.run)


@case("run: rollouts cut off", "is damaged")
def _(place: Place) -> Any:
    part = place.run / "rollouts.parquet" / "train-000001.parquet"
    cut(part, part.stat().st_size // 2)
    return lambda: read_rollouts(place.run)


@case("run: a flipped byte in the rollouts", "is damaged")
def _(place: Place) -> Any:
    part = place.run / "rollouts.parquet" / "train-000001.parquet"
    content = bytearray(part.read_bytes())
    content[40] ^= 1  # inside the first page
    part.write_bytes(content)
    return lambda: read_rollouts(place.run)


for _bad in (
    "../evil",
    "a/b",
    ".hidden",
    "a\\b",
    "",
    " a",
    "a ",
    "x" * 121,
    "a\0b",
    "a\nb",
    "~",
    5,
):
    CASES[f"name: {_bad!r:.20}"] = (lambda place, bad=_bad: lambda: check_run_name(bad), "name is")


def test_the_table_is_as_long_as_the_documentation_says() -> None:
    text = (REPOSITORY / "docs" / "RELIABILITY.md").read_text("utf-8")
    assert len(CASES) >= 60 and f"{len(CASES)} cases in one table" in text


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name: str, place: Place, monkeypatch) -> None:
    harm, message = CASES[name]
    monkeypatch.chdir(place.root)
    call = harm(place)
    before = state(place.root)
    with pytest.raises(ValueError, match=f"(?s){message}") as error:
        call()
    assert len(str(error.value)) > 25  # the value, the rule, the remedy
    assert not place.target.exists()
    assert state(place.root) == before
    assert not list(place.root.rglob("PWNED"))


# --- strange, but workable ----------------------------------------------------------------------


def no_pad(policy: Policy) -> None:
    policy.tokenizer.pad_token = None


def no_bos(policy: Policy) -> None:
    policy.tokenizer.bos_token = None


def no_chat_template(policy: Policy) -> None:
    policy.tokenizer.chat_template = None


def end_token_of_the_model_only(policy: Policy) -> None:
    policy.tokenizer.eos_token = None


@pytest.mark.parametrize("strange", [no_pad, no_bos, no_chat_template, end_token_of_the_model_only])
def test_a_tokenizer_that_lacks_something_still_works(strange: Any, tmp_path: Path) -> None:
    policy = random_policy("llama")
    strange(policy)
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    again = load_policy(tmp_path)
    for context in StandaloneContext:
        (found,) = score_answers(again, "1 + 1?", ["Answer: 2"], standalone=context)
        assert -1 <= found.sar < 1 and found.token_ids[-1] == again.end_id


def test_names_in_data_stay_data(tmp_path: Path, monkeypatch) -> None:
    """Paths, markup and shell in questions and answers make no file outside the run folder."""
    tricks = ["../../evil", "/tmp/evil", "$(touch evil)", "`touch evil`", "a\0b", "evil\n../x"]
    rows = [
        {"question": f"{trick} {i}?", "answer": trick.replace("\0", " "), "id": trick}
        for i in range(12)
        for trick in tricks
    ]
    data = tmp_path / "..data;touch evil.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    config = replace(CONFIG, task=str(data), steps=1, max_answer_tokens=4)
    run_training(config, tmp_path / "runs" / "one")
    assert sorted(p.name for p in tmp_path.iterdir()) == [data.name, "runs"]
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["one"]
    parts = {p.name for p in (tmp_path / "runs" / "one" / "rollouts.parquet").iterdir()}
    assert all(name.endswith(".parquet") and "evil" not in name for name in parts)
