import { useEffect, useMemo, useState } from "react";
import { clock, count, moment, span } from "../format";
import { Empty, Figure, Money, Panel, Table, Tag, Th, Waiting } from "../parts/basics";
import { Depth } from "../parts/depth";
import { OrderTable } from "../parts/orders";
import { Refused, ask, useTopics } from "../store";
import type { Opportunity, Order, Round } from "../types";

const STAGES = ["entry", "hedge", "held", "settled"];

export function Rounds() {
  const { rounds } = useTopics("rounds");
  const [stage, setStage] = useState("");
  const shown = useMemo(() => (rounds ?? []).filter((r) => stage === "" || r.stage === stage), [rounds, stage]);
  if (!rounds) return <Waiting />;
  return (
    <div className="grid">
      <Panel
        title="Rounds, newest first"
        wide
        note={`${shown.length} of ${rounds.length} kept here`}
        actions={
          <form className="filters" onSubmit={(event) => event.preventDefault()}>
            <label>
              Stage
              <select value={stage} onChange={(event) => setStage(event.target.value)}>
                <option value="">all</option>
                {STAGES.map((name) => (
                  <option key={name}>{name}</option>
                ))}
              </select>
            </label>
          </form>
        }
      >
        {shown.length === 0 ? (
          <Empty>
            {rounds.length === 0 ? "No round yet. A round begins when an opportunity passes every control." : "None is at this stage."}
          </Empty>
        ) : (
          <Table
            tall
            label="Rounds"
            head={
              <>
                <Th num>No.</Th>
                <Th>Opened (UTC)</Th>
                <Th>Route</Th>
                <Th>Stage</Th>
                <Th num>Expected</Th>
                <Th num>Realised</Th>
                <Th num>Worth</Th>
                <Th num>Hedges</Th>
                <Th num>Took</Th>
              </>
            }
          >
            {shown.slice(0, 200).map((row) => (
              <tr key={`${row.run} ${row.id}`}>
                <td className="num">
                  <a href={`#/round/${row.run}/${row.id}`}>{row.id}</a>
                </td>
                <td>{clock(row.opened_us)}</td>
                <td className="route">{row.is_orphan ? "left over from an earlier run" : row.route}</td>
                <td>
                  <Tag>{row.stage}</Tag>
                </td>
                <td className="num">
                  <Money text={row.expected} asset={row.asset} digits={4} />
                </td>
                <td className="num">
                  <Money text={row.realised} asset={row.asset} digits={4} coloured />
                </td>
                <td className="num">
                  <Money text={row.worth} asset={row.numeraire} digits={2} coloured />
                </td>
                <td className="num">{count(row.hedges)}</td>
                <td className="num">{span(row.duration_us * 1000)}</td>
              </tr>
            ))}
          </Table>
        )}
      </Panel>
    </div>
  );
}

interface Moment {
  at: number;
  lane: string;
  text: string;
  kind: "seen" | "made" | "sent" | "acked" | "fill" | "ended" | "stage";
}

function moments(round: Round, orders: Order[], seen: Opportunity | null): Moment[] {
  const all: Moment[] = [];
  if (seen) all.push({ at: seen.first_us, lane: "round", text: `opportunity ${seen.id} first seen`, kind: "seen" });
  for (const stage of round.stages) {
    all.push({ at: round.opened_us + stage.after_us, lane: "round", text: `stage ${stage.stage}`, kind: "stage" });
  }
  for (const order of orders) {
    const lane = `${order.action} ${order.symbol} ${order.venue}`;
    all.push({ at: order.made_us, lane, text: `${order.purpose} order made: ${order.qty} at ${order.px}`, kind: "made" });
    if (order.sent_us) all.push({ at: order.sent_us, lane, text: "handed to the socket", kind: "sent" });
    if (order.acked_us) all.push({ at: order.acked_us, lane, text: "first word of the venue", kind: "acked" });
    for (const fill of order.fills) {
      all.push({ at: fill.at_us, lane, text: `filled ${fill.qty} at ${fill.px}, fee ${fill.fee} ${fill.fee_asset}`, kind: "fill" });
    }
    if (order.ended_us) all.push({ at: order.ended_us, lane, text: order.state, kind: "ended" });
  }
  return all.sort((a, b) => a.at - b.at);
}

const MARKS: Record<Moment["kind"], string> = {
  seen: "◇",
  stage: "■",
  made: "○",
  sent: "▷",
  acked: "△",
  fill: "●",
  ended: "×",
};

/** The round's moments on one line for each order, on a logarithmic scale. */
function TimeLine(props: { all: Moment[] }) {
  const { all } = props;
  const first = all[0]?.at ?? 0;
  const last = all.at(-1)?.at ?? first;
  const whole = Math.max(1, last - first);
  const lanes = [...new Set(all.map((one) => one.lane))];
  // Orders leave within a millisecond and some fills are told a second later: both are to be seen.
  const x = (at: number) => 2 + (96 * Math.log10(1 + (at - first) / 30)) / Math.log10(1 + whole / 30);
  const ticks = [0, 100, 1e3, 1e4, 1e5, 1e6, 1e7].filter((us) => us < whole * 0.8);
  return (
    <div className="timeline" role="img" aria-label={`Time line over ${span(whole * 1000)}; the table below has every moment`}>
      {lanes.map((lane) => (
        <div key={lane} className="lane">
          <span>{lane}</span>
          <div>
            {all
              .filter((one) => one.lane === lane)
              .map((one, idx) => (
                <i key={idx} className={one.kind} style={{ left: `${x(one.at)}%` }} title={`${one.text}, +${span((one.at - first) * 1000)}`}>
                  {MARKS[one.kind]}
                </i>
              ))}
          </div>
        </div>
      ))}
      <div className="lane scale">
        <span />
        <div>
          {[...ticks, whole].map((us) => (
            <b key={us} style={{ left: `${x(first + us)}%` }}>
              {us === 0 ? "0" : `+${span(us * 1000)}`}
            </b>
          ))}
        </div>
      </div>
    </div>
  );
}

export function RoundPage(props: { run: number; id: number }) {
  const { rounds } = useTopics("rounds");
  const [found, setFound] = useState<{ round: Round; orders: Order[]; opportunity: Opportunity | null } | null>(null);
  const [error, setError] = useState<string | null>(null);
  const rev = rounds?.find((row) => row.run === props.run && row.id === props.id)?.rev;
  useEffect(() => {
    let gone = false;
    ask<{ round: Round; orders: Order[]; opportunity: Opportunity | null }>(`round/${props.run}/${props.id}`).then(
      (answer) => !gone && setFound(answer),
      (refused: unknown) =>
        !gone &&
        setError(
          refused instanceof Refused && refused.status === 404
            ? `It is not kept here any more; \`tandem why ${props.id}\` has it.`
            : "The drain does not answer.",
        ),
    );
    return () => {
      gone = true;
    };
  }, [props.run, props.id, rev]);
  if (error && !found) return <Empty>{error}</Empty>;
  if (!found) return <Waiting />;
  const { round, orders, opportunity } = found;
  const all = moments(round, orders, opportunity);
  const first = all[0]?.at ?? 0;
  return (
    <div className="grid">
      <Panel
        title={`Round ${round.id}`}
        wide
        note={<Tag>{round.stage}</Tag>}
        actions={
          round.opportunity !== null ? (
            <a href={`#/opportunity/${round.run}/${round.opportunity}`}>opportunity {round.opportunity}</a>
          ) : undefined
        }
      >
        <p className="route big-route">{round.is_orphan ? "left over from an earlier run" : round.route}</p>
        <dl className="figures">
          <Figure label="Expected">
            <Money text={round.expected} asset={round.asset} digits={8} />
          </Figure>
          <Figure label="Realised">
            <Money text={round.realised} asset={round.asset} digits={8} coloured />
          </Figure>
          <Figure label="All of it is worth">
            <Money text={round.worth} asset={round.numeraire} digits={4} coloured />
          </Figure>
          <Figure label="Opened">{moment(round.opened_us)}</Figure>
          <Figure label="Took">{span(round.duration_us * 1000)}</Figure>
          <Figure label="Hedges">{count(round.hedges)}</Figure>
        </dl>
      </Panel>
      <Panel title="Time line" wide note="logarithmic · ◇ seen  ■ stage  ○ made  ▷ sent  △ first word  ● fill  × end">
        <TimeLine all={all} />
        <Table
          label="Moments of the round"
          head={
            <>
              <Th num>After</Th>
              <Th>Of</Th>
              <Th>What</Th>
            </>
          }
        >
          {all.map((one, idx) => (
            <tr key={idx}>
              <td className="num">+{span((one.at - first) * 1000)}</td>
              <td>{one.lane}</td>
              <td>
                {MARKS[one.kind]} {one.text}
              </td>
            </tr>
          ))}
        </Table>
      </Panel>
      <Panel title="Legs" wide>
        <Table
          label="Legs"
          head={
            <>
              <Th>Leg</Th>
              <Th num>Limit</Th>
              <Th num>Planned</Th>
              <Th num>Filled</Th>
            </>
          }
        >
          {round.legs.map((leg, idx) => (
            <tr key={idx}>
              <th scope="row">
                {leg.action} {leg.symbol} {leg.venue}
              </th>
              <td className="num">{leg.px}</td>
              <td className="num">{leg.qty}</td>
              <td className={leg.filled === leg.qty ? "num gain" : "num"}>{leg.filled}</td>
            </tr>
          ))}
        </Table>
      </Panel>
      <Panel title="Orders of the round" wide>
        <OrderTable orders={orders} />
      </Panel>
      {opportunity && (
        <Panel title="The books it was decided on" wide>
          <div className="side-by-side">
            {opportunity.seen.map((book, idx) => (
              <Depth key={idx} book={book} taken={opportunity.legs.find((leg) => leg.venue === book.venue && leg.symbol === book.symbol)} />
            ))}
          </div>
        </Panel>
      )}
    </div>
  );
}
