// Opens the page of an evaluation in Chromium, and prints what it saw as one JSON object.
// Usage: node open_evaluation.mjs PAGE [FOLDER], with the packages of .clients. FOLDER: where pictures go.
import { createRequire } from "node:module";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

const require = createRequire(new URL("../../.clients/package.json", import.meta.url));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [page_url, pictures] = process.argv.slice(2);

// As root Chromium has no sandbox.
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || execFileSync("sh", ["-c", "command -v chromium"], { encoding: "utf8" }).trim(), args: ["--no-sandbox"] });
const seen = { errors: [], requests: [], violations: [], overflows: [], charts: 0, drawn: 0 };
for (const [width, colorScheme] of [[1440, "light"], [390, "dark"]]) {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme });
  const page = await context.newPage();
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("console", (message) => { if (message.type() === "error") seen.errors.push(message.text()); });
  page.on("request", (request) => { if (request.url() !== page_url) seen.requests.push(request.url()); });
  await page.goto(page_url);
  await page.waitForFunction(() => document.body.dataset.ready === "all", null, { timeout: 30000 });
  await page.waitForTimeout(300);
  seen.charts = await page.locator("figure").count();
  // Charts whose canvas has the colour of a model, which neither axes nor grid have. Equal curves cover one another.
  const drawn = await page.evaluate(() => {
    const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim().match(/[0-9a-f]{2}/gi).map((hex) => parseInt(hex, 16));
    const models = [colour("--model-1"), colour("--model-2")];
    const has = (data) => { for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255 && models.some((model) => model.every((value, channel) => Math.abs(data[at + channel] - value) < 3))) return true; return false; };
    return [...document.querySelectorAll("figure canvas")].filter((canvas) => canvas.width > 0 && has(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data)).length;
  });
  seen.drawn = width === 1440 ? drawn : Math.min(seen.drawn, drawn);
  seen.headings = await page.locator("h2, h3").allInnerTexts();
  seen.rows = await page.locator("tbody tr").count();
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  for (const violation of found.violations) {
    if (["serious", "critical"].includes(violation.impact)) seen.violations.push(`${width}: ${violation.id}: ${violation.nodes[0].html.slice(0, 200)}`);
  }
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (over > 0) seen.overflows.push(`${width} px: ${over} px too wide`);
  if (pictures) await page.screenshot({ path: `${pictures}/evaluation-${width}.png`, fullPage: true });
  await context.close();
}
await browser.close();
console.log(JSON.stringify(seen));
