// The page: controls, the two answers, the group, the recordings and the study.

import { REWARDS, advantagesOf, isRight, mean, rewardsOf, valueOf } from "./sar.js";
import { unpack } from "./engine.js";
import { startEngine } from "./client.js";
import { drawLegend } from "./tokens.js";
import { TokenPanel, node, number, payloadOf, shortened, signed, tint, useLegend } from "./view.js";
import { curvesChart, planeChart } from "./charts.js";
import { startDesigns } from "./designs.js";

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const packed = Object.fromEntries([...document.querySelectorAll("script[data-packed]")].map((s) => [s.dataset.packed, s.textContent]));
const call = startEngine(data, packed, $("worker").textContent);
const OWN = "own";
const state = { question: "", gold: "", policy: "tiny", sides: { a: null, b: null }, written: new Map() };

function fillSelect(select, options) {
  select.replaceChildren(...options.map(([value, text]) => node("option", { value, text })));
}

const policyName = (key) => data.policies.find((p) => p.key === key).name;

// --- the two answers ----------------------------------------------------------------------------

const panels = {};
for (const side of ["a", "b"]) {
  panels[side] = new TokenPanel($(`panel-${side}`), {
    box: $(`text-${side}`),
    onEdit: (text) => { $(`preset-${side}`).value = OWN; return scoreSide(side, text); },
    onSpan: async (score, start, stop) => {
      const ids = [...score.ids.slice(0, start), ...score.ids.slice(stop)];
      return (await call("score", { question: state.question, ids, policy: state.policy, slot: `${side} span` })).sar;
    },
  });
}

/** Score a text (or sampled ids with their text) as answer A or B, and show it. */
async function scoreSide(side, text, ids = null, fill = false) {
  const turn = (state.sides[side]?.turn || 0) + 1, { question, policy } = state;
  state.sides[side] = { ...state.sides[side], text, ids, turn };
  let score;
  try {
    score = await call("score", { question, answer: text, ids, policy, slot: side });
  } catch (error) {
    if (state.sides[side].turn === turn) {
      state.sides[side].score = null;
      showSides();
      if (fill) panels[side].complain(error.message);
    }
    throw error;
  }
  if (state.sides[side].turn !== turn) return; // a newer text is on its way
  state.sides[side].score = score;
  state.sides[side].scored = { text, question, policy };
  panels[side].show(score, fill ? text : undefined);
  showSides();
}

function showSides() {
  for (const side of ["a", "b"]) {
    const answer = state.sides[side], right = answer?.score ? isRight(answer.text, state.gold) : null;
    $(`verdict-${side}`).textContent = right === null ? "" : right ? "✓ right" : "✗ wrong";
    $(`verdict-${side}`).className = `verdict ${right ? "yes" : "no"}`;
  }
  const [a, b] = [state.sides.a?.score, state.sides.b?.score];
  $("difference").textContent = a && b
    ? `A against B: SAR ${signed(a.sar)} and ${signed(b.sar)}, difference ${signed(a.sar - b.sar)}; `
      + `V = ${signed(mean(a.values) * a.ids.length, 1)} nats over ${a.ids.length} tokens and `
      + `${signed(mean(b.values) * b.ids.length, 1)} over ${b.ids.length}.` : "";
  designs.later();
}

async function rescore(fill = false) {
  for (const side of ["a", "b"]) {
    const answer = state.sides[side];
    if (answer) await scoreSide(side, answer.text, answer.ids, fill).catch((error) => panels[side].complain(error.message));
  }
}

function usePreset(side, value) {
  const story = data.stories[Number($("story").value)];
  const preset = story && story.answers[Number(value)];
  if (!preset || value === OWN) return;
  $(`preset-${side}`).value = value;
  scoreSide(side, preset.text, null, true).catch(() => {});
}

function forgetWritten() {
  state.written.clear();
  showWritten();
}

function useStory(index) {
  const story = data.stories[index];
  for (const side of ["a", "b"]) {
    fillSelect($(`preset-${side}`), [...story.answers.map((a, i) => [i, a.label]), [OWN, "your own text"]]);
  }
  state.question = $("question").value = story.question;
  state.gold = $("gold").value = story.gold;
  forgetWritten();
  usePreset("a", "0");
  usePreset("b", "1");
}

let pause = 0;
$("question").addEventListener("input", () => {
  clearTimeout(pause);
  $("story").value = OWN;
  state.question = $("question").value;
  $("gold").value = state.gold = "";
  pause = setTimeout(() => { forgetWritten(); rescore(); }, 90);
});
$("gold").addEventListener("input", () => { state.gold = $("gold").value.trim(); showSides(); showWritten(); });
$("story").addEventListener("change", () => { if ($("story").value !== OWN) useStory(Number($("story").value)); });
$("policy").addEventListener("change", () => { state.policy = $("policy").value; rescore(); showWritten(); });
for (const side of ["a", "b"]) $(`preset-${side}`).addEventListener("change", (event) => usePreset(side, event.target.value));

// --- answers written by the policies ------------------------------------------------------------

async function write(keys) {
  const buttons = [$("write"), $("write-all")], question = state.question;
  const seed = Math.abs(Math.trunc(Number($("seed").value))) || 0;
  for (const button of buttons) button.disabled = true;
  try {
    for (const policy of keys) {
      $("writing").textContent = `${policyName(policy)} is writing …`;
      const answers = await call("write", { question, policy, seed, count: 4, limit: 256 });
      if (state.question !== question) break;
      state.written.set(policy, answers);
      showWritten();
    }
    $("writing").textContent = "";
    $("seed").value = String(seed + 1);
  } catch (error) {
    $("writing").textContent = error.message;
  }
  for (const button of buttons) button.disabled = false;
  designs.later();
}

function writtenRow(policy, answer, k) {
  const right = isRight(answer.text, state.gold);
  const head = node("div", { className: "side" },
    node("b", { text: `${k + 1}` }),
    node("span", { className: `verdict ${right ? "yes" : "no"}`, text: right === null ? "" : right ? "✓ right" : "✗ wrong" }));
  if (!answer.ended) head.append(node("span", { className: "note", text: "cut off at 256 tokens" }));
  for (const side of ["a", "b"]) {
    const button = node("button", { type: "button", className: "small", text: `as ${side.toUpperCase()}`, "aria-label": `Look at answer ${k + 1} of ${policyName(policy)} as ${side.toUpperCase()}` });
    button.addEventListener("click", () => {
      $("policy").value = state.policy = policy;
      $(`preset-${side}`).value = OWN;
      scoreSide(side, answer.text, answer.ids, true).then(() => rescore());
      $("live").scrollIntoView();
    });
    head.append(button);
  }
  const row = node("div", { className: "written" }, head), place = node("div");
  row.append(place);
  new TokenPanel(place, { compact: true }).show(answer.score);
  return row;
}

function showWritten() {
  const place = $("written"), opened = new Set([...place.querySelectorAll("details[open]")].map((d) => d.dataset.policy));
  place.replaceChildren();
  for (const { key, name } of data.policies) {
    const answers = state.written.get(key);
    if (!answers) continue;
    const right = answers.map((a) => isRight(a.text, state.gold));
    const facts = [
      right.includes(null) ? "" : `${right.filter(Boolean).length} of ${answers.length} right`,
      `${number(mean(answers.map((a) => a.ids.length)), 1)} tokens`,
      `SAR ${signed(mean(answers.map((a) => a.score.sar)), 2)}`,
    ].filter(Boolean).join(" · ");
    const fold = node("details", { "data-policy": key }, node("summary", {}, node("b", { text: name }), node("span", { className: "note", text: ` ${facts}` })));
    const fill = () => { if (fold.open && fold.children.length === 1) fold.append(...answers.map((a, k) => writtenRow(key, a, k))); };
    fold.addEventListener("toggle", fill);
    fold.open = opened.has(key) || key === state.policy || state.written.size === 1;
    fill();
    place.append(fold);
  }
}

$("write").addEventListener("click", () => write([state.policy]));
$("write-all").addEventListener("click", () => write(data.policies.map((p) => p.key)));

// --- reward designs -----------------------------------------------------------------------------

/** A, B and what the chosen policy wrote, as far as they are scored by it. */
function group() {
  const sides = ["a", "b"].map((side) => ({ name: side.toUpperCase(), slot: side, score: state.sides[side]?.score, ...state.sides[side]?.scored }))
    .filter((a) => a.score && a.policy === state.policy && a.question === state.question);
  const written = (state.written.get(state.policy) || []).map((a, k) => ({ ...a, name: `written ${k + 1}`, slot: "other" }));
  return [...sides, ...written].map((a) => ({ ...a, correct: isRight(a.text, state.gold) === true }));
}

const designs = startDesigns({ words: data.designs, group, situation: () => state, call });

// --- recordings ---------------------------------------------------------------------------------

async function startRecorded() {
  const recorded = JSON.parse(new TextDecoder().decode(await unpack(packed.recorded)));
  $("recorded-note").textContent = recorded.note;
  const panel = new TokenPanel($("panel-recorded"), { legend: data.legend });
  fillSelect($("example"), recorded.examples.map((e, i) => [i, e.title]));
  const show = (example, k) => {
    const answer = example.answers[k];
    [...$("kinds").tBodies[0].rows].forEach((row, i) => row.classList.toggle("chosen", i === k));
    $("kinds").querySelectorAll("button").forEach((b, i) => b.setAttribute("aria-pressed", String(i === k)));
    const values = answer.with.map((p, j) => p - answer.without[j]);
    panel.show({
      ids: answer.tokens, tokens: answer.tokens, values, sar: answer.sar, logps_conditioned: answer.with, logps_standalone: answer.without,
      ppl_conditioned: Math.exp(-mean(answer.with)), ppl_standalone: Math.exp(-mean(answer.without)),
      alternatives_conditioned: answer.top_with, alternatives_standalone: answer.top_without,
    });
    $("recorded-answer").textContent = `${answer.kind}: ${answer.about || ""}`.replace(/: $/, "");
  };
  const open = () => {
    const example = recorded.examples[Number($("example").value)];
    const rows = example.answers.map((answer, k) => {
      const button = node("button", { type: "button", className: "link", text: answer.kind });
      button.addEventListener("click", () => show(example, k));
      const cell = node("td", { text: signed(answer.sar), className: "paid" });
      cell.style.backgroundColor = tint(4 * answer.sar);
      return node("tr", {}, node("th", { scope: "row" }, button), node("td", { text: answer.right ? "✓" : "✗" }),
        node("td", { text: String(answer.tokens.length) }), cell, node("td", { className: "long", text: shortened(answer.text, 110) }));
    });
    const head = node("tr", {}, ...["kind", "right", "tokens", "SAR", "answer"].map((text) => node("th", { text, scope: "col" })));
    $("kinds").replaceChildren(node("caption", { text: example.question }), node("thead", {}, head), node("tbody", {}, ...rows));
    show(example, 0);
  };
  $("example").addEventListener("change", open);
  open();
}

// --- the study ----------------------------------------------------------------------------------

function startStudy() {
  const { arms, curves, words } = data.study;
  $("study-words").textContent = words;
  const draw = () => {
    const wide = Math.max(320, $("plane").clientWidth), narrow = Math.max(280, $("curve-length").clientWidth);
    planeChart($("plane"), arms, { width: wide, height: Math.min(400, Math.max(300, wide * 0.4)), floor: data.study.floor, say: (t) => { $("plane-says").textContent = t; } });
    const shared = { width: narrow, height: 230, say: (t) => { $("curves-say").textContent = t; } };
    for (const [id, key, title, percentages] of [["curve-accuracy", "accuracy", "Accuracy", true], ["curve-length", "mean_length", "Tokens", false], ["curve-sar", "sar", "SAR", false]]) {
      curvesChart($(id), { ...shared, title, percentages, arms: curves.map((c) => ({ label: c.label, kind: c.kind, mean: c[key].mean, runs: c[key].runs })).filter((c) => c.mean.length) });
    }
  };
  $("key").replaceChildren(...curves.map((c) => node("span", { className: `arm-key ${c.kind}`, text: c.label })));
  draw();
  let width = document.documentElement.clientWidth;
  window.addEventListener("resize", () => {
    if (document.documentElement.clientWidth !== width) { width = document.documentElement.clientWidth; draw(); }
  });
}

// --- start --------------------------------------------------------------------------------------

const need = (question, answer, more) => ({ question, ...(Array.isArray(answer) ? { ids: answer } : { answer }), ...more });
window.sarlab = {
  ready: call("load"),
  score: async (question, answer, more = {}) => {
    const { ids, logps_conditioned, logps_standalone, sar, ppl_conditioned, ppl_standalone } = await call("score", need(question, answer, more));
    return { ids, logps_conditioned, logps_standalone, sar, ppl_conditioned, ppl_standalone };
  },
  look: (question, answer, more = {}) => call("score", need(question, answer, more)),
  draw: (argument) => call("draw", argument),
  encode: (text) => call("encode", { text }),
  payload: payloadOf,
  write: (argument) => call("write", argument),
  judge: isRight,
  value: valueOf,
  group: () => designs.all(),
  rewards: (answers, alpha, budget) => Object.fromEntries(Object.keys(REWARDS).map((name) => {
    const rewards = rewardsOf(name, answers, alpha, budget);
    return [name, { rewards, advantages: advantagesOf(rewards) }];
  })),
  lines: (argument) => call("lines", argument),
  gold: (argument) => call("gold", argument),
  copied: (argument) => call("copied", argument),
};

fillSelect($("story"), [...data.stories.map((s, i) => [i, shortened(s.question, 58)]), [OWN, "your own question"]]);
fillSelect($("policy"), data.policies.map((p) => [p.key, p.name]));
useLegend(data.legend);
drawLegend($("scale"), data.legend);
startStudy();
useStory(0);
window.sarlab.ready.then(
  () => { $("status").textContent = ""; document.documentElement.dataset.ready = String(Math.round(performance.now())); },
  (error) => { $("status").textContent = `The model could not be started: ${error.message}`; });
startRecorded().catch((error) => { $("recorded-note").textContent = `The recording could not be opened: ${error.message}`; });
