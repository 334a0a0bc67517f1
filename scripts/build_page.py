"""Build docs/index.html: the reward alive in one file, without a kernel and without a network.

    python scripts/build_page.py              # writes docs/index.html
    python scripts/build_page.py --out FILE

The sources are in page/ (plain JavaScript and CSS), the token view is JupyterLab's own module
(sarlab/widgets/static). Weights of `tiny` are embedded as they are (float32), the adapters as
data/page ships them (float16 numbers, computed with in float32).
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from build_tiny import write_answer
from safetensors.numpy import load_file, save_file
from tokenizers import Regex, pre_tokenizers

from sarlab import load_task, verify
from sarlab.display.token_view import legend
from sarlab.rewards import REWARDS
from sarlab.sar import self_aligned_reward

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "page"
STATIC = ROOT / "sarlab" / "widgets" / "static"
TINY = ROOT / "data" / "models" / "tiny"
RECORDED = ROOT / "data" / "page"
EXAMPLES = ROOT / "data" / "examples"
STUDY = ROOT / "data" / "study"
TARGET = ROOT / "docs" / "index.html"
MODULES = {  # name → file; each imports only from those above it
    "tokens": STATIC / "tokens.js",
    **{
        name: PAGE / f"{name}.js"
        for name in (
            *("sar", "tokenizer", "model", "engine", "client"),
            *("view", "charts", "designs", "app"),
        )
    },
}
WORKER = ("sar", "tokenizer", "model", "engine")
STORIES = 10
POLICIES = {  # arms of scripts/study.py whose adapters the page holds
    "grpo": "GRPO",
    "sa_grpo_0.2": "SA-GRPO, α = 0.2",
    "o1_pruner_0.2": "O1-pruner, α = 0.2",
    "sar_alone": "SAR alone",
}
CURVES = (
    ("grpo", "GRPO", "grpo"),
    ("sa_grpo_0.2", "SA-GRPO, α = 0.2", "sa_grpo"),
    ("o1_pruner_0.2", "O1-pruner, α = 0.2", "o1"),
    ("sar_alone", "SAR alone", "alone"),
)
KINDS = (("GRPO", "grpo"), ("SA-GRPO", "sa_grpo"), ("O1", "o1"), ("PPO", "ppo"), ("SA-PPO", "ppo"))
# Arms with their name beside the mark, and how far below it.
NAMED = {"base (tiny)": 4, "GRPO": -9, "SA-GRPO α=0.2": 16, "PPO": 16, "SA-PPO α=0.2": 16}
LIMIT_BYTES = 8_000_000


def inputs() -> list[Path]:
    """Every file that the page is made of."""
    folders = (PAGE, RECORDED, EXAMPLES)
    return sorted(
        {
            Path(__file__).resolve(),
            STATIC / "tokens.js",
            STATIC / "tokens.css",
            TINY / "config.json",
            TINY / "model.safetensors",
            TINY / "tokenizer.json",
            STUDY / "study.json",
            *(p for folder in folders for p in folder.rglob("*") if p.is_file()),
            *STUDY.glob("*/metrics.jsonl"),
            *STUDY.glob("*/summary.json"),
        }
    )


def digest() -> str:
    """One checksum of all sources, which the page carries."""
    total = hashlib.sha256()
    for path in inputs():
        total.update(str(path.relative_to(ROOT)).encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    total.update(json.dumps(designs()).encode())
    return total.hexdigest()


# --- modules ------------------------------------------------------------------------------------


def bundle(names: list[str], last: str) -> str:
    """ES modules as one classic script: each a function that returns what it exports."""
    parts = [wrapped(name, MODULES[name].read_text("utf-8")) for name in names]
    return "\n".join(['"use strict";', *parts, last])


def wrapped(name: str, source: str) -> str:
    """One module; only the forms of import and export that the sources use."""
    exported = re.findall(r"^export (?:async )?(?:function|class|const|let) (\w+)", source, re.M)
    source = imports_replaced(source)
    source = re.sub(r"^export (?=(?:async )?(?:function|class|const|let) )", "", source, flags=re.M)
    if re.search(r"^export default ", source, re.M):
        source = re.sub(r"^export default ", "const defaultExport = ", source, flags=re.M)
        exported.append("default: defaultExport")
    left = re.search(r"^(?:import|export)\b.*$", source, re.M)
    if left:
        raise ValueError(f"{name}.js: this form is not known to the bundler: {left.group()!r}")
    return f"const {name}$ = (() => {{\n{source}\nreturn {{ {', '.join(exported)} }};\n}})();"


def imports_replaced(source: str) -> str:
    """``import { a, b } from "./x.js"`` as ``const { a, b } = x$``."""
    return re.sub(
        r'^import (\{[^}]*\}) from "\./(\w+)\.js";',
        lambda m: f"const {m[1].replace(' as ', ': ')} = {m[2]}$;",
        source,
        flags=re.M,
    )


def worker_source() -> str:
    """The worker as one classic script."""
    return bundle(list(WORKER), imports_replaced((PAGE / "worker.js").read_text("utf-8")))


# --- data ---------------------------------------------------------------------------------------


def packed(array: np.ndarray) -> str:
    """Numbers plane by plane (signs and exponents shrink well alone), gzip, base64."""
    planes = array.reshape(-1).view(np.uint8).reshape(-1, array.itemsize).T.tobytes()
    return packed_bytes(planes)


def packed_bytes(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def character_ranges(pattern: str) -> list[int]:
    """Code points that the library's tokenizer takes for ``pattern``: gaps and lengths in turn."""
    points = [*range(0xD800), *range(0xE000, 0x110000)]
    text = "".join(map(chr, points))
    others = pre_tokenizers.Split(Regex(f"{pattern}+"), "removed").pre_tokenize_str(text)
    ranges: list[int] = []
    at = last = 0
    for _, (start, stop) in [*others, ("", (len(text), len(text)))]:
        if start > at:
            ranges += [points[at] - last, start - 1 - at]
            last = points[start - 1]
        at = stop
    return ranges


def tokenizer_data() -> dict[str, Any]:
    raw = json.loads((TINY / "tokenizer.json").read_text("utf-8"))
    vocabulary: dict[str, int] = raw["model"]["vocab"]
    return {
        "tokens": sorted(vocabulary, key=vocabulary.__getitem__),
        "merges": [[vocabulary[a], vocabulary[b]] for a, b in raw["model"]["merges"]],
        "special": [t["id"] for t in raw["added_tokens"]],
        "letters": character_ranges(r"\p{L}"),
        "numbers": character_ranges(r"\p{N}"),
        "digits": character_ranges(r"\d"),
        "spaces": character_ranges(r"\s"),
    }


def model_data() -> tuple[dict[str, Any], dict[str, str]]:
    """Config and shapes of `tiny` and of its adapters, and their numbers, packed."""
    tensors = load_file(TINY / "model.safetensors")
    data: dict[str, Any] = {
        "config": json.loads((TINY / "config.json").read_text("utf-8")),
        "tokenizer": tokenizer_data(),
        "shapes": [[name, tensor.size] for name, tensor in tensors.items()],
        "adapters": {},
        "policies": [{"key": "tiny", "name": "tiny, untrained"}],
    }
    numbers = {"weights": packed(np.concatenate([t.reshape(-1) for t in tensors.values()]))}
    for key, name in POLICIES.items():
        folder = RECORDED / "adapters" / key
        if not folder.exists():  # only while the adapters are being trained
            print(f"{folder.relative_to(ROOT)} is not there: the page goes without {name}.")
            continue
        config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        halves = load_file(folder / "adapter_model.safetensors")
        data["adapters"][key] = {
            "scale": config["lora_alpha"] / config["r"],
            "rank": config["r"],
            "shapes": [[_tensor_name(k), v.size] for k, v in halves.items()],
        }
        data["policies"].append({"key": key, "name": name})
        numbers[key] = packed(np.concatenate([h.reshape(-1) for h in halves.values()]))
    return data, numbers


def _tensor_name(peft_name: str) -> str:
    """``base_model.model.X.lora_A.weight`` → ``X.weight a``: a matrix and its factor."""
    name, factor = re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])\.weight", peft_name).groups()  # type: ignore[union-attr]
    return f"{name}.weight {factor.lower()}"


def ship_adapters(runs: Path) -> None:
    """Copy the adapters of finished runs to data/page, their numbers rounded to float16."""
    for key in POLICIES:
        source, folder = runs / f"{key}-s0", RECORDED / "adapters" / key
        if not (source / "summary.json").exists():
            print(f"{source} has not ended: its adapter stays as it was.")
            continue
        summary = json.loads((source / "summary.json").read_text("utf-8"))
        folder.mkdir(parents=True, exist_ok=True)
        tensors = load_file(source / "adapter" / "adapter_model.safetensors")
        halves = {k: v.astype(np.float16) for k, v in tensors.items()}
        weights = folder / "adapter_model.safetensors"
        save_file(halves, weights, {"format": "pt"})
        weights.chmod(0o644)
        config = json.loads((source / "adapter" / "adapter_config.json").read_text("utf-8"))
        config["base_model_name_or_path"] = "tiny"
        config["target_modules"] = sorted(config["target_modules"])
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")
        facts = {k: summary[k] for k in ("reward", "alpha", "seed", "steps", "hardware")}
        (folder / "run.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


def stories() -> list[dict[str, Any]]:
    """Held-out stories, each with answers of known kinds to start from."""
    found = []
    rng = random.Random("page stories")
    for question in load_task("word_problems").heldout(STORIES):
        steps = write_answer(question, rng, steps=True, filler=False)
        wrong = re.sub(r"\d+$", lambda m: str(int(m[0]) + 10), steps)
        found.append(
            {
                "question": question.text,
                "gold": question.gold,
                "answers": [
                    {"label": "digit by digit", "text": steps},
                    {
                        "label": "digit by digit, padded",
                        "text": write_answer(question, rng, steps=True, filler=True),
                    },
                    {
                        "label": "outright",
                        "text": write_answer(question, rng, steps=False, filler=False),
                    },
                    {"label": "last line wrong by ten", "text": wrong},
                    {"label": "the result alone", "text": f"Answer: {question.gold}"},
                    {
                        "label": "the question copied",
                        "text": f"{question.text}\nAnswer: {question.gold}",
                    },
                    {
                        "label": "another story's answer",
                        "text": "127+355\n7+5=12\n2+5+1=8\n1+3=4\n127+355=482\nAnswer: 482",
                    },
                ],
            }
        )
    return found


def designs() -> dict[str, dict[str, str]]:
    """What the library's table says about each reward, and the formula in its docstring."""
    found = {}
    for name, reward in REWARDS.items():
        formula = (reward.bonus.__doc__ or reward.about).split("\n\n")[0].replace(" [B]", "")
        formula = " ".join(re.sub(r":\w+:`([^`]*)`|``(\w+)``", r"\1\2", formula).split())
        found[name] = {"about": reward.about, "formula": formula}
    return found


def study_data() -> dict[str, Any]:
    """The arms of the study with intervals, and four arms' curves over the steps."""
    arms = []
    for row in json.loads((STUDY / "study.json").read_text("utf-8")):
        label = row["label"].replace("GRPO + ", "").replace("GRPO SAR", "SAR")
        low, high = max(0.0, row["mean_length_low"]), row["mean_length_high"]
        arms.append(
            {
                "label": label,
                "kind": next((k for name, k in KINDS if label.startswith(name)), "other"),
                "named": NAMED.get(label, 0),
                "accuracy": row["accuracy"],
                "accuracy_low": row["accuracy_low"],
                "accuracy_high": row["accuracy_high"],
                "length": row["mean_length"],
                "length_low": low,
                "length_high": high,
                "text": f"{label}: right in {row['accuracy']:.1%} "
                f"[{row['accuracy_low']:.1%}, {row['accuracy_high']:.1%}], "
                f"{row['mean_length']:.1f} tokens [{low:.1f}, {high:.1f}], "
                + (f"{row['seeds']} seeds" if row["seeds"] else "300 stories"),
            }
        )
    curves = []
    for key, label, kind in CURVES:
        curve: dict[str, Any] = {"label": label, "kind": kind}
        runs = [
            [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            for path in sorted(STUDY.glob(f"{key}-s*/metrics.jsonl"))
        ]
        for name in ("accuracy", "mean_length", "sar"):
            rows = [[m.get(name) for m in run] for run in runs]
            rows = [r for r in rows if None not in r]  # arms without SAR in training log none
            curve[name] = {
                "runs": [[round(v, 4) for v in r] for r in rows],
                "mean": [round(sum(c) / len(c), 4) for c in zip(*rows, strict=True)],
            }
        curves.append(curve)
    by = {a["label"]: a for a in arms}
    base, grpo, sa = by["base (tiny)"], by["GRPO"], by["SA-GRPO α=0.2"]
    alone, pruner = by["SAR alone"], by["O1-pruner α=0.2"]
    words = (
        f"Untrained, tiny is right in {base['accuracy']:.0%} of the stories at "
        f"{base['length']:.0f} tokens. GRPO brings {grpo['accuracy']:.0%} at "
        f"{grpo['length']:.0f}, SA-GRPO with α = 0.2 {sa['accuracy']:.0%} at {sa['length']:.0f}. "
        f"O1-pruner at the same α has {pruner['accuracy']:.0%} at {pruner['length']:.0f}, but it "
        f"pulls about seven times as hard per token: strengths were not matched, so which is "
        f"better is not shown. SAR alone collapses: "
        f"{alone['accuracy']:.0%} at {alone['length']:.0f} tokens."
    )
    floor = 0.5
    hidden = [a["label"] for a in arms if a["accuracy"] < floor]
    if hidden:
        words += f" ({', '.join(hidden)} lies below the figure.)"
    return {"arms": arms, "curves": curves, "words": words, "floor": floor}


def recorded_data() -> dict[str, Any]:
    """Example answers and the gallery of failures, scored by a real model."""
    rows = [
        json.loads(line) for line in (EXAMPLES / "answers.jsonl").read_text("utf-8").splitlines()
    ]
    scores = {r["text_key"]: r for r in pq.read_table(EXAMPLES / "scores.parquet").to_pylist()}
    examples: dict[str, dict[str, Any]] = {}
    for row in rows:
        text = f"{row['question']}\0{row['answer']}"
        score = scores[hashlib.sha256(text.encode()).hexdigest()]
        pair = torch.tensor([score["logps_conditioned"]]), torch.tensor([score["logps_standalone"]])
        sar = self_aligned_reward(*pair, torch.ones_like(pair[0], dtype=torch.bool)).item()
        example = examples.setdefault(
            row["question"],
            {"title": row["question"], "question": row["question"], "answers": []},
        )
        example["answers"].append(
            {
                "kind": row["kind"].replace("_", " "),
                "right": verify(row["answer"], row["gold"]),
                "text": row["answer"],
                "tokens": score["tokens"],
                "with": [round(p, 4) for p in score["logps_conditioned"]],
                "without": [round(p, 4) for p in score["logps_standalone"]],
                "sar": round(sar, 5),
            }
        )
    failures = json.loads((RECORDED / "failures.json").read_text("utf-8"))
    for example in failures:
        example["title"] = f"Tricks: {example['question']}"
    return {
        "note": f"{len(examples)} questions with six kinds of answers each, and {len(failures)} "
        "with answers made to trick SAR, scored once by SmolLM2-135M-Instruct under both contexts. "
        "Hand-made illustrations, no benchmark. The tricks come with their likeliest tokens.",
        "examples": [*examples.values(), *failures],
    }


# --- the page -----------------------------------------------------------------------------------


def build() -> str:
    """The whole page."""
    data, numbers = model_data()
    data |= {"stories": stories(), "study": study_data(), "legend": legend()}
    data["designs"] = designs()
    recorded = json.dumps(recorded_data(), ensure_ascii=False, separators=(",", ":"))
    numbers["recorded"] = packed_bytes(recorded.encode())
    blocks = [
        f'<script type="text/plain" data-packed="{name}">{text}</script>'
        for name, text in numbers.items()
    ]
    styles = [(STATIC / "tokens.css").read_text("utf-8"), (PAGE / "style.css").read_text("utf-8")]
    parts = {
        "digest": digest(),
        "styles": "\n".join(styles),
        "data": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        "packed": "\n".join(blocks),
        "worker": worker_source(),
        "app": bundle(list(MODULES), ""),
    }
    for name in ("worker", "app"):
        if "</script" in parts[name]:
            raise ValueError(f"{name} holds a closing script tag; write it in two pieces.")
    page = (PAGE / "index.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--out", type=Path, default=TARGET)
    parser.add_argument("--adapters", type=Path, help="a folder of runs whose adapters are copied")
    args = parser.parse_args()
    if args.adapters:
        ship_adapters(args.adapters)
    page = build()
    args.out.write_text(page, "utf-8")
    size = args.out.stat().st_size
    print(f"{args.out}: {size:,} bytes")
    if size > LIMIT_BYTES:
        print(f"The page may have at most {LIMIT_BYTES:,} bytes.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
