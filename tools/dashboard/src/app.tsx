// The frame: where one is, how the run is, and the pages. Addresses are in the hash, so a page can be kept.

import { useEffect, useRef, useState } from "react";
import { clock } from "./format";
import { Act } from "./parts/act";
import { Tag } from "./parts/basics";
import { Balances } from "./pages/balances";
import { Books } from "./pages/books";
import { DrainPage } from "./pages/drain";
import { Events } from "./pages/events";
import { LatencyPage } from "./pages/latency";
import { Opportunities, OpportunityPage } from "./pages/opportunities";
import { Orders } from "./pages/orders";
import { OverviewPage } from "./pages/overview";
import { Results } from "./pages/results";
import { RoundPage, Rounds } from "./pages/rounds";
import { useTopics } from "./store";

const PAGES = [
  ["overview", "Overview"],
  ["opportunities", "Opportunities"],
  ["rounds", "Rounds"],
  ["orders", "Orders"],
  ["books", "Books"],
  ["latency", "Latency"],
  ["balances", "Balances"],
  ["results", "Results"],
  ["events", "Events"],
  ["drain", "Drain"],
] as const;

export type Theme = "dark" | "light";

function useHash(): string[] {
  const [hash, setHash] = useState(window.location.hash);
  useEffect(() => {
    const changed = () => setHash(window.location.hash);
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);
  return hash.replace(/^#\/?/, "").split("/");
}

function useTheme(): [Theme, () => void] {
  const [theme, setTheme] = useState<Theme>(() => {
    const kept = window.localStorage.getItem("theme");
    if (kept === "dark" || kept === "light") return kept;
    return window.matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
  });
  // At once, not in an effect: charts read the colours while they are made.
  document.documentElement.dataset.theme = theme;
  const toggle = () => {
    const next = theme === "dark" ? "light" : "dark";
    window.localStorage.setItem("theme", next);
    setTheme(next);
  };
  return [theme, toggle];
}

function Header(props: { theme: Theme; toggle: () => void }) {
  const { overview, link } = useTopics("overview");
  const level = overview?.level?.global ?? (overview && !overview.trades ? "OBSERVE" : null);
  const live = overview?.mode === "live";
  return (
    <header className="top">
      <a className="brand" href="#/overview">
        Tandem
      </a>
      {overview?.mode && (
        <span className={live ? "mode live" : "mode"} title={`run ${overview.run}`}>
          {overview.mode.toUpperCase()}
        </span>
      )}
      {level && <Tag>{level}</Tag>}
      {overview?.level?.cause && overview.level.global !== "ARMED" && (
        <span className="dim">{overview.level.cause}</span>
      )}
      {overview !== undefined && overview.alerts > 0 && (
        <a className="tag warn" href="#/events">
          {overview.alerts} {overview.alerts === 1 ? "alert" : "alerts"}
        </a>
      )}
      <span className="fill" />
      <span className={`link ${link}`} role="status" aria-live="polite">
        {link === "live" ? clock(overview?.now_us ?? 0, 0) + " UTC" : link === "lost" ? "No answer from the drain" : "Connecting"}
      </span>
      {overview && <Act acts={overview.acts} />}
      <button type="button" onClick={props.toggle} aria-label={`Use the ${props.theme === "dark" ? "light" : "dark"} theme`}>
        {props.theme === "dark" ? "☀" : "☾"}
      </button>
    </header>
  );
}

function Page(props: { at: string[]; theme: Theme }) {
  const [page, run, id] = props.at;
  switch (page) {
    case "opportunities":
      return <Opportunities theme={props.theme} />;
    case "opportunity":
      return <OpportunityPage key={`${run}/${id}`} run={Number(run)} id={Number(id)} />;
    case "rounds":
      return <Rounds />;
    case "round":
      return <RoundPage key={`${run}/${id}`} run={Number(run)} id={Number(id)} />;
    case "orders":
      return <Orders />;
    case "books":
      return <Books />;
    case "latency":
      return <LatencyPage theme={props.theme} />;
    case "balances":
      return <Balances />;
    case "results":
      return <Results theme={props.theme} />;
    case "events":
      return <Events />;
    case "drain":
      return <DrainPage />;
    case "":
    case "overview":
      return <OverviewPage theme={props.theme} />;
    default:
      return (
        <p className="empty">
          There is no page “{page}”. <a href="#/overview">To the overview</a>.
        </p>
      );
  }
}

export function App() {
  const at = useHash();
  const [theme, toggle] = useTheme();
  const main = useRef<HTMLElement>(null);
  const page = at[0] || "overview";
  const current = page === "opportunity" ? "opportunities" : page === "round" ? "rounds" : page;

  useEffect(() => {
    const name = PAGES.find(([key]) => key === current)?.[1] ?? "Tandem";
    document.title = `${name} · Tandem`;
    window.scrollTo(0, 0);
  }, [current]);

  // Digits go to pages: 1 is the overview, 0 the last one.
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, select, dialog")) return;
      const chosen = /^[0-9]$/.test(event.key) ? PAGES[(Number(event.key) + 9) % 10] : undefined;
      if (chosen) window.location.hash = `#/${chosen[0]}`;
    };
    window.addEventListener("keydown", pressed);
    return () => window.removeEventListener("keydown", pressed);
  }, []);

  return (
    <>
      <a
        className="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault();
          main.current?.focus();
        }}
      >
        Skip to the content
      </a>
      <Header theme={theme} toggle={toggle} />
      <nav aria-label="Pages">
        <ul>
          {PAGES.map(([key, name], idx) => (
            <li key={key}>
              <a href={`#/${key}`} aria-current={key === current ? "page" : undefined}>
                {name}
                <kbd aria-hidden="true">{(idx + 1) % 10}</kbd>
              </a>
            </li>
          ))}
        </ul>
      </nav>
      <main id="main" ref={main} tabIndex={-1}>
        <h1>{PAGES.find(([key]) => key === current)?.[1] ?? "Nothing here"}</h1>
        <Page at={at} theme={theme} />
      </main>
    </>
  );
}
