import { useMemo, useState } from "react";
import { clock, moment, scope } from "../format";
import { Empty, Panel, Table, Tag, Th, Waiting } from "../parts/basics";
import { useTopics } from "../store";

export function Events() {
  const { events, alerts } = useTopics("events", "alerts");
  const [kind, setKind] = useState("");
  const kinds = useMemo(() => [...new Set((events ?? []).map((event) => event.kind))].sort(), [events]);
  const shown = useMemo(() => (events ?? []).filter((event) => kind === "" || event.kind === kind), [events, kind]);
  if (!events || !alerts) return <Waiting />;
  return (
    <div className="grid">
      <Panel title="Alerts that stand" wide>
        {alerts.standing.length === 0 ? (
          <Empty>Nothing is wrong.</Empty>
        ) : (
          <ul className="list">
            {alerts.standing.map((alert) => (
              <li key={alert.fingerprint}>
                <Tag>{alert.severity}</Tag> <strong>{alert.title}</strong>{scope(alert.fingerprint)}
                <span className="dim"> since {moment(alert.first_us)}</span>
                <br />
                {alert.detail}
                <br />
                <span className="dim">
                  Runbook: <code>deploy/runbooks/{alert.runbook}.md</code>
                </span>
              </li>
            ))}
          </ul>
        )}
      </Panel>
      <Panel title="Alerts as told" wide note="newest first">
        {alerts.told.length === 0 ? (
          <Empty>None yet.</Empty>
        ) : (
          <Table
            tall
            label="Alerts as told"
            head={
              <>
                <Th>Last seen (UTC)</Th>
                <Th>Severity</Th>
                <Th>State</Th>
                <Th>What</Th>
                <Th>Exactly</Th>
                <Th num>Times</Th>
              </>
            }
          >
            {alerts.told.slice(0, 100).map((alert) => (
              <tr key={alert.rev}>
                <td>{clock(alert.last_us)}</td>
                <td>
                  <Tag>{alert.severity}</Tag>
                </td>
                <td>{alert.state}</td>
                <td>
                  {alert.title}
                  {scope(alert.fingerprint)}
                </td>
                <td className="route">{alert.detail}</td>
                <td className="num">{alert.count}</td>
              </tr>
            ))}
          </Table>
        )}
      </Panel>
      <Panel
        title="Events, newest first"
        wide
        note={`${shown.length} kept here`}
        actions={
          <form className="filters" onSubmit={(event) => event.preventDefault()}>
            <label>
              Kind
              <select value={kind} onChange={(event) => setKind(event.target.value)}>
                <option value="">all</option>
                {kinds.map((name) => (
                  <option key={name}>{name}</option>
                ))}
              </select>
            </label>
          </form>
        }
      >
        {shown.length === 0 ? (
          <Empty>Nothing has happened yet.</Empty>
        ) : (
          <Table
            tall
            label="Events"
            head={
              <>
                <Th>At (UTC)</Th>
                <Th>Kind</Th>
                <Th>Venue</Th>
                <Th>What</Th>
              </>
            }
          >
            {shown.slice(0, 200).map((event) => (
              <tr key={event.rev}>
                <td>{clock(event.at_us)}</td>
                <td>{event.kind}</td>
                <td>{event.venue ?? "–"}</td>
                <td className="route">
                  {event.severity !== "info" && <Tag>{event.severity}</Tag>} {event.text}
                </td>
              </tr>
            ))}
          </Table>
        )}
      </Panel>
    </div>
  );
}
