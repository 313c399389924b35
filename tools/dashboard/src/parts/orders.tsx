import { clock, span, words } from "../format";
import type { Order } from "../types";
import { Empty, Table, Tag, Th } from "./basics";

function fees(order: Order): string {
  const sums = new Map<string, number>();
  for (const fill of order.fills) {
    if (!fill.busted) sums.set(fill.fee_asset, (sums.get(fill.fee_asset) ?? 0) + Number(fill.fee));
  }
  return [...sums].map(([asset, fee]) => `${Number(fee.toPrecision(6))} ${asset}`).join(", ") || "–";
}

export function OrderTable(props: { orders: Order[] }) {
  if (props.orders.length === 0) return <Empty>No orders.</Empty>;
  return (
    <Table
      tall
      label="Orders"
      head={
        <>
          <Th>Order</Th>
          <Th>Made (UTC)</Th>
          <Th>Venue</Th>
          <Th>What</Th>
          <Th num>Limit</Th>
          <Th num>Quantity</Th>
          <Th num>Filled</Th>
          <Th>State</Th>
          <Th num>To the socket</Th>
          <Th num>First word</Th>
          <Th num>Fee</Th>
          <Th num>Round</Th>
        </>
      }
    >
      {props.orders.map((order) => (
        <tr key={`${order.run} ${order.client_id}`}>
          <th scope="row">
            <code>{order.client_id}</code>
          </th>
          <td>{clock(order.made_us)}</td>
          <td>{order.venue}</td>
          <td>
            {order.action} {order.symbol} <small>{order.purpose}</small>
          </td>
          <td className="num">{order.px}</td>
          <td className="num">{order.qty}</td>
          <td className="num">{order.filled}</td>
          <td>
            <Tag>{words(order.state)}</Tag> {order.detail && <small>{order.detail}</small>}
            {order.fills.some((fill) => fill.busted) && <small className="bad"> a fill was taken back</small>}
          </td>
          <td className="num">{order.sent_us === null ? "–" : span((order.sent_us - order.made_us) * 1000)}</td>
          <td className="num">
            {order.acked_us === null ? "–" : span((order.acked_us - (order.sent_us ?? order.made_us)) * 1000)}
          </td>
          <td className="num">{fees(order)}</td>
          <td className="num">{order.round === 0 ? "–" : <a href={`#/round/${order.run}/${order.round}`}>{order.round}</a>}</td>
        </tr>
      ))}
    </Table>
  );
}
