// From a scored answer to what the token view draws: the same record, words and colours as the
// library makes of it (sarlab/display), for JupyterLab's own module to draw.

import { sarOf } from "./sar.js";
import { drawTokens } from "./tokens.js";

const FULL_NATS = 4; // |Δ log p| at which a colour is at its strongest: one scale for every answer
const MARKED_NATS = 1; // |Δ log p| from which a token is underlined
let strongest = 0.5; // opacity at FULL_NATS; as the legend has it
const FOREIGN_PERPLEXITY = 1000; // from here on the model was never trained on such text
const PAUSE_MS = 60; // after the last key, before a draft is scored
const STEP_TOKENS = 120;
const LEAST_NET = 0.2; // |Σ v| / Σ |v|: below, shares of the sum would run into the hundreds
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

/** An HTML element; everything that is not a text, a class or a child is an attribute. */
export function node(tag, { text, className, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Take the strongest tint from the scale that the library draws (its last cell). */
export function useLegend(legend) {
  strongest = Number(/([\d.]+)\)$/.exec(legend.cells[legend.cells.length - 1][1])[1]);
}

export function tint(v) {
  const strength = strongest * Math.min(1, Math.abs(v) / FULL_NATS);
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
  const hasShares = Math.abs(total) > LEAST_NET * values.reduce((sum, v) => sum + Math.abs(v), 0);
  const cards = pieces.map((piece, j) => {
    const pair = [score.logps_conditioned[j], score.logps_standalone[j]];
    const facts = [["log p (nats)", ...pair.map((p) => signed(p, 2))], ["p", ...pair.map(probability)]];
    const sides = [score.alternatives_conditioned, score.alternatives_standalone].map((a) => a && a[j]);
    if (sides[0]) facts.push(["rank", ...sides.map((s) => s.rank.toLocaleString("en-US"))]);
    const v = values[j];
    const notes = [
      `Δ log p = ${signed(v)} nats: ${v >= 0 ? "likelier" : "less likely"} with the question`,
      `share of the mean: Δ log p / n = ${signed(v / n, 4)} nats`,
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
      ["ppl(a)", number(score.ppl_standalone)], ["mean Δ log p", `${signed(total / n)} nats`], ["tokens", String(n)],
    ],
    warning: Math.min(score.ppl_conditioned, score.ppl_standalone) < FOREIGN_PERPLEXITY ? ""
      : "Perplexities in the thousands: the model was not trained on such text, and its SAR says little.",
    quantity: "Σ Δ log p, nats",
    runs: pieces.map(segments), tints: values.map(tint), lines: values.map(lineOf), cards,
    steps: splitSteps(pieces).map(([start, stop]) => {
      const nats = values.slice(start, stop).reduce((sum, v) => sum + v, 0);
      const share = hasShares ? `${signed((100 * nats) / total, 0)} %` : "– (ups and downs nearly cancel)";
      return [start, stop, signed(nats, 2), share, visible(shortened(pieces.slice(start, stop).join(""), 60))];
    }),
  };
}

/** SAR with tokens [start, stop) left out of the mean, nothing scored again. */
export function sarWithout(values, start, stop) {
  return sarOf([...values.slice(0, start), ...values.slice(stop)]);
}

/**
 * One answer in the token view. With `box` (a textarea) it can be edited: `onEdit(text)` scores a
 * draft and shows it. `onSpan(score, start, stop)` gives SAR with the span deleted and the rest
 * scored again.
 */
export class TokenPanel {
  constructor(element, { legend = null, compact = false, box = null, onEdit = null, onSpan = null } = {}) {
    this.drawn = drawTokens(element, {}, { legend, compact, onSelect: (start, stop) => this.#showSpan(start, stop) });
    if (compact || !legend) this.drawn.below.nextSibling?.remove(); // the page has one scale for all views
    this.onSpan = onSpan;
    this.span = document.createElement("div");
    this.span.className = "sarlab-span";
    this.message = document.createElement("div");
    this.message.className = "sarlab-message";
    for (const spoken of [this.span, this.message]) spoken.setAttribute("role", "status");
    this.drawn.below.append(this.span, this.message);
    this.box = box;
    if (box) this.#follow(box, onEdit);
  }

  /** One draft at a time is scored; the newest text follows when it is back. */
  #follow(box, onEdit) {
    let timer = 0, busy = false, dirty = false;
    const send = async () => {
      if (busy) { dirty = true; return; }
      busy = true;
      do {
        dirty = false;
        try {
          await onEdit(box.value);
        } catch (error) {
          this.complain(error.message);
        }
      } while (dirty);
      busy = false;
    };
    box.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(send, PAUSE_MS); });
  }

  /** Show a scored answer; `text` also fills the box. */
  show(score, text) {
    this.score = score;
    this.message.textContent = "";
    this.drawn.mark(-1, -1);
    this.drawn.update(score ? payloadOf(score) : {});
    if (text !== undefined && this.box.value !== text) this.box.value = text;
    this.#showSpan(0, 0);
  }

  /** Say what is wrong with a draft; the answer scored last stays. */
  complain(message) {
    this.message.textContent = message;
  }

  async #showSpan(start, stop) {
    const { score } = this, turn = (this.turn = (this.turn || 0) + 1), lines = [];
    const write = () => this.span.replaceChildren(...lines.map(([label, value, note]) => {
      const pair = document.createElement("div"), name = document.createElement("span"), bold = document.createElement("b");
      name.className = "sarlab-label";
      name.textContent = `${label} `;
      bold.textContent = value;
      pair.append(name, bold, note ? ` ${note}` : "");
      return pair;
    }));
    if (score && stop > start) {
      const { values, sar } = score, count = stop - start;
      const nats = values.slice(start, stop).reduce((sum, v) => sum + v, 0);
      lines.push([`Selected: ${count} token${count > 1 ? "s" : ""} (${start + 1}–${stop}), Σ Δ log p`, `${signed(nats, 2)} nats`]);
      if (count < values.length) {
        const left = sarWithout(values, start, stop);
        lines.push(["SAR with the span left out of the mean", signed(left), `(${signed(left - sar)})`]);
        if (this.onSpan) {
          write();
          const deleted = await this.onSpan(score, start, stop);
          if (this.turn !== turn) return;
          lines.push(["SAR with the span deleted, the rest scored again", signed(deleted), `(${signed(deleted - sar)})`]);
        }
      }
    }
    write();
  }
}
