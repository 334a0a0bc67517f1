// Draws one scored answer: tokens by step, a card with a token's numbers, and a span to select. It
// computes nothing: every number arrives as text, made by sarlab.display.token_view. Text of the
// model enters the page through textContent only. drawTokens needs a page and nothing else; render
// is the same inside a notebook (anywidget), with a box to edit the answer.

const LINES = ["sarlab-token", "sarlab-token sarlab-solid", "sarlab-token sarlab-dotted"];
const LAZY_ABOVE = 400; // tokens; longer answers are folded by step and drawn when opened
const OPEN_STEPS = 3;
const PAUSE_MS = 90; // after the last key, before the draft goes to the kernel
const FOLD_HINT = " The answer is folded by step: Enter opens a step, arrow keys walk through the steps.";
const FIND_HINT = "A part of the text, spaces included. Enter goes to the next match, Shift+Enter to the one before, Escape ends the search.";
const HINT = "Point at a token, or walk through them with Tab and the arrow keys. Drag over tokens to select a span; S selects the step.";

function node(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// The scale that all answers share: { cells: [[number, tint, line]], text }.
export function drawLegend(element, legend) {
  element.replaceChildren();
  for (const [label, tint, line] of legend?.cells || []) {
    const cell = node("span", LINES[line], label);
    cell.style.backgroundColor = tint;
    element.append(cell);
  }
  element.append(node("span", "sarlab-label", " " + (legend?.text || "")));
}

// Draw payload (token_view.payload as JSON, or {} for nothing) into element. Options: compact (card
// only while a token is pointed at, no legend), legend (token_view.legend), onSelect(start, stop).
// Returns { update(payload), compact(flag), legend(legend), mark(start, stop), tools, below, destroy }:
// tools is the row with the search field, below an empty element under it for whatever belongs there.
export function drawTokens(element, payload, options = {}) {
  const root = node("div", "sarlab-tokens");
  const numbers = node("div", "sarlab-numbers");
  const warning = node("div", "sarlab-warning");
  const body = node("div", "sarlab-body");
  const left = node("div", "sarlab-left");
  const head = node("div", "sarlab-head");
  const steps = node("div", "sarlab-steps");
  steps.setAttribute("role", "group");
  steps.setAttribute("aria-label", "Tokens of the answer. Arrow keys move, Shift selects, S selects the step, Escape clears.");
  const cue = node("div", "sarlab-cue sarlab-label"); // what does not fit, for whoever sees no scroll bar
  const below = node("div", "sarlab-below");
  const card = node("div", "sarlab-card");
  card.setAttribute("aria-live", "polite");
  const legend = node("div", "sarlab-legend");
  const tools = node("div", "sarlab-tools");
  const finder = node("label", "", "Find ");
  const find = node("input");
  const foundCount = node("span", "sarlab-label");
  find.type = "search";
  find.title = FIND_HINT;
  foundCount.setAttribute("role", "status");
  finder.append(find);
  tools.append(finder, foundCount);
  left.append(head, steps, cue, tools, below, legend);
  body.append(left, card);
  root.append(numbers, warning, body);
  element.append(root);

  const spans = new Map(); // token index -> element, only those drawn
  const opened = new Map(); // step index -> folded or not, as the reader left it
  let focus = -1, anchor = -1, dragging = false, brush = null;
  let matches = [], match = -1; // ranges of tokens that hold what is looked for, and the one shown

  let compact = Boolean(options.compact), marked = [-1, -1];
  const view = () => payload;
  const quantity = () => view().quantity; // of the steps' sums
  const count = () => (view().runs || []).length;
  const select = (start, stop) => {
    marked = stop > start ? [start, stop] : [-1, -1];
    paintSelection();
    options.onSelect?.(start, stop);
  };

  function fillToken(made, i) {
    const v = view();
    made.replaceChildren();
    v.runs[i].forEach((run, k) => {
      if (run) made.append(k % 2 ? node("span", "sarlab-mark", run) : document.createTextNode(run));
    });
    made.className = LINES[v.lines[i]];
    made.style.backgroundColor = v.tints[i];
  }

  function makeToken(i) {
    const made = node("span");
    fillToken(made, i);
    made.dataset.index = i;
    made.tabIndex = i === Math.max(0, focus) ? 0 : -1;
    made.setAttribute("role", "button");
    const [title, facts, notes] = view().cards[i];
    const [name, withQuestion, without] = facts[0];
    made.setAttribute("aria-label", `${title}. ${notes[0]}. ${name} with the question ${withQuestion}, without ${without}`);
    spans.set(i, made);
    return made;
  }

  function fillStep(line, start, stop) {
    if (line.dataset.drawn) return;
    line.dataset.drawn = "1";
    const isolate = node("bdi");
    for (let i = start; i < stop; i++) isolate.append(makeToken(i), document.createElement("wbr"));
    line.append(isolate);
  }

  function makeStep(step, k, folded) {
    const [start, stop, total, share, opening] = step;
    const line = node("div", "sarlab-line");
    if (!folded) {
      const row = node("div", "sarlab-step");
      const sum = node("button", "sarlab-sum", total);
      sum.title = `step ${k + 1}: ${quantity()} = ${total}; of the whole sum: ${share}. Click selects it.`;
      sum.tabIndex = -1; // S on one of its tokens does the same: one stop for the whole answer
      sum.addEventListener("click", () => select(start, stop));
      row.append(sum, line);
      fillStep(line, start, stop);
      return row;
    }
    const fold = node("details", "sarlab-fold");
    const summary = node("summary");
    summary.append(
      node("span", "sarlab-label", `step ${k + 1}: ${quantity()} `), node("b", "", total),
      node("span", "sarlab-label", `; of all: ${share} · ${stop - start} tokens · ${opening}`),
    );
    fold.append(summary, line);
    fold.addEventListener("toggle", () => {
      opened.set(k, fold.open);
      if (fold.open) { fillStep(line, start, stop); paintSelection(); }
    });
    summary.tabIndex = k ? -1 : 0; // one stop for all folds, arrow keys inside
    summary.addEventListener("keydown", (event) => {
      const to = {
        ArrowDown: fold.nextElementSibling, ArrowUp: fold.previousElementSibling,
        Home: steps.firstElementChild, End: steps.lastElementChild,
      }[event.key];
      if (to) {
        summary.tabIndex = -1;
        to.firstElementChild.tabIndex = 0;
        to.firstElementChild.focus();
      } else if (event.key === "ArrowRight") moveTo(start);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    fold.open = opened.get(k) ?? k < OPEN_STEPS;
    if (fold.open) fillStep(line, start, stop);
    return fold;
  }

  function draw() {
    const v = view();
    const hadFocus = steps.contains(document.activeElement);
    spans.clear();
    numbers.replaceChildren();
    steps.replaceChildren();
    card.replaceChildren();
    root.classList.toggle("sarlab-compact", compact);
    root.classList.toggle("sarlab-empty", !v.runs);
    root.dataset.seq = v.seq ?? 0;
    warning.textContent = v.warning || "";
    if (!v.runs) return;
    for (const [label, value] of v.numbers) {
      const pair = node("span", "sarlab-number");
      pair.append(node("span", "sarlab-label", label + " "), node("b", "", value));
      pair.dataset.name = label;
      numbers.append(pair);
    }
    if (focus >= v.runs.length) focus = -1;
    const folded = v.runs.length > LAZY_ABOVE;
    head.hidden = folded; // a fold says what its number is
    head.replaceChildren(node("span", "", quantity().split(",")[0]), node("span", "", "tokens, by step"));
    head.title = `Left ${quantity()}: the sum over the tokens of a step`;
    steps.append(...v.steps.map((step, k) => makeStep(step, k, folded)));
    if (hadFocus && spans.has(focus)) spans.get(focus).focus();
    showCard(focus);
    search();
    showCue();
  }

  // Look through the text as it is shown (a space is ␣), case aside; a match may span tokens.
  function search() {
    const wanted = find.value.toLowerCase().replaceAll(" ", "␣");
    const pieces = (view().runs || []).map((runs) => runs.join("").toLowerCase());
    const text = pieces.join(""), ends = [];
    for (const piece of pieces) ends.push((ends.at(-1) || 0) + piece.length);
    const tokenAt = (place) => ends.findIndex((end) => end > place);
    matches = [];
    match = -1;
    for (let at = text.indexOf(wanted); wanted && at >= 0; at = text.indexOf(wanted, at + wanted.length)) {
      matches.push([tokenAt(at), tokenAt(at + wanted.length - 1) + 1]);
    }
    foundCount.textContent = wanted ? `${matches.length || "no"} match${matches.length === 1 ? "" : "es"}` : "";
    paintSelection();
  }
  find.addEventListener("input", search);
  find.addEventListener("keydown", (event) => {
    event.stopPropagation(); // or a notebook would take the keys for its own
    if (event.key === "Escape") { find.value = ""; search(); }
    if (event.key !== "Enter" || !matches.length) return;
    match = (match + (event.shiftKey ? -1 : 1) + matches.length + (match < 0 && event.shiftKey)) % matches.length;
    foundCount.textContent = `match ${match + 1} of ${matches.length}`;
    elementOf(matches[match][0]).scrollIntoView({ block: "nearest" });
    showCard(matches[match][0]);
    paintSelection();
  });

  function showCue() {
    const end = steps.scrollTop + steps.clientHeight;
    const hidden = [...steps.children].filter((step) => step.offsetTop - steps.offsetTop + step.offsetHeight > end + 4).length;
    steps.classList.toggle("sarlab-more", hidden > 0);
    cue.textContent = hidden ? `▾ scroll for ${hidden} more step${hidden > 1 ? "s" : ""}` : "";
  }
  steps.addEventListener("scroll", showCue);
  const sized = new ResizeObserver(showCue);
  sized.observe(steps);

  function showCard(i) {
    card.replaceChildren();
    const data = i >= 0 && view().cards ? view().cards[i] : null;
    if (!data) {
      if (!compact) card.append(node("div", "sarlab-label", HINT + (count() > LAZY_ABOVE ? FOLD_HINT : "")));
      return;
    }
    const [title, facts, notes, withQuestion, without] = data;
    card.append(node("div", "sarlab-title", title));
    const table = node("table");
    const head = node("tr");
    head.append(node("th", "", ""), node("th", "", "with question"), node("th", "", "without"));
    table.append(head);
    for (const fact of facts) {
      const row = node("tr");
      fact.forEach((cell, k) => row.append(node(k ? "td" : "th", "", cell)));
      table.append(row);
    }
    for (let k = 0; k < withQuestion.length; k++) {
      const row = node("tr", k ? "sarlab-top" : "sarlab-top sarlab-first");
      row.append(node("th", "", `likeliest ${k + 1}`));
      for (const [name, logp] of [withQuestion[k], without[k]]) {
        const cell = node("td");
        cell.append(node("code", "", name), node("span", "sarlab-label", " " + logp));
        row.append(cell);
      }
      table.append(row);
    }
    card.append(table);
    for (const note of notes) card.append(node("div", "sarlab-note", note));
  }

  function paintSelection() {
    const [start, stop] = brush || marked;
    const shown = new Set(matches.flatMap(([a, b]) => Array.from({ length: b - a }, (_, k) => a + k)));
    const [first, last] = matches[match] || [-1, -1];
    for (const [i, made] of spans) {
      made.classList.toggle("sarlab-selected", i >= start && i < stop);
      made.classList.toggle("sarlab-match", shown.has(i));
      made.classList.toggle("sarlab-match-now", i >= first && i < last);
    }
  }

  function elementOf(i) { // a token's element; a folded step is opened for it
    if (!spans.has(i)) {
      const k = view().steps.findIndex(([a, b]) => i >= a && i < b);
      steps.children[k].open = true;
      fillStep(steps.children[k].querySelector(".sarlab-line"), ...view().steps[k].slice(0, 2));
    }
    return spans.get(i);
  }

  function moveTo(i) {
    const target = Math.min(count() - 1, Math.max(0, i));
    elementOf(target);
    if (spans.has(focus)) spans.get(focus).tabIndex = -1;
    focus = target;
    spans.get(focus).tabIndex = 0;
    spans.get(focus).focus();
    showCard(focus);
  }

  const indexOf = (event) => {
    const found = event.target.closest?.(".sarlab-token");
    return found && found.dataset.index !== undefined ? Number(found.dataset.index) : -1;
  };
  const ends = (i) => [Math.min(anchor, i), Math.max(anchor, i) + 1];

  steps.addEventListener("pointerover", (event) => {
    const i = indexOf(event);
    if (i < 0) return;
    showCard(i);
    if (dragging) { brush = ends(i); paintSelection(); }
  });
  steps.addEventListener("pointerleave", () => showCard(focus));
  steps.addEventListener("pointerdown", (event) => {
    const i = indexOf(event);
    if (i < 0 || event.button) return;
    event.preventDefault(); // no selection of text while tokens are brushed
    if (!event.shiftKey || anchor < 0) anchor = i;
    dragging = true;
    moveTo(i);
    brush = ends(i);
    paintSelection();
  });
  const release = () => {
    if (!dragging) return;
    dragging = false;
    const [start, stop] = brush;
    brush = null;
    select(start, stop);
  };
  window.addEventListener("pointerup", release);
  steps.addEventListener("focusin", (event) => {
    const i = indexOf(event);
    if (i >= 0) { focus = i; showCard(i); }
  });
  steps.addEventListener("keydown", (event) => {
    const at = indexOf(event);
    if (at < 0) return;
    const k = view().steps.findIndex(([a, b]) => at >= a && at < b);
    const to = {
      ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: count() - 1,
      ArrowUp: k > 0 ? view().steps[k - 1][0] : at,
      ArrowDown: k + 1 < view().steps.length ? view().steps[k + 1][0] : at,
    }[event.key];
    if (to !== undefined) {
      if (event.shiftKey && anchor < 0) anchor = at;
      moveTo(to);
      if (event.shiftKey) select(...ends(focus)); else anchor = -1;
    } else if (event.key === "Enter" || event.key === " ") {
      anchor = at;
      select(at, at + 1);
    } else if (event.key === "s" || event.key === "S") {
      anchor = at;
      select(...view().steps[k].slice(0, 2));
    } else if (event.key === "Escape") {
      anchor = -1;
      select(0, 0);
    } else return;
    event.preventDefault();
    event.stopPropagation(); // or a notebook would take the keys for its own
  });

  draw();
  drawLegend(legend, options.legend);
  return {
    tools,
    below,
    update(next) { payload = next; draw(); },
    compact(flag) { compact = Boolean(flag); draw(); },
    legend(next) { drawLegend(legend, next); },
    mark(start, stop) { marked = [start, stop]; paintSelection(); },
    destroy() { window.removeEventListener("pointerup", release); sized.disconnect(); root.remove(); },
  };
}

function render({ model, el }) {
  const drawn = drawTokens(el, model.get("view"), {
    compact: model.get("compact"),
    legend: model.get("legend"),
    onSelect(start, stop) {
      model.set("selection", stop > start ? [start, stop] : []);
      model.save_changes();
    },
  });
  const picker = node("label", "", "Colour by ");
  const picked = node("select");
  picked.setAttribute("aria-label", "Colour by"); // a label's text would include the choices
  picked.addEventListener("change", () => { model.set("colour", picked.value); model.save_changes(); });
  picker.append(picked);
  drawn.tools.prepend(picker);
  const span = node("div", "sarlab-span");
  const label = node("label", "sarlab-edit-label");
  const box = node("textarea", "sarlab-edit");
  const message = node("div", "sarlab-message");
  for (const spoken of [span, message]) spoken.setAttribute("role", "status");
  box.spellcheck = false;
  label.append(node("span", "sarlab-label", "Edit the answer; score and colours follow"), box);
  drawn.below.append(span, label, message);

  // One draft at a time is with the kernel, the newest text follows when it is back.
  let timer = 0, waiting = false, dirty = false, sent = model.get("acknowledged");
  function send() {
    if (waiting) { dirty = true; return; }
    waiting = true;
    dirty = false;
    sent += 1;
    model.set("draft", { text: box.value, seq: sent });
    model.save_changes();
  }
  function answered() {
    if (model.get("acknowledged") < sent) return;
    waiting = false;
    if (dirty) send();
  }
  box.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(send, PAUSE_MS);
  });
  box.addEventListener("keydown", (event) => event.stopPropagation());

  function showText() {
    if (box.value !== model.get("text")) box.value = model.get("text");
    label.hidden = !model.get("editable");
  }
  function showSpan() {
    span.replaceChildren();
    for (const [name, value, note] of model.get("span")) {
      const pair = node("div", "sarlab-pair");
      pair.append(node("span", "sarlab-label", name + " "), node("b", "", value));
      if (note) pair.append(node("span", "sarlab-label", " " + note));
      span.append(pair);
    }
  }
  function showColours() {
    const colours = model.get("colours");
    picker.hidden = !colours.length;
    picked.replaceChildren(...colours.map(([name, why]) => {
      const option = node("option", "", name);
      option.disabled = Boolean(why);
      option.title = why;
      return option;
    }));
    picked.title = colours.filter(([, why]) => why).map((pair) => pair.join(": ")).join("\n");
    picked.value = model.get("view").colour;
  }
  function showSelection() {
    const [start, stop] = model.get("selection");
    drawn.mark(start ?? -1, stop ?? -1);
  }
  const bindings = [
    ["view", () => { drawn.update(model.get("view")); showColours(); }], ["colours", showColours],
    ["compact", () => drawn.compact(model.get("compact"))],
    ["legend", () => drawn.legend(model.get("legend"))],
    ["selection", showSelection], ["span", showSpan], ["text", showText], ["editable", showText],
    ["message", () => { message.textContent = model.get("message"); }],
    ["acknowledged", answered],
  ];
  for (const [name, handler] of bindings) model.on("change:" + name, handler);
  showSelection(); showSpan(); showText(); showColours();
  message.textContent = model.get("message");
  return () => {
    drawn.destroy();
    for (const [name, handler] of bindings) model.off("change:" + name, handler);
  };
}

export default { render };
