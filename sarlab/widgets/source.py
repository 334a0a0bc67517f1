"""Which model and which question; and a fold to add more of both."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from traitlets import dlink

from sarlab.display.text import one_line, plain
from sarlab.runs.folder import find_runs
from sarlab.tasks import load_task
from sarlab.widgets.candidates import Draft, pasted_answers, read_answers
from sarlab.widgets.live import attempt, button, fill, row, show, status
from sarlab.widgets.state import Bench

_TASK_QUESTIONS = 20
_GROWS = {"flex": "1 1 300px", "min_width": "0"}
_WIDE = {"width": "100%"}


class SourcePanel(widgets.VBox):
    """Model, question and right answer; folded: typed, pasted and loaded questions and answers."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.model = model_box(bench, "Model", bench.policy.reference, "280px")
        self.picker = widgets.Dropdown(description="Question", layout=_GROWS)
        self.right = widgets.Text(
            description="Right answer",
            continuous_update=False,
            tooltip="Answers to this question are judged by it",
            layout={"width": "220px"},
        )
        self.shown, self.message = widgets.HTML(layout=_GROWS), status()
        self.fold = widgets.ToggleButton(
            description="Add a question, answers, a file or a task",
            icon="chevron-right",
            layout={"width": "auto", "align_self": "flex-start"},
        ).add_class("sarlab-fold-button")
        folded = self._folded().add_class("sarlab-fold-box")
        bench.job.layout.flex = "1 1 300px"
        # Progress beside the button: a line of its own would push the table down.
        parts = [
            row(self.model, self.picker),
            row(self.shown, self.right),
            row(self.fold, bench.job),
            folded,
            self.message,
        ]
        super().__init__(parts, layout={"overflow": "hidden"})
        self.add_class("sarlab-source")
        icon = {False: "chevron-right", True: "chevron-down"}
        dlink((self.fold, "value"), (self.fold, "icon"), icon.get)
        dlink((self.fold, "value"), (folded.layout, "display"), {False: "none", True: "flex"}.get)
        self.model.observe(self._load_model, "value")
        self.picker.observe(self._pick, "value")
        self.right.observe(lambda c: setattr(bench, "gold", c["new"].strip()), "value")
        bench.observe(self._draw, ["questions", "question", "gold"])
        bench.observe(self._name_model, "policy")
        self._draw()

    def _folded(self) -> widgets.VBox:
        self.typed = widgets.Textarea(description="New question", layout=_WIDE, rows=2)
        self.gold = widgets.Text(description="Its answer", placeholder="optional")
        hint = "to the open question; a line of --- between two of them"
        self.pasted = widgets.Textarea(
            description="Answers", placeholder=hint, layout=_WIDE, rows=3
        )
        self.upload = widgets.FileUpload(
            accept=".csv,.json,.jsonl,.parquet",
            description="Load a file",
            tooltip="Fields: question, answer; optional gold, label",
            layout={"width": "auto"},
        )
        self.upload.observe(lambda _: self._try(self._load_file), "value")
        self.task = widgets.Text(description="Task", placeholder="such as word_problems")
        self.open_button, self.add_button, self.task_button = (
            button(text, icon, partial(self._try, action))
            for text, icon, action in (
                ("Open question", "check", self._open_typed),
                ("Add answers", "plus", self._add_pasted),
                (f"Load {_TASK_QUESTIONS} questions", "download", self._load_task),
            )
        )
        loaders = row(self.add_button, self.upload, self.task, self.task_button)
        typed = [self.typed, row(self.gold, self.open_button), self.pasted, loaders]
        return widgets.VBox(typed)

    def _draw(self, _: Any = None) -> None:
        bench = self.bench
        options = [(f"{i}. {one_line(q)}", q) for i, q in enumerate(bench.questions, start=1)]
        fill(self.picker, options, bench.question, self._pick)
        if not bench.question:
            self.picker.value = None  # so that the first one can be chosen
        style = "line-height: 1.5; white-space: pre-wrap"
        self.shown.value = f'<div style="{style}">{plain(bench.question)}</div>'
        self.right.value = bench.gold

    def _pick(self, change: Any) -> None:
        if change["new"] and change["new"] != self.bench.question:
            self._try(lambda: self.bench.open_question(change["new"]))

    def _load_model(self, change: Any) -> None:
        reference = change["new"].strip()
        if reference not in ("", self.bench.policy.reference):
            use = partial(setattr, self.bench, "policy")
            if not self._try(lambda: self.bench.load(reference, use, then=self._name_model)):
                self._name_model()

    def _name_model(self, _: Any = None) -> None:
        self.model.value = self.bench.policy.reference

    def _open_typed(self) -> None:
        question = self.typed.value.strip()
        if not question:
            raise ValueError("The question is empty. Type one.")
        self.bench.open_question(question, gold=self.gold.value.strip())
        self.typed.value = self.gold.value = ""

    def _add_pasted(self) -> None:
        question, texts = self.bench.question, pasted_answers(self.pasted.value)
        if not texts:
            raise ValueError("There is no answer in the box. Paste one.")
        if not question:
            raise ValueError("There is no question yet. Type it first, and open it.")
        drafts = [Draft(question, text, label="pasted") for text in texts]
        self.message.value, self.pasted.value = plain(self.bench.add(drafts)), ""

    def _load_file(self) -> None:
        for file in self.upload.value:
            name = Path(file["name"]).name
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / name
                path.write_bytes(bytes(file["content"]))
                try:
                    drafts = read_answers(path)
                except ValueError as error:  # the reader knows the file by its own name
                    raise ValueError(str(error).replace(f"{folder}/", "")) from error
            self.message.value = plain(f"{name}: {self.bench.add(drafts)}")
            questions = [draft.question for draft in drafts]
            if self.bench.question not in questions:
                self.bench.open_question(questions[0])

    def _load_task(self) -> None:
        task = load_task(self.task.value.strip())
        questions = task.heldout(_TASK_QUESTIONS)
        self.bench.list_questions({q.text: q.gold for q in questions})
        self.message.value = plain(
            f"{len(questions)} questions of {task.name} are in the list. Choose one, and draw "
            "answers to it under Sample."
        )

    def _try(self, action: Callable[[], Any]) -> bool:
        if not self.bench.job.busy:
            show(self.bench.job, False)  # what the work before ended with
        return attempt(self.message, action)


def model_box(bench: Bench, description: str, value: str, width: str) -> widgets.Combobox:
    """A box for a model reference: those at hand are offered, any other can be typed."""
    at_hand = [bench.policy.reference, "tiny", "smollm2-135m", *map(str, find_runs(bench.runs))]
    return widgets.Combobox(
        value=value,
        options=list(dict.fromkeys(at_hand)),
        description=description,
        continuous_update=False,
        tooltip="tiny, smollm2-135m, a hub id, a folder, a .gguf file, or a run folder",
        layout={"flex": f"0 1 {width}", "width": width},
    )
