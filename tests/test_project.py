"""Truths about the project itself: the order of its modules, its notebooks, its locks."""

import ast
import graphlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sarlab

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sarlab"

# The order in which the data flows. A module or folder imports only what stands above it.
ORDER = (
    "types",
    "sar",
    "tasks",
    "prompts",
    "_engine",
    "scoring",
    "rollout",
    "models",
    "rewards",
    "losses",
    "config",
    "plan",
    "runs",
    "experience",
    "train",
    "display",
    "evaluation",
    "summary",
    "inspect",
    "job",
    "launch",
    "widgets",
    "audit",
)
PURE = {"sar", "rewards", "losses"}
IMPURE = {"answers", "diagnostics", "dependence"}  # of rewards: statistics, passes of a model
PURE_MAY_IMPORT = {
    "torch",
    "sarlab.types",
    "sarlab.sar",
    "sarlab.rewards",
} | sys.stdlib_module_names
HEAVY = (
    *("ipywidgets", "anywidget", "plotly", "kaleido", "reasoning_gym", "datasets", "trl"),
    *("peft", "scipy", "transformers"),
)


def sources() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)


def module_of(path: Path) -> str:
    """The row of the design that a file belongs to: sarlab/tasks/verify.py is part of "tasks"."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything that a file imports, wherever it does so."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = [*parts[: -node.level]] if node.level else []
            origin = ".".join([*base, node.module] if node.module else base)
            if origin == "sarlab":  # from sarlab import models, or a name of the public face
                for alias in node.names:
                    yield node.lineno, f"sarlab.{alias.name}"
            else:
                yield node.lineno, origin


def committed_files() -> list[Path]:
    """What is or would be committed; outside a git clone, all but caches and environments."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout.decode()
        return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    skipped = {"__pycache__", "runs", "build", "dist", ".venv", ".ipynb_checkpoints"}
    return [
        p
        for p in ROOT.rglob("*")
        if p.is_file()
        and not any(
            part in skipped or part.endswith(("_cache", ".egg-info"))
            for part in p.relative_to(ROOT).parts
        )
    ]


def pins(lock: str) -> dict[str, str]:
    """Name and version of each entry of a lock file."""
    found = re.findall(r"^([\w.-]+)==([^\s;\\]+)", (ROOT / lock).read_text("utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def notebooks() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


# --- modules ------------------------------------------------------------------------------------


def test_every_module_has_its_place_in_the_order():
    unknown = {module_of(p) for p in sources()} - {*ORDER, "__init__", "__main__"}
    assert not unknown, (
        f"{sorted(unknown)} in sarlab/ has no place in ORDER: put it where it belongs in "
        "the flow of the data, after what it imports."
    )


def test_a_module_imports_only_what_stands_above_it():
    wrong = []
    for path in sources():
        own = module_of(path)
        if own not in ORDER:
            continue
        above = ORDER[: ORDER.index(own)]
        for line, name in imports(path):
            if name.split(".")[0] != "sarlab":
                continue
            other = name.split(".")[1] if "." in name else "(the package)"
            if other != own and other not in above:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def module_graph() -> dict[str, set[str]]:
    """Each module of sarlab and the modules that it imports, at its top or inside a function."""
    dotted = {
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
        for p in sources()
    }
    graph: dict[str, set[str]] = {name: set() for name in dotted}
    for name, path in dotted.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                graph[name] |= {a.name for a in node.names} & dotted.keys()
            elif isinstance(node, ast.ImportFrom) and node.module:
                assert not node.level, f"{path.relative_to(ROOT)}: relative import"
                parts = {f"{node.module}.{a.name}" for a in node.names} & dotted.keys()
                graph[name] |= parts or ({node.module} & dotted.keys())
        graph[name].discard(name)
    return graph


def test_no_circular_imports_between_modules():
    """Folders are opened: an import inside a function counts as well."""
    try:
        list(graphlib.TopologicalSorter(module_graph()).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_pure_modules_import_only_torch_types_and_sar():
    wrong = []
    for path in sources():
        own = module_of(path)
        if own not in PURE or path.stem in IMPURE:
            continue
        for line, name in imports(path):
            allowed = {name, name.split(".")[0]} & PURE_MAY_IMPORT
            if not allowed and not f"{name}.".startswith(f"sarlab.{own}."):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_only_the_policy_and_its_forward_know_how_it_is_made_fast():
    """And the job, which writes down where memory ran out."""
    users = {
        module_of(path)
        for path in sources()
        for _, name in imports(path)
        if f"{name}.".startswith("sarlab._engine.")
    }
    assert users - {"_engine", "job"} == {"models", "scoring", "rollout", "train"}


def test_the_package_level_stays_small():
    names = {module_of(p) for p in sources()} - {"__init__"}
    assert len(names) <= 25, sorted(names)


def test_importing_sarlab_loads_no_heavy_package():
    code = f"import sarlab, sys; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_threads_wait_briefly_unless_the_user_says_otherwise():
    code = "import os, sarlab; print(os.environ.get('GOMP_SPINCOUNT'))"
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    for settings, expected in (
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**plain, **settings},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected


def test_every_public_name_is_there_and_the_one_of_its_module():
    assert set(sarlab.__all__) == set(sarlab._MODULE_OF) <= set(dir(sarlab))
    for name in sarlab.__all__:
        value = getattr(sarlab, name)
        home = getattr(value, "__module__", None)  # a table has none, and a module is its own
        assert home in (None, f"sarlab.{sarlab._MODULE_OF[name]}") or home.startswith(
            f"sarlab.{sarlab._MODULE_OF[name]}."
        ), name
    with pytest.raises(AttributeError, match="no attribute 'train_everything'"):
        _ = sarlab.train_everything


# --- safety -------------------------------------------------------------------------------------


def dangers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of what the library must never do."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}:
                yield node.lineno, f"{called}()"
            if called.endswith("read_pickle"):
                yield node.lineno, called
            told = {k.arg: k.value for k in node.keywords}
            for option in ("shell", "trust_remote_code", "allow_pickle"):
                if option in told and ast.unparse(told[option]) != "False":
                    yield node.lineno, f"{option}={ast.unparse(told[option])}"
            if called == "torch.load" and ast.unparse(told.get("weights_only", node)) != "True":
                yield node.lineno, "torch.load without weights_only=True"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names]
            roots = {n.split(".")[0] for n in [getattr(node, "module", None) or "", *names]}
            for module in roots & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}:
                yield node.lineno, f"import {module}"
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno, "bare except"


def test_the_library_runs_no_text_as_code_and_swallows_no_error():
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {what}"
        for path in sources()
        for line, what in dangers(ast.parse(path.read_text("utf-8")))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "code",
    [
        "eval('1')",
        "exec(text)",
        "import pickle",
        "from pickle import loads",
        "subprocess.run(line, shell=True)",
        "load(name, trust_remote_code=True)",
        "load(name, trust_remote_code=flag)",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "try:\n    f()\nexcept:\n    pass",
    ],
)
def test_the_check_for_dangers_fires(code):
    assert list(dangers(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "model.eval()",
        "re.compile('a')",
        "load(name, trust_remote_code=False)",
        "torch.load(path, weights_only=True)",
        "try:\n    f()\nexcept ValueError:\n    raise",
    ],
)
def test_the_check_for_dangers_lets_harmless_code_pass(code):
    assert not list(dangers(ast.parse(code)))


def test_no_committed_file_names_a_machine_path_or_a_registry_host():
    pattern = re.compile(
        rb"(?<![\w.])/(?:work|root)/"
        rb"|pypi\.org|pythonhosted\.org|registry\.npmjs\.org|conda\.anaconda\.org"
        rb"|deb\.debian\.org|download\.pytorch\.org"
    )
    wrong = [
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in committed_files()
        if (match := pattern.search(path.read_bytes()))
    ]
    assert not wrong, "\n".join(wrong)


# --- notebooks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
class TestNotebooks:
    def test_defines_nothing(self, path):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            if cell["cell_type"] != "code":
                continue
            lines = "".join(cell["source"]).splitlines()
            code = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in lines)
            for node in ast.walk(ast.parse(code)):
                kind = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
                assert not isinstance(node, kind), f"{node.name} belongs into the library"

    def test_has_one_cell_of_parameters(self, path):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
        assert len(tagged) == 1

    def test_is_committed_small_and_without_widget_state(self, path):
        assert path.stat().st_size < 500_000
        assert "widgets" not in json.loads(path.read_text("utf-8"))["metadata"]


# --- dependencies -------------------------------------------------------------------------------

LOCKS = (
    "requirements-build.lock",
    "requirements.lock",
    "requirements-dev.lock",
    "requirements-model.lock",
)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_an_exact_version_and_hashes(lock):
    text = (ROOT / lock).read_text("utf-8").replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert entries
    for entry in entries:
        assert re.match(r"[\w.-]+==[^\s;]+ ", entry), entry[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:80]


@pytest.mark.parametrize("lock", LOCKS)
def test_torch_and_its_cuda_packages_stand_outside_the_locks(lock):
    apart = re.compile(r"(torch|triton|pytorch-triton.*|nvidia-.*|cuda-.*)")
    assert not [name for name in pins(lock) if apart.fullmatch(name)]


@pytest.mark.parametrize("lock", ["requirements-build.lock", "requirements.lock"])
def test_the_locks_agree_with_each_other(lock):
    large = pins("requirements-dev.lock")
    differing = {n: (v, large.get(n)) for n, v in pins(lock).items() if v != large.get(n)}
    assert not differing


@pytest.mark.parametrize(
    ("extras", "lock"),
    [
        ((), "requirements.lock"),
        (("lab",), "requirements.lock"),
        (("dev",), "requirements-dev.lock"),
    ],
)
def test_the_locks_hold_what_pyproject_asks_for(extras, lock):
    table = project()["project"]
    asked = [
        *table["dependencies"],
        *(r for e in extras for r in table["optional-dependencies"][e]),
    ]
    locked = pins(lock)
    here = {**default_environment(), "sys_platform": "linux"}
    for requirement in map(Requirement, asked):
        name = canonicalize_name(requirement.name)
        if name in {"torch", "sarlab"} or not (
            requirement.marker is None or requirement.marker.evaluate(here)
        ):
            continue
        assert requirement.specifier.contains(locked[name]), f"{requirement}, locked {locked[name]}"


def test_torch_is_the_same_version_wherever_it_is_named():
    uv = project()["tool"]["uv"]
    told = {r for r in uv["constraint-dependencies"] if Requirement(r).name == "torch"}
    told |= {f"torch=={d['version']}" for d in uv["dependency-metadata"] if d["name"] == "torch"}
    told |= set(re.findall(r"torch==[\d.]+\d", (ROOT / "Makefile").read_text("utf-8")))
    assert len(told) == 1, told


def test_what_ci_runs_can_be_run():
    for script in (".ci/run", "scripts/setup_chromium.sh"):
        assert (ROOT / script).stat().st_mode & 0o111, f"{script} is not executable"
        subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_the_makefile_names_no_file_that_is_not_there():
    named = set(
        re.findall(r"(?:scripts|notebooks|benchmarks)/\w+\.\w+", (ROOT / "Makefile").read_text())
    )
    missing = sorted(name for name in named if not (ROOT / name).is_file())
    assert not missing, f"the Makefile calls {missing}"


def test_every_test_that_the_documentation_names_is_there():
    """docs/RELIABILITY.md promises tests that can be run by name."""
    text = (ROOT / "docs" / "RELIABILITY.md").read_text("utf-8")
    named = set(re.findall(r"`(tests/\w+\.py)::(\w+)`", text))
    assert len(named) > 30
    missing = [
        f"{file}::{name}"
        for file, name in sorted(named)
        if not (ROOT / file).exists()
        or name not in re.findall(r"^def (test_\w+)\(", (ROOT / file).read_text("utf-8"), re.M)
    ]
    assert not missing, missing


def test_the_citation_names_this_version_and_licence():
    cited = dict(
        re.findall(r"^([a-z]+): (\S.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    )
    built = project()["project"]
    assert (cited["title"], cited["version"]) == (built["name"], built["version"])
    assert cited["license"] == built["license"]
