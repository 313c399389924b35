import { bytes, count, moment, percent } from "../format";
import { Empty, Figure, Panel, Table, Tag, Th, Waiting } from "../parts/basics";
import { useTopics } from "../store";

export function DrainPage() {
  const { drain } = useTopics("drain");
  if (!drain) return <Waiting />;
  const { journal } = drain;
  const free = (1e6 * journal.room) / Math.max(1, journal.capacity);
  const hours = journal.per_s ? journal.room / journal.per_s / 3600 : null;
  return (
    <div className="grid">
      <Panel title="Journal">
        <dl className="figures">
          <Figure label="Free in shared memory" note={hours === null ? undefined : `${hours.toFixed(1)} h at this rate`}>
            {percent(free)}
          </Figure>
          <Figure label="Written">{journal.per_s === null ? "–" : `${count(journal.per_s)} records/s`}</Figure>
          <Figure label="Not read here yet">{count(journal.lag)} records</Figure>
          <Figure label="Read since the drain started">{count(drain.records)}</Figure>
          <Figure label="Made no sense">{count(drain.unreadable)}</Figure>
          <Figure label="State">{drain.catching_up ? "catching up" : "up to date"}</Figure>
        </dl>
      </Panel>
      <Panel title="Sinks" wide note="what the drain hands on; one that is down costs the others nothing">
        {drain.sinks.length === 0 ? (
          <Empty>None is configured: the journal in shared memory is all there is. See [archive], [postgres], [redis].</Empty>
        ) : (
          <Table
            label="Sinks"
            head={
              <>
                <Th>Sink</Th>
                <Th>State</Th>
                <Th num>Behind</Th>
                <Th num>Waiting</Th>
                <Th num>Written</Th>
                <Th num>Errors</Th>
                <Th num>Put aside</Th>
                <Th>Last success</Th>
                <Th>Trouble</Th>
              </>
            }
          >
            {drain.sinks.map((sink) => (
              <tr key={sink.name}>
                <th scope="row">{sink.name}</th>
                <td>
                  <Tag>{sink.up ? "up" : "down"}</Tag>
                </td>
                <td className="num" title={bytes(sink.lag_bytes)}>
                  {count(sink.lag_records)}
                </td>
                <td className="num">{count(sink.backlog_rows)}</td>
                <td className="num">{count(sink.written_rows)}</td>
                <td className="num">{count(sink.errors)}</td>
                <td className="num">{count(sink.dead_letters)}</td>
                <td>{moment(sink.last_ok_us)}</td>
                <td className="route">{sink.trouble ?? "–"}</td>
              </tr>
            ))}
          </Table>
        )}
      </Panel>
    </div>
  );
}
