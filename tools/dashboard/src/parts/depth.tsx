// One book: bids and asks by price, with how much stands up to each level.

import { clock, decimal, rough, span } from "../format";
import type { Book, Leg, Level } from "../types";
import { Empty, Tag } from "./basics";

function sums(levels: Level[]): number[] {
  let sum = 0;
  return levels.map(([, qty]) => (sum += Number(qty)));
}

function Side(props: { name: "bid" | "ask"; levels: Level[]; most: number; taken?: Leg }) {
  const { name, levels, most, taken } = props;
  const depth = sums(levels);
  // The best ask stands next to the best bid.
  const ranks = [...levels.keys()];
  if (name === "ask") ranks.reverse();
  const limit = taken && taken.action === (name === "ask" ? "buy" : "sell") ? Number(taken.px) : null;
  const isTaken = (px: string) =>
    limit !== null && (name === "ask" ? Number(px) <= limit : Number(px) >= limit);
  return (
    <table className={`depth ${name}`} aria-label={`${name}s`}>
      <thead>
        <tr>
          <th scope="col" className="num">{name === "bid" ? "Bid" : "Ask"}</th>
          <th scope="col" className="num">Quantity</th>
          <th scope="col" className="num">Sum</th>
        </tr>
      </thead>
      <tbody>
        {ranks.map((idx) => {
          const [px, qty] = levels[idx] ?? ["", ""];
          const sum = depth[idx] ?? 0;
          return (
            <tr key={px} className={isTaken(px) ? "taken" : undefined}>
              <td className="num px">{decimal(px)}</td>
              <td className="num">{decimal(qty)}</td>
              <td className="num sum">
                <i style={{ width: `${(100 * sum) / Math.max(most, 1e-12)}%` }} />
                <span>{rough(sum)}</span>
              </td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}

export function Depth(props: { book: Book; taken?: Leg }) {
  const { book, taken } = props;
  const most = Math.max(sums(book.bids).at(-1) ?? 0, sums(book.asks).at(-1) ?? 0);
  const bid = book.bids[0]?.[0];
  const ask = book.asks[0]?.[0];
  const middle = bid && ask ? (Number(bid) + Number(ask)) / 2 : null;
  const spread = bid && ask && middle ? ((Number(ask) - Number(bid)) / middle) * 1e4 : null;
  return (
    <article className="book" aria-label={`${book.venue} ${book.symbol}`}>
      <h3>
        {book.venue} <small>{book.symbol}</small> <Tag>{book.state}</Tag>
      </h3>
      <p className="dim">
        {spread === null ? "one side is empty" : `spread ${spread.toFixed(2)} bp`}
        {book.age_us !== null && ` · changed ${span(book.age_us * 1000)} ago`}
        {book.state !== "live" && ` · ${book.reason}`}
        <br />
        received {clock(book.recv_us, 6)} · update {book.update_id}
      </p>
      {book.bids.length + book.asks.length === 0 ? (
        <Empty>The book is empty.</Empty>
      ) : (
        <>
          <Side name="ask" levels={book.asks} most={most} taken={taken} />
          <Side name="bid" levels={book.bids} most={most} taken={taken} />
        </>
      )}
    </article>
  );
}
