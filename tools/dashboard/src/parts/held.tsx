// A list that grows at its top would move under the pointer: it stands still while one points at it or is in it.

import { type FocusEvent, type ReactNode, useState } from "react";

export function Held<T>(props: { rows: T[]; children: (rows: T[]) => ReactNode }) {
  const [still, setStill] = useState<T[] | null>(null);
  const [pointed, setPointed] = useState(false);
  const [inside, setInside] = useState(false);
  const update = (nowPointed: boolean, nowInside: boolean) => {
    setPointed(nowPointed);
    setInside(nowInside);
    if (!nowPointed && !nowInside) setStill(null);
    else setStill((known) => known ?? props.rows);
  };
  const left = (event: FocusEvent) => !event.currentTarget.contains(event.relatedTarget as Node | null);
  const newer = still === null ? false : still[0] !== props.rows[0];
  return (
    <div
      onPointerEnter={() => update(true, inside)}
      onPointerLeave={() => update(false, inside)}
      onFocus={() => update(pointed, true)}
      onBlur={(event) => left(event) && update(pointed, false)}
    >
      <p className="held" role="status">
        {newer ? "There is newer; the list stands still while you are in it." : " "}
      </p>
      {props.children(still ?? props.rows)}
    </div>
  );
}
