// The reward and those beside it: plain functions, the same formulas as the library's.

export const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;

/** SAR = max(−1, 1 − exp(−mean v)), v in nats. */
export const sarOf = (values) => Math.max(-1, -Math.expm1(-mean(values)));

/** ppl = exp(−mean log-prob). */
export const perplexity = (logps) => Math.exp(-mean(logps));

/** What the library's score_answers returns, from the numbers of both contexts. */
export function scoreOf(ids, conditioned, standalone) {
  const logpsConditioned = conditioned.map((n) => n.logp);
  const logpsStandalone = standalone.map((n) => n.logp);
  const values = logpsConditioned.map((p, j) => p - logpsStandalone[j]);
  return {
    ids, logps_conditioned: logpsConditioned, logps_standalone: logpsStandalone, values,
    sar: sarOf(values),
    ppl_conditioned: perplexity(logpsConditioned), ppl_standalone: perplexity(logpsStandalone),
  };
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const clip = (x) => Math.min(1, Math.max(-1, x));

function spread(values) {
  const m = mean(values);
  return Math.sqrt(values.reduce((sum, v) => sum + (v - m) ** 2, 0) / (values.length - 1));
}

/** ER: among the right answers of the group, −(2σ(z) − 1) of the length; 0 for all others. */
function efficientReasoning(answers) {
  const lengths = answers.filter((a) => a.correct).map((a) => a.length);
  if (lengths.length < 2 || spread(lengths) === 0) return answers.map(() => 0);
  const m = mean(lengths), s = spread(lengths);
  return answers.map((a) => (a.correct ? 1 - 2 * sigmoid((a.length - m) / s) : 0));
}

const LENGTH_ONLY_NATS = 17.2; // mean V of tiny's base answers
const LAMBDA = 0.5; // weight of log p(a) in sar_lambda
const READ_NATS = 2; // a line reads the question from here on
const FEED_NATS = 5; // a line feeds the rest from here on

/** Minus the share of tokens in lines that neither read the question nor feed the lines after them. */
function fillerShare({ lines, dependence, values, length }) {
  const last = Math.max(...lines), read = new Array(last + 1).fill(0), tokens = new Array(last + 1).fill(0);
  lines.forEach((line, j) => { read[line] += values[j]; tokens[line] += 1; });
  const filler = read.map((nats, k) => (k < last && nats < READ_NATS && dependence[k] < FEED_NATS ? tokens[k] : 0));
  return -filler.reduce((sum, n) => sum + n, 0) / length;
}

/** Which tokens of an answer lie in an n-gram of five tokens that the question holds. */
export function copiedTokens(question, answer, most = 5) {
  const n = Math.min(most, question.length), copied = answer.map(() => false);
  if (!n) return copied;
  const grams = new Set();
  for (let i = 0; i + n <= question.length; i++) grams.add(question.slice(i, i + n).join(" "));
  for (let i = 0; i + n <= answer.length; i++) {
    if (grams.has(answer.slice(i, i + n).join(" "))) copied.fill(true, i, i + n);
  }
  return copied;
}

/**
 * Bonus of each answer of one group, {correct, length, sar, ppl_conditioned, ppl_standalone, values,
 * copied} each; where `needs` is "lines" also {lines, dependence}. `alone`: the bonus is the whole
 * reward, correctness is not counted.
 */
export const REWARDS = {
  correct: { label: "correctness", about: "right or wrong, nothing else", bonus: (a) => a.map(() => 0) },
  sar: { label: "+ α·SAR", about: "right, and what the question gives to the answer", bonus: (a) => a.map((x) => x.sar) },
  o1_pruner: {
    label: "+ α·O1-pruner", about: "right, and shorter than its siblings",
    bonus: (a) => { const m = mean(a.map((x) => x.length)); return a.map((x) => -clip((x.length - m) / x.length)); },
  },
  er: { label: "+ α·ER", about: "right, and short among the right ones", bonus: efficientReasoning },
  confidence: {
    label: "+ α·confidence", about: "right, and likely (entropy minimisation)",
    bonus: (a) => a.map((x) => -Math.log(x.ppl_conditioned)),
  },
  sar_alone: { label: "SAR alone", about: "the bonus alone; collapses in training", alone: true, bonus: (a) => a.map((x) => x.sar) },
  length_only: {
    label: "+ α·length only", about: "right, and short, by SAR's formula with constant V",
    bonus: (a) => a.map((x) => -Math.expm1(-LENGTH_ONLY_NATS / x.length)),
  },
  sar_lambda: {
    label: "+ α·SAR, λ = ½", about: "right, and half SAR, half confidence",
    bonus: (a) => a.map((x) => Math.max(-1, 1 - x.ppl_conditioned * x.ppl_standalone ** -LAMBDA)),
  },
  sar_masked: {
    label: "+ α·SAR, copies masked", about: "right, and SAR without what is copied from the question",
    bonus: (a) => a.map((x) => sarOf(x.values.map((v, j) => (x.copied[j] ? 0 : v)))),
  },
  sar_right: { label: "+ α·SAR if right", about: "right, and SAR for right answers only", bonus: (a) => a.map((x) => (x.correct ? x.sar : 0)) },
  filler_share: {
    label: "− α·filler", about: "right, and without lines that neither read the question nor feed the rest",
    needs: "lines", bonus: (a) => a.map(fillerShare),
  },
};

/** Reward of each answer of one group: R = R_right + α · bonus. */
export function rewardsOf(name, answers, alpha) {
  const { bonus, alone } = REWARDS[name];
  return bonus(answers).map((b, i) => (alone ? b : Number(answers[i].correct) + alpha * b));
}

/** Advantages of one group: reward minus the group's mean (Dr. GRPO: no division). */
export function advantagesOf(rewards) {
  const m = mean(rewards);
  return rewards.map((r) => r - m);
}

/** Whether the value after the last `Answer:` is this whole number; null where gold is unknown. */
export function isRight(text, gold) {
  if (!gold) return null;
  const last = text.split(/answer\s*:/i).slice(1).pop();
  const found = last && last.trim().match(/^[$*]*([+-]?\d[\d,]*)(?:\.0*)?[.*]*(?:<\|end\|>)?\s*$/);
  return Boolean(found) && Number(found[1].replace(/,/g, "")) === Number(gold);
}
