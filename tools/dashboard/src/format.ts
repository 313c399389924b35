// Numbers and moments for people. Money stays text: what is shown short has the exact figure in its title.

/** Groups the digits of exact decimal text and shows at most `digits` decimals, cut, never rounded up. */
export function decimal(text: string | null | undefined, digits = 8): string {
  if (text === null || text === undefined) return "–";
  const sign = text.startsWith("-") ? "−" : "";
  const [whole = "0", part = ""] = text.replace(/^-/, "").split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+(?!\d))/g, " ");
  const shown = part.slice(0, digits);
  return sign + grouped + (shown === "" ? "" : `.${shown}`);
}

export function count(n: number | null | undefined): string {
  return n === null || n === undefined ? "–" : n.toLocaleString("en-GB").replace(/,/g, " ");
}

/** Microseconds since 1970 as a time of day, UTC. */
export function clock(us: number, digits: 0 | 3 | 6 = 3): string {
  if (us === 0) return "–";
  const text = new Date(us / 1000).toISOString().slice(11, digits === 0 ? 19 : 23);
  return digits === 6 ? text + String(us % 1000).padStart(3, "0") : text;
}

/** The same with its day. */
export function moment(us: number): string {
  return us === 0 ? "–" : `${new Date(us / 1000).toISOString().slice(0, 10)} ${clock(us, 6)} UTC`;
}

/** A duration in the unit that suits it. */
export function span(ns: number | null | undefined): string {
  if (ns === null || ns === undefined) return "–";
  const of = (value: number, unit: string) =>
    `${value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)} ${unit}`;
  if (ns < 1e3) return `${ns} ns`;
  if (ns < 1e6) return of(ns / 1e3, "µs");
  if (ns < 1e9) return of(ns / 1e6, "ms");
  if (ns < 120e9) return of(ns / 1e9, "s");
  if (ns < 7200e9) return of(ns / 60e9, "min");
  return of(ns / 3600e9, "h");
}

/** ppm as basis points. */
export function bp(ppm: number): string {
  return `${(ppm / 100).toFixed(1)} bp`;
}

export function percent(ppm: number | null | undefined): string {
  return ppm === null || ppm === undefined ? "–" : `${(ppm / 1e4).toFixed(1)} %`;
}

export function bytes(n: number): string {
  if (n < 1024) return `${n} B`;
  if (n < 1024 ** 2) return `${(n / 1024).toFixed(1)} KiB`;
  if (n < 1024 ** 3) return `${(n / 1024 ** 2).toFixed(1)} MiB`;
  return `${(n / 1024 ** 3).toFixed(2)} GiB`;
}

const KINDS: Record<string, string> = {
  cross_venue: "cross-venue",
  triangular: "triangular",
  cross_quote: "cross-quote",
};

export function kindName(kind: string): string {
  return KINDS[kind] ?? kind;
}

/** `C13_throttle` as `C13 throttle`. */
export function words(code: string): string {
  return code.replace(/_/g, " ");
}

export function sign(text: string | null | undefined): "gain" | "loss" | "" {
  const n = Number(text ?? 0);
  return n > 0 ? "gain" : n < 0 ? "loss" : "";
}

/** Of what an alert is: `process-down/engine` is of the engine. */
export function scope(fingerprint: string): string {
  const at = fingerprint.indexOf("/");
  return at < 0 ? "" : `: ${fingerprint.slice(at + 1)}`;
}

/** A sum that is only to be compared: five digits, never with an exponent. */
export function rough(n: number): string {
  if (n >= 1e6) return `${(n / 1e6).toFixed(3)} M`;
  if (n >= 1e4) return n.toFixed(0);
  return n === 0 ? "0" : n.toFixed(Math.max(0, Math.min(8, 4 - Math.floor(Math.log10(n)))));
}
