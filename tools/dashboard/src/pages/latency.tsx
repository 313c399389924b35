import { useMemo, useState } from "react";
import type { Theme } from "../app";
import { count, span } from "../format";
import { Empty, Panel, Table, Th, Waiting } from "../parts/basics";
import { Chart } from "../parts/chart";
import { useTopics } from "../store";
import type { Stage } from "../types";

const NAMES: Record<string, string> = {
  feed_kernel_ns: "kernel to the read's return",
  feed_decode_ns: "decode of a message",
  feed_turn_ns: "a turn of the feed",
  engine_ring_ns: "through the ring",
  engine_detect_ns: "a decision",
  engine_wire_to_decision_ns: "read at the socket to decision",
  engine_kernel_to_decision_ns: "kernel's stamp to decision",
  gateway_tick_to_order_ns: "market data's read to order bytes",
  gateway_ring_to_socket_ns: "order ring to socket",
  gateway_order_reply_ns: "order to the venue's first word",
};

function name(stage: Stage): string {
  return NAMES[stage.stage] ?? stage.stage;
}

function Over(props: { stage: Stage; theme: Theme }) {
  const { intervals } = props.stage;
  const data = useMemo(
    (): [number[], number[], number[], number[]] => [
      intervals.map((one) => one.at_us / 1e6),
      intervals.map((one) => one.p50),
      intervals.map((one) => one.p99),
      intervals.map((one) => one.p999),
    ],
    [intervals],
  );
  if (intervals.length < 2) return <Empty>Nothing was measured for long enough since the drain started; the table has what the processes counted.</Empty>;
  return (
    <Chart
      label={`${props.stage.process}: ${name(props.stage)} over time`}
      theme={props.theme}
      log
      height={260}
      data={data}
      value={(v) => span(v)}
      series={[
        { label: "p50", colour: "--c2" },
        { label: "p99", colour: "--c1" },
        { label: "p99.9", colour: "--c3", dash: [4, 3] },
      ]}
    />
  );
}

export function LatencyPage(props: { theme: Theme }) {
  const { latency } = useTopics("latency");
  const [chosen, setChosen] = useState("");
  if (!latency) return <Waiting />;
  const known = latency.filter((stage) => stage.whole !== null);
  if (known.length === 0) return <Empty>No process has measured anything yet.</Empty>;
  const key = (stage: Stage) => `${stage.process} ${stage.stage}`;
  const preferred = ["gateway_tick_to_order_ns", "engine_wire_to_decision_ns"];
  const first = preferred.map((wanted) => known.find((stage) => stage.stage === wanted)).find(Boolean) ?? known[0];
  const shown = known.find((stage) => key(stage) === chosen) ?? first;
  return (
    <div className="grid">
      <Panel
        title="Over time"
        wide
        note="UTC, intervals of 2 s, logarithmic"
        actions={
          <form className="filters" onSubmit={(event) => event.preventDefault()}>
            <label>
              Stage
              <select value={shown ? key(shown) : ""} onChange={(event) => setChosen(event.target.value)}>
                {known.map((stage) => (
                  <option key={key(stage)} value={key(stage)}>
                    {stage.process}: {name(stage)}
                  </option>
                ))}
              </select>
            </label>
          </form>
        }
      >
        {shown && <Over key={key(shown)} stage={shown} theme={props.theme} />}
      </Panel>
      <Panel title="Every stage" wide note="since its process started">
        <Table
          label="Latency by stage"
          head={
            <>
              <Th>Process</Th>
              <Th>Stage</Th>
              <Th num>p50</Th>
              <Th num>p99</Th>
              <Th num>p99.9</Th>
              <Th num>Maximum</Th>
              <Th num>Count</Th>
            </>
          }
        >
          {known.map((stage) => (
            <tr key={key(stage)} className={stage === shown ? "chosen" : undefined}>
              <th scope="row">{stage.process}</th>
              <td>
                <button type="button" className="plain" onClick={() => setChosen(key(stage))}>
                  {name(stage)}
                </button>
              </td>
              <td className="num">{span(stage.whole?.p50)}</td>
              <td className="num">{span(stage.whole?.p99)}</td>
              <td className="num">{span(stage.whole?.p999)}</td>
              <td className="num">{span(stage.whole?.max)}</td>
              <td className="num">{count(stage.whole?.count)}</td>
            </tr>
          ))}
        </Table>
      </Panel>
    </div>
  );
}
