//! What happens to a run that trades when its processes, its venues or its operator do what they must not.
//!
//! Everything is real but the venues: the processes of `tandem up`, TLS, keys, limits. What is asserted is
//! read at the simulator (what reached it, when, what it holds) and on the control page, never believed from
//! the process that is judged.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;
#[path = "support/trading.rs"]
mod trading_support;

use std::time::Duration;

use support::wait_for;
use tandem_core::level::{Cause, Level, LevelWord};
use tandem_core::record::Venue;
use tandem_tools::time::now_ns;
use trading_support::{Live, MS, spread};

const KILLS: usize = 10;
const SOON: Duration = Duration::from_secs(20);

/// Row PR-02. Row OP-04. `kill -9` of the engine while it trades, ten times: the warden raises KILL and
/// cancels at every venue, nothing new is sent after the gateways' echo, the engine that comes back stays
/// killed, and at the end our books are the venues'.
#[test]
fn an_engine_that_dies_while_trading_leaves_nothing_behind() {
    let mut live = Live::new("die");
    live.trade();
    let (mut level_ns, mut cancel_ns, mut proof_ns, mut ready_ms) =
        (vec![], vec![], vec![], vec![]);
    let mut gauge_ns = vec![];
    let mut late = 0;
    for kill in 0..KILLS {
        live.wait_orders(4, SOON);
        // Any moment of an order's life.
        std::thread::sleep(Duration::from_millis((kill as u64 * 37) % 100));
        let engine = live.engine_pid();
        let at_ns = live.kill_9(engine);
        assert!(wait_for(Duration::from_secs(2), || live.level() == Level::Kill), "no KILL");
        level_ns.push(now_ns() - at_ns);
        let word = LevelWord(live.page().level());
        assert!(word.cause() != Some(Cause::Operator), "the warden did it: {word:?}");
        let echo_ns = live.wait_echoes(Duration::from_secs(1));
        proof_ns.push(live.wait_proof(at_ns, SOON) - at_ns);
        let requests = live.requests(at_ns);
        for venue in Venue::ALL {
            let seen = &requests[venue.name()];
            let first = seen.cancels.iter().min().copied();
            let first = first.unwrap_or_else(|| panic!("no cancel reached {}", venue.name()));
            cancel_ns.push(first - at_ns);
            gauge_ns.push(live.warden(venue, "first_cancel_ns").unwrap() - at_ns);
            // What was in the socket at the echo may still be read a moment later.
            late += seen.news.iter().filter(|at| echo_ns + 20 * MS < **at).count();
        }
        assert_eq!(live.open_orders(), (0, 0), "something is open after the proof");
        ready_ms.push(live.wait_ready().as_nanos() as i64);
        assert_ne!(live.engine_pid(), engine, "the supervisor starts it again");
        assert_eq!(live.level(), Level::Kill, "a restart stays killed");
        live.arm();
        assert_eq!(live.level(), Level::Armed);
    }
    live.wait_orders(4, SOON);
    live.stop();
    let truth = live.truth();
    println!(
        "figure PR-02: {KILLS} kills of the engine while trading; KILL seen after {}",
        spread(&level_ns)
    );
    println!("figure PR-02: from kill -9 to the first cancel at the venue {}", spread(&cancel_ns));
    println!("figure PR-02: by the warden's own clock {}", spread(&gauge_ns));
    println!("figure PR-02: from kill -9 to the proof at all venues {}", spread(&proof_ns));
    println!("figure PR-02: from the proof to READY again {}", spread(&ready_ms));
    println!(
        "figure PR-02: new orders after the echo {late}, open orders left {}, fills missing {}, invented {}, \
         balances that differ {}",
        truth.open_orders_left, truth.missing_fills, truth.extra_fills, truth.balance_differences
    );
    println!("figure OP-04: {KILLS} restarts after KILL, armed by itself 0 times");
    assert_eq!(late, 0, "sent after the echo");
    assert!(truth.is_clean(), "{truth:#?}");
}
