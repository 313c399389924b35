// Small parts that every page uses.

import type { ReactNode } from "react";
import { decimal, sign } from "../format";

export function Panel(props: {
  title: string;
  note?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
  wide?: boolean;
}) {
  const id = `panel-${props.title.toLowerCase().replace(/[^a-z0-9]+/g, "-")}`;
  return (
    <section className={props.wide ? "panel wide" : "panel"} aria-labelledby={id}>
      <header>
        <h2 id={id}>{props.title}</h2>
        {props.note !== undefined && <span className="note">{props.note}</span>}
        {props.actions}
      </header>
      {props.children}
    </section>
  );
}

/** A table that scrolls sideways on a narrow screen, with the keyboard too. */
export function Table(props: { label: string; head: ReactNode; children: ReactNode; tall?: boolean }) {
  return (
    <div className={props.tall ? "scroll tall" : "scroll"} role="region" aria-label={props.label} tabIndex={0}>
      <table>
        <thead>
          <tr>{props.head}</tr>
        </thead>
        <tbody>{props.children}</tbody>
      </table>
    </div>
  );
}

export function Th(props: { children?: ReactNode; num?: boolean }) {
  return (
    <th scope="col" className={props.num ? "num" : undefined}>
      {props.children}
    </th>
  );
}

export function Empty(props: { children: ReactNode }) {
  return <p className="empty">{props.children}</p>;
}

export function Waiting() {
  return (
    <p className="empty" role="status">
      Waiting for the drain…
    </p>
  );
}

/** Exact money: short to read, whole in its title. */
export function Money(props: { text: string | null | undefined; asset?: string; digits?: number; coloured?: boolean }) {
  const { text, asset, digits = 2, coloured } = props;
  const exact = text === null || text === undefined ? undefined : `${text}${asset ? ` ${asset}` : ""}`;
  return (
    <span className={coloured ? `money ${sign(text)}` : "money"} title={exact}>
      {decimal(text, digits)}
      {asset && <small> {asset}</small>}
    </span>
  );
}

const GOOD = new Set(["ARMED", "alive", "ready", "live", "filled", "taken", "settled", "up", "INFO", "IDLE", "CLEAN"]);
const BAD = new Set(["KILL", "HALT", "dead", "refused", "down", "unknown", "rejected", "held", "PAGE", "page", "stale", "UNCONFIRMED"]);
const WARN = new Set(["PAUSE", "REDUCE", "suspended", "hedge", "partial", "TICKET", "ticket", "fallback", "syncing", "connecting"]);

/** A state in a word; its colour only repeats what the word says. */
export function Tag(props: { children: string | null | undefined }) {
  const word = props.children ?? "–";
  const kind = GOOD.has(word) ? "good" : BAD.has(word) ? "bad" : WARN.has(word) || word.startsWith("denied") ? "warn" : "plain";
  return <span className={`tag ${kind}`}>{word}</span>;
}

/** How much of a limit is used. */
export function Meter(props: { label: string; ppm: number | null; text: string }) {
  const share = Math.min(100, Math.max(0, (props.ppm ?? 0) / 1e4));
  const kind = share >= 90 ? "bad" : share >= 70 ? "warn" : "good";
  return (
    <div className="meter">
      <span>{props.label}</span>
      <span className="num">{props.text}</span>
      <div
        className="bar"
        role="meter"
        aria-label={props.label}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round(share)}
        aria-valuetext={`${props.text}, ${share.toFixed(0)} %`}
      >
        <i className={kind} style={{ width: `${share}%` }} />
      </div>
    </div>
  );
}

export function Figure(props: { label: string; children: ReactNode; note?: ReactNode }) {
  return (
    <div className="figure">
      <dt>{props.label}</dt>
      <dd>
        {props.children}
        {props.note !== undefined && <small>{props.note}</small>}
      </dd>
    </div>
  );
}
