// What the pages show, kept up to date by one stream of server-sent events.
//
// A page names its topics; the stream carries the union of what is wanted. A topic's first event is all of it,
// later ones are what changed. Rows are kept newest first and bounded, so a tab may stay open for weeks.

import { useEffect, useSyncExternalStore } from "react";
import type {
  Alert,
  Balance,
  Book,
  Denial,
  Drain,
  EventRow,
  OpportunityRow,
  Order,
  Overview,
  Point,
  Round,
  Stage,
} from "./types";

const ROWS_MAX = 1000;
const INTERVALS_MAX = 1800;
const POINTS_MAX = 8000;

export type Topic =
  | "overview"
  | "opportunities"
  | "denials"
  | "rounds"
  | "orders"
  | "bbo"
  | "books"
  | "latency"
  | "balances"
  | "pnl"
  | "events"
  | "alerts"
  | "drain";

export type Link = "connecting" | "live" | "lost";

export interface State {
  link: Link;
  /** When something was last heard, by this browser's clock. */
  heard: number;
  overview?: Overview;
  opportunities?: OpportunityRow[];
  denials?: Denial[];
  rounds?: Round[];
  orders?: Order[];
  bbo?: Book[];
  books?: { pairs: string[]; pair: string | null; books: Book[] };
  latency?: Stage[];
  balances?: Balance[];
  pnl?: { asset: string | null; mode: string | null; points: Point[] };
  events?: EventRow[];
  alerts?: { standing: Alert[]; told: Alert[] };
  drain?: Drain;
}

let state: State = { link: "connecting", heard: 0 };
const readers = new Set<() => void>();
let frame = 0;

function publish(change: Partial<State>): void {
  state = { ...state, ...change };
  // Several topics arrive together; the page is drawn once for all of them.
  if (frame === 0) {
    frame = window.setTimeout(() => {
      frame = 0;
      for (const reader of readers) reader();
    }, 30);
  }
}

/** Puts changed rows over known ones; the newest stay first. */
function merge<T>(known: T[] | undefined, changed: T[], key: (row: T) => string): T[] {
  if (!known || known.length === 0) return changed.slice(0, ROWS_MAX);
  const fresh = new Map(changed.map((row) => [key(row), row]));
  const kept = known.map((row) => {
    const newer = fresh.get(key(row));
    if (newer === undefined) return row;
    fresh.delete(key(row));
    return newer;
  });
  return [...fresh.values(), ...kept].slice(0, ROWS_MAX);
}

function mergeStages(known: Stage[] | undefined, changed: Stage[]): Stage[] {
  if (!known) return changed;
  const before = new Map(known.map((stage) => [`${stage.process} ${stage.stage}`, stage]));
  return changed.map((stage) => {
    const old = before.get(`${stage.process} ${stage.stage}`)?.intervals ?? [];
    return { ...stage, intervals: [...old, ...stage.intervals].slice(-INTERVALS_MAX) };
  });
}

function take(topic: Topic, data: never, whole: boolean): void {
  // A stream begins with everything: what an earlier one told is replaced, also after the drain restarted.
  const s: Partial<State> = whole ? {} : state;
  switch (topic) {
    case "opportunities":
      return publish({
        opportunities: merge(s.opportunities, data as OpportunityRow[], (o) => `${o.run} ${o.id}`),
      });
    case "rounds":
      return publish({ rounds: merge(s.rounds, data as Round[], (r) => `${r.run} ${r.id}`) });
    case "orders":
      return publish({ orders: merge(s.orders, data as Order[], (o) => `${o.run} ${o.client_id}`) });
    case "denials":
      return publish({ denials: merge(s.denials, data as Denial[], (d) => `${d.rev}`) });
    case "events":
      return publish({ events: merge(s.events, data as EventRow[], (e) => `${e.rev}`) });
    case "balances": {
      const rows = merge(s.balances, data as Balance[], (b) => `${b.venue} ${b.asset}`);
      rows.sort((a, b) => a.asset.localeCompare(b.asset) || a.venue.localeCompare(b.venue));
      return publish({ balances: rows });
    }
    case "latency":
      return publish({ latency: mergeStages(s.latency, data as Stage[]) });
    case "pnl": {
      const told = data as NonNullable<State["pnl"]>;
      const points = [...(s.pnl?.points ?? []), ...told.points].slice(-POINTS_MAX);
      return publish({ pnl: { ...told, points } });
    }
    case "alerts": {
      const told = data as NonNullable<State["alerts"]>;
      return publish({
        alerts: {
          standing: told.standing,
          told: merge(s.alerts?.told, told.told, (a) => `${a.rev}`),
        },
      });
    }
    default:
      return publish({ [topic]: data });
  }
}

const wanted = new Map<Topic, number>();
let pair: string | null = null;
let source: EventSource | null = null;
let opening = 0;

/** Lets the stream carry what is wanted now; what it carried before is forgotten and told anew. */
function reopen(): void {
  window.clearTimeout(opening);
  opening = window.setTimeout(() => {
    source?.close();
    const topics = [...wanted.keys()].sort();
    if (topics.length === 0) return;
    const ask = new URLSearchParams({ topics: topics.join(",") });
    if (pair) ask.set("pair", pair);
    source = new EventSource(`/api/v1/stream?${ask}`);
    const whole = new Set<Topic>();
    source.onopen = () => {
      for (const topic of topics) whole.add(topic);
      publish({ link: "live", heard: Date.now() });
    };
    source.onerror = () => publish({ link: "lost" });
    for (const topic of topics) {
      source.addEventListener(topic, (event) => {
        state = { ...state, link: "live", heard: Date.now() };
        const data = JSON.parse((event as MessageEvent<string>).data) as never;
        take(topic, data, whole.delete(topic));
      });
    }
  }, 20);
}

/** Whose books the stream carries with depth. */
export function choosePair(chosen: string): void {
  if (pair === chosen) return;
  pair = chosen;
  reopen();
}

/** Draws again with each change, and has the stream carry these topics while the page is there. */
export function useTopics(...topics: Topic[]): State {
  const key = topics.join(",");
  useEffect(() => {
    const mine = key.split(",") as Topic[];
    for (const topic of mine) wanted.set(topic, (wanted.get(topic) ?? 0) + 1);
    reopen();
    return () => {
      for (const topic of mine) {
        const left = (wanted.get(topic) ?? 1) - 1;
        if (left === 0) wanted.delete(topic);
        else wanted.set(topic, left);
      }
      reopen();
    };
  }, [key]);
  return useSyncExternalStore(
    (reader) => {
      readers.add(reader);
      return () => readers.delete(reader);
    },
    () => state,
  );
}

/** An error that the server explained. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly fix: string,
  ) {
    super(message);
  }
}

async function answer<T>(response: Response): Promise<T> {
  const body = (await response.json().catch(() => ({}))) as { error?: string; fix?: string };
  if (!response.ok) {
    throw new Refused(response.status, body.error ?? response.statusText, body.fix ?? "");
  }
  return body as T;
}

/** Asks once. */
export async function ask<T>(path: string): Promise<T> {
  return answer(await fetch(`/api/v1/${path}`));
}

/** Pauses or kills. */
export async function raise(
  what: "pause" | "kill",
  token: string,
  reason: string,
): Promise<{ level: string; changed: boolean }> {
  const response = await fetch(`/api/v1/${what}`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
    body: JSON.stringify({ reason }),
  });
  return answer(response);
}
