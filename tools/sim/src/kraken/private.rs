//! Kraken's private calls: none yet.
//!
//! Invariant: no request changes anything.

use super::Kraken;
use crate::exchange::Report;
use crate::faults::Answer;
use crate::net::{Request, Response};
use crate::world::{Ctx, Look};

impl Kraken {
    /// What a request is about.
    pub fn look(&self, _ctx: &Ctx<'_>, _request: &Request) -> Option<Look> {
        None
    }

    /// What a message is about.
    pub fn look_ws(&self, _ctx: &Ctx<'_>, _text: &str) -> Option<Look> {
        None
    }

    /// The answer a fault wants instead of the right one.
    pub fn wrong_response(&self, _ctx: &Ctx<'_>, _answer: &Answer) -> Response {
        self.error_page(503)
    }

    /// The reply a fault wants instead of the right one.
    pub fn wrong_answer(&self, _ctx: &Ctx<'_>, _text: &str, _answer: &Answer) -> String {
        String::new()
    }

    /// Ends all tokens.
    pub fn expire_sessions(&mut self) {}

    /// Tells an account's subscribers what happened.
    pub fn on_report(&mut self, _ctx: &mut Ctx<'_>, _report: &Report) {}
}
