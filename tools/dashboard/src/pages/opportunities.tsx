import { useEffect, useMemo, useState } from "react";
import type { Theme } from "../app";
import { bp, clock, count, kindName, moment, span, words } from "../format";
import { Empty, Figure, Money, Panel, Table, Tag, Th, Waiting } from "../parts/basics";
import { Depth } from "../parts/depth";
import { Bars, Chart } from "../parts/chart";
import { Refused, ask, useTopics } from "../store";
import type { Opportunity, OpportunityRow } from "../types";

const KINDS = ["cross_venue", "triangular", "cross_quote"];
const VERDICTS = ["taken", "denied", "gone", "open"];
const LIVES_MS = [1, 3, 10, 30, 100, 300, 1000, 3000];

function verdictWord(verdict: string): string {
  return verdict.startsWith("denied") ? "denied" : verdict;
}

/** How long opportunities lived, by decades. */
function lives(rows: OpportunityRow[]) {
  const counts = new Array<number>(LIVES_MS.length + 1).fill(0);
  for (const row of rows) {
    if (row.life_us === null) continue;
    const ms = row.life_us / 1000;
    const slot = LIVES_MS.findIndex((bound) => ms < bound);
    const at = slot < 0 ? LIVES_MS.length : slot;
    counts[at] = (counts[at] ?? 0) + 1;
  }
  const label = (idx: number) => {
    const bound = LIVES_MS[idx];
    return bound === undefined ? "longer" : `below ${span(bound * 1e6)}`;
  };
  return counts.map((value, idx) => ({ label: label(idx), value }));
}

/** What share of the edge was left one order latency later, against how long it lived. */
function decay(rows: OpportunityRow[]): [number[], number[]] {
  const slots = LIVES_MS.map(() => [0, 0] as [number, number]);
  for (const row of rows) {
    if (row.life_us === null || row.after_net === null) continue;
    const net = Number(row.net);
    if (!(net > 0)) continue;
    const ms = row.life_us / 1000;
    const at = LIVES_MS.findIndex((bound) => ms < bound);
    const slot = slots[at < 0 ? LIVES_MS.length - 1 : at];
    if (!slot) continue;
    slot[0] += Math.max(0, Number(row.after_net)) / net;
    slot[1] += 1;
  }
  const known = slots.map(([sum, n], idx) => [LIVES_MS[idx] ?? 0, n === 0 ? null : (100 * sum) / n] as const);
  const present = known.filter((one): one is readonly [number, number] => one[1] !== null);
  return [present.map(([ms]) => Math.log10(ms)), present.map(([, share]) => share)];
}

export function Opportunities(props: { theme: Theme }) {
  const { opportunities, denials } = useTopics("opportunities", "denials");
  const [kind, setKind] = useState("");
  const [verdict, setVerdict] = useState("");
  const [text, setText] = useState("");
  const shown = useMemo(() => {
    const wanted = text.trim().toLowerCase();
    return (opportunities ?? []).filter(
      (row) =>
        (kind === "" || row.kind === kind) &&
        (verdict === "" || verdictWord(row.verdict) === verdict) &&
        (wanted === "" || `${row.route} ${row.asset} ${row.id}`.toLowerCase().includes(wanted)),
    );
  }, [opportunities, kind, verdict, text]);
  const decayed = useMemo(() => decay(shown), [shown]);
  if (!opportunities) return <Waiting />;
  return (
    <div className="grid">
      <Panel title="How long they lived">
        {shown.length === 0 ? <Empty>Nothing to count.</Empty> : <Bars label="Opportunities by life" rows={lives(shown)} />}
      </Panel>
      <Panel title="What was left one order latency later" note="share of the net edge, mean, by life">
        {decayed[0].length < 2 ? (
          <Empty>Too few have ended to tell.</Empty>
        ) : (
          <Chart
            label="Share of the edge that was left, by life"
            theme={props.theme}
            time={false}
            data={decayed}
            value={(v) => `${v.toFixed(0)} %`}
            x={(v) => span(10 ** v * 1e6)}
            series={[{ label: "left", colour: "--c3", fill: true }]}
          />
        )}
      </Panel>
      <Panel
        title="Opportunities, newest first"
        wide
        note={`${shown.length} of ${opportunities.length} kept here`}
        actions={
          <form className="filters" role="search" onSubmit={(event) => event.preventDefault()}>
            <label>
              Kind
              <select value={kind} onChange={(event) => setKind(event.target.value)}>
                <option value="">all</option>
                {KINDS.map((name) => (
                  <option key={name} value={name}>
                    {kindName(name)}
                  </option>
                ))}
              </select>
            </label>
            <label>
              Verdict
              <select value={verdict} onChange={(event) => setVerdict(event.target.value)}>
                <option value="">all</option>
                {VERDICTS.map((name) => (
                  <option key={name}>{name}</option>
                ))}
              </select>
            </label>
            <label>
              Find
              <input type="search" placeholder="symbol, venue, number" value={text} onChange={(event) => setText(event.target.value)} />
            </label>
          </form>
        }
      >
        {shown.length === 0 ? (
          <Empty>
            {opportunities.length === 0
              ? "None yet: nothing paid more than its fees and buffers. `tandem why` says what stands against it."
              : "None of these fits the filter."}
          </Empty>
        ) : (
          <Table
            tall
            label="Opportunities"
            head={
              <>
                <Th num>No.</Th>
                <Th>Seen (UTC)</Th>
                <Th>Kind</Th>
                <Th>Route</Th>
                <Th num>Net</Th>
                <Th num>Edge</Th>
                <Th num>Lived</Th>
                <Th num>One latency later</Th>
                <Th>Verdict</Th>
              </>
            }
          >
            {shown.slice(0, 200).map((row) => (
              <tr key={`${row.run} ${row.id}`}>
                <td className="num">
                  <a href={`#/opportunity/${row.run}/${row.id}`}>{row.id}</a>
                </td>
                <td>{clock(row.first_us)}</td>
                <td>{kindName(row.kind)}</td>
                <td className="route">{row.route}</td>
                <td className="num">
                  <Money text={row.net} asset={row.asset} digits={4} />
                </td>
                <td className="num">{bp(row.net_ppm)}</td>
                <td className="num">{row.life_us === null ? "–" : span(row.life_us * 1000)}</td>
                <td className="num">
                  <Money text={row.after_net} digits={4} />
                </td>
                <td>
                  <Tag>{words(row.verdict)}</Tag>
                  {row.round !== null && (
                    <>
                      {" "}
                      <a href={`#/round/${row.run}/${row.round}`}>round {row.round}</a>
                    </>
                  )}
                </td>
              </tr>
            ))}
          </Table>
        )}
      </Panel>
      <Panel title="Denied candidates, newest first" wide note="the last of each reason in a row">
        {!denials || denials.length === 0 ? (
          <Empty>None.</Empty>
        ) : (
          <Table
            tall
            label="Denied candidates"
            head={
              <>
                <Th>At (UTC)</Th>
                <Th>Why</Th>
                <Th num>Times</Th>
                <Th num>Found</Th>
                <Th num>Allowed</Th>
                <Th>Route</Th>
                <Th num>Net</Th>
              </>
            }
          >
            {denials.slice(0, 60).map((row) => (
              <tr key={row.rev}>
                <td>{clock(row.at_us)}</td>
                <td>{words(row.code)}</td>
                <td className="num">{count(row.times)}</td>
                <td className="num">{count(row.observed)}</td>
                <td className="num">{count(row.limit)}</td>
                <td className="route">{row.route}</td>
                <td className="num">
                  <Money text={row.net} asset={row.asset} digits={4} />
                </td>
              </tr>
            ))}
          </Table>
        )}
      </Panel>
    </div>
  );
}

export function OpportunityPage(props: { run: number; id: number }) {
  const { opportunities } = useTopics("opportunities");
  const [found, setFound] = useState<Opportunity | null>(null);
  const [error, setError] = useState<string | null>(null);
  // Its row in the list says when it changed.
  const rev = opportunities?.find((row) => row.run === props.run && row.id === props.id)?.rev;
  useEffect(() => {
    let gone = false;
    ask<Opportunity>(`opportunity/${props.run}/${props.id}`).then(
      (answer) => !gone && setFound(answer),
      (refused: unknown) =>
        !gone &&
        setError(
          refused instanceof Refused && refused.status === 404
            ? "It is not kept here any more; `tandem opportunities` and Postgres have it."
            : "The drain does not answer.",
        ),
    );
    return () => {
      gone = true;
    };
  }, [props.run, props.id, rev]);
  if (error && !found) return <Empty>{error}</Empty>;
  if (!found) return <Waiting />;
  return (
    <div className="grid">
      <Panel
        title={`Opportunity ${found.id}`}
        note={<Tag>{words(found.verdict)}</Tag>}
        wide
        actions={
          found.round !== null ? <a href={`#/round/${found.run}/${found.round}`}>round {found.round}</a> : undefined
        }
      >
        <p className="route big-route">{found.route}</p>
        <dl className="figures">
          <Figure label="Net at its best">
            <Money text={found.net} asset={found.asset} digits={8} coloured />
          </Figure>
          <Figure label="Edge" note={`${bp(found.gross_ppb / 1000)} before fees, ${bp(found.buffers_ppm)} buffers`}>
            {bp(found.net_ppm)}
          </Figure>
          <Figure label="Spent, brought">
            <Money text={found.spent} digits={4} /> → <Money text={found.brought} asset={found.asset} digits={4} />
          </Figure>
          <Figure label="First seen">{moment(found.first_us)}</Figure>
          <Figure label="Lived" note={`${count(found.times)} times evaluated and paid`}>
            {found.life_us === null ? "still there" : span(found.life_us * 1000)}
          </Figure>
          <Figure label="Oldest data">{span(found.age_ns)}</Figure>
          <Figure label="One order latency later">
            <Money text={found.after_net} asset={found.asset} digits={8} coloured />
          </Figure>
          <Figure label="In the journal">
            run {found.run}, record {found.seq}
          </Figure>
        </dl>
      </Panel>
      <Panel title="Orders that would take it" wide>
        <Table
          label="Legs"
          head={
            <>
              <Th>Leg</Th>
              <Th>Venue</Th>
              <Th num>Quantity</Th>
              <Th num>Limit</Th>
              <Th num>Best</Th>
              <Th num>Levels</Th>
              <Th>Book received (UTC)</Th>
            </>
          }
        >
          {found.legs.map((leg, idx) => (
            <tr key={idx}>
              <th scope="row">
                {leg.action} {leg.symbol}
              </th>
              <td>{leg.venue}</td>
              <td className="num">{leg.qty}</td>
              <td className="num">{leg.px}</td>
              <td className="num">{leg.best_px}</td>
              <td className="num">{leg.levels}</td>
              <td>{clock(leg.recv_us, 6)}</td>
            </tr>
          ))}
        </Table>
      </Panel>
      <Panel title="The books it saw" wide note="as the engine had them at that record">
        <div className="side-by-side">
          {found.seen.map((book, idx) => (
            <Depth key={idx} book={book} taken={found.legs.find((leg) => leg.venue === book.venue && leg.symbol === book.symbol)} />
          ))}
        </div>
      </Panel>
      <Panel title="Its life">
        <Table
          label="Phases"
          head={
            <>
              <Th>Phase</Th>
              <Th num>After</Th>
              <Th num>Net</Th>
              <Th num>Edge</Th>
            </>
          }
        >
          {found.phases.map((phase, idx) => (
            <tr key={idx}>
              <th scope="row">{phase.phase}</th>
              <td className="num">{span((phase.at_us - found.first_us) * 1000)}</td>
              <td className="num">
                <Money text={phase.net} digits={6} />
              </td>
              <td className="num">{bp(phase.net_ppm)}</td>
            </tr>
          ))}
        </Table>
      </Panel>
      <Panel title="What refused it">
        {found.denials.length === 0 ? (
          <Empty>Nothing did.</Empty>
        ) : (
          <ul className="list">
            {found.denials.map((denial) => (
              <li key={denial.rev}>
                <strong>{words(denial.code)}</strong> ×{count(denial.times)}
                {denial.observed !== null && (
                  <span className="dim">
                    {" "}
                    found {count(denial.observed)}, allowed {count(denial.limit)}
                  </span>
                )}
              </li>
            ))}
          </ul>
        )}
      </Panel>
    </div>
  );
}
