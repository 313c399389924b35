// Pause and kill: what only tightens. Pausing asks for nothing but the token; nothing here loosens.

import { useEffect, useRef, useState } from "react";
import { Refused, raise } from "../store";

export function Act(props: { acts: boolean }) {
  const [what, setWhat] = useState<"pause" | "kill" | null>(null);
  const [token, setToken] = useState("");
  const [reason, setReason] = useState("");
  const [told, setTold] = useState<{ bad: boolean; text: string } | null>(null);
  const [busy, setBusy] = useState(false);
  const dialog = useRef<HTMLDialogElement>(null);

  useEffect(() => {
    if (what) dialog.current?.showModal();
    else dialog.current?.close();
  }, [what]);

  if (!props.acts) return null;

  async function send() {
    if (!what) return;
    setBusy(true);
    try {
      const answer = await raise(what, token, reason.trim() || `${what} at the dashboard`);
      setTold({
        bad: false,
        text: answer.changed ? `The level is ${answer.level}.` : `It was at ${answer.level} or above already.`,
      });
    } catch (error) {
      const fix = error instanceof Refused ? error.fix : "the drain does not answer: use `tandem kill` on the host";
      setTold({ bad: true, text: `${(error as Error).message}. ${fix}` });
    } finally {
      setBusy(false);
    }
  }

  return (
    <div className="act">
      <button type="button" className="warn" onClick={() => (setTold(null), setWhat("pause"))}>
        Pause
      </button>
      <button type="button" className="bad" onClick={() => (setTold(null), setWhat("kill"))}>
        Kill
      </button>
      <dialog ref={dialog} onClose={() => setWhat(null)} aria-labelledby="act-title">
        <form
          method="dialog"
          onSubmit={(event) => {
            event.preventDefault();
            void send();
          }}
        >
          <h2 id="act-title">{what === "kill" ? "Kill: cancel everything" : "Pause: no new rounds"}</h2>
          <p>
            {what === "kill"
              ? "Every open order at every venue is cancelled and that nothing is open is proven. It outlives restarts; only `tandem arm` on the host ends it."
              : "What is left over of rounds is still hedged. `tandem arm` on the host ends it."}
          </p>
          <label>
            Token
            <input
              type="password"
              autoComplete="off"
              required
              value={token}
              onChange={(event) => setToken(event.target.value)}
            />
          </label>
          <label>
            Reason <small>(for the audit log)</small>
            <input value={reason} maxLength={200} onChange={(event) => setReason(event.target.value)} />
          </label>
          {told && (
            <p role="alert" className={told.bad ? "told bad" : "told good"}>
              {told.text}
            </p>
          )}
          <div className="row">
            <button type="button" onClick={() => setWhat(null)}>
              Close
            </button>
            <button type="submit" className={what === "kill" ? "bad" : "warn"} disabled={busy}>
              {what === "kill" ? "Kill" : "Pause"}
            </button>
          </div>
        </form>
      </dialog>
    </div>
  );
}
