import { useMemo, useState } from "react";
import { Empty, Panel, Waiting } from "../parts/basics";
import { OrderTable } from "../parts/orders";
import { useTopics } from "../store";

export function Orders() {
  const { orders } = useTopics("orders");
  const [only, setOnly] = useState("");
  const shown = useMemo(
    () =>
      (orders ?? []).filter((order) => {
        if (only === "open") return order.ended_us === null;
        if (only === "unknown") return order.unknown > 0;
        return only === "" || order.purpose === only;
      }),
    [orders, only],
  );
  if (!orders) return <Waiting />;
  return (
    <div className="grid">
      <Panel
        title="Orders, newest first"
        wide
        note={`${shown.length} of ${orders.length} kept here`}
        actions={
          <form className="filters" onSubmit={(event) => event.preventDefault()}>
            <label>
              Show
              <select value={only} onChange={(event) => setOnly(event.target.value)}>
                <option value="">all</option>
                <option value="open">open</option>
                <option value="unknown">were unknown</option>
                <option value="entry">entries</option>
                <option value="hedge">hedges</option>
                <option value="unwind">unwinds</option>
              </select>
            </label>
          </form>
        }
      >
        {orders.length === 0 ? <Empty>No order yet.</Empty> : <OrderTable orders={shown.slice(0, 200)} />}
      </Panel>
    </div>
  );
}
