// The forward pass of a small Llama in plain JavaScript: float32 numbers, sums in float64.
//
// A Sequence keeps keys and values of its ids. Given other ids it keeps what both have in front
// and computes the rest: after an edit only what follows the edit is run again.

const TOP = 5;

/** out[n, O] = x[n, I] · w[O, I]ᵀ, four rows and two columns at a time; I and O are even. */
function product(out, x, w, n, I, O) {
  let t = 0;
  for (; t + 4 <= n; t += 4) {
    const x0 = t * I, x1 = x0 + I, x2 = x1 + I, x3 = x2 + I;
    for (let o = 0; o < O; o += 2) {
      const w0 = o * I, w1 = w0 + I;
      let a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0;
      for (let i = 0; i < I; i++) {
        const p = w[w0 + i], q = w[w1 + i];
        const r = x[x0 + i], s = x[x1 + i], u = x[x2 + i], v = x[x3 + i];
        a += r * p; b += s * p; c += u * p; d += v * p;
        e += r * q; f += s * q; g += u * q; h += v * q;
      }
      const y = t * O + o;
      out[y] = a; out[y + 1] = e;
      out[y + O] = b; out[y + O + 1] = f;
      out[y + 2 * O] = c; out[y + 2 * O + 1] = g;
      out[y + 3 * O] = d; out[y + 3 * O + 1] = h;
    }
  }
  for (; t < n; t++) {
    const x0 = t * I;
    for (let o = 0; o < O; o += 2) {
      const w0 = o * I, w1 = w0 + I;
      let a = 0, b = 0, c = 0, d = 0;
      for (let i = 0; i < I; i += 2) {
        const r = x[x0 + i], s = x[x0 + i + 1];
        a += r * w[w0 + i]; b += s * w[w0 + i + 1];
        c += r * w[w1 + i]; d += s * w[w1 + i + 1];
      }
      out[t * O + o] = a + b;
      out[t * O + o + 1] = c + d;
    }
  }
}

function normalise(out, x, weight, n, H, epsilon) {
  for (let t = 0; t < n; t++) {
    let squares = 0;
    for (let i = t * H; i < (t + 1) * H; i++) squares += x[i] * x[i];
    const scale = 1 / Math.sqrt(squares / H + epsilon);
    for (let i = 0; i < H; i++) out[t * H + i] = x[t * H + i] * scale * weight[i];
  }
}

/** ids that have been run, with keys and values per layer and the last layer's states. */
export class Sequence {
  constructor(model) {
    this.model = model;
    this.ids = [];
    this.room = 0;
    this.keys = model.layers.map(() => new Float32Array(0));
    this.values = model.layers.map(() => new Float32Array(0));
    this.states = new Float32Array(0);
  }

  reserve(length) {
    if (length <= this.room) return;
    this.room = Math.max(length, 2 * this.room, 128);
    const grown = (old) => {
      const made = new Float32Array(this.room * this.model.hidden);
      made.set(old);
      return made;
    };
    this.keys = this.keys.map(grown);
    this.values = this.values.map(grown);
    this.states = grown(this.states);
  }

  /** A copy that can grow on its own. */
  fork() {
    const made = new Sequence(this.model);
    made.ids = [...this.ids];
    made.room = this.room;
    made.keys = this.keys.map((k) => k.slice());
    made.values = this.values.map((v) => v.slice());
    made.states = this.states.slice();
    return made;
  }

  /** Make this the sequence of `ids`; returns how many were there already. */
  set(ids) {
    let same = 0;
    while (same < ids.length && same < this.ids.length && ids[same] === this.ids[same]) same++;
    this.ids.length = same;
    const rows = ids.slice(same).map((id, i) => ({ sequence: this, position: same + i, id }));
    this.model.run(rows);
    return same;
  }
}

export class Model {
  /** @param config of config.json @param tensors name → Float32Array, as safetensors names them */
  constructor(config, tensors) {
    this.config = config;
    this.hidden = config.hidden_size;
    this.heads = config.num_attention_heads;
    this.size = this.hidden / this.heads;
    this.inner = config.intermediate_size;
    this.vocabulary = config.vocab_size;
    this.context = config.max_position_embeddings;
    this.tensors = tensors;
    this.embed = tensors["model.embed_tokens.weight"];
    this.norm = tensors["model.norm.weight"];
    this.layers = Array.from({ length: config.num_hidden_layers }, (_, k) => {
      const part = (name) => tensors[`model.layers.${k}.${name}.weight`];
      return {
        before: part("input_layernorm"), after: part("post_attention_layernorm"),
        q: part("self_attn.q_proj"), k: part("self_attn.k_proj"), v: part("self_attn.v_proj"),
        o: part("self_attn.o_proj"), gate: part("mlp.gate_proj"), up: part("mlp.up_proj"),
        down: part("mlp.down_proj"),
      };
    });
    const half = this.size / 2, theta = config.rope_parameters.rope_theta;
    this.cos = new Float32Array(this.context * half);
    this.sin = new Float32Array(this.context * half);
    for (let i = 0; i < half; i++) {
      const frequency = Math.fround(1 / Math.fround(theta ** ((2 * i) / this.size)));
      for (let p = 0; p < this.context; p++) {
        const angle = Math.fround(p * frequency);
        this.cos[p * half + i] = Math.cos(angle);
        this.sin[p * half + i] = Math.sin(angle);
      }
    }
  }

  /** The same model with low-rank changes added: W + scale · B · A. */
  withAdapter({ scale, matrices }) {
    const tensors = { ...this.tensors };
    for (const [name, { a, b, rank }] of Object.entries(matrices)) {
      const old = this.tensors[name], made = new Float32Array(old.length);
      const I = a.length / rank, O = b.length / rank;
      const row = new Float64Array(I);
      for (let o = 0; o < O; o++) {
        row.fill(0);
        for (let r = 0; r < rank; r++) {
          const factor = b[o * rank + r];
          for (let i = 0; i < I; i++) row[i] += factor * a[r * I + i];
        }
        for (let i = 0; i < I; i++) made[o * I + i] = old[o * I + i] + scale * row[i];
      }
      tensors[name] = made;
    }
    return new Model(this.config, tensors);
  }

  /** Run new tokens: rows of {sequence, position, id}, positions of a sequence one after another. */
  run(rows) {
    const n = rows.length, H = this.hidden, M = this.inner, heads = this.heads, D = this.size;
    if (!n) return;
    for (const { sequence, position, id } of rows) {
      if (position >= this.context) {
        throw new Error(`Question and answer together are longer than ${this.context} tokens.`);
      }
      sequence.reserve(position + 1);
      sequence.ids[position] = id;
    }
    const x = new Float32Array(n * H), normed = new Float32Array(n * H), mixed = new Float32Array(n * H);
    const q = new Float32Array(n * H), k = new Float32Array(n * H), v = new Float32Array(n * H);
    const gate = new Float32Array(n * M), up = new Float32Array(n * M);
    const weights = new Float64Array(this.context);
    rows.forEach(({ id }, t) => x.set(this.embed.subarray(id * H, (id + 1) * H), t * H));
    this.layers.forEach((layer, depth) => {
      normalise(normed, x, layer.before, n, H, this.config.rms_norm_eps);
      product(q, normed, layer.q, n, H, H);
      product(k, normed, layer.k, n, H, H);
      product(v, normed, layer.v, n, H, H);
      rows.forEach(({ sequence, position }, t) => {
        this.#rotate(q, t * H, position);
        this.#rotate(k, t * H, position);
        sequence.keys[depth].set(k.subarray(t * H, (t + 1) * H), position * H);
        sequence.values[depth].set(v.subarray(t * H, (t + 1) * H), position * H);
      });
      mixed.fill(0);
      const scale = 1 / Math.sqrt(D);
      rows.forEach(({ sequence, position }, t) => {
        const keys = sequence.keys[depth], values = sequence.values[depth];
        for (let h = 0; h < heads; h++) {
          const at = t * H + h * D;
          let highest = -Infinity, total = 0;
          for (let p = 0; p <= position; p++) {
            let sum = 0;
            const key = p * H + h * D;
            for (let i = 0; i < D; i++) sum += q[at + i] * keys[key + i];
            weights[p] = sum * scale;
            if (weights[p] > highest) highest = weights[p];
          }
          for (let p = 0; p <= position; p++) total += weights[p] = Math.exp(weights[p] - highest);
          for (let p = 0; p <= position; p++) {
            const weight = weights[p] / total, value = p * H + h * D;
            for (let i = 0; i < D; i++) mixed[at + i] += weight * values[value + i];
          }
        }
      });
      product(normed, mixed, layer.o, n, H, H);
      for (let i = 0; i < n * H; i++) x[i] += normed[i];
      normalise(normed, x, layer.after, n, H, this.config.rms_norm_eps);
      product(gate, normed, layer.gate, n, H, M);
      product(up, normed, layer.up, n, H, M);
      for (let i = 0; i < n * M; i++) gate[i] = (gate[i] / (1 + Math.exp(-gate[i]))) * up[i];
      product(normed, gate, layer.down, n, M, H);
      for (let i = 0; i < n * H; i++) x[i] += normed[i];
    });
    normalise(normed, x, this.norm, n, H, this.config.rms_norm_eps);
    rows.forEach(({ sequence, position }, t) =>
      sequence.states.set(normed.subarray(t * H, (t + 1) * H), position * H));
  }

  #rotate(x, at, position) {
    const half = this.size / 2, angle = position * half;
    for (let h = 0; h < this.heads; h++, at += this.size) {
      for (let i = 0; i < half; i++) {
        const cos = this.cos[angle + i], sin = this.sin[angle + i];
        const left = x[at + i], right = x[at + half + i];
        x[at + i] = left * cos - right * sin;
        x[at + half + i] = right * cos + left * sin;
      }
    }
  }

  /** Log-probs [n, vocabulary] of the token after each of these states [n, hidden]. */
  logProbs(states) {
    const n = states.length / this.hidden, V = this.vocabulary;
    const logits = new Float32Array(n * V);
    product(logits, states, this.embed, n, this.hidden, V);
    for (let t = 0; t < n; t++) {
      let highest = -Infinity, total = 0;
      for (let i = t * V; i < (t + 1) * V; i++) if (logits[i] > highest) highest = logits[i];
      for (let i = t * V; i < (t + 1) * V; i++) total += Math.exp(logits[i] - highest);
      const norm = highest + Math.log(total);
      for (let i = t * V; i < (t + 1) * V; i++) logits[i] -= norm;
    }
    return logits;
  }
}

/**
 * An answer in one context. It keeps the numbers of tokens in front of an edit, together with
 * their keys and values.
 */
export class ScoredContext {
  constructor(model) {
    this.sequence = new Sequence(model);
    this.prefix = 0;
    this.numbers = [];
  }

  /** Per answer token {logp, rank (from 1), top: [[id, logp] × 5], entropy, selfCertainty}, nats. */
  score(prefix, answer) {
    const ids = [...prefix, ...answer.slice(0, -1)], { model } = this.sequence, V = model.vocabulary;
    const old = this.sequence.ids.slice(), before = this.numbers, offset = this.prefix;
    const kept = this.sequence.set(ids);
    const wasId = (j) => (offset + j < old.length ? old[offset + j] : this.last);
    let same = 0; // answer tokens whose number stands: everything up to them is as it was
    if (offset === prefix.length && kept >= prefix.length) {
      while (same < before.length && same < answer.length && prefix.length + same <= kept
        && wasId(same) === answer[same]) same++;
    }
    this.prefix = prefix.length;
    this.last = answer[answer.length - 1];
    const H = model.hidden, from = prefix.length - 1 + same;
    const logps = model.logProbs(this.sequence.states.subarray(from * H, (prefix.length - 1 + answer.length) * H));
    this.numbers = before.slice(0, same);
    for (let j = same; j < answer.length; j++) {
      this.numbers.push(numbersOf(logps.subarray((j - same) * V, (j - same + 1) * V), answer[j]));
    }
    return this.numbers;
  }
}

function numbersOf(logps, target) {
  const logp = logps[target], top = [];
  let rank = 1, entropy = 0, total = 0;
  for (let id = 0; id < logps.length; id++) {
    entropy -= Math.exp(logps[id]) * logps[id];
    total += logps[id];
    if (logps[id] > logp) rank++;
    if (top.length < TOP || logps[id] > top[TOP - 1][1]) {
      let at = top.length;
      while (at > 0 && top[at - 1][1] < logps[id]) at--;
      top.splice(at, 0, [id, logps[id]]);
      if (top.length > TOP) top.pop();
    }
  }
  return { logp, rank, top, entropy, selfCertainty: -total / logps.length };
}

/** Random numbers in [0, 1) from a seed (sfc32, Chris Doty-Humphrey), 53 bits each. */
export function randomFrom(seed) {
  let a = 0x9e3779b9, b = seed >>> 0, c = Math.floor(seed / 2 ** 32) >>> 0, counter = 1;
  const next = () => {
    const sum = (a + b + counter++) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum | 0;
    return sum >>> 0;
  };
  for (let i = 0; i < 16; i++) next();
  return () => ((next() >>> 5) * 67108864 + (next() >>> 6)) / 9007199254740992;
}

function drawToken(logps, random) {
  const sums = new Float64Array(logps.length);
  let total = 0;
  for (let i = 0; i < logps.length; i++) sums[i] = total += Math.exp(logps[i]);
  const at = random() * total;
  let low = 0, high = logps.length - 1;
  while (low < high) { // the first sum above the mark
    const middle = (low + high) >> 1;
    if (sums[middle] > at) high = middle; else low = middle + 1;
  }
  return low;
}

/** `count` answers from the policy itself: temperature 1, the whole vocabulary, nothing cut off. */
export function sample(model, prefix, { count, limit, seed, end }) {
  const random = randomFrom(seed), H = model.hidden, V = model.vocabulary;
  const start = new Sequence(model);
  start.set(prefix);
  const answers = Array.from({ length: count }, () => ({ ids: [], logps: [], ended: false }));
  const most = Math.min(limit, model.context - prefix.length);
  const draw = (answer, logps) => {
    const id = drawToken(logps, random);
    answer.ids.push(id);
    answer.logps.push(logps[id]);
    answer.ended = id === end;
  };
  const first = model.logProbs(start.states.subarray((prefix.length - 1) * H, prefix.length * H));
  for (const answer of answers) draw(answer, first);
  let live = answers.filter((answer) => !answer.ended);
  if (most > 1) for (const answer of live) answer.sequence = start.fork();
  for (let t = 1; t < most && live.length; t++) {
    const position = prefix.length + t - 1;
    model.run(live.map(({ sequence, ids }) => ({ sequence, position, id: ids[t - 1] })));
    const states = new Float32Array(live.length * H);
    live.forEach(({ sequence }, row) =>
      states.set(sequence.states.subarray(position * H, (position + 1) * H), row * H));
    const logps = model.logProbs(states);
    live.forEach((answer, row) => draw(answer, logps.subarray(row * V, (row + 1) * V)));
    live = live.filter((answer) => !answer.ended);
  }
  return answers.map(({ ids, logps, ended }) => ({ ids, logps, ended }));
}
