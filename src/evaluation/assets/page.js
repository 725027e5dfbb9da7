"use strict";
// Draws the curves and forecasts of an evaluation with uPlot.
const { curves, fans } = JSON.parse(document.getElementById("data").textContent);
const DAY_SECONDS = 86400;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const percent = (value) => `${+(value * 100).toPrecision(3)} %`;

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
const grouped = (rows, key) => {
  const groups = new Map();
  for (const row of rows) groups.set(row[key], [...(groups.get(row[key]) || []), row]);
  return groups;
};
const redrawn = [];

// A chart with its caption, drawn again where its width or the colours change.
function chart(parent, caption, options, data) {
  const box = el("div", { role: "img", "aria-label": caption });
  parent.append(el("figure", {}, box, el("figcaption", {}, caption)));
  const draw = () => {
    box.replaceChildren();
    if (!box.clientWidth) return;
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 0.5 }, ticks: { stroke: colour("--line"), width: 0.5 } };
    const { axes, ...rest } = options();
    new uPlot({ width: box.clientWidth, height: 260, cursor: { drag: { x: false, y: false } }, legend: { show: false }, axes: axes.map((own) => ({ ...axis, ...own })), ...rest }, data, box);
  };
  redrawn.push(draw);
  box.dataset.points = data[0].length;
  new ResizeObserver(draw).observe(box);
}

// Points of several models on one axis: uPlot wants the same x for all, and keeps one point of each x. Vertical steps have several,
// so these move to the right, by less than a pixel.
function joined(lines) {
  const apart = (points) => {
    let last = -1;
    return points.map(([x]) => (last = Math.max(x, last + 1e-9)));
  };
  const tables = lines.map((points) => [apart(points), points.map(([, y]) => y)]);
  return uPlot.join(tables, tables.map(() => [2]));
}
const model = (at) => ({ stroke: colour(`--model-${Math.min(at, 1) + 1}`), width: 2, spanGaps: true, points: { show: false } });
const shares = (top) => ({ x: { time: false, range: [0, top] }, y: { range: [0, top] } });

function lines(parent, caption, of, x_label, y_label, chance) {
  const drawn = of.map((one) => one.map(([x, y]) => [x, y]));
  const data = joined(chance ? [...drawn, chance] : drawn);
  chart(parent, caption, () => ({
    scales: shares(1),
    axes: [{ label: x_label, values: (u, splits) => splits.map(percent) }, { label: y_label, size: 64, values: (u, splits) => splits.map(percent) }],
    series: [{}, ...of.map((_, at) => model(at)), ...(chance ? [{ stroke: colour("--chance"), dash: [4, 4], width: 1, spanGaps: true, points: { show: false } }] : [])],
  }), data);
}

function reliability(parent, of) {
  const top = Math.min(1, Math.max(...of.flatMap((one) => one.reliability.flatMap((group) => [group.high, group.mean_score]))) * 1.05);
  const tables = of.flatMap((one) => {
    const x = one.reliability.map((group) => group.mean_score);
    return [[x, one.reliability.map((group) => group.share)], [x, one.reliability.map((group) => group.low)], [x, one.reliability.map((group) => group.high)]];
  });
  const data = uPlot.join([...tables, [[0, top], [0, top]]], [...tables, 0].map(() => [2]));
  const bar = { stroke: "transparent", width: 0, points: { show: false } };
  const whiskers = (u) => {
    of.forEach((one, at) => {
      u.ctx.strokeStyle = colour(`--model-${Math.min(at, 1) + 1}`);
      u.ctx.lineWidth = 1;
      for (const group of one.reliability) {
        const x = u.valToPos(group.mean_score, "x", true);
        u.ctx.beginPath();
        u.ctx.moveTo(x, u.valToPos(group.low, "y", true));
        u.ctx.lineTo(x, u.valToPos(group.high, "y", true));
        u.ctx.stroke();
      }
    });
  };
  chart(parent, "Reliability: up to ten groups of users by score. On the dashed line, the mean score is the share who did it.", () => ({
    scales: shares(top),
    axes: [{ label: "mean score", values: (u, splits) => splits.map(percent) }, { label: "share who did it", size: 64, values: (u, splits) => splits.map(percent) }],
    series: [{}, ...of.flatMap((_, at) => [{ ...model(at), points: { show: true, size: 6 } }, bar, bar]), { stroke: colour("--chance"), dash: [4, 4], width: 1, spanGaps: true, points: { show: false } }],
    hooks: { draw: [whiskers] },
  }), data);
}

function key(of) {
  const entries = of.map((one, at) => el("span", {}, el("span", { class: "key", style: `border-color: var(--model-${Math.min(at, 1) + 1})` }), `${one.model_version} `));
  return el("p", { class: "quiet" }, ...entries);
}

for (const [intent, of] of grouped(curves, "intent")) {
  const place = document.getElementById("intents");
  const charts = el("div", { class: "charts" });
  place.append(el("h3", {}, `${intent}: ${of[0].positives} of ${of[0].users} users`), key(of), charts);
  const auc = of.map((one) => one.auc.toFixed(4)).join(" and ");
  const share = of[0].positives / of[0].users;
  lines(charts, `ROC: the area below is the AUC, ${auc}.`, of.map((one) => one.roc), "share of those who did not", "share of those who did", [[0, 0], [1, 1]]);
  lines(charts, `Precision and recall. Dashed: users drawn at random, ${percent(share)}.`, of.map((one) => one.precision_recall), "share of those who did (recall)", "share who did it (precision)", [[0, share], [1, share]]);
  reliability(charts, of);
  lines(charts, "Lift: the share of those who did it among the users with the highest scores.", of.map((one) => one.lift), "share of all users", "share of those who did", [[0, 0], [1, 1]]);
}

for (const [item, of] of grouped(fans, "item_id")) {
  const place = document.getElementById("demand");
  if (!place.firstChild) place.append(el("h3", {}, "The items that sold most: units a day"), el("p", { class: "quiet" }, "Bands: q05 to q95 and q25 to q75; line: median; dots: what was sold, no dot on days without stock."), el("div", { class: "charts" }));
  for (const fan of of) {
    const first = fan.as_of_day - fan.past.length;
    const days = [...fan.past, ...fan.units].map((_, at) => (first + at) * DAY_SECONDS);
    const later = (values) => [...fan.past.map(() => null), ...values];
    const data = [days, [...fan.past, ...fan.units], ...["q95", "q05", "q75", "q25", "q50"].map((name) => later(fan[name]))];
    const edge = { stroke: "transparent", width: 0, points: { show: false } };
    chart(place.lastChild, `${item}${of.length > 1 ? `, ${fan.model_version}` : ""}`, () => ({
      scales: { x: { time: true }, y: { range: (u, low, high) => [0, Math.max(high * 1.05, 1)] } },
      tzDate: (ts) => uPlot.tzDate(new Date(ts * 1000), "Etc/UTC"),
      axes: [{ space: 70, incrs: [1, 2, 7, 14, 28].map((n) => n * DAY_SECONDS), values: (u, splits) => splits.map((s) => new Date(s * 1000).toISOString().slice(5, 10)) }, { size: 56 }],
      series: [{}, { stroke: "transparent", width: 0, points: { show: true, size: 5, stroke: colour("--sold"), fill: colour("--sold") } }, edge, edge, edge, edge, { stroke: colour("--model-1"), width: 2, points: { show: false } }],
      bands: [{ series: [2, 3], fill: colour("--band-90") }, { series: [4, 5], fill: colour("--band-50") }],
    }), data);
  }
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redrawn.forEach((draw) => draw()));
document.body.dataset.ready = "all";
