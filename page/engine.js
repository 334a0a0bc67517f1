// Everything that is computed: policies, scores and samples. Runs in a worker where there is one.

import { Model, ScoredContext, sample } from "./model.js";
import { Tokenizer, isBlank } from "./tokenizer.js";
import { copiedTokens, scoreOf } from "./sar.js";

const MARKER = "Answer:"; // between an answer's reasoning and its value

/** Bytes of a base64 text. */
function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** The bytes that were packed: gzip in base64. */
export async function unpack(base64) {
  const stream = new Blob([bytesOf(base64)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Numbers stored byte plane by byte plane (all first bytes, all second bytes, …), `width` bytes each. */
function joinPlanes(planes, width) {
  const count = planes.length / width, bytes = new Uint8Array(planes.length);
  for (let k = 0; k < width; k++) {
    for (let i = 0; i < count; i++) bytes[i * width + k] = planes[k * count + i];
  }
  return bytes;
}

function float32(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Cut one long array into tensors {name: array} by [name, length] pairs. */
function cut(numbers, shapes) {
  let at = 0;
  return Object.fromEntries(shapes.map(([name, length]) => {
    at += length;
    return [name, numbers.subarray(at - length, at)];
  }));
}

export class Engine {
  constructor(data, tensors, adapters) {
    this.tokenizer = new Tokenizer(data.tokenizer);
    this.models = new Map([["tiny", new Model(data.config, tensors)]]);
    this.adapters = adapters;
    this.contexts = new Map();
  }

  /** @param data {config, tokenizer, shapes, adapters: {name: {scale, rank, shapes}}} @param packed base64 by name */
  static async load(data, packed) {
    const plain = joinPlanes(await unpack(packed.weights), 4);
    const tensors = cut(new Float32Array(plain.buffer), data.shapes);
    const adapters = new Map();
    for (const [name, { scale, rank, shapes }] of Object.entries(data.adapters)) {
      const half = new Uint16Array(joinPlanes(await unpack(packed[name]), 2).buffer);
      const parts = cut(Float32Array.from(half, float32), shapes), matrices = {};
      for (const key of Object.keys(parts)) {
        if (key.endsWith(" a")) {
          const tensor = key.slice(0, -2);
          matrices[tensor] = { rank, a: parts[key], b: parts[`${tensor} b`] };
        }
      }
      adapters.set(name, { scale, matrices });
    }
    return new Engine(data, tensors, adapters);
  }

  model(policy) {
    if (!this.models.has(policy)) {
      if (!this.adapters.has(policy)) throw new Error(`There is no policy ${JSON.stringify(policy)} in this page.`);
      this.models.set(policy, this.models.get("tiny").withAdapter(this.adapters.get(policy)));
    }
    return this.models.get(policy);
  }

  #context(slot, policy, kind) {
    const key = `${slot} ${policy} ${kind}`;
    if (!this.contexts.has(key)) this.contexts.set(key, new ScoredContext(this.model(policy)));
    return this.contexts.get(key);
  }

  /**
   * One answer, a text or ids, under both contexts. Answers of one `slot` share what they have in
   * front. Adds to the scores the pieces of text, ranks and the likeliest five.
   */
  score({ question, answer, ids, policy = "tiny", slot = "other" }) {
    const answerIds = ids || this.tokenizer.encodeAnswer(answer);
    if (!answerIds.length) throw new Error("The answer has no tokens; perplexity is undefined.");
    const conditioned = this.#context(slot, policy, "with")
      .score(this.tokenizer.encodePrompt(question), answerIds);
    const standalone = this.#context(slot, policy, "without")
      .score(this.tokenizer.encodePrompt(""), answerIds);
    const named = (numbers) => numbers.map(({ rank, top }) => ({
      rank, top: top.map(([id, logp]) => [this.tokenizer.name(id), logp]),
    }));
    return {
      ...scoreOf(answerIds, conditioned, standalone),
      tokens: this.tokenizer.pieces(answerIds),
      copied: this.copied({ question, ids: answerIds }),
      alternatives_conditioned: named(conditioned),
      alternatives_standalone: named(standalone),
    };
  }

  /** Which tokens of an answer are copied from its question. */
  copied({ question, ids }) {
    return copiedTokens(this.tokenizer.encode(question), ids);
  }

  /**
   * Lines of an answer (per token, from 0), and what the rest takes from each: log p of the later
   * lines with the line in sight minus without it, nats. One pass per line.
   */
  lines({ question, ids, policy = "tiny" }) {
    const prefix = this.tokenizer.encodePrompt(question), names = this.tokenizer.special;
    const special = new Set(names.values()), lines = [];
    let line = 0, broken = false;
    for (const id of ids) {
      const piece = special.has(id) ? "" : this.tokenizer.decode([id]);
      if (broken && !isBlank(piece)) { line += 1; broken = false; }
      lines.push(line);
      broken ||= piece.includes("\n");
    }
    const sum = (numbers) => numbers.reduce((total, { logp }) => total + logp, 0);
    const model = this.model(policy), whole = new ScoredContext(model), dependence = new Array(line + 1).fill(0);
    const numbers = whole.score(prefix, ids);
    for (let k = 0; k < line; k++) {
      const start = lines.indexOf(k), stop = lines.lastIndexOf(k) + 1;
      const without = new ScoredContext(model).score([...prefix, ...ids.slice(0, start)], ids.slice(stop));
      dependence[k] = sum(numbers.slice(stop)) - sum(without);
    }
    return { lines, dependence };
  }

  /**
   * Log-probs of the right value and the end token after an answer's reasoning and without it, nats.
   * The reasoning is what stands before the last `Answer:`, or all of an answer that has none; the
   * marker stands before the value in both contexts and is not counted.
   */
  gold({ question, gold, ids, policy = "tiny", slot = "other" }) {
    const { tokenizer } = this, prefix = tokenizer.encodePrompt(question);
    const marker = tokenizer.encode(MARKER), whole = tokenizer.encode(`${MARKER} ${gold}`);
    const same = marker.every((id, k) => whole[k] === id);
    const value = [...(same ? whole.slice(marker.length) : tokenizer.encode(gold)), tokenizer.end];
    const after = new ScoredContext(this.model(policy));
    after.sequence = this.#context(slot, policy, "with").sequence.fork(); // often holds the reasoning already
    const logps = (context, ids) => context.score(ids, value).map((n) => n.logp);
    return {
      after: logps(after, [...prefix, ...this.#reasoning(ids), ...marker]),
      without: logps(this.#context("right value", policy, "alone"), [...prefix, ...marker]),
    };
  }

  /** The ids before the token in which the last marker begins, without an end token. */
  #reasoning(ids) {
    const { tokenizer } = this, answer = ids[ids.length - 1] === tokenizer.end ? ids.slice(0, -1) : ids;
    const start = tokenizer.decode(answer).lastIndexOf(MARKER);
    if (start < 0) return answer;
    let low = 0, high = answer.length;
    while (low < high) { // the most tokens whose text ends before the marker
      const middle = (low + high + 1) >> 1;
      if (tokenizer.decode(answer.slice(0, middle)).length <= start) low = middle; else high = middle - 1;
    }
    return answer.slice(0, low);
  }

  encode({ text }) {
    return this.tokenizer.encode(text);
  }

  /** Answers sampled by a policy, scored under it. */
  write({ question, policy = "tiny", count = 4, seed, limit = 256 }) {
    const prefix = this.tokenizer.encodePrompt(question), { end } = this.tokenizer;
    const found = sample(this.model(policy), prefix, { count, limit, seed, end });
    return found.map((answer) => ({
      ...answer,
      text: this.tokenizer.decode(answer.ended ? answer.ids.slice(0, -1) : answer.ids),
      score: this.score({ question, ids: answer.ids, policy }),
    }));
  }

  /** The first tokens of `count` sampled answers: what a test holds against the exact distribution. */
  draw({ question, policy = "tiny", count, seed, length = 1 }) {
    const prefix = this.tokenizer.encodePrompt(question), { end } = this.tokenizer;
    return sample(this.model(policy), prefix, { count, limit: length, seed, end }).map((a) => a.ids);
  }
}
