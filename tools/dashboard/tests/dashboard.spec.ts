// The dashboard in a real browser, on a run that trades. Every page must show data of that run, be reachable
// by keyboard, fit a phone, and have no serious accessibility fault in either theme.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { type Page, expect, test } from "@playwright/test";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const LIVE = process.env.TANDEM_DASHBOARD_LIVE === "1";
const SHOTS = process.env.TANDEM_DASHBOARD_SHOTS ?? "test-results/shots";
const TOKEN = process.env.TANDEM_DASHBOARD_TOKEN ?? "";

const PAGES: [hash: string, title: string, panels: string[]][] = [
  ["overview", "Overview", ["Result of the day", "Limits", "Since the oldest record", "Venues", "Alerts that stand", "Why candidates were denied", "Processes"]],
  ["opportunities", "Opportunities", ["Opportunities, newest first", "How long they lived", "What was left one order latency later", "Denied candidates, newest first"]],
  ["rounds", "Rounds", ["Rounds, newest first"]],
  ["orders", "Orders", ["Orders, newest first"]],
  ["books", "Books", ["Side by side", "Best of every book"]],
  ["latency", "Latency", ["Over time", "Every stage"]],
  ["balances", "Balances", ["Balances", "Ledger"]],
  ["results", "Results", ["Equity", "Below the peak", "Settled rounds kept here", "By route"]],
  ["events", "Events", ["Alerts that stand", "Alerts as told", "Events, newest first"]],
  ["drain", "Drain", ["Journal", "Sinks"]],
];

// The page's policy allows no script but its own; the test's is put in beside it.
test.beforeEach(({ page }) => page.addInitScript({ content: AXE }));

/** What a browser says is wrong: none of it may happen. */
function watch(page: Page): string[] {
  const wrong: string[] = [];
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error") wrong.push(`console: ${message.text()}`);
  });
  return wrong;
}

async function open(page: Page, hash: string, title: string): Promise<void> {
  await page.goto(`/#/${hash}`);
  await expect(page.getByRole("heading", { level: 1, name: title })).toBeVisible();
  await expect(page.getByText("Waiting for the drain…")).toHaveCount(0);
}

async function faults(page: Page): Promise<string[]> {
  const found = await page.evaluate(async () => {
    const axe = (window as unknown as { axe: { run(options: unknown): Promise<{ violations: { id: string; impact: string; nodes: { html: string }[] }[] }> } }).axe;
    const { violations } = await axe.run({ resultTypes: ["violations"] });
    return violations
      .filter((one) => one.impact === "serious" || one.impact === "critical")
      .map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 120)).slice(0, 3).join(" | ")}`);
  });
  return found;
}

for (const [hash, title, panels] of PAGES) {
  test(`${hash}: every panel shows data`, async ({ page }) => {
    const wrong = watch(page);
    await open(page, hash, title);
    for (const name of panels) {
      const panel = page.getByRole("region", { name, exact: true }).first();
      await expect(panel, name).toBeVisible();
      // A panel without data says so in a paragraph of its own; only these may.
      const mayBeEmpty = ["Alerts that stand", "Alerts as told", "Sinks", LIVE ? "" : "Over time"].includes(name);
      if (!mayBeEmpty) await expect(panel.locator(".empty"), `${name} is empty`).toHaveCount(0);
    }
    await page.screenshot({ path: `${SHOTS}/${hash}-dark.png`, fullPage: true });
    expect(wrong).toEqual([]);
  });

  test(`${hash}: no serious accessibility fault, dark and light`, async ({ page }) => {
    await open(page, hash, title);
    expect(await faults(page), "dark").toEqual([]);
    await page.getByRole("button", { name: "Use the light theme" }).click();
    await expect(page.locator("html")).toHaveAttribute("data-theme", "light");
    expect(await faults(page), "light").toEqual([]);
    await page.screenshot({ path: `${SHOTS}/${hash}-light.png`, fullPage: true });
  });

  test(`${hash}: fits a phone`, async ({ page }) => {
    await page.setViewportSize({ width: 390, height: 844 });
    await open(page, hash, title);
    const sideways = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    expect(sideways, "pixels that stick out").toBeLessThanOrEqual(0);
    await page.screenshot({ path: `${SHOTS}/${hash}-phone.png`, fullPage: true });
  });
}

test("one opportunity: legs, the books it saw, its round", async ({ page }) => {
  const wrong = watch(page);
  await open(page, "opportunities", "Opportunities");
  await page.getByLabel("Verdict").selectOption("taken");
  const first = page.getByRole("region", { name: "Opportunities", exact: true }).getByRole("link").first();
  await first.click();
  await expect(page.getByRole("heading", { name: /^Opportunity \d+$/ })).toBeVisible();
  expect(await page.getByRole("article").count()).toBeGreaterThanOrEqual(2);
  await expect(page.locator("tr.taken").first()).toBeVisible();
  expect(await faults(page)).toEqual([]);
  await page.screenshot({ path: `${SHOTS}/opportunity-dark.png`, fullPage: true });
  await page.getByRole("link", { name: /^round \d+$/ }).first().click();
  await expect(page.getByRole("heading", { name: /^Round \d+$/ })).toBeVisible();
  await expect(page.getByRole("img", { name: /^Time line/ })).toBeVisible();
  await expect(page.locator(".lane i.fill").first()).toBeVisible();
  expect(await faults(page)).toEqual([]);
  await page.screenshot({ path: `${SHOTS}/round-dark.png`, fullPage: true });
  expect(wrong).toEqual([]);
});

test("filters by kind, by verdict and by text", async ({ page }) => {
  await open(page, "opportunities", "Opportunities");
  const rows = page.getByRole("region", { name: "Opportunities", exact: true }).locator("tbody tr");
  await page.getByLabel("Kind").selectOption("triangular");
  for (const kind of await rows.locator("td:nth-child(3)").allTextContents()) expect(kind).toBe("triangular");
  await page.getByLabel("Kind").selectOption("");
  await page.getByLabel("Find").fill("kraken");
  for (const route of await rows.locator("td:nth-child(4)").allTextContents()) expect(route).toContain("kraken");
  await page.getByLabel("Find").fill("no such thing");
  await expect(page.getByText("None of these fits the filter.")).toBeVisible();
});

test("reached by keyboard alone", async ({ page }) => {
  await open(page, "overview", "Overview");
  await page.keyboard.press("Tab");
  await expect(page.getByRole("link", { name: "Skip to the content" })).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(page.locator("main")).toBeFocused();
  for (const [idx, [hash, title]] of PAGES.entries()) {
    await page.keyboard.press(String((idx + 1) % 10));
    await expect(page.getByRole("heading", { level: 1, name: title })).toBeVisible();
    expect(new URL(page.url()).hash).toBe(`#/${hash}`);
  }
  // Every link of the pages' list is in the order of Tab.
  await page.evaluate(() => (document.activeElement as HTMLElement | null)?.blur());
  const seen = new Set<string>();
  for (let presses = 0; presses < 30; presses++) {
    await page.keyboard.press("Tab");
    seen.add(await page.evaluate(() => document.activeElement?.getAttribute("href") ?? ""));
  }
  for (const [hash] of PAGES) expect(seen).toContain(`#/${hash}`);
});

test("an unknown page and what is not kept any more say so", async ({ page }) => {
  await page.goto("/#/nowhere");
  await expect(page.getByText("There is no page “nowhere”.")).toBeVisible();
  await page.goto("/#/opportunity/1/999999999");
  await expect(page.getByText("It is not kept here any more")).toBeVisible();
});

test("says when the drain does not answer, and comes back", async ({ page }) => {
  await page.route("**/api/v1/stream*", (route) => route.abort());
  await page.goto("/#/overview");
  await expect(page.getByText("No answer from the drain")).toBeVisible();
  await page.unroute("**/api/v1/stream*");
  await page.keyboard.press("2");
  await expect(page.locator(".link.live")).toBeVisible({ timeout: 20_000 });
});

test("first load and live updates", async ({ page }) => {
  const begun = Date.now();
  await open(page, "overview", "Overview");
  await expect(page.locator(".big")).toBeVisible();
  const loaded = Date.now() - begun;
  const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? 0);
  console.log(`first load: ${loaded} ms to the first figures, first contentful paint ${paint.toFixed(0)} ms`);
  if (!LIVE) return;
  const gaps = await page.evaluate(
    () =>
      new Promise<{ age: number[]; gap: number[] }>((resolve) => {
        const source = new EventSource("/api/v1/stream?topics=overview");
        const out = { age: [] as number[], gap: [] as number[] };
        let last = 0;
        source.addEventListener("overview", (event) => {
          const now = performance.now();
          out.age.push(Date.now() - JSON.parse((event as MessageEvent<string>).data).now_us / 1000);
          if (last) out.gap.push(now - last);
          last = now;
          if (out.gap.length === 20) {
            source.close();
            resolve(out);
          }
        });
      }),
  );
  const middle = (all: number[]) => [...all].sort((a, b) => a - b)[Math.floor(all.length / 2)] ?? 0;
  console.log(
    `live: an update every ${middle(gaps.gap).toFixed(0)} ms, ${middle(gaps.age).toFixed(0)} ms old when it arrives (at most ${Math.max(...gaps.age).toFixed(0)} ms)`,
  );
  // The clock in the frame moves: it is drawn, not only received.
  const before = await page.locator(".link").textContent();
  await expect(page.locator(".link")).not.toHaveText(before ?? "", { timeout: 5_000 });
});

test("pause and kill want the token, and only tighten", async ({ page }) => {
  test.skip(!LIVE || TOKEN === "", "only on a run that may be stopped");
  await open(page, "overview", "Overview");
  await page.getByRole("button", { name: "Pause" }).first().click();
  const dialog = page.getByRole("dialog");
  await expect(dialog).toBeVisible();
  expect(await faults(page)).toEqual([]);
  await dialog.getByLabel("Token").fill("not the token of this run");
  await dialog.getByRole("button", { name: "Pause" }).click();
  await expect(dialog.getByRole("alert")).toContainText("the token is wrong");
  await dialog.getByLabel("Token").fill(TOKEN);
  await dialog.getByLabel(/^Reason/).fill("the browser test");
  await page.screenshot({ path: `${SHOTS}/pause-dark.png` });
  await dialog.getByRole("button", { name: "Pause" }).click();
  await expect(dialog.getByRole("alert")).toContainText(/level is PAUSE|already/);
  await dialog.getByRole("button", { name: "Close" }).click();
  await expect(page.locator(".top .tag", { hasText: "PAUSE" })).toBeVisible();
});
