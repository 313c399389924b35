import { useMemo } from "react";
import type { Theme } from "../app";
import { count, span } from "../format";
import { Empty, Figure, Panel, Table, Th, Waiting } from "../parts/basics";
import { Chart } from "../parts/chart";
import { useTopics } from "../store";
import type { Round } from "../types";
import { equity } from "./overview";

/** Rounds by the pair of venues or the route that they took. */
function byRoute(rounds: Round[]) {
  const routes = new Map<string, { n: number; won: number; worth: number; hedged: number; took: number }>();
  for (const round of rounds) {
    if (round.stage !== "settled") continue;
    const key = round.is_orphan ? "left over from an earlier run" : round.route;
    const sum = routes.get(key) ?? { n: 0, won: 0, worth: 0, hedged: 0, took: 0 };
    const worth = Number(round.worth);
    sum.n += 1;
    sum.won += worth > 0 ? 1 : 0;
    sum.worth += worth;
    sum.hedged += round.hedges > 0 ? 1 : 0;
    sum.took += round.duration_us;
    routes.set(key, sum);
  }
  return [...routes].sort((a, b) => b[1].worth - a[1].worth);
}

export function Results(props: { theme: Theme }) {
  const { pnl, rounds } = useTopics("pnl", "rounds");
  const points = pnl?.points;
  const data = useMemo(() => equity(points ?? []), [points]);
  const drawdown = useMemo((): [number[], number[]] => {
    let peak = Number.NEGATIVE_INFINITY;
    return [data[0], data[1].map((value) => ((peak = Math.max(peak, value)), value - peak))];
  }, [data]);
  const routes = useMemo(() => byRoute(rounds ?? []), [rounds]);
  if (!pnl || !rounds) return <Waiting />;
  const settled = rounds.filter((round) => round.stage === "settled");
  if (data[0].length === 0 && settled.length === 0) {
    return <Empty>No results: nothing has been traded, in paper or live.</Empty>;
  }
  const asset = pnl.asset ?? "";
  const won = settled.filter((round) => Number(round.worth) > 0).length;
  const worth = settled.reduce((sum, round) => sum + Number(round.worth), 0);
  const worst = Math.min(0, ...drawdown[1]);
  return (
    <div className="grid">
      <Panel title="Equity" wide note={`${pnl.mode === "paper" ? "paper: " : ""}result of the UTC day, ${asset}`}>
        {data[0].length < 2 ? (
          <Empty>One point is no curve yet.</Empty>
        ) : (
          <Chart
            label="Equity: marked and realised result over time"
            theme={props.theme}
            data={data}
            height={280}
            value={(v) => v.toFixed(2)}
            series={[
              { label: "marked", colour: "--c1", fill: true },
              { label: "realised", colour: "--c2" },
            ]}
          />
        )}
      </Panel>
      <Panel title="Below the peak" wide note={asset}>
        {data[0].length < 2 ? (
          <Empty>One point is no curve yet.</Empty>
        ) : (
          <Chart
            label="Drawdown: marked result below its peak"
            theme={props.theme}
            data={drawdown}
            height={150}
            value={(v) => v.toFixed(2)}
            series={[{ label: "below the peak", colour: "--c4", fill: true }]}
          />
        )}
      </Panel>
      <Panel title="Settled rounds kept here">
        <dl className="figures">
          <Figure label="Settled">{count(settled.length)}</Figure>
          <Figure label="Gained" note={settled.length > 0 ? `${((100 * won) / settled.length).toFixed(0)} %` : undefined}>
            {count(won)}
          </Figure>
          <Figure label="Worth">
            {worth.toFixed(2)} {asset}
          </Figure>
          <Figure label="Mean">{settled.length === 0 ? "–" : (worth / settled.length).toFixed(4)}</Figure>
          <Figure label="Deepest below the peak">{worst.toFixed(2)}</Figure>
          <Figure label="Hedged">{count(settled.filter((round) => round.hedges > 0).length)}</Figure>
        </dl>
      </Panel>
      <Panel title="By route" wide note="the best first">
        {routes.length === 0 ? (
          <Empty>No round has settled.</Empty>
        ) : (
          <Table
            tall
            label="Results by route"
            head={
              <>
                <Th>Route</Th>
                <Th num>Rounds</Th>
                <Th num>Gained</Th>
                <Th num>Hedged</Th>
                <Th num>Worth, {asset}</Th>
                <Th num>Mean time</Th>
              </>
            }
          >
            {routes.slice(0, 60).map(([route, sum]) => (
              <tr key={route}>
                <td className="route">{route}</td>
                <td className="num">{sum.n}</td>
                <td className="num">{sum.won}</td>
                <td className="num">{sum.hedged}</td>
                <td className={sum.worth < 0 ? "num loss" : "num gain"}>{sum.worth.toFixed(2)}</td>
                <td className="num">{span((sum.took / sum.n) * 1000)}</td>
              </tr>
            ))}
          </Table>
        )}
      </Panel>
    </div>
  );
}
