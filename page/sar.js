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

/**
 * Bonus of each answer of one group, {correct, length, sar, ppl_conditioned} each. `alone`: the
 * bonus is the whole reward, correctness is not counted.
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
