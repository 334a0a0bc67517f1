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
    entropy: conditioned.map((n) => n.entropy), self_certainty: conditioned.map((n) => n.selfCertainty),
    sar: sarOf(values),
    ppl_conditioned: perplexity(logpsConditioned), ppl_standalone: perplexity(logpsStandalone),
  };
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const clip = (x, low = -1, high = 1) => Math.min(high, Math.max(low, x));
const sum = (values) => values.reduce((total, v) => total + v, 0);
const lengthsOf = (answers) => answers.map((x) => x.length);
const right = (answers) => answers.filter((x) => x.correct);
const solved = (answers) => right(answers).length / answers.length;

function spread(values) {
  const m = mean(values);
  return Math.sqrt(sum(values.map((v) => (v - m) ** 2)) / Math.max(1, values.length - 1));
}

/** ER: among the right answers of the group, −(2σ(z) − 1) of the length; 0 for all others. */
function efficientReasoning(answers) {
  const lengths = lengthsOf(right(answers));
  if (lengths.length < 2 || spread(lengths) === 0) return answers.map(() => 0);
  const m = mean(lengths), s = spread(lengths);
  return answers.map((a) => (a.correct ? 1 - 2 * sigmoid((a.length - m) / s) : 0));
}

/** ½ − (n − min) / (max − min) over the counted answers; 0 where all are equally long. */
function lengthShare(answers, counted) {
  const lengths = lengthsOf(counted), low = Math.min(...lengths), high = Math.max(...lengths);
  return answers.map((x) => (high > low ? 0.5 - (x.length - low) / (high - low) : 0));
}

function kimi(answers) {
  return lengthShare(answers, answers).map((share, i) => (answers[i].correct ? share : Math.min(0, share)));
}

function shorterBetter(answers) {
  const lengths = lengthsOf(right(answers)), target = lengths.length ? Math.min(...lengths) : mean(lengthsOf(answers));
  return answers.map((x) => -Math.abs(x.length - target) / 1000);
}

/** Short-RL for one group alone: there are no earlier steps whose accuracy could be better. */
function shortRl(answers) {
  const shortest = Math.min(...lengthsOf(right(answers))), shares = lengthShare(answers, right(answers));
  return answers.map((x, i) => (!x.correct ? 0 : x.length <= shortest + TOLERANCE_TOKENS ? 0.5 : shares[i]));
}

function grpoLambda(answers) {
  if (solved(answers) < 0.5) return answers.map(() => 0);
  const lengths = lengthsOf(right(answers)), m = mean(lengths), s = spread(lengths);
  return answers.map((x) => (x.correct ? -sigmoid(s > 0 ? (x.length - m) / s : 0) : 0));
}

function dast(answers, budget) {
  const p = solved(answers), target = (p && p * mean(lengthsOf(right(answers)))) + (1 - p) * budget;
  return answers.map((x) => {
    const excess = x.length / target - 1;
    return x.correct ? Math.max(0.1, 0.5 - 0.5 * excess) : Math.min(-0.1, 0.9 * excess - 0.1);
  });
}

function cosine(answers, budget) {
  return answers.map((x) => (x.correct ? 0.75 : -0.75) + 0.25 * (x.correct ? 1 : -1) * Math.cos(Math.PI * Math.min(1, x.length / budget)));
}

/** Rank of the right value's perplexity in the group, plus the share of siblings longer and worse. */
function nover(answers) {
  const nll = answers.map((x) => -mean(x.gold.after) / Math.max(1, 1 + Math.log10(x.length))), G = answers.length;
  return answers.map((x, i) => {
    const better = nll.filter((other) => other < nll[i]).length;
    const beaten = answers.filter((other, k) => other.length > x.length && nll[k] > nll[i]).length;
    return (G - better) / G + beaten / Math.max(1, G - 1);
  });
}

/** How many answers of the group gave each value, in the order of their first appearance. */
function counted(answers) {
  const counts = new Map();
  for (const { key } of answers) counts.set(key, (counts.get(key) || 0) + 1);
  return counts;
}

function majority(answers) {
  let winner, most = 0;
  for (const [key, count] of counted(answers)) if (key !== null && count > most) [winner, most] = [key, count];
  return answers.map((x) => Number(most > 0 && x.key === winner));
}

function empo(answers) {
  const counts = counted(answers);
  return answers.map((x) => (x.key === null || counts.size === answers.length ? 0 : counts.get(x.key) / answers.length));
}

const TOLERANCE_TOKENS = 10; // Short-RL's τ
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

export const FAMILIES = {
  sar: "Correctness and SAR", length: "Length within the group", budget: "Length against a budget",
  certainty: "The policy's own certainty", gold: "Probability of the right value (the gold)", agreement: "Agreement within the group",
};

/**
 * Every design of the library's table: the bonus of each answer of one group, {correct, length, sar,
 * ppl_conditioned, ppl_standalone, values, copied, entropy, self_certainty, key} each. `needs`: what
 * is computed besides, "lines": {lines, dependence}, "gold": {gold: {after, without}}. `alone`: the
 * bonus is the whole reward, correctness is not counted.
 */
export const REWARDS = {
  correct: { family: "sar", bonus: (a) => a.map(() => 0) },
  sar: { family: "sar", bonus: (a) => a.map((x) => x.sar) },
  sar_right: { family: "sar", bonus: (a) => a.map((x) => (x.correct ? x.sar : 0)) },
  sar_lambda: { family: "sar", bonus: (a) => a.map((x) => Math.max(-1, 1 - x.ppl_conditioned * x.ppl_standalone ** -LAMBDA)) },
  sar_masked: { family: "sar", bonus: (a) => a.map((x) => sarOf(x.values.map((v, j) => (x.copied[j] ? 0 : v)))) },
  filler_share: { family: "sar", needs: "lines", bonus: (a) => a.map(fillerShare) },
  pmi: { family: "sar", bonus: (a) => a.map((x) => sum(x.values)) },
  sar_alone: { family: "sar", alone: true, bonus: (a) => a.map((x) => x.sar) },

  length_only: { family: "length", bonus: (a) => a.map((x) => -Math.expm1(-LENGTH_ONLY_NATS / x.length)) },
  o1_pruner: { family: "length", bonus: (a) => { const m = mean(lengthsOf(a)); return a.map((x) => -clip((x.length - m) / x.length)); } },
  er: { family: "length", bonus: efficientReasoning },
  kimi: { family: "length", bonus: kimi },
  shorter_better: { family: "length", bonus: shorterBetter },
  short_rl: { family: "length", bonus: shortRl },
  grpo_lambda: { family: "length", bonus: grpoLambda },
  linear_length: { family: "length", bonus: (a) => a.map((x) => (-solved(a) * x.length) / Math.max(...lengthsOf(a))) },

  laser: { family: "budget", bonus: (a, L) => a.map((x) => Number(x.correct && x.length <= L)) },
  alp: { family: "budget", bonus: (a, L) => a.map((x) => (-Math.max(solved(a), 1 / a.length) * x.length) / L) },
  dast: { family: "budget", bonus: dast },
  soft_overlong: { family: "budget", bonus: (a, L) => a.map((x) => clip((0.8 * L - x.length) / (0.2 * L), -1, 0)) },
  l1_exact: { family: "budget", bonus: (a, L) => a.map((x) => -Math.abs(x.length - L) / 3000) },
  l1_max: { family: "budget", alone: true, bonus: (a, L) => a.map((x) => (x.correct ? clip((L - x.length) / 3000 + 0.5, 0) : 0)) },
  cosine: { family: "budget", alone: true, bonus: cosine },

  confidence: { family: "certainty", bonus: (a) => a.map((x) => -Math.log(x.ppl_conditioned)) },
  entropy: { family: "certainty", bonus: (a) => a.map((x) => -mean(x.entropy)) },
  intuitor: { family: "certainty", bonus: (a) => a.map((x) => mean(x.self_certainty)) },

  verifree: { family: "gold", needs: "gold", alone: true, bonus: (a) => a.map(({ gold }) => Math.exp(sum(gold.after))) },
  rlpr: {
    family: "gold", needs: "gold", alone: true,
    bonus: (a) => a.map(({ gold }) => clip(mean(gold.after.map(Math.exp)) - mean(gold.without.map(Math.exp)), 0)),
  },
  nover: { family: "gold", needs: "gold", alone: true, bonus: nover },
  vr_cli: { family: "gold", needs: "gold", alone: true, bonus: (a) => a.map(({ gold }) => Math.max(-1, -Math.expm1(mean(gold.without) - mean(gold.after)))) },
  latro: { family: "gold", needs: "gold", alone: true, bonus: (a) => a.map(({ gold }) => sum(gold.after)) },

  majority: { family: "agreement", alone: true, bonus: majority },
  empo: { family: "agreement", alone: true, bonus: empo },
};

/** Reward of each answer of one group: R = R_right + α · bonus. `budget` in tokens. */
export function rewardsOf(name, answers, alpha, budget) {
  const { bonus, alone } = REWARDS[name];
  return bonus(answers, budget).map((b, i) => (alone ? b : Number(answers[i].correct) + alpha * b));
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

/** The value that an answer gave: what stands behind its last `Answer:`; null without one. */
export function valueOf(text) {
  const tail = text.split(/(?<![a-z])answer(?:\*\*|__)?[ \t]{0,8}:(?:\*\*|__)?/i).slice(1).pop();
  if (tail === undefined) return null;
  let value = tail.trim().split(/[\n-\r\x1c-\x1e\x85\u2028\u2029]/)[0], before;
  do {
    before = value;
    value = value.trim().replace(/(?<!\.)\.$/, "").trim().replace(/^(\*\*|\$|`|\*)(.+)\1$/, "$2").replace(/^\*\*|\*\*$/, "");
  } while (value !== before);
  return value;
}
