//! Coinbase's private calls. Nothing is private here yet but what a token unlocks.
//!
//! Invariant: no request changes anything.

use super::Coinbase;
use crate::exchange::Report;
use crate::faults::Answer;
use crate::net::{Request, Response};
use crate::world::{Ctx, Look};

impl Coinbase {
    /// What a request is about.
    pub fn look(&self, _ctx: &Ctx<'_>, _request: &Request) -> Option<Look> {
        None
    }

    /// The answer a fault wants instead of the right one.
    pub fn wrong_response(&self, _ctx: &Ctx<'_>, _request: &Request, _answer: &Answer) -> Response {
        self.error_page(503)
    }

    /// Tells an account's subscribers what happened.
    pub fn on_report(&mut self, _ctx: &mut Ctx<'_>, _report: &Report) {}
}
