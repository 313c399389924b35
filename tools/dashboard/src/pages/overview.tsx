import { useMemo } from "react";
import type { Theme } from "../app";
import { count, decimal, percent, scope, span, words } from "../format";
import { Empty, Figure, Meter, Money, Panel, Table, Tag, Th, Waiting } from "../parts/basics";
import { Chart } from "../parts/chart";
import { useTopics } from "../store";
import type { Limit, Point } from "../types";

export function equity(points: Point[]): [number[], number[], number[]] {
  return [points.map((p) => p.at_us / 1e6), points.map((p) => p.marked), points.map((p) => p.realised)];
}

function used(limit: Limit): string {
  if (limit.used === null) return `unknown of ${decimal(limit.limit, 0)} ${limit.unit}`;
  const digits = limit.unit === "" ? 0 : 2;
  return `${limit.used.toFixed(digits)} of ${decimal(limit.limit, digits)} ${limit.unit}`;
}

export function OverviewPage(props: { theme: Theme }) {
  const { overview, pnl, alerts } = useTopics("overview", "pnl", "alerts");
  const points = pnl?.points;
  const data = useMemo(() => equity(points ?? []), [points]);
  if (!overview) return <Waiting />;
  const { counts } = overview;
  const opportunities = counts.opportunities.reduce((a, b) => a + b, 0);
  const denied = Object.entries(counts.denied).sort((a, b) => b[1] - a[1]);
  return (
    <div className="grid">
      {overview.catching_up && (
        <p className="banner wide" role="status">
          The drain is still reading the journal's past; figures are not complete yet.
        </p>
      )}
      <Panel title="Result of the day" note={overview.pnl ? `UTC day, in ${overview.pnl.asset}` : undefined}>
        {overview.pnl ? (
          <>
            <p className="big">
              <Money text={overview.pnl.marked} asset={overview.pnl.asset} coloured />
            </p>
            <dl className="figures">
              <Figure label="Realised">
                <Money text={overview.pnl.realised} coloured />
              </Figure>
              <Figure label="Peak of the day">
                <Money text={overview.pnl.peak} />
              </Figure>
            </dl>
          </>
        ) : (
          <Empty>{overview.trades ? "No round has settled today." : "The run only observes: nothing is traded."}</Empty>
        )}
        {data[0].length > 1 && (
          <Chart
            label="Marked and realised result over time"
            theme={props.theme}
            data={data}
            height={150}
            value={(v) => v.toFixed(2)}
            series={[
              { label: "marked", colour: "--c1", fill: true },
              { label: "realised", colour: "--c2" },
            ]}
          />
        )}
      </Panel>
      <Panel title="Limits" note="used, worst of each">
        {overview.limits.length === 0 ? (
          <Empty>No limits: the run only observes.</Empty>
        ) : (
          overview.limits.map((limit) => (
            <Meter key={limit.name} label={limit.name} ppm={limit.ppm} text={used(limit)} />
          ))
        )}
      </Panel>
      <Panel title="Since the oldest record" note={`${count(counts.records)} records read`}>
        <dl className="figures">
          <Figure label="Opportunities" note={`${counts.opportunities[0]} cross-venue, ${counts.opportunities[1]} triangular, ${counts.opportunities[2]} cross-quote`}>
            {count(opportunities)}
          </Figure>
          <Figure label="Rounds" note={`${counts.settled} settled`}>
            {count(counts.rounds)}
          </Figure>
          <Figure label="Orders" note={`${overview.orders.open} open`}>
            {count(overview.orders.total)}
          </Figure>
          <Figure label="Fills">{count(overview.orders.fills)}</Figure>
          <Figure label="Denied candidates">{count(counts.denials)}</Figure>
          <Figure label="Journal" note={`${percent((1e6 * overview.journal.room) / Math.max(1, overview.journal.capacity))} free`}>
            {overview.journal.per_s === null ? "–" : `${count(overview.journal.per_s)} /s`}
          </Figure>
        </dl>
      </Panel>
      <Panel title="Venues" wide>
        <Table
          label="Venues"
          head={
            <>
              <Th>Venue</Th>
              <Th>Level</Th>
              <Th>Feed</Th>
              <Th num>Books live</Th>
              <Th num>Last change</Th>
              <Th>Gateway</Th>
              <Th>Session</Th>
              <Th num>Orders left in budget</Th>
              <Th num>Disconnects</Th>
              <Th num>Dead-man in</Th>
              <Th>Warden</Th>
            </>
          }
        >
          {overview.venues.map((v) => (
            <tr key={v.venue}>
              <th scope="row">{v.venue}</th>
              <td><Tag>{v.level}</Tag></td>
              <td><Tag>{v.feed}</Tag></td>
              <td className={v.books_live === v.books ? "num" : "num bad"}>
                {v.books_live} of {v.books}
              </td>
              <td className="num">{v.age_us === null ? "–" : span(v.age_us * 1000)}</td>
              <td><Tag>{v.gateway}</Tag></td>
              <td><Tag>{v.session}</Tag></td>
              <td className="num">{count(v.budget_left)}</td>
              <td className="num">{count(v.disconnects)}</td>
              <td className="num">
                {v.deadman_us === null ? "–" : span(Math.max(0, v.deadman_us - overview.now_us) * 1000)}
              </td>
              <td><Tag>{v.warden}</Tag></td>
            </tr>
          ))}
        </Table>
      </Panel>
      <Panel title="Alerts that stand">
        {!alerts ? (
          <Waiting />
        ) : alerts.standing.length === 0 ? (
          <Empty>Nothing is wrong.</Empty>
        ) : (
          <ul className="list">
            {alerts.standing.map((alert) => (
              <li key={alert.fingerprint}>
                <Tag>{alert.severity}</Tag> <strong>{alert.title}</strong>{scope(alert.fingerprint)}
                <br />
                <span className="dim">{alert.detail}</span>
              </li>
            ))}
          </ul>
        )}
      </Panel>
      <Panel title="Why candidates were denied" note="the most frequent first">
        {denied.length === 0 ? (
          <Empty>None was.</Empty>
        ) : (
          <ul className="list columns">
            {denied.slice(0, 12).map(([code, times]) => (
              <li key={code} className="split">
                <span>{words(code)}</span>
                <span className="num">{count(times)}</span>
              </li>
            ))}
          </ul>
        )}
      </Panel>
      <Panel title="Processes">
        <ul className="list columns">
          {overview.parts.map((part) => (
            <li key={part.name} className="split">
              <span>{part.name}</span>
              <Tag>{part.life}</Tag>
            </li>
          ))}
        </ul>
      </Panel>
    </div>
  );
}
