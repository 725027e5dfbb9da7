// Draws the report from the data that the page carries. Every text from the lake is set as text, never as markup.
(async () => {
"use strict";
const byId = (id) => document.getElementById(id);
const LABELS = JSON.parse(byId("labels").textContent);
const LANGUAGE = document.documentElement.lang;
const PAGE_ROWS = 50, PRINTED_ROWS = 1000, PRINTED_WIDTH = 640, CHANGES = 25, RISK_HIGH = 0.2, DAY_SECONDS = 86400;
const t = (key, values = {}) => LABELS[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);

// Element by tag, with attributes, texts and children.
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

if (typeof DecompressionStream === "undefined") { byId("loading").textContent = t("needs_browser"); return; }
const packed = Uint8Array.from(atob(byId("data").textContent), (c) => c.charCodeAt(0));
const report = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
const rowCount = (columns) => (Object.values(columns)[0] || []).length;
const rowsOf = (columns) => Array.from({ length: rowCount(columns) }, (_, i) =>
  Object.fromEntries(Object.entries(columns).map(([name, values]) => [name, values[i]])));
const groupBy = (rows, key) => {
  const groups = new Map();
  for (const row of rows) { if (!groups.has(row[key])) groups.set(row[key], []); groups.get(row[key]).push(row); }
  return groups;
};

// ---- numbers, dates
const plain = (digits) => new Intl.NumberFormat(LANGUAGE, { maximumFractionDigits: digits });
const whole = plain(0), exact = plain(3), oneDecimal = plain(1);
const twoDigits = new Intl.NumberFormat(LANGUAGE, { maximumSignificantDigits: 2 });
const units = { format: (value) => (Math.abs(value) < 1 ? twoDigits : oneDecimal).format(value) };
const share = new Intl.NumberFormat(LANGUAGE, { style: "percent", maximumFractionDigits: 1 });
const percent = { format: (value) => value > 0 && value < 0.001 ? `< ${share.format(0.001)}` : share.format(value) };
const signed = { format: (value) => (value > 0 ? "+" : "") + units.format(value) };
const longDate = new Intl.DateTimeFormat(LANGUAGE, { dateStyle: "medium", timeZone: "UTC" });
const shortDate = new Intl.DateTimeFormat(LANGUAGE, { month: "short", day: "numeric", timeZone: "UTC" });
const time = new Intl.DateTimeFormat(LANGUAGE, { dateStyle: "medium", timeStyle: "short", timeZone: "UTC" });
const known = (value) => value !== null && value !== undefined;
const show = (format) => (value) => known(value) ? format.format(value) : "–";
const asDate = (day) => new Date(day + "T00:00:00Z");
const showDay = (day) => longDate.format(asDate(day));
const seconds = (day) => asDate(day).getTime() / 1000;

const lines = rowsOf(report.order_lines);
const titles = new Map(lines.map((line) => [line.item_id, line.title]));
const shown = new Set(report.shown_items.item_id);
const daysOf = groupBy(rowsOf(report.shown_days), "item_id");
const forecastsOf = groupBy(rowsOf(report.shown_forecasts), "item_id");
const earlierOf = groupBy(rowsOf(report.shown_earlier_forecasts), "item_id");
const promotionsOf = groupBy(rowsOf(report.shown_promotions), "item_id");
const stockOutsOf = groupBy(rowsOf(report.shown_stock_outs), "item_id");
const changes = rowsOf(report.item_changes);

const reason = (line) => (line.reason ?? "").replace(/^./u, (first) => first.toLocaleUpperCase(LANGUAGE));

// ---- charts
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const drawn = new Set();
let isPrinting = false;

// Draws lines and bands over days. `series`: [{label, values, stroke, dash, points, hidden}], `bands`: [[upper, lower, fill]] by
// position in `series`, `shades`: [{from, to, fill}] in seconds.
function chart(parent, label, days, series, { bands = [], shades = [], small = false, format = units, bars = false } = {}) {
  const box = el("div", { class: small ? "chart small" : "chart", role: "img", "aria-label": label });
  parent.append(box);
  const draw = () => {
    box.replaceChildren();
    const width = isPrinting ? PRINTED_WIDTH : box.clientWidth;
    if (!width) return;
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 0.5 }, ticks: { stroke: colour("--line"), width: 0.5 } };
    new uPlot({
      width, height: small ? 224 : 320,
      tzDate: (ts) => uPlot.tzDate(new Date(ts * 1000), "Etc/UTC"),
      cursor: { drag: { x: false, y: false } },
      legend: { show: false },
      scales: { y: { range: (u, low, high) => [Math.min(0, low || 0), high > 0 ? high * 1.05 : 1] } },
      axes: [
        { ...axis, values: (u, splits) => splits.map((s) => shortDate.format(new Date(s * 1000))), space: 70, incrs: [1, 2, 7, 14, 28, 56, 112].map((days) => days * DAY_SECONDS) },
        { ...axis, values: (u, splits) => splits.map((v) => format.format(v)), size: 64 },
      ],
      series: [{}, ...series.map((s) => ({
        label: s.label, stroke: s.stroke ? colour(s.stroke) : "transparent", width: s.stroke ? 1.5 : 0, dash: s.dash,
        points: { show: Boolean(s.points), size: 4 }, spanGaps: false,
        paths: s.bars ? uPlot.paths.bars({ size: [0.7, 24] }) : undefined, fill: s.bars ? colour(s.stroke) : undefined,
      }))],
      bands: bands.map(([upper, lower, fill]) => ({ series: [upper + 1, lower + 1], fill: colour(fill) })),
      hooks: { drawClear: [(u) => {
        for (const shade of shades) {
          const from = Math.max(u.valToPos(shade.from, "x", true), u.bbox.left);
          const to = Math.min(u.valToPos(shade.to, "x", true), u.bbox.left + u.bbox.width);
          if (to > from) { u.ctx.fillStyle = colour(shade.fill); u.ctx.fillRect(from, u.bbox.top, to - from, u.bbox.height); }
        }
      }] },
    }, [days.map(seconds), ...series.map((s) => s.values)], box);
  };
  new ResizeObserver(draw).observe(box);
  // Charts of items that were closed are forgotten.
  for (const other of drawn) if (!other.box.isConnected) drawn.delete(other);
  drawn.add({ box, draw });
  return box;
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((one) => one.draw()));

function keys(entries) {
  const swatch = ({ fill, stroke, dash }) => {
    const mark = el("span");
    if (fill) mark.style.background = `var(${fill})`;
    if (stroke) { mark.style.borderTop = `3px ${dash ? "dashed" : "solid"} var(${stroke})`; mark.style.height = "0"; mark.style.verticalAlign = "4px"; }
    return mark;
  };
  return el("ul", { class: "keys" }, ...entries.map((entry) => el("li", {}, swatch(entry), entry.label)));
}

// ---- tables
// columns: [{label, text(row), number, class}]
function table(caption, columns, rows, hasCaption = true) {
  const rowHeader = 0;
  const head = el("tr", {}, ...columns.map((c) => el("th", { scope: "col", class: c.number ? "number" : null }, c.label)));
  const body = rows.map((row) => el("tr", {}, ...columns.map((c, i) => {
    const value = c.text(row);
    return el(i === rowHeader ? "th" : "td", { scope: i === rowHeader ? "row" : null, class: c.number ? "number" : null },
      value instanceof Node ? value : String(value ?? "–"));
  })));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", { "aria-label": hasCaption ? null : caption }, hasCaption ? el("caption", {}, caption) : null, el("thead", {}, head), el("tbody", {}, ...body)));
}
const numbers = (label, text) => ({ label, text, number: true });
const folded = (...content) => el("details", {}, el("summary", {}, t("show_numbers")), ...content);

// ---- one item
const dialog = byId("item");
byId("close").setAttribute("aria-label", t("close"));
function nameOf(itemId) {
  const title = titles.get(itemId);
  return title ? `${itemId} · ${title}` : itemId;
}
function openButton(itemId) {
  const button = el("button", { type: "button", class: "open" }, itemId);
  button.addEventListener("click", () => openItem(itemId));
  return button;
}
function openItem(itemId) {
  const body = byId("item-body");
  const line = lines.find((candidate) => candidate.item_id === itemId);
  body.replaceChildren(el("h2", { id: "item-title" }, nameOf(itemId)));
  if (line) {
    body.append(el("p", {}, reason(line)));
    const facts = [
      ["order_quantity", whole], ["stock_out_risk", percent], ["days_of_cover", units], ["on_hand", whole], ["on_order", whole],
      ["reorder_point", whole], ["safety_stock", units], ["lead_time_days", whole], ["review_period_days", whole],
      ["service_level", percent], ["pack_size", whole], ["min_order_quantity", whole],
    ].map(([name, format]) => [t(name), show(format)(line[name])]);
    if (line.order_quantity > 0 && line.lead_time_demand_mean > 0) {
      const after = (line.on_hand + line.on_order + line.order_quantity) / (line.lead_time_demand_mean / line.lead_time_days);
      facts.push([t("cover_after"), units.format(after)]);
    }
    facts.push([t("demand_mean", { days: report.horizon_days }), show(units)(line.demand_mean)]);
    facts.push([t("lead_time_demand"), show(units)(line.lead_time_demand_mean)]);
    body.append(el("dl", { class: "facts" }, ...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))));
  }
  dialog.showModal();
  drawItem(body, itemId);
}
function drawItem(body, itemId) {
  if (!shown.has(itemId)) {
    const quoted = itemId.replaceAll("'", "''");
    // For a POSIX shell: nothing is special between single quotes.
    const word = (text) => `'${text.replaceAll("'", "'\\''")}'`;
    const sql = `SELECT target_date, mean, q05, q50, q95 FROM demand_history\n  WHERE item_id = '${quoted}' AND run_date = DATE '${report.run_date}' ORDER BY target_date`;
    body.append(el("p", {}, t("not_shown")), el("pre", { tabindex: "0" }, `intentcast sql --output ${word(report.output)} -c ${word(sql)}`));
    return;
  }
  const sold = new Map((daysOf.get(itemId) || []).map((row) => [row.day, row.units]));
  const forecasts = new Map((forecastsOf.get(itemId) || []).map((row) => [row.target_date, row]));
  const earlier = new Map((earlierOf.get(itemId) || []).map((row) => [row.target_date, row]));
  const outs = new Set((stockOutsOf.get(itemId) || []).map((row) => row.day));
  const missing = new Set(report.missing_days);
  const present = [...sold.keys(), ...forecasts.keys(), ...earlier.keys()].sort();
  if (!sold.size && report.has_days) body.append(el("p", {}, t("no_history")));
  if (!present.length) return;
  const days = [];
  for (let s = seconds(present[0]); s <= seconds(present[present.length - 1]); s += DAY_SECONDS) days.push(new Date(s * 1000).toISOString().slice(0, 10));
  // A day before the night without a sale is a day of zero, unless the lake misses it.
  const firstSold = [...sold.keys()].sort()[0];
  const actual = days.map((day) => day >= report.run_date || !firstSold || day < firstSold || missing.has(day) ? null : sold.get(day) || 0);
  const pick = (rows, name) => days.map((day) => known(rows.get(day)) ? rows.get(day)[name] : null);
  const half = DAY_SECONDS / 2;
  const shades = [
    ...(promotionsOf.get(itemId) || []).map((p) => ({ from: seconds(p.starts_on) - half, to: seconds(p.ends_on) + half, fill: "--promotion" })),
    ...[...outs].map((day) => ({ from: seconds(day) - half, to: seconds(day) + half, fill: "--stock-out" })),
  ];
  const series = [
    { label: "q95", values: pick(forecasts, "q95") }, { label: "q05", values: pick(forecasts, "q05") },
    { label: "q75", values: pick(forecasts, "q75") }, { label: "q25", values: pick(forecasts, "q25") },
    { label: t("sold"), values: actual, stroke: "--sold" },
    { label: t("forecast_earlier"), values: pick(earlier, "mean"), stroke: "--earlier", dash: [4, 3], points: earlier.size < 3 },
    { label: t("forecast_mean"), values: pick(forecasts, "mean"), stroke: "--forecast" },
  ];
  chart(body, t("chart_item", { item: nameOf(itemId) }), days, series, { bands: [[0, 1, "--band-90"], [2, 3, "--band-50"]], shades });
  const entries = [{ label: t("sold"), stroke: "--sold" }, { label: t("forecast_mean"), stroke: "--forecast" },
    { label: t("forecast_50"), fill: "--band-50" }, { label: t("forecast_90"), fill: "--band-90" }];
  if (earlier.size) entries.push({ label: t("forecast_earlier"), stroke: "--earlier", dash: true });
  if (promotionsOf.has(itemId)) entries.push({ label: t("promotion"), fill: "--promotion" });
  if (outs.size) entries.push({ label: t("out_of_stock"), fill: "--stock-out" });
  body.append(keys(entries));
  const recent = days.slice(Math.max(0, days.findIndex((day) => day >= report.run_date) - 28)).reverse();
  const value = (rows, name) => (day) => show(units)(rows.get(day)?.[name]);
  body.append(folded(table(t("chart_item", { item: itemId }), [
    { label: t("day"), text: showDay },
    numbers(t("sold"), (day) => show(units)(actual[days.indexOf(day)])),
    numbers(t("forecast_earlier"), value(earlier, "mean")), numbers(t("forecast_mean"), value(forecasts, "mean")),
    numbers("q05", value(forecasts, "q05")), numbers("q50", value(forecasts, "q50")), numbers("q95", value(forecasts, "q95")),
  ], recent)));
}

// ---- the order lines
const COLUMNS = [
  { key: "item_id", label: t("item") },
  { key: "order_quantity", label: t("order_quantity"), number: true, format: whole, class: "quantity" },
  { key: "stock_out_risk", label: t("stock_out_risk"), number: true, format: percent },
  { key: "days_of_cover", label: t("days_of_cover"), number: true, format: units },
  { key: "on_hand", label: t("on_hand"), number: true, format: whole },
  { key: "on_order", label: t("on_order"), number: true, format: whole },
  { key: "reorder_point", label: t("reorder_point"), number: true, format: whole },
  { key: "lead_time_days", label: t("lead_time_days"), number: true, format: whole },
  { key: "reason", label: t("reason"), unsorted: true },
];
const state = { sort: null, descending: false, page: 0, rows: [] };
const hasOrderLines = lines.some((line) => known(line.reorder_point));
const searched = lines.map((line) => `${line.item_id}\n${line.title || ""}\n${line.category || ""}`.toLocaleLowerCase(LANGUAGE));
const compareTexts = new Intl.Collator(LANGUAGE, { numeric: true }).compare;

const isEmpty = (line) => known(line.on_hand) && line.on_hand <= 0;
function filterLines() {
  byId("sort").value = state.sort?.key ?? "";
  const words = byId("search").value.toLocaleLowerCase(LANGUAGE).split(/\s+/).filter(Boolean);
  const [which, category] = [byId("show").value, byId("category").value];
  state.rows = lines.filter((line, i) =>
    (which === "all" || (which === "orders" ? line.order_quantity > 0 : which === "empty" ? isEmpty(line) : line.stock_out_risk >= RISK_HIGH))
    && (!category || `=${line.category ?? ""}` === category) && words.every((word) => searched[i].includes(word)));
  if (state.sort) {
    const { key, number } = state.sort, turn = state.descending ? -1 : 1;
    // Lines without a value come last in both directions.
    state.rows.sort((a, b) => known(a[key]) && known(b[key])
      ? turn * (number ? a[key] - b[key] : compareTexts(a[key], b[key])) : known(b[key]) - known(a[key]));
  }
  state.page = 0;
  drawLines();
}
function sortBy(column) {
  state.descending = state.sort === column ? !state.descending : Boolean(column?.number);
  state.sort = column;
  filterLines();
}
function headCell(column) {
  const direction = state.sort === column ? (state.descending ? "descending" : "ascending") : null;
  if (column.unsorted || isPrinting) return el("th", { scope: "col", class: column.number ? "number" : null }, column.label);
  const button = el("button", { type: "button" }, column.label + (direction ? (state.descending ? " ▼" : " ▲") : ""));
  button.addEventListener("click", () => {
    sortBy(column);
    byId("lines").querySelectorAll("thead button")[COLUMNS.indexOf(column)].focus();
  });
  return el("th", { scope: "col", class: column.number ? "number" : null, "aria-sort": direction || "none" }, button);
}
function lineRow(line) {
  return el("tr", {}, ...COLUMNS.map((column) => {
    const value = line[column.key];
    if (column.key === "item_id") return el("th", { scope: "row" }, openButton(value), line.title ? el("span", { class: "title" }, line.title) : null, line.category ? el("span", { class: "title" }, line.category) : null);
    if (column.key === "reason") return el("td", { class: "why" }, reason(line));
    const text = column.number ? show(column.format)(value) : value ?? "–";
    const inner = column.key === "stock_out_risk" ? el("span", { class: value >= RISK_HIGH ? "risk high" : "risk" }, text) : text;
    return el("td", { class: [column.number ? "number" : "", column.class || ""].join(" ").trim() || null, "data-label": column.label }, inner);
  }));
}
function drawLines() {
  const rowsPerPage = isPrinting ? PRINTED_ROWS : PAGE_ROWS;
  const pages = Math.max(1, Math.ceil(state.rows.length / rowsPerPage));
  const rows = state.rows.slice(state.page * rowsPerPage, (state.page + 1) * rowsPerPage);
  byId("found").textContent = t("found", { count: whole.format(state.rows.length) });
  byId("page").textContent = t("page_of", { page: whole.format(state.page + 1), pages: whole.format(pages) });
  byId("previous").disabled = state.page === 0;
  byId("next").disabled = state.page + 1 >= pages;
  byId("pager").hidden = pages === 1;
  const empty = !hasOrderLines ? t("orders_no_inventory")
    : byId("show").value === "orders" && !lines.some((line) => line.order_quantity > 0) ? t("orders_none") : null;
  const about = empty ? [el("p", {}, empty)] : rows.length ? [] : [el("p", {}, t("none_found"))];
  if (!rows.length) { byId("lines").replaceChildren(...about); return; }
  byId("lines").replaceChildren(...about, el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("orders") },
    el("table", {}, el("thead", {}, el("tr", {}, ...COLUMNS.map(headCell))), el("tbody", {}, ...rows.map(lineRow)))));
}
function showOrders() {
  // Without inventory there is nothing to order; the items can still be looked up.
  if (!hasOrderLines) byId("show").value = "all";
  const categories = [...new Set(lines.map((line) => line.category ?? ""))].sort(compareTexts);
  byId("category").append(...categories.map((name) => el("option", { value: `=${name}` }, name || t("category_none"))));
  let waiting;
  byId("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filterLines, 120); });
  for (const id of ["show", "category"]) byId(id).addEventListener("change", filterLines);
  byId("filters").addEventListener("submit", (event) => { event.preventDefault(); filterLines(); });
  const turn = (pages) => {
    state.page += pages;
    drawLines();
    byId("lines").querySelector(".scroll").focus({ preventScroll: true });
    byId("filters").scrollIntoView();
  };
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  byId("sort").append(...COLUMNS.filter((column) => !column.unsorted).map((column) => el("option", { value: column.key }, column.label)));
  byId("sort").addEventListener("change", () => { state.sort = null; sortBy(COLUMNS.find((column) => column.key === byId("sort").value) ?? null); });
  // Paper has no next page to click, is light, and has a width of its own.
  const print = (on) => {
    isPrinting = on;
    document.documentElement.toggleAttribute("data-print", on);
    state.page = 0;
    drawLines();
    for (const one of drawn) one.draw();
  };
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  filterLines();
}

// ---- the other sections
function showSummary() {
  const ordered = lines.filter((line) => line.order_quantity > 0);
  const sum = (rows, name) => rows.reduce((total, row) => total + (row[name] ?? 0), 0);
  const tiles = [];
  if (hasOrderLines) {
    tiles.push([whole.format(ordered.length), t("summary_orders")]);
    tiles.push([whole.format(sum(ordered, "order_quantity")), t("summary_units")]);
    tiles.push([whole.format(lines.filter((line) => line.stock_out_risk >= RISK_HIGH).length), t("summary_risk")]);
    tiles.push([whole.format(lines.filter(isEmpty).length), t("stock_now")]);
  }
  if (changes.length) {
    const compared = changes.some((row) => known(row.demand_change));
    const change = compared ? `, ${t("summary_demand_change", { change: signed.format(sum(changes, "demand_change")), date: showDay(report.compared_date) })}` : "";
    tiles.push([whole.format(sum(changes, "demand_mean")), t("summary_demand", { days: report.horizon_days }) + change]);
  }
  tiles.push([whole.format(report.run.rows_quarantined ?? 0), t("summary_bad_rows")]);
  byId("summary").append(...tiles.map(([value, label]) => el("li", {}, el("b", {}, value), label)));
  const about = [t("night", { date: showDay(report.run_date) }),
    t("published", { time: `${time.format(new Date(report.run.made_visible_at))} UTC`, model: report.run.model_version ?? "–" }),
    report.compared_date ? t("compared", { date: showDay(report.compared_date) }) : t("compared_none")];
  byId("about").textContent = about.join(" · ");
  byId("limits").textContent = report.has_lake ? "" : t(report.has_days ? "no_lake" : "no_days");
  byId("limits").hidden = report.has_lake;
}
function showChanges() {
  const section = byId("changes");
  if (!report.compared_date) { section.append(el("p", {}, t("changes_none"))); return; }
  const orderChange = (row) => known(row.order_quantity_before) ? Math.abs((row.order_quantity ?? 0) - row.order_quantity_before) : 0;
  const largest = (sizeOf) => changes.filter((row) => sizeOf(row) > 0).sort((a, b) => sizeOf(b) - sizeOf(a)).slice(0, CHANGES);
  const orders = largest(orderChange), demands = largest((row) => Math.abs(row.demand_change ?? 0));
  if (!orders.length && !demands.length) {
    const isCompared = changes.some((row) => known(row.demand_change));
    section.append(el("p", {}, t(isCompared ? "changes_nothing" : "changes_no_common", { date: showDay(report.compared_date) })));
    return;
  }
  const name = { label: t("item"), text: (row) => el("span", {}, openButton(row.item_id), titles.get(row.item_id) ? el("span", { class: "title" }, titles.get(row.item_id)) : "") };
  const demandNow = (row) => known(row.demand_change) ? (row.demand_before ?? 0) + row.demand_change : row.demand_mean;
  section.append(el("p", {}, t("changes_since", { date: showDay(report.compared_date) })));
  if (orders.length) section.append(table(t("orders_changed"), [name,
    numbers(t("order_before"), (row) => show(whole)(row.order_quantity_before)), numbers(t("order_now"), (row) => show(whole)(row.order_quantity)),
    numbers(t("stock_out_risk"), (row) => show(percent)(row.stock_out_risk)), numbers(t("on_hand"), (row) => show(whole)(row.on_hand)),
  ], orders));
  if (demands.length) section.append(table(t("demand_changed"), [name,
    numbers(t("before"), (row) => show(units)(row.demand_before)), numbers(t("now"), (row) => show(units)(demandNow(row))),
    numbers(t("change"), (row) => show(signed)(row.demand_change)), numbers(t("stock_out_risk"), (row) => show(percent)(row.stock_out_risk)),
  ], demands));
}
function showDemand() {
  const section = byId("demand");
  const rows = rowsOf(report.total_days);
  if (!rows.some((row) => known(row.forecast))) section.append(el("p", {}, t("demand_none")));
  if (!rows.length) return;
  const past = (row) => row.day < report.run_date;
  chart(section, t("chart_total"), rows.map((row) => row.day), [
    { label: t("sold"), values: rows.map((row) => past(row) ? row.units : null), stroke: "--sold" },
    { label: t("forecast_earlier"), values: rows.map((row) => past(row) ? row.forecast : null), stroke: "--earlier", dash: [4, 3], points: true },
    { label: t("forecast_mean"), values: rows.map((row) => past(row) ? null : row.forecast), stroke: "--forecast" },
  ], { format: whole });
  section.append(keys([{ label: t("sold"), stroke: "--sold" }, { label: t("forecast_earlier"), stroke: "--earlier", dash: true }, { label: t("forecast_mean"), stroke: "--forecast" }]));
  section.append(folded(table(t("chart_total"), [{ label: t("day"), text: (row) => showDay(row.day) },
    numbers(t("sold"), (row) => show(units)(row.units)), numbers(t("forecast_mean"), (row) => show(units)(row.forecast))], rows.slice(-56).reverse())));
}
const LINE_COLOURS = [1, 2, 3, 4, 5, 6, 7].map((i) => `--line-${i}`);
const DASHES = [undefined, [6, 3], [2, 3]];
function manyLines(parent, label, days, names, valueOf, options) {
  const series = names.map(([name, text], i) => ({
    label: text, values: days.map((day) => valueOf(day, name)), stroke: LINE_COLOURS[i % LINE_COLOURS.length],
    dash: DASHES[Math.floor(i / LINE_COLOURS.length) % DASHES.length], points: days.length < 8,
  }));
  chart(parent, label, days, series, { small: true, ...options });
  parent.append(keys(series.map((s) => ({ label: s.label, stroke: s.stroke, dash: Boolean(s.dash) }))));
}
function showCustomers() {
  const section = byId("customers");
  const segments = rowsOf(report.segment_days), intents = rowsOf(report.intent_days), funnel = rowsOf(report.funnel_weeks ?? {});
  if (!intents.length && !segments.length && !funnel.length) { section.append(el("p", {}, t("customers_none"))); return; }
  const pair = el("div", { class: "pair" });
  section.append(pair);
  if (segments.length) {
    const box = el("div", {}, el("h3", {}, t("segments")));
    pair.append(box);
    const nights = [...new Set(segments.map((row) => row.run_date))];
    const tonight = segments.filter((row) => row.run_date === report.run_date).sort((a, b) => b.users - a.users);
    const users = new Map(segments.map((row) => [`${row.run_date} ${row.segment}`, row.users]));
    if (nights.length > 1) manyLines(box, t("chart_segments"), nights, tonight.map((row) => [row.segment, row.segment]), (day, name) => users.get(`${day} ${name}`) ?? null, { format: whole });
    box.append(table(t("segments"), [{ label: t("segment"), text: (row) => row.segment }, numbers(t("users"), (row) => show(whole)(row.users)),
      numbers(t("purchase_mean"), (row) => show(percent)(row.p_purchase_mean)), numbers(t("churn_mean"), (row) => show(percent)(row.p_churn_mean)),
      numbers(t("spend_mean"), (row) => show(units)(row.expected_spend_mean))], tonight, false));
  }
  if (intents.length) {
    const box = el("div", {}, el("h3", {}, t("intents")));
    pair.append(box);
    const names = Object.keys(report.intent_days).filter((name) => name.startsWith("p_")).map((name) => [name, LABELS[name] ?? name]);
    const byNight = new Map(intents.map((row) => [row.run_date, row]));
    names.sort(([a], [b]) => (byNight.get(report.run_date)?.[b] ?? 0) - (byNight.get(report.run_date)?.[a] ?? 0));
    if (intents.length > 1) manyLines(box, t("chart_intents"), [...byNight.keys()], names, (day, name) => byNight.get(day)[name], { format: percent });
    const tonight = byNight.get(report.run_date), before = byNight.get(report.compared_date);
    box.append(table(t("chart_intents"), [{ label: t("intent"), text: ([, text]) => text },
      numbers(t("now"), ([name]) => show(percent)(tonight?.[name])), numbers(t("before"), ([name]) => show(percent)(before?.[name]))], names, false));
  }
  if (funnel.length) {
    const box = el("div", {}, el("h3", {}, t("funnel")));
    section.append(box);
    const ofActive = (row, name) => !known(row[name]) ? "–" : `${show(whole)(row[name])} (${percent.format(row.active_users ? row[name] / row.active_users : 0)})`;
    box.append(table(t("chart_funnel"), [{ label: t("week_from"), text: (row) => showDay(row.week_from) }, numbers(t("active_users"), (row) => show(whole)(row.active_users)),
      ...["viewing_users", "cart_users", "buying_users"].map((name) => numbers(t(name), (row) => ofActive(row, name)))], funnel.slice().reverse()));
  }
}
function showQuality() {
  const section = byId("quality"), run = report.run;
  section.append(el("p", {}, t("quality_rows", { rows: show(whole)(run.rows_read), bad: show(whole)(run.rows_quarantined) })));
  if (run.note) section.append(el("p", {}, t("note", { note: run.note })));
  const odd = rowsOf(report.lake_days).filter((row) => row.kind !== "open");
  const days = odd.map((row) => `${showDay(row.day)} (${LABELS[`kind_${row.kind}`] ?? row.kind})`).join(", ");
  const lakeDays = rowCount(report.lake_days);
  if (lakeDays) section.append(el("p", {}, odd.length ? t("lake_days_odd", { days }) : t("lake_days_fine", { days: whole.format(lakeDays) })));
  const pair = el("div", { class: "pair" });
  section.append(pair);
  const bad = rowsOf(report.quarantine_counts);
  pair.append(el("div", {}, el("h3", {}, t("bad_rows")), bad.length
    ? table(t("bad_rows"), [{ label: t("reason"), text: (row) => row.reason }, { label: t("view"), text: (row) => row.view },
      { label: t("column"), text: (row) => row.column_name }, numbers(t("rows"), (row) => show(whole)(row.rows))], bad, false)
    : el("p", {}, t("bad_rows_none"))));
  const judged = [];
  for (const [task, figures] of Object.entries(run.accuracy ?? {})) {
    for (const [name, value] of Object.entries(figures ?? {})) {
      if (typeof value === "number") judged.push({ task, night: figures.run_date, figure: name, value });
      else if (value && typeof value === "object") for (const [inner, figure] of Object.entries(value)) if (typeof figure === "number") judged.push({ task, night: figures.run_date, figure: `${LABELS[name] ?? name}: ${inner}`, value: figure });
    }
  }
  pair.append(el("div", {}, el("h3", {}, t("accuracy")), judged.length
    ? table(t("accuracy"), [{ label: t("figure"), text: (row) => `${row.task}: ${row.figure}` }, { label: t("judged_night"), text: (row) => row.night ? showDay(row.night) : "–" },
      numbers(t("value"), (row) => exact.format(row.value))], judged, false)
    : el("p", {}, t("accuracy_none"))));
  const drift = Object.entries(run.drift ?? {}).filter(([, value]) => typeof value === "number").sort((a, b) => b[1] - a[1]);
  const shifted = drift.filter(([, value]) => value > report.drift_limit);
  const box = el("div", {}, el("h3", {}, t("drift")));
  pair.append(box);
  if (!drift.length) box.append(el("p", {}, t("drift_none")));
  else if (!shifted.length) box.append(el("p", {}, t("drift_fine", { limit: exact.format(report.drift_limit) })));
  else box.append(el("p", {}, t("drift_shifted", { count: whole.format(shifted.length), limit: exact.format(report.drift_limit) })),
    table(t("drift"), [{ label: t("figure"), text: ([name]) => name }, numbers(t("value"), ([, value]) => exact.format(value))], shifted.slice(0, 10), false));
  pair.append(el("div", {}, el("h3", {}, t("runs")), table(t("runs"), [{ label: t("judged_night"), text: (row) => showDay(row.run_date) },
    numbers(t("rows"), (row) => show(whole)(row.rows_read)), numbers(t("summary_bad_rows"), (row) => show(whole)(row.rows_quarantined)),
    numbers(t("seconds"), (row) => show(units)(row.seconds))], report.nights.slice().reverse(), false)));
}

byId("report").hidden = false;
showSummary();
showOrders();
byId("loading").hidden = true;
document.body.dataset.ready = "orders";
performance.mark("orders");
// The orders are usable before the rest is drawn.
await new Promise((done) => setTimeout(done));
for (const [id, draw] of [["changes", showChanges], ["demand", showDemand], ["customers", showCustomers], ["quality", showQuality]]) {
  try { draw(); } catch (error) {
    byId(id).append(el("p", {}, t("section_failed", { error })));
    console.error(error);
  }
}
document.body.dataset.ready = "all";
})();
