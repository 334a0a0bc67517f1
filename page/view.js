// From a scored answer to what the token view draws: the same record, words and colours as the
// library makes of it (sarlab/display), for JupyterLab's own module to draw.

import { sarOf } from "./sar.js";
import { default as tokens } from "./tokens.js";

const FULL_NATS = 4; // |v| at which a colour is at its strongest: one scale for every answer
const MARKED_NATS = 1; // |v| from which a token is underlined
const STRONGEST = 0.62;
const STEP_TOKENS = 120;
const SHORT_MARKS = new Map([[" ", "␣"], ["\n", "⏎"], ["\t", "⇥"], ["\r", "␍"], ["\x7f", "␡"]]);
const SHAPELESS = /[\p{C}\p{Z}]/u;

function markOf(character) {
  if (SHORT_MARKS.has(character)) return SHORT_MARKS.get(character);
  const point = character.codePointAt(0);
  if (point < 32) return String.fromCodePoint(0x2400 + point);
  return SHAPELESS.test(character) ? `⟨U+${point.toString(16).toUpperCase().padStart(4, "0")}⟩` : null;
}

/** A token's text as alternating runs: text, marks, text, … */
export function segments(piece) {
  if (!piece) return ["", "◌"];
  const runs = [""];
  for (const character of piece) {
    const mark = markOf(character);
    if ((mark !== null) !== (runs.length % 2 === 0)) runs.push("");
    runs[runs.length - 1] += mark ?? character;
  }
  return runs;
}

export const visible = (text) => (text ? segments(text).join("") : "");

export function shortened(text, limit) {
  const line = text.split(/\s+/).filter(Boolean).join(" "), characters = Array.from(line);
  return characters.length <= limit ? line : characters.slice(0, limit - 1).join("").trimEnd() + "…";
}

export function signed(value, digits = 3) {
  const text = Math.abs(value).toFixed(digits);
  return (value < 0 && Number(text) !== 0 ? "−" : "+") + text;
}

export function number(value, digits = 2) {
  const size = Math.abs(value);
  if (size >= 999999.5) return value.toExponential(2).replace(/e\+(\d)$/, "e+0$1").replace("-", "−");
  if (size >= 999.5) return Math.round(value).toLocaleString("en-US").replace("-", "−");
  return value.toFixed(digits).replace("-", "−");
}

export function tint(v) {
  const strength = STRONGEST * Math.min(1, Math.abs(v) / FULL_NATS);
  return `rgba(${v >= 0 ? "0, 114, 178" : "230, 159, 0"}, ${strength.toFixed(2)})`;
}

const lineOf = (v) => (v >= MARKED_NATS ? 1 : v <= -MARKED_NATS ? 2 : 0);

function probability(logp) {
  const p = Math.exp(logp);
  return p >= 0.0005 ? p.toFixed(3) : p.toExponential(0).replace(/e-(\d)$/, "e-0$1");
}

/** Sentences and lines, as [start, stop) of tokens; the end token belongs to the step before it. */
export function splitSteps(pieces) {
  const text = pieces.join(""), ends = new Set();
  for (const match of text.matchAll(/[.!?]['")\]]*(?:[ \t]*\n+|(?=\s))|\n+/g)) ends.add(match.index + match[0].length);
  const bounds = [0];
  let position = 0;
  pieces.forEach((piece, j) => {
    let ending = j + 1 - bounds[bounds.length - 1] >= STEP_TOKENS;
    for (let k = position + 1; k <= position + piece.length; k++) ending ||= ends.has(k);
    position += piece.length;
    if (ending && j + 2 < pieces.length) bounds.push(j + 1);
  });
  return bounds.map((start, k) => [start, bounds[k + 1] ?? pieces.length]);
}

/** What the token view draws. `score` as the engine returns it. */
export function payloadOf(score) {
  const { values, tokens: pieces } = score, n = values.length;
  const total = values.reduce((sum, v) => sum + v, 0);
  const cards = pieces.map((piece, j) => {
    const pair = [score.logps_conditioned[j], score.logps_standalone[j]];
    const facts = [["log P (nats)", ...pair.map((p) => signed(p, 2))], ["P", ...pair.map(probability)]];
    const sides = [score.alternatives_conditioned, score.alternatives_standalone].map((a) => a && a[j]);
    if (sides[0]) facts.push(["rank", ...sides.map((s) => s.rank.toLocaleString("en-US"))]);
    const v = values[j];
    const notes = [
      `v = ${signed(v)} nats: ${v >= 0 ? "likelier" : "less likely"} with the question`,
      `share of the mean: v/n = ${signed(v / n, 4)} nats`,
    ];
    if (n > 1) {
      const without = Math.max(-1, -Math.expm1(-(total - v) / (n - 1)));
      notes.push(`SAR without this token: ${signed(without)} (${signed(without - score.sar)})`);
    }
    if (!piece) notes.push("holds a part of a character; the last of its tokens shows it whole");
    if (j === 0) notes.push("the first token: without the question nothing of the answer precedes it");
    const top = (side) => (side && side.top ? side.top.map(([name, p]) => [visible(name), signed(p, 2)]) : []);
    return [`token ${j + 1} of ${n}: ${visible(piece) || "part of a character"}`, facts, notes, top(sides[0]), top(sides[1])];
  });
  return {
    numbers: [
      ["SAR", signed(score.sar)], ["ppl(a|q)", number(score.ppl_conditioned)],
      ["ppl(a)", number(score.ppl_standalone)], ["mean v", `${signed(total / n)} nats`], ["tokens", String(n)],
    ],
    runs: pieces.map(segments), tints: values.map(tint), lines: values.map(lineOf), cards,
    steps: splitSteps(pieces).map(([start, stop]) => {
      const nats = values.slice(start, stop).reduce((sum, v) => sum + v, 0);
      const share = Math.abs(total) > 1e-9 ? `${signed((100 * nats) / total, 0)} %` : "–";
      return [start, stop, signed(nats, 2), share, visible(shortened(pieces.slice(start, stop).join(""), 60))];
    }),
  };
}

function legend() {
  const cells = [-FULL_NATS, -2, -1, -0.5, 0, 0.5, 1, 2, FULL_NATS].map((v) => {
    const bound = { [-FULL_NATS]: "≤ ", [FULL_NATS]: "≥ " }[v] || "";
    return [v ? bound + signed(v, v % 1 ? 1 : 0) : "0", tint(v), lineOf(v)];
  });
  return {
    cells,
    text: "v in nats: what the question gave the token. Blue, solid line: likelier with the question. "
      + "Orange, dotted: less likely. The same scale for every answer.",
  };
}

/** SAR with tokens [start, stop) left out of the mean, nothing scored again. */
export function sarWithout(values, start, stop) {
  return sarOf([...values.slice(0, start), ...values.slice(stop)]);
}

/**
 * One answer in the token view. `onEdit(text)` scores a draft and shows it, `onSpan(start, stop)`
 * gives SAR with the span deleted and the rest scored again.
 */
export class TokenPanel {
  constructor(element, { onEdit = null, onSpan = null, withLegend = true } = {}) {
    this.onEdit = onEdit;
    this.onSpan = onSpan;
    this.handlers = new Map();
    this.fields = {
      view: {}, compact: false, legend: withLegend ? legend() : {}, selection: [], span: [], text: "",
      editable: Boolean(onEdit), message: "", acknowledged: 0, draft: {},
    };
    const model = {
      get: (name) => this.fields[name],
      set: (name, value) => this.#put(name, value),
      save_changes: () => {},
      on: (name, handler) => this.handlers.set(name, [...(this.handlers.get(name) || []), handler]),
      off: () => {},
    };
    tokens.render({ model, el: element });
  }

  #put(name, value) {
    this.fields[name] = value;
    for (const handler of this.handlers.get(`change:${name}`) || []) handler();
    if (name === "selection") this.#showSpan();
    if (name === "draft") this.#edited(value);
  }

  async #edited({ text, seq }) {
    try {
      await this.onEdit(text);
      this.#put("message", "");
    } catch (error) {
      this.#put("message", error.message);
    }
    this.#put("acknowledged", seq);
  }

  /** Show a scored answer; `text` also fills the box. */
  show(score, text) {
    this.score = score;
    this.#put("message", "");
    this.#put("view", score ? payloadOf(score) : {});
    if (text !== undefined) this.#put("text", text);
    this.#put("selection", []);
  }

  /** Say what is wrong with a draft; the last scored answer stays. */
  complain(message) {
    this.#put("message", message);
  }

  async #showSpan() {
    const [start, stop] = this.fields.selection;
    if (!this.score || start === undefined) return this.#put("span", []);
    const { score } = this, { values, sar } = score, count = stop - start;
    const nats = values.slice(start, stop).reduce((sum, v) => sum + v, 0);
    const lines = [[`Selected: ${count} token${count > 1 ? "s" : ""} (${start + 1}–${stop}), Σ v`, `${signed(nats, 2)} nats`, ""]];
    if (count < values.length) {
      const left = sarWithout(values, start, stop);
      lines.push(["SAR with the span left out of the mean", signed(left), `(${signed(left - sar)})`]);
      this.#put("span", lines);
      if (!this.onSpan) return undefined;
      const deleted = await this.onSpan(score, start, stop);
      if (this.score !== score || this.fields.selection[0] !== start || this.fields.selection[1] !== stop) return undefined;
      lines.push(["SAR with the span deleted, the rest scored again", signed(deleted), `(${signed(deleted - sar)})`]);
    }
    return this.#put("span", [...lines]);
  }
}
