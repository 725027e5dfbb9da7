// Uses the page of a support agent in Chromium by the keyboard alone, and prints what it saw as one JSON object.
// Usage: node open_agent.mjs PAGE USER [PICTURE], with the packages of .clients.
import { createRequire } from "node:module";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

const require = createRequire(new URL("../../.clients/package.json", import.meta.url));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [page_url, user, picture] = process.argv.slice(2);

// As root Chromium has no sandbox.
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || execFileSync("sh", ["-c", "command -v chromium"], { encoding: "utf8" }).trim(), args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 900, height: 1000 } });
const seen = { errors: [], elsewhere: [], violations: [], overflows: [] };
page.on("pageerror", (error) => seen.errors.push(String(error)));
page.on("request", (request) => { if (!request.url().startsWith(page_url)) seen.elsewhere.push(request.url()); });
const audit = async (state) => {
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  for (const violation of found.violations) seen.violations.push(`${state}: ${violation.id}: ${violation.nodes[0].html.slice(0, 200)}`);
};
const texts = (selector) => page.locator(selector).allInnerTexts();

await page.goto(page_url);
await audit("empty");
// The field has the focus; Enter asks.
await page.keyboard.type(user);
await page.keyboard.press("Enter");
await page.waitForSelector("#chances");
seen.title = await page.title();
seen.summary = await page.locator("form + p").innerText();
seen.chances = await texts("#chances ~ table tbody tr");
seen.reasons = await texts("#reasons ~ table tbody tr");
seen.suggestions = await texts("#suggestions ~ ol li");
await audit("customer");
if (picture) await page.screenshot({ path: picture, fullPage: true });
// To the list of intents, the last of them, and the button.
await page.keyboard.press("Tab");
await page.keyboard.press("End");
await page.keyboard.press("Tab");
await page.keyboard.press("Enter");
await page.waitForURL(/intent=churn/);
seen.explained = await page.locator("#reasons").innerText();
for (const width of [320, 390, 1440]) {
  await page.setViewportSize({ width, height: 800 });
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (over > 0) seen.overflows.push(`${width} px: ${over} px too wide`);
}
const unknown = await page.goto(`${page_url}?user=${encodeURIComponent("nobody'\"<b>")}`);
seen.unknown = [unknown.status(), await page.locator("[role=alert]").innerText()];
await audit("unknown");
console.log(JSON.stringify(seen));
await browser.close();
