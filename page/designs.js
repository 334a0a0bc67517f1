// The group under every reward of the table: numbers and advantages per design, and bars of a few.

import { FAMILIES, REWARDS, advantagesOf, rewardsOf, valueOf } from "./sar.js";
import { node, shortened, signed } from "./view.js";

const WAIT_MS = 250; // after the last change: typing comes first
const AT_FIRST = ["correct", "sar", "length_only", "o1_pruner", "confidence", "verifree"]; // stand as bars
const SEEN = 5e-4; // smaller advantages print as 0.000 and get no bar

const $ = (id) => document.getElementById(id);

/**
 * @param words {design: {about, formula}}, the library's own
 * @param group () => answers {name, slot, text, score, correct}; @param situation () => {question, gold, policy}
 */
export function startDesigns({ words, group, situation, call }) {
  const chosen = new Set(AT_FIRST), extras = new WeakMap(); // score → what some designs need besides
  let timer = 0, turns = 0;

  function records() {
    const { gold } = situation();
    return group().map((a) => {
      const { lines, golds } = extras.get(a.score) || {};
      return { ...a.score, ...lines, name: a.name, text: a.text, correct: a.correct, length: a.score.ids.length, key: valueOf(a.text), gold: golds?.get(gold) };
    });
  }

  /** Why a design has no numbers yet; "" where it has. */
  function lacks({ needs }, answers) {
    if (needs === "lines") return answers.every((a) => a.lines) ? "" : "press the button above";
    if (needs !== "gold") return "";
    if (!situation().gold) return "needs the right value";
    return answers.find((a) => a.gold?.error)?.gold.error ?? (answers.every((a) => a.gold) ? "" : "…");
  }

  /** Compute what the group still lacks: the right value's log-probs, and the lines where they are wanted. */
  async function complete({ lines = false } = {}) {
    const { question, policy, gold } = situation(), turn = ++turns;
    for (const { score, slot } of group()) {
      if (!extras.has(score)) extras.set(score, { golds: new Map() });
      const extra = extras.get(score), argument = { question, policy, ids: score.ids, slot };
      if (gold && !extra.golds.has(gold)) {
        extra.golds.set(gold, await call("gold", { ...argument, gold }).catch((error) => ({ error: error.message })));
      }
      if (lines && !extra.lines) extra.lines = await call("lines", argument);
      if (turn !== turns) return false; // the group has changed meanwhile
    }
    show();
    return true;
  }

  async function completeWithLines() {
    while (!await complete({ lines: true }));
  }

  const settings = () => ({ alpha: Number($("alpha").value), budget: Math.max(1, Math.trunc(Number($("budget").value)) || 128) });

  function show() {
    const answers = records(), { alpha, budget } = settings(), focused = document.activeElement?.dataset?.design;
    const advantages = document.querySelector("input[name=measure]:checked").value === "advantage";
    $("alpha-value").textContent = alpha.toFixed(2);
    $("bars").replaceChildren();
    $("group").replaceChildren();
    if (!answers.length) return;
    const numbers = Object.fromEntries(Object.entries(REWARDS).map(([name, design]) => {
      const missing = lacks(design, answers), rewards = missing ? [] : rewardsOf(name, answers, alpha, budget);
      const pushed = missing ? [] : advantagesOf(rewards);
      return [name, { missing, pushed, shown: advantages ? pushed : rewards }];
    }));
    drawBars(answers, numbers);
    drawTable(answers, numbers);
    if (focused) $("group").querySelector(`[data-design=${focused}]`).focus();
    $("group-note").textContent = [
      situation().gold ? "" : "No right value is given, so every answer counts as wrong.",
      answers.length < 4 ? "Press “Write four answers” for a larger group." : "",
      "A line under a number is its advantage: blue to the right is what training pushes up, orange to the left what it pushes down, each design on its own scale.",
    ].filter(Boolean).join(" ");
  }

  function drawBars(answers, numbers) {
    for (const name of Object.keys(REWARDS).filter((n) => chosen.has(n))) {
      const { missing, shown } = numbers[name];
      const figure = node("figure", {}, node("figcaption", {}, node("code", { text: name }), ` ${words[name].formula}`));
      if (missing) figure.append(node("p", { className: "note", text: missing }));
      const low = Math.min(0, ...shown), span = Math.max(SEEN, ...shown, Math.max(0, ...shown) - low), place = (v) => (100 * (v - low)) / span;
      shown.forEach((v, i) => {
        const bar = node("i", { className: v < 0 ? "down" : "" }), zero = node("u");
        bar.style.left = `${place(Math.min(0, v))}%`;
        bar.style.width = `${(100 * Math.abs(v)) / span}%`;
        zero.style.left = `${place(0)}%`;
        figure.append(node("div", { className: "bar" }, node("span", { text: answers[i].name }),
          node("span", { className: "track", "aria-hidden": "true" }, bar, zero), node("b", { text: signed(v) })));
      });
      $("bars").append(figure);
    }
  }

  function drawTable(answers, numbers) {
    const { gold } = situation(), heads = [
      ["answer", (a) => a.name], ["right", (a) => (gold ? (a.correct ? "✓" : "✗") : "?")], ["tokens", (a) => String(a.length)],
    ];
    $("group").append(node("thead", {}, ...heads.map(([text, of], k) => node("tr", {}, node("th", { text, scope: "row" }), node("td", { className: "about" }),
      ...answers.map((a) => node(k ? "td" : "th", { text: of(a), ...(k ? {} : { scope: "col", title: shortened(a.text, 120) }) }))))));
    for (const [family, title] of Object.entries(FAMILIES)) {
      const names = Object.keys(REWARDS).filter((name) => REWARDS[name].family === family);
      $("group").append(node("tbody", {},
        node("tr", {}, node("th", { text: title, scope: "rowgroup", className: "family", colspan: 2 + answers.length })),
        ...names.map((name) => node("tr", { "data-row": name }, ...cells(name, answers, numbers[name])))));
    }
  }

  function cells(name, answers, { missing, pushed, shown }) {
    const box = node("input", { type: "checkbox", "data-design": name, "aria-label": `${name} as bars` });
    box.checked = chosen.has(name);
    box.addEventListener("change", () => { if (box.checked) chosen.add(name); else chosen.delete(name); show(); });
    const head = node("th", { scope: "row" }, node("label", { className: "design", title: words[name].formula }, box, node("code", { text: name })));
    const about = node("td", { className: "about", text: words[name].about + (REWARDS[name].alone ? "; replaces correctness" : "") });
    if (missing) return [head, about, node("td", { className: "missing", text: missing, colspan: answers.length })];
    const most = Math.max(...pushed.map(Math.abs));
    return [head, about, ...shown.map((v, i) => {
      const bar = node("i", { className: pushed[i] < 0 ? "down" : "" }), width = most < SEEN ? 0 : (50 * Math.abs(pushed[i])) / most;
      bar.style.left = `${pushed[i] < 0 ? 50 - width : 50}%`;
      bar.style.width = `${width}%`;
      return node("td", { text: signed(v) }, node("span", { className: "push", "aria-hidden": "true" }, bar));
    })];
  }

  $("lines").addEventListener("click", async () => {
    $("lines").disabled = true;
    await completeWithLines();
    $("lines").disabled = false;
  });
  for (const id of ["alpha", "budget"]) $(id).addEventListener("input", show);
  for (const radio of document.querySelectorAll("input[name=measure]")) radio.addEventListener("change", show);
  return {
    /** Show the group once nothing has changed for a moment. */
    later: () => { clearTimeout(timer); turns++; timer = setTimeout(complete, WAIT_MS); },
    /** The group with everything that any design needs, and what each design pays it. */
    all: async () => {
      await completeWithLines();
      const answers = records(), { alpha, budget } = settings(), { question, gold, policy } = situation();
      return {
        question, gold, policy, alpha, budget, answers: answers.map(({ ids, text, correct }) => ({ ids, text, correct })),
        rewards: Object.fromEntries(Object.keys(REWARDS).map((name) => [name, rewardsOf(name, answers, alpha, budget)])),
      };
    },
  };
}
