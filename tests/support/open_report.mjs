// Opens a report in Chromium as a planner would, and prints what it saw as one JSON object.
// Usage: node open_report.mjs PAGE [FOLDER], with the packages of .clients. FOLDER: where pictures go.
import { createRequire } from "node:module";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

const here = new URL("../../.clients/package.json", import.meta.url);
const require = createRequire(here);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [page_url, pictures] = process.argv.slice(2);
const WIDTHS = [390, 820, 1440];

// As root Chromium has no sandbox.
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || execFileSync("sh", ["-c", "command -v chromium"], { encoding: "utf8" }).trim(), args: ["--no-sandbox"] });
const seen = { errors: [], requests: [], violations: [], overflows: [] };

async function open(options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("console", (message) => { if (message.type() === "error") seen.errors.push(message.text()); });
  page.on("request", (request) => { if (request.url() !== page_url) seen.requests.push(request.url()); });
  await page.goto(page_url);
  return page;
}
async function ready(page, state) {
  const isReady = ([wanted]) => [wanted, "all"].includes(document.body.dataset.ready);
  await page.waitForFunction(isReady, [state], { timeout: 30000 }).catch((error) => {
    throw new Error(`the page never said ${state}: ${seen.errors.join("; ") || error}`);
  });
}
async function audit(page, state) {
  // The page's own policy lets no script in from outside; the test's is evaluated by the browser's debugger.
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  for (const violation of found.violations) {
    if (["serious", "critical"].includes(violation.impact)) seen.violations.push(`${state}: ${violation.id}: ${violation.nodes[0].html.slice(0, 200)}`);
  }
}
const texts = (page, selector) => page.locator(selector).allInnerTexts();

const page = await open({ viewport: { width: 1440, height: 1000 } });
await ready(page, "orders");
// Since the browser began to open the page.
seen.usable_ms = await page.evaluate(() => Math.round(performance.getEntriesByName("orders")[0].startTime));
await ready(page, "all");
seen.language = await page.evaluate(() => document.documentElement.lang);
seen.heading = await page.locator("h1").innerText();
seen.summary = await texts(page, "#summary li");
seen.limits = await page.locator("#limits").innerText();
seen.order_items = await texts(page, "#lines tbody .open");
seen.reasons = await texts(page, "#lines tbody .why");
seen.found = await page.locator("#found").innerText();
seen.sections = await page.locator("main section").evaluateAll((all) => Object.fromEntries(all.map((s) => [s.id, s.innerText])));
seen.charts = await page.locator("main .chart canvas").count();
seen.hosts = await page.evaluate(() => [...document.querySelectorAll("[src],[href]")].map((n) => n.getAttribute("src") ?? n.getAttribute("href")).filter((u) => !u.startsWith("#")));
await audit(page, "page");

// Filters, search and order by the keyboard alone.
await page.locator("#show").selectOption("all");
seen.all_found = await page.locator("#found").innerText();
const risks = () => page.locator("#lines tbody td:nth-child(3)").allInnerTexts();
if (await page.locator("#lines thead").count()) {
  await page.locator("#lines thead button").nth(2).focus();
  await page.keyboard.press("Enter");
  seen.sorted_by_risk = await risks();
  seen.aria_sort = await page.locator("#lines thead th").nth(2).getAttribute("aria-sort");
}
seen.next_page = !(await page.locator("#next").isDisabled());
const first = (await texts(page, "#lines tbody .open"))[0];
if (first) {
  await page.locator("#search").fill(first);
  await page.waitForTimeout(300);
  seen.search_found = await texts(page, "#lines tbody .open");
  // One item: its dialog opens by Enter and closes by Escape.
  await page.locator("#lines tbody .open").first().focus();
  await page.keyboard.press("Enter");
  await page.locator("dialog[open]").waitFor();
  seen.dialog = await page.locator("#item-body").innerText();
  seen.dialog_charts = await page.locator("dialog .chart canvas").count();
  await audit(page, "item");
  if (pictures) await page.screenshot({ path: `${pictures}/item-1440.png` });
  await page.keyboard.press("Escape");
  seen.dialog_closed = (await page.locator("dialog[open]").count()) === 0;
}
seen.scripts_run = await page.evaluate(() => Boolean(window.broken));
await page.close();

for (const colorScheme of ["light", "dark"]) {
  for (const width of WIDTHS) {
    const looked = await open({ viewport: { width, height: 900 }, colorScheme });
    await ready(looked, "all");
    await looked.waitForTimeout(200);
    const over = await looked.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (over > 0) seen.overflows.push(`${width} px: ${over} px too wide`);
    if (pictures) await looked.screenshot({ path: `${pictures}/page-${width}-${colorScheme}.png`, fullPage: true });
    if (colorScheme === "dark" || width < 1440) await audit(looked, `${colorScheme}, ${width} px`);
    await looked.close();
  }
}
const silent = await open({ javaScriptEnabled: false, viewport: { width: 820, height: 900 } });
seen.without_script = await texts(silent, "noscript tbody tr");
await silent.close();
await browser.close();
console.log(JSON.stringify(seen));
