import { clock, decimal } from "../format";
import { Empty, Money, Panel, Table, Th, Waiting } from "../parts/basics";
import { useTopics } from "../store";

const FLOWS = ["trade", "fee", "external", "carried", "bust"];

export function Balances() {
  const { balances } = useTopics("balances");
  if (!balances) return <Waiting />;
  if (balances.length === 0) {
    return <Empty>No balance yet: the run only observes, or no gateway has read one.</Empty>;
  }
  return (
    <div className="grid">
      <Panel title="Balances" wide note="our ledger beside the venues' last word">
        <Table
          label="Balances"
          head={
            <>
              <Th>Asset</Th>
              <Th>Venue</Th>
              <Th num>Ledger</Th>
              <Th num>Venue says</Th>
              <Th num>Held for orders</Th>
              <Th>Same</Th>
              <Th>Told at (UTC)</Th>
            </>
          }
        >
          {balances.map((row) => {
            const differs = row.ledger !== null && row.told !== null && Number(row.ledger) !== Number(row.told);
            return (
              <tr key={`${row.venue} ${row.asset}`}>
                <th scope="row">{row.asset}</th>
                <td>{row.venue}</td>
                <td className="num">
                  <Money text={row.ledger} digits={8} />
                </td>
                <td className="num">
                  <Money text={row.told} digits={8} />
                </td>
                <td className="num">
                  <Money text={row.held} digits={8} />
                </td>
                <td className={differs ? "warn" : undefined}>
                  {row.ledger === null || row.told === null ? "–" : differs ? "not now" : "yes"}
                </td>
                <td>{clock(row.told_us)}</td>
              </tr>
            );
          })}
        </Table>
        <p className="dim">
          “Not now” is usual while fills are under way, and where a venue rounds what it tells. What lasts is alerted as a
          reconcile difference.
        </p>
      </Panel>
      <Panel title="Ledger" wide note="what moved, by account, since the oldest record">
        <Table
          label="Ledger"
          head={
            <>
              <Th>Asset</Th>
              <Th>Venue</Th>
              {FLOWS.map((flow) => (
                <Th key={flow} num>
                  {flow}
                </Th>
              ))}
            </>
          }
        >
          {balances
            .filter((row) => Object.keys(row.flows).length > 0)
            .map((row) => (
              <tr key={`${row.venue} ${row.asset}`}>
                <th scope="row">{row.asset}</th>
                <td>{row.venue}</td>
                {FLOWS.map((flow) => (
                  <td key={flow} className="num">
                    {decimal(row.flows[flow])}
                  </td>
                ))}
              </tr>
            ))}
        </Table>
      </Panel>
    </div>
  );
}
