import { useMemo } from "react";
import { decimal, span } from "../format";
import { Empty, Panel, Table, Tag, Th, Waiting } from "../parts/basics";
import { Depth } from "../parts/depth";
import { choosePair, useTopics } from "../store";
import type { Book } from "../types";

function Best(props: { books: Book[] }) {
  const rows = useMemo(
    () => [...props.books].sort((a, b) => `${a.base}/${a.quote} ${a.venue}`.localeCompare(`${b.base}/${b.quote} ${b.venue}`)),
    [props.books],
  );
  return (
    <Table
      label="Best bid and ask of every book"
      head={
        <>
          <Th>Pair</Th>
          <Th>Venue</Th>
          <Th>State</Th>
          <Th num>Bid quantity</Th>
          <Th num>Bid</Th>
          <Th num>Ask</Th>
          <Th num>Ask quantity</Th>
          <Th num>Changed</Th>
        </>
      }
    >
      {rows.map((book) => (
        <tr key={book.instrument}>
          <th scope="row">
            {book.base}/{book.quote}
          </th>
          <td>{book.venue}</td>
          <td>
            <Tag>{book.state}</Tag>
          </td>
          <td className="num">{decimal(book.bids[0]?.[1])}</td>
          <td className="num">{decimal(book.bids[0]?.[0])}</td>
          <td className="num">{decimal(book.asks[0]?.[0])}</td>
          <td className="num">{decimal(book.asks[0]?.[1])}</td>
          <td className="num">{book.age_us === null ? "–" : span(book.age_us * 1000)}</td>
        </tr>
      ))}
    </Table>
  );
}

export function Books() {
  const { books, bbo } = useTopics("books", "bbo");
  if (!books) return <Waiting />;
  return (
    <div className="grid">
      <Panel
        title="Side by side"
        wide
        note="bars show what stands up to each level"
        actions={
          <form className="filters" onSubmit={(event) => event.preventDefault()}>
            <label>
              Pair
              <select value={books.pair ?? ""} onChange={(event) => choosePair(event.target.value)}>
                {books.pairs.map((name) => (
                  <option key={name}>{name}</option>
                ))}
              </select>
            </label>
          </form>
        }
      >
        {books.books.length === 0 ? (
          <Empty>No book yet: the feeds have not published one.</Empty>
        ) : (
          <div className="side-by-side">
            {books.books.map((book) => (
              <Depth key={book.instrument} book={book} />
            ))}
          </div>
        )}
      </Panel>
      <Panel title="Best of every book" wide>
        {!bbo || bbo.length === 0 ? <Empty>No book yet.</Empty> : <Best books={bbo} />}
      </Panel>
    </div>
  );
}
