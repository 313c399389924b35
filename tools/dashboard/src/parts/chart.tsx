// uPlot in React: made once, given new data as it comes, as wide as its place, coloured by the theme.

import { useEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { clock } from "../format";

export interface Series {
  label: string;
  /** A colour variable of the theme, e.g. `--c1`. */
  colour: string;
  fill?: boolean;
  dash?: number[];
}

function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** A tick of the time axis: seconds only where ticks are that close. */
function hours(at: number, ticks: number[]): string {
  const step = (ticks[1] ?? at + 60) - (ticks[0] ?? at);
  return clock(at * 1e6, 0).slice(0, step < 60 ? 8 : 5);
}

export function Chart(props: {
  label: string;
  /** Seconds (a time axis) or plain numbers, then one list for each series. */
  data: uPlot.AlignedData;
  series: Series[];
  height?: number;
  log?: boolean;
  time?: boolean;
  /** How a value on the vertical axis and in the legend is written. */
  value: (value: number) => string;
  x?: (value: number) => string;
  theme: string;
}) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const { height = 220, log = false, time = true, theme } = props;
  const latest = useRef(props);
  latest.current = props;

  useEffect(() => {
    const node = place.current;
    if (!node) return;
    const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const options: uPlot.Options = {
      width: Math.max(200, node.clientWidth),
      height,
      tzDate: (ts) => uPlot.tzDate(new Date(ts * 1e3), "UTC"),
      scales: { x: { time }, y: log ? { distr: 3 } : {} },
      legend: { live: true },
      cursor: { points: { size: 6 } },
      axes: [
        time ? { ...axis, values: (_u, ticks) => ticks.map((t) => hours(t, ticks)) } : { ...axis, values: (_u, ticks) => ticks.map((t) => latest.current.x?.(t) ?? String(t)) },
        {
          ...axis,
          size: 74,
          values: (_u, ticks) => ticks.map((t) => (t === null ? "" : latest.current.value(t))),
        },
      ],
      series: [
        time ? { label: "UTC", value: (_u, v) => (v === null ? "–" : clock(v * 1e6, 0)) } : { label: "", value: (_u, v) => (v === null ? "–" : (latest.current.x?.(v) ?? String(v))) },
        ...props.series.map((one) => ({
          label: one.label,
          stroke: colour(one.colour),
          width: 1.6,
          dash: one.dash,
          points: { show: false },
          fill: one.fill ? `${colour(one.colour)}22` : undefined,
          value: (_u: uPlot, v: number | null) => (v === null ? "–" : latest.current.value(v)),
        })),
      ],
    };
    const made = new uPlot(options, latest.current.data, node);
    plot.current = made;
    const watch = new ResizeObserver(() => {
      if (node.clientWidth > 0) made.setSize({ width: node.clientWidth, height });
    });
    watch.observe(node);
    return () => {
      watch.disconnect();
      made.destroy();
      plot.current = null;
    };
    // Made anew only where its form changes; data follow below.
  }, [theme, height, log, time, props.series.map((one) => one.label + one.colour).join()]);

  useEffect(() => {
    plot.current?.setData(props.data);
  }, [props.data]);

  const last = props.series.map((one, idx) => {
    const values = props.data[idx + 1] as (number | null)[] | undefined;
    const value = values?.at(-1);
    return `${one.label} ${value === null || value === undefined ? "none" : props.value(value)}`;
  });
  return (
    <figure className="chart" role="img" aria-label={`${props.label}. Last: ${last.join(", ")}`}>
      <div ref={place} />
    </figure>
  );
}

/** Bars for a distribution: small, read by people and by a screen reader as a table. */
export function Bars(props: { label: string; rows: { label: string; value: number }[] }) {
  const most = Math.max(1, ...props.rows.map((row) => row.value));
  return (
    <table className="bars" aria-label={props.label}>
      <tbody>
        {props.rows.map((row) => (
          <tr key={row.label}>
            <th scope="row">{row.label}</th>
            <td>
              <i style={{ width: `${(100 * row.value) / most}%` }} />
            </td>
            <td className="num">{row.value}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
