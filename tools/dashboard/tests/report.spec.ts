// The pages that `tandem report backtest` makes, opened: wide and narrow, light and dark.
// Their folder is TANDEM_REPORT_OUT, filled by tools/tandem/tests/report_backtest.rs.
import { mkdirSync, readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, test } from "@playwright/test";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PAGES = process.env.TANDEM_REPORT_OUT;
const SHOTS = join(process.env.TANDEM_DASHBOARD_SHOTS ?? "test-results/shots", "report");
const names = PAGES ? readdirSync(PAGES).filter((name) => name.endsWith(".html")) : [];

test.skip(!PAGES, "TANDEM_REPORT_OUT names no folder with pages");

test.describe.configure({ timeout: 90_000 });

for (const name of names)
  for (const colorScheme of ["light", "dark"] as const)
    for (const width of [1280, 390]) {
      // The usual day and the void one in every way, the others in two.
      const isEvery = name.startsWith("day") || name.startsWith("void");
      if (!isEvery && (colorScheme === "light") !== (width === 1280)) continue;
      test(`${name}, ${colorScheme}, ${width} px`, async ({ browser }) => {
        // The page's own policy would keep the checker out.
        const page = await browser.newPage({ bypassCSP: true, colorScheme, viewport: { width, height: 900 } });
        const wrong: string[] = [];
        page.on("console", (message) => wrong.push(message.text()));
        page.on("pageerror", (error) => wrong.push(error.message));
        page.on("request", (request) => request.url().startsWith("file:") || wrong.push(request.url()));
        await page.goto(pathToFileURL(resolve(PAGES ?? "", name)).href);
        mkdirSync(SHOTS, { recursive: true });
        await page.screenshot({ path: join(SHOTS, `${name}-${colorScheme}-${width}.png`), fullPage: true });

        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        expect(overflow, "it scrolls sideways").toBeLessThanOrEqual(0);
        if (name.startsWith("void")) {
          await expect(page.getByRole("alert")).toContainText("VOID");
          await expect(page.locator("#millisecond")).toHaveCount(0);
        } else {
          // What one looks for first is on the first screen.
          const box = await page.getByRole("heading", { name: /1 ms worth/ }).boundingBox();
          expect(box?.y ?? 1e9).toBeLessThan(900);
        }
        await page.evaluate(AXE);
        const found = await page.evaluate(async () => {
          const axe = (window as unknown as { axe: { run(options: unknown): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> } }).axe;
          const { violations } = await axe.run({ resultTypes: ["violations"] });
          return violations.map((one) => `${one.id}: ${one.nodes[0]?.html.slice(0, 120)}`);
        });
        expect(found).toEqual([]);
        const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
        const before = await paper();
        await page.getByRole("radio", { name: colorScheme === "light" ? "dark" : "light", exact: true }).check();
        expect(await paper(), "the choice of colours does nothing").not.toBe(before);
        expect(wrong).toEqual([]);
        await page.close();
      });
    }
