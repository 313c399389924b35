//! Every screen of `tandem top`, as text, at the smallest terminal and at a large one.
//!
//! What is drawn must be what stands in `tests/top/`; `TANDEM_SNAPSHOTS=write` writes them anew, to be looked
//! at before they are kept.

use std::fs;
use std::path::PathBuf;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use tandem_tools::top::{
    Colours, LimitLine, OrderLine, PairLine, Screen, Show, StageLine, VenueLine, View, draw,
    text_of,
};

fn view() -> View {
    let text = |text: &str| text.to_owned();
    let venue = |name: &str, session: &str, live, level: &str| VenueLine {
        venue: text(name),
        level: text(level),
        feed: text("alive"),
        books_live: live,
        books: 9,
        age_us: Some(1_250),
        session: text(session),
        budget_left: Some(18),
        disconnects: 2,
        deadman_s: (name == "kraken").then_some(57),
        warden: text("IDLE"),
        reply_p50_ns: Some(720_000),
        reply_p99_ns: Some(2_900_000),
    };
    let pair = |name: &str, edge, state: &str| PairLine {
        pair: text(name),
        at: vec![
            (text("binance"), text("65063.22"), text("65069.75"), text("live")),
            (text("coinbase"), text("65064.9"), text("65068.65"), text("live")),
            (text("kraken"), text("65063"), text("65070.4"), text(state)),
        ],
        edge_dbp: edge,
        age_us: Some(88_000),
    };
    let order = |n: u32, state: &str, age_us| OrderLine {
        id: format!("t1ngsd2w0000{n:05}"),
        what: text("buy BTC-USDT coinbase"),
        qty: text("0.03079342"),
        px: text("65068.65"),
        state: text(state),
        age_us,
        round: u64::from(n),
    };
    let stage = |process: &str, name: &str, p50| StageLine {
        process: text(process),
        stage: text(name),
        p50,
        p99: p50 * 5,
        p999: p50 * 9,
        max: p50 * 40,
        count: 25_521,
    };
    View {
        now_us: 1_795_994_736_065_442,
        mode: text("live"),
        run: 1_795_994_716,
        level: text("PAUSE"),
        cause: text("order outcome unknown"),
        result: Some((text("-12.50644133"), text("USD"))),
        loss_ppm: Some(325_000),
        clock_ns: Some(-1_240_000),
        catching_up: false,
        venues: vec![
            venue("binance", "ready", 9, "PAUSE"),
            venue("coinbase", "suspended", 7, "HALT"),
            venue("kraken", "ready", 9, "PAUSE"),
        ],
        pairs: vec![
            pair("BTC/USDT", Some(123), "live"),
            pair("ETH/BTC", Some(-8), "stale"),
            pair("SOL/USD", None, "live"),
        ],
        orders: vec![order(7, "unknown", 11_300_000), order(8, "live", 420)],
        recent: (0..30)
            .map(|n| {
                order(n, if n % 3 == 0 { "filled" } else { "rejected" }, i64::from(n) * 1_000_000)
            })
            .collect(),
        balances: vec![
            (text("binance"), text("BTC"), text("2.06191596")),
            (text("kraken"), text("USDT"), text("104223.10004512")),
        ],
        limits: vec![
            LimitLine { name: text("exposure"), ppm: Some(951_000) },
            LimitLine { name: text("loss of the day"), ppm: Some(325_000) },
            LimitLine { name: text("drawdown"), ppm: None },
            LimitLine { name: text("orders at once"), ppm: Some(83_000) },
        ],
        exposure_ppm: Some(951_000),
        processes: vec![
            (text("engine"), text("alive"), 1),
            (text("feed coinbase"), text("DEAD"), 3),
            (text("warden"), text("alive"), 1),
        ],
        overruns: 1,
        journal_free_ppm: Some(973_000),
        records_per_s: Some(3_377),
        lag: 0,
        denied: vec![(text("C13_throttle"), 3_347), (text("edge"), 75)],
        counts: (1_658, 137, 354, 417),
        alerts: vec![
            (text("PAGE"), text("an order's outcome is unknown: coinbase \u{b7} for 11 s")),
            (text("TICKET"), text("the engine was overrun by a ring \u{b7} 1 time")),
        ],
        events: (0..20)
            .map(|n| {
                (1_795_994_736_000_000 - n * 250_000, format!("event {n}: something happened"))
            })
            .collect(),
        stages: vec![
            stage("engine", "engine_ring_ns", 41_000),
            stage("engine", "engine_detect_ns", 90),
            stage("feed coinbase", "feed_turn_ns", 15_000),
            stage("gateway kraken", "gateway_tick_to_order_ns", 315_000),
        ],
    }
}

fn drawn(view: &View, show: &Show, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen");
    terminal.draw(|frame| draw(frame, view, show)).expect("drawn");
    terminal
}

#[test]
fn every_screen_is_what_was_looked_at() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/top");
    let write = std::env::var_os("TANDEM_SNAPSHOTS").is_some_and(|value| value == "write");
    let screens = [
        (Screen::Main, "main"),
        (Screen::Latency, "latency"),
        (Screen::Orders, "orders"),
        (Screen::Help, "help"),
    ];
    let view = view();
    for (screen, name) in screens {
        for (width, height) in [(80, 24), (200, 60)] {
            let show = Show { screen, ..Show::default() };
            let text = text_of(drawn(&view, &show, width, height).backend().buffer());
            let path = folder.join(format!("{name}-{width}x{height}.txt"));
            if write {
                fs::create_dir_all(&folder).expect("a folder");
                fs::write(&path, format!("{text}\n")).expect("written");
            }
            let known = fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(text, known.trim_end_matches('\n'), "{} is drawn otherwise", path.display());
        }
    }
}

#[test]
fn what_matters_most_is_on_the_smallest_screen() {
    let show = Show::default();
    let text = text_of(drawn(&view(), &show, 80, 24).backend().buffer());
    for word in [
        "LIVE",
        "PAUSE",
        "order outcome unknown",
        "-12.50644133 USD",
        "UNKNOWN",
        "7/9",
        "suspended",
        "2 ALERTS",
        "an order's outcome is unknown",
        "p pause",
        "K KILL",
    ] {
        assert!(text.contains(word), "`{word}` is not on the screen:\n{text}");
    }
}

/// Colour never says anything alone, and can be turned off.
#[test]
fn no_colour_is_no_colour() {
    let show = Show { colours: Colours::Off, ..Show::default() };
    let terminal = drawn(&view(), &show, 200, 60);
    for cell in terminal.backend().buffer().content() {
        assert!(matches!(cell.fg, Color::Reset) && matches!(cell.bg, Color::Reset), "{cell:?}");
    }
    let with = drawn(&view(), &Show::default(), 200, 60);
    assert_eq!(text_of(terminal.backend().buffer()), text_of(with.backend().buffer()));
}

/// Nothing is known, everything is huge, the terminal is tiny: it is drawn all the same.
#[test]
fn any_view_and_any_size_is_drawn() {
    let mut huge = view();
    huge.now_us = i64::MAX;
    huge.clock_ns = Some(i64::MIN);
    huge.loss_ppm = Some(i64::MAX);
    huge.orders[0].age_us = i64::MIN;
    huge.events.push((i64::MIN, "x".repeat(5_000)));
    huge.pairs.push(PairLine {
        pair: "\u{1f600}".repeat(50),
        edge_dbp: Some(i64::MIN),
        ..PairLine::default()
    });
    for view in [View::default(), huge] {
        for screen in [Screen::Main, Screen::Latency, Screen::Orders, Screen::Help] {
            for (width, height) in [(1, 1), (10, 3), (40, 10), (80, 24), (151, 12), (300, 100)] {
                let filter = "\u{e4}".repeat(60);
                drawn(&view, &Show { screen, filter, ..Show::default() }, width, height);
                drawn(&view, &Show { screen, ..Show::default() }, width, height);
            }
        }
    }
}

#[test]
fn the_filter_keeps_what_has_the_text() {
    let show = Show { filter: "eth/".to_owned(), ..Show::default() };
    let text = text_of(drawn(&view(), &show, 200, 60).backend().buffer());
    assert!(text.contains("ETH/BTC") && !text.contains("SOL/USD"), "{text}");
}
