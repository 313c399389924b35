//! The graph of conversions: every arbitrage is a cycle in it.
//!
//! Invariant: a node is an asset, an edge is one side of one instrument at one venue (buying turns
//! quote into base, selling turns base into quote). Every simple cycle of 2 to `legs_max` edges is
//! listed exactly once, starting at its numeraire, and never uses both sides of one instrument. An
//! edge's probes name every cycle that it is part of, so a change of one book touches only its own.
//!
//! Not here: prices (`detector`), sizes (`walk`).

use alloc::vec;
use alloc::vec::Vec;

use crate::instrument::{AssetId, Universe};
pub use crate::order::Action;

/// Most legs of a cycle.
pub const LEGS_MAX: usize = 4;

/// Index of an edge: twice the instrument, plus 1 for selling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EdgeId(pub u32);

impl EdgeId {
    /// Returns the edge of an action on an instrument.
    #[must_use]
    pub const fn new(instrument: u16, action: Action) -> EdgeId {
        EdgeId(instrument as u32 * 2 + matches!(action, Action::Sell) as u32)
    }

    /// Returns the edge's instrument.
    #[must_use]
    pub const fn instrument(self) -> u16 {
        (self.0 / 2) as u16
    }

    /// Returns what is done on it.
    #[must_use]
    pub const fn action(self) -> Action {
        if self.0.is_multiple_of(2) { Action::Buy } else { Action::Sell }
    }
}

/// What kind of arbitrage a cycle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CycleKind {
    /// Two legs: the same pair at two venues.
    CrossVenue = 1,
    /// Three or four legs at one venue.
    Triangular = 2,
    /// Three or four legs over several venues, a conversion among them.
    CrossQuote = 3,
}

impl CycleKind {
    /// Every kind, in the order of its tag.
    pub const ALL: [CycleKind; 3] =
        [CycleKind::CrossVenue, CycleKind::Triangular, CycleKind::CrossQuote];

    /// Returns the kind with this tag.
    #[must_use]
    pub fn from_tag(tag: i64) -> Option<CycleKind> {
        CycleKind::ALL.into_iter().find(|kind| *kind as i64 == tag)
    }

    /// Returns the kind's name as used in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            CycleKind::CrossVenue => "cross_venue",
            CycleKind::Triangular => "triangular",
            CycleKind::CrossQuote => "cross_quote",
        }
    }
}

/// One closed chain of conversions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cycle {
    edges: [EdgeId; LEGS_MAX],
    len: u8,
    /// What kind it is.
    pub kind: CycleKind,
    /// Asset it starts and ends with; gains are amounts of it.
    pub start: AssetId,
}

impl Cycle {
    /// Returns the legs in the order of the conversions.
    #[must_use]
    #[inline]
    pub fn edges(&self) -> &[EdgeId] {
        &self.edges[..usize::from(self.len)]
    }
}

/// A cycle as seen from one of its edges: the other edges, so that the fast test is one load and one
/// addition each. Missing legs point at the graph's blank edge, whose log rate is 0.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The other edges.
    pub others: [u32; LEGS_MAX - 1],
    /// The cycle.
    pub cycle: u32,
}

/// All edges and cycles of a universe.
#[derive(Clone, Debug)]
pub struct Graph {
    cycles: Vec<Cycle>,
    probes: Vec<Probe>,
    /// `probes[first[e]..first[e + 1]]` are edge `e`'s.
    first: Vec<u32>,
}

/// Why no graph was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Cycles must have between 2 and [`LEGS_MAX`] legs.
    #[error("legs_max is {legs_max}: it must be between 2 and 4")]
    LegsMax {
        /// What was asked for.
        legs_max: usize,
    },
    /// More cycles than the configured bound.
    #[error("more than {cycles_max} cycles: lower legs_max, or enable fewer instruments")]
    TooManyCycles {
        /// The bound.
        cycles_max: usize,
    },
}

impl Graph {
    /// Enumerates every cycle. A cycle starts at the first of `numeraires` that it contains, else at
    /// its asset with the lowest index.
    pub fn new(
        universe: &Universe,
        numeraires: &[AssetId],
        legs_max: usize,
        cycles_max: usize,
    ) -> Result<Graph, GraphError> {
        if !(2..=LEGS_MAX).contains(&legs_max) {
            return Err(GraphError::LegsMax { legs_max });
        }
        let mut search = Search::new(universe, numeraires, legs_max, cycles_max);
        let mut by_rank: Vec<AssetId> = (0..universe.assets.len() as u16).map(AssetId).collect();
        by_rank.sort_by_key(|asset| search.rank[usize::from(asset.0)]);
        for start in by_rank {
            search.start = start;
            search.extend(start)?;
        }
        Ok(Graph::index(search.cycles, universe.instruments.len() * 2))
    }

    fn index(cycles: Vec<Cycle>, edge_count: usize) -> Graph {
        let blank = edge_count as u32;
        let mut lists: Vec<Vec<Probe>> = vec![Vec::new(); edge_count];
        for (cycle_idx, cycle) in cycles.iter().enumerate() {
            for edge in cycle.edges() {
                let mut others = [blank; LEGS_MAX - 1];
                let rest = cycle.edges().iter().filter(|other| *other != edge);
                others.iter_mut().zip(rest).for_each(|(slot, other)| *slot = other.0);
                lists[edge.0 as usize].push(Probe { others, cycle: cycle_idx as u32 });
            }
        }
        let mut first = Vec::with_capacity(edge_count + 1);
        let mut probes = Vec::with_capacity(lists.iter().map(Vec::len).sum());
        for list in lists {
            first.push(probes.len() as u32);
            probes.extend(list);
        }
        first.push(probes.len() as u32);
        Graph { cycles, probes, first }
    }

    /// Returns every cycle; the index is the cycle's id in records.
    #[must_use]
    pub fn cycles(&self) -> &[Cycle] {
        &self.cycles
    }

    /// Returns the cycles through an edge.
    #[inline]
    #[must_use]
    pub fn probes(&self, edge: EdgeId) -> &[Probe] {
        let at = edge.0 as usize;
        &self.probes[self.first[at] as usize..self.first[at + 1] as usize]
    }

    /// Returns the index of the blank edge: one past the last real one.
    #[must_use]
    pub fn blank_edge(&self) -> usize {
        self.first.len() - 1
    }
}

/// Depth-first enumeration from one start asset over assets of a higher rank only, so that a cycle is
/// found once and from its own numeraire.
struct Search<'a> {
    universe: &'a Universe,
    rank: Vec<usize>,
    /// Edges out of each asset.
    out: Vec<Vec<EdgeId>>,
    legs_max: usize,
    cycles_max: usize,
    start: AssetId,
    path: Vec<EdgeId>,
    visited: Vec<AssetId>,
    cycles: Vec<Cycle>,
}

impl<'a> Search<'a> {
    fn new(
        universe: &'a Universe,
        numeraires: &[AssetId],
        legs_max: usize,
        cycles_max: usize,
    ) -> Search<'a> {
        let assets = universe.assets.len();
        let rank = (0..assets as u16)
            .map(|asset| {
                let named = numeraires.iter().position(|n| n.0 == asset);
                named.unwrap_or(numeraires.len() + usize::from(asset))
            })
            .collect();
        let mut out = vec![Vec::new(); assets];
        for (id, instrument) in universe.instruments.iter().enumerate() {
            out[usize::from(instrument.quote.0)].push(EdgeId::new(id as u16, Action::Buy));
            out[usize::from(instrument.base.0)].push(EdgeId::new(id as u16, Action::Sell));
        }
        let start = AssetId(0);
        let (path, visited, cycles) = (Vec::new(), Vec::new(), Vec::new());
        Search { universe, rank, out, legs_max, cycles_max, start, path, visited, cycles }
    }

    fn target(&self, edge: EdgeId) -> AssetId {
        let instrument = &self.universe.instruments[usize::from(edge.instrument())];
        match edge.action() {
            Action::Buy => instrument.base,
            Action::Sell => instrument.quote,
        }
    }

    fn extend(&mut self, from: AssetId) -> Result<(), GraphError> {
        for idx in 0..self.out[usize::from(from.0)].len() {
            let edge = self.out[usize::from(from.0)][idx];
            let to = self.target(edge);
            if self.path.iter().any(|used| used.instrument() == edge.instrument()) {
                continue;
            }
            self.path.push(edge);
            if to == self.start && 2 <= self.path.len() {
                self.found()?;
            } else if self.path.len() < self.legs_max && self.may_visit(to) {
                self.visited.push(to);
                self.extend(to)?;
                self.visited.pop();
            }
            self.path.pop();
        }
        Ok(())
    }

    fn may_visit(&self, asset: AssetId) -> bool {
        self.rank[usize::from(self.start.0)] < self.rank[usize::from(asset.0)]
            && !self.visited.contains(&asset)
    }

    fn found(&mut self) -> Result<(), GraphError> {
        if self.cycles.len() == self.cycles_max {
            return Err(GraphError::TooManyCycles { cycles_max: self.cycles_max });
        }
        let venue = |edge: &EdgeId| self.universe.instruments[usize::from(edge.instrument())].venue;
        let one_venue = self.path.iter().all(|edge| venue(edge) == venue(&self.path[0]));
        let kind = match (self.path.len(), one_venue) {
            (2, _) => CycleKind::CrossVenue,
            (_, true) => CycleKind::Triangular,
            (_, false) => CycleKind::CrossQuote,
        };
        let mut edges = [EdgeId(u32::MAX); LEGS_MAX];
        edges[..self.path.len()].copy_from_slice(&self.path);
        self.cycles.push(Cycle { edges, len: self.path.len() as u8, kind, start: self.start });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{instrument, universe};
    use crate::record::Venue;

    #[test]
    fn two_venues_give_both_directions() {
        let universe = universe(
            &["USD", "BTC"],
            vec![instrument(Venue::Coinbase, 1, 0), instrument(Venue::Kraken, 1, 0)],
        );
        let graph = Graph::new(&universe, &[], 4, 100).expect("two instruments");
        assert_eq!(graph.cycles().len(), 2);
        for cycle in graph.cycles() {
            assert_eq!(cycle.kind, CycleKind::CrossVenue);
            assert_eq!(cycle.start, AssetId(0));
            assert_eq!(cycle.edges()[0].action(), Action::Buy);
            assert_eq!(cycle.edges()[1].action(), Action::Sell);
        }
    }

    /// Row MD-13. USD and USDT are two assets: nothing leads from one to the other but a book between them.
    #[test]
    fn triangles_and_conversions_are_told_apart() {
        // BTC/USDT and BTC/USD at two venues, USDT/USD at a third, and a triangle at Binance.
        let universe = universe(
            &["USD", "USDT", "BTC", "ETH"],
            vec![
                instrument(Venue::Binance, 2, 1),
                instrument(Venue::Binance, 3, 1),
                instrument(Venue::Binance, 3, 2),
                instrument(Venue::Coinbase, 2, 0),
                instrument(Venue::Kraken, 1, 0),
            ],
        );
        let count = |legs, kind| {
            let graph = Graph::new(&universe, &[AssetId(1)], legs, 1_000).expect("small");
            graph.cycles().iter().filter(|cycle| cycle.kind == kind).count()
        };
        assert_eq!(count(3, CycleKind::Triangular), 2);
        assert_eq!(count(3, CycleKind::CrossQuote), 2);
        assert_eq!(count(3, CycleKind::CrossVenue), 0);
        // With four legs BTC may also go through ETH.
        assert_eq!(count(4, CycleKind::CrossQuote), 4);
        let graph = Graph::new(&universe, &[AssetId(1)], 4, 1_000).expect("small");
        assert!(graph.cycles().iter().all(|cycle| cycle.start == AssetId(1)));
        for edge in 0..10 {
            for probe in graph.probes(EdgeId(edge)) {
                let cycle = &graph.cycles()[probe.cycle as usize];
                assert!(cycle.edges().contains(&EdgeId(edge)));
                let others = probe.others.iter().filter(|o| **o as usize != graph.blank_edge());
                assert_eq!(others.count() + 1, cycle.edges().len());
            }
        }
    }

    #[test]
    fn bounds_are_refused_with_their_names() {
        let universe = universe(
            &["USD", "BTC"],
            vec![instrument(Venue::Coinbase, 1, 0), instrument(Venue::Kraken, 1, 0)],
        );
        assert_eq!(
            Graph::new(&universe, &[], 5, 9).err(),
            Some(GraphError::LegsMax { legs_max: 5 })
        );
        assert_eq!(
            Graph::new(&universe, &[], 2, 1).err(),
            Some(GraphError::TooManyCycles { cycles_max: 1 })
        );
    }
}
