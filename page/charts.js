// Inline SVG charts that can be read with the mouse and with the keyboard.

const SVG = "http://www.w3.org/2000/svg";

function draw(tag, attributes, parent, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

/** Round numbers between two ends, about `count` of them. */
export function ticks(low, high, count = 5) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((f) => f * power >= rough);
  const found = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) found.push(Math.round(v / step) * step);
  return found;
}

/** Axes in a frame; returns the svg and functions from data to pixels. */
function frame(element, { width, height, x, y, label }) {
  const pad = { left: 52, right: 14, top: 12, bottom: 42 };
  element.replaceChildren();
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label, class: "chart" }, element);
  const px = (v) => pad.left + ((v - x.low) / (x.high - x.low)) * (width - pad.left - pad.right);
  const bend = y.bend || ((v) => v), [bottom, top] = [bend(y.low), bend(y.high)];
  const py = (v) => height - pad.bottom - ((bend(v) - bottom) / (top - bottom)) * (height - pad.top - pad.bottom);
  for (const v of y.ticks || ticks(y.low, y.high)) {
    draw("line", { x1: pad.left, x2: width - pad.right, y1: py(v), y2: py(v), class: "grid" }, svg);
    draw("text", { x: pad.left - 7, y: py(v) + 4, class: "tick end" }, svg, y.format(v));
  }
  for (const v of ticks(x.low, x.high, Math.min(7, Math.round(width / 90)))) {
    draw("line", { y1: pad.top, y2: height - pad.bottom, x1: px(v), x2: px(v), class: "grid" }, svg);
    draw("text", { x: px(v), y: height - pad.bottom + 17, class: "tick middle" }, svg, x.format(v));
  }
  draw("text", { x: (pad.left + width - pad.right) / 2, y: height - 6, class: "tick middle" }, svg, x.title);
  draw("text", { x: 0, y: 0, class: "tick middle", transform: `translate(12 ${(height - pad.bottom + pad.top) / 2}) rotate(-90)` }, svg, y.title);
  return { svg, px, py };
}

const percent = (v) => `${Math.round(v * 100)}%`;
const whole = (v) => String(Math.round(v));

const logit = (p) => Math.log(p / (1 - p));
const ODDS = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98]; // ticks of an axis that spreads the top

/** Accuracy over mean length, intervals on both axes, one mark per arm. `say(text)` shows the numbers. */
export function planeChart(element, arms, { width, height, say, floor }) {
  const shown = arms.filter((a) => a.accuracy >= floor);
  const lengths = shown.flatMap((a) => [a.length_low, a.length_high]);
  const { svg, px, py } = frame(element, {
    width, height, label: "Accuracy over mean length of every arm",
    x: { low: Math.floor(Math.min(...lengths) / 10) * 10, high: Math.ceil(Math.max(...lengths) / 10) * 10, format: whole, title: "mean length, tokens (95% interval)" },
    y: { low: floor, high: 0.985, format: percent, title: "accuracy (log odds)", bend: logit, ticks: ODDS.filter((v) => v >= floor) },
  });
  const group = draw("g", {}, svg);
  for (const arm of shown) {
    const mark = draw("g", { class: `arm ${arm.kind}`, tabindex: 0, role: "img", "aria-label": arm.text }, group);
    draw("line", { x1: px(arm.length_low), x2: px(arm.length_high), y1: py(arm.accuracy), y2: py(arm.accuracy) }, mark);
    draw("line", { x1: px(arm.length), x2: px(arm.length), y1: py(Math.max(floor, arm.accuracy_low)), y2: py(Math.min(0.985, arm.accuracy_high)) }, mark);
    draw("circle", { cx: px(arm.length), cy: py(arm.accuracy), r: 5.5 }, mark);
    draw("circle", { cx: px(arm.length), cy: py(arm.accuracy), r: 13, class: "target" }, mark);
    const right = px(arm.length) > width * 0.7;
    if (arm.named) {
      draw("text", { x: px(arm.length) + (right ? -10 : 10), y: py(arm.accuracy) + arm.named, class: right ? "name end" : "name" }, mark, arm.label);
    }
    const tell = () => { group.append(mark); say(arm.text); };
    mark.addEventListener("pointerenter", () => say(arm.text));
    mark.addEventListener("click", tell);
    mark.addEventListener("focus", () => say(arm.text));
  }
}

/** One quantity over training steps: a thick line per arm (mean over seeds), thin ones per run. */
export function curvesChart(element, { title, arms, percentages, say, width, height }) {
  const values = arms.flatMap((a) => a.runs.flat()).filter((v) => v !== null);
  const high = percentages ? 1 : Math.max(...values) * 1.04, low = Math.min(0, ...values);
  const steps = Math.max(...arms.map((a) => a.mean.length));
  const y = { low, high, format: percentages ? percent : (v) => (high > 10 ? whole(v) : v.toFixed(1)), title };
  const { svg, px, py } = frame(element, { width, height, label: `${title} over training steps`, x: { low: 0, high: steps, format: whole, title: "training step" }, y });
  const line = (numbers, attributes) => draw("polyline", {
    points: numbers.map((v, i) => `${px(i + 1).toFixed(1)},${py(v).toFixed(1)}`).join(" "), ...attributes,
  }, svg);
  for (const arm of arms) for (const run of arm.runs) line(run, { class: `curve thin ${arm.kind}` });
  for (const arm of arms) line(arm.mean, { class: `curve ${arm.kind}` });
  const cursor = draw("line", { y1: py(low), y2: py(high), x1: 0, x2: 0, class: "cursor", visibility: "hidden" }, svg);
  let step = 0;
  const at = (wanted) => {
    step = Math.max(1, Math.min(steps, wanted));
    cursor.removeAttribute("visibility");
    cursor.setAttribute("x1", px(step));
    cursor.setAttribute("x2", px(step));
    say(`Step ${step}, ${title.toLowerCase()}: ` + arms.filter((a) => step <= a.mean.length).map((a) => {
      const v = a.mean[step - 1];
      return `${a.label} ${percentages ? `${(100 * v).toFixed(0)}%` : v.toFixed(high > 10 ? 0 : 2)}`;
    }).join(", "));
  };
  svg.setAttribute("tabindex", 0);
  svg.setAttribute("role", "slider");
  svg.setAttribute("aria-valuemin", 1);
  svg.setAttribute("aria-valuemax", steps);
  const tell = (wanted) => { at(wanted); svg.setAttribute("aria-valuenow", step); };
  svg.setAttribute("aria-valuenow", 1);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * width;
    tell(Math.round(((x - px(0)) / (px(steps) - px(0))) * steps));
  });
  svg.addEventListener("focus", () => tell(step || steps));
  svg.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: step - 1, ArrowRight: step + 1, Home: 1, End: steps }[event.key];
    if (to === undefined) return;
    tell(to);
    event.preventDefault();
  });
}
