//! Who is told, and whether anybody would hear it.
//!
//! Invariant: a notice goes to every channel that wants its severity and works; where none of those works,
//! to every other one that does. What a channel did not deliver goes to those that were not told. A lost
//! channel is an alert of its own; two lost ones, where the operator wants it, pause trading: nobody would
//! hear of trouble. The heartbeat goes out while somebody looks and at least one channel works; its silence is
//! what an outside service calls for help about.
//!
//! Not here: how a channel delivers (`channel`).

use std::time::{Duration, Instant};

use super::channel::{Channel, ChannelSpec, Health};
use super::wire::{Sender, Service};
use super::{Condition, Notice, Rule, Severity};
use crate::DrainError;
use crate::plan::Hands;
use crate::standing::ChannelStands;

/// So many lost channels pause.
const LOST_PAUSES: usize = 2;
/// The heartbeat goes on for so long after the last look: who hangs says nothing.
const BEATS_FOR: Duration = Duration::from_secs(5);
/// A pause that failed is tried again after this.
const PAUSE_AGAIN: Duration = Duration::from_secs(1);

/// A channel and what it wants.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The channel.
    pub spec: ChannelSpec,
    /// The least that it is told.
    pub severity_min: Severity,
}

/// All that the path is told.
#[derive(Clone, Debug)]
pub struct PathSettings {
    /// Who we are.
    pub sender: Sender,
    /// The channels, the most wanted first.
    pub channels: Vec<Wanted>,
    /// Who calls for help when he hears nothing.
    pub heartbeat: Option<ChannelSpec>,
    /// A channel that owes an answer for so long is lost.
    pub lost_after: Duration,
    /// Whether two lost channels pause trading.
    pub pause_when_lost: bool,
}

struct Member {
    channel: Channel,
    severity_min: Severity,
    is_lost: bool,
}

/// The path.
pub struct Path {
    members: Vec<Member>,
    heartbeat: Option<Channel>,
    lost_after: Duration,
    hands: Option<Box<dyn Hands>>,
    is_paused: bool,
    next_pause: Instant,
    /// Why the pause failed.
    pause_failed: Option<String>,
}

impl Path {
    /// Starts every channel.
    pub fn start(
        settings: PathSettings,
        hands: Option<Box<dyn Hands>>,
    ) -> Result<Path, DrainError> {
        let start = |spec| Channel::start(spec, settings.sender.clone());
        let members = settings
            .channels
            .into_iter()
            .map(|wanted| {
                let severity_min = wanted.severity_min;
                Ok(Member { channel: start(wanted.spec)?, severity_min, is_lost: false })
            })
            .collect::<Result<_, DrainError>>()?;
        Ok(Path {
            members,
            heartbeat: settings.heartbeat.map(start).transpose()?,
            lost_after: settings.lost_after,
            hands: hands.filter(|_| settings.pause_when_lost),
            is_paused: false,
            next_pause: Instant::now(),
            pause_failed: None,
        })
    }

    /// Returns how each channel is, by name.
    pub fn health(&self) -> impl Iterator<Item = (&str, Health)> {
        let all = self.members.iter().map(|member| &member.channel).chain(&self.heartbeat);
        all.map(|channel| (channel.name(), channel.health()))
    }

    /// Returns how every channel stands, for people.
    #[must_use]
    pub fn stands(&self) -> Vec<ChannelStands> {
        let now = Instant::now();
        let stands = |(name, health): (&str, Health)| {
            let trouble = health.lost(now, self.lost_after);
            ChannelStands {
                name: name.to_owned(),
                up: trouble.is_none(),
                delivered: health.delivered,
                failed: health.failed,
                dropped: health.dropped,
                trouble,
            }
        };
        self.health().map(stands).collect()
    }

    /// Looks after the channels; what is wrong with them is added to what is wrong.
    pub fn watch(&mut self, now_ns: i64, conditions: &mut Vec<Condition>) {
        let now = Instant::now();
        let mut homeless = Vec::new();
        let mut lost = Vec::new();
        for member in &mut self.members {
            let why = member.channel.health().lost(now, self.lost_after);
            if let Some(why) = &why {
                if !member.is_lost {
                    tracing::error!(channel = member.channel.name(), why, "alert channel lost");
                }
                homeless.extend(member.channel.take_over());
                lost.push(member.channel.name().to_owned());
                conditions.push(Condition::new(Rule::CHANNEL, member.channel.name(), why));
            } else {
                homeless.extend(member.channel.take_returned());
            }
            member.is_lost = why.is_some();
        }
        for notice in homeless {
            self.rehouse(notice);
        }
        self.pause(&lost, now, now_ns, conditions);
        if let Some(heartbeat) = &self.heartbeat {
            let works = lost.len() < self.members.len();
            heartbeat.beat(if works { now + BEATS_FOR } else { now });
            if let Some(why) = heartbeat.health().lost(now, self.lost_after) {
                conditions.push(Condition::new(Rule::HEARTBEAT, "", why));
            }
        }
    }

    /// A notice that a channel could not deliver: to those that were not told, else it waits where it was
    /// wanted.
    fn rehouse(&self, notice: Notice) {
        let wants = |member: &&Member| member.severity_min <= notice.severity;
        if self.members.iter().any(|member| wants(&member) && !member.is_lost) {
            // They were told when the others were; where it is the one that just failed, it tries again.
            let failed = self.members.iter().filter(wants).count() == 1;
            if failed {
                self.hand(&notice, |member| wants(&member));
            }
            return;
        }
        if self.members.iter().any(|member| !member.is_lost) {
            self.hand(&notice, |member| !member.is_lost);
        } else {
            self.hand(&notice, |member| wants(&member));
        }
    }

    fn hand(&self, notice: &Notice, to: impl Fn(&Member) -> bool) {
        for member in self.members.iter().filter(|member| to(member)) {
            member.channel.push(notice.clone());
        }
    }

    fn pause(
        &mut self,
        lost: &[String],
        now: Instant,
        now_ns: i64,
        conditions: &mut Vec<Condition>,
    ) {
        let Some(hands) = &mut self.hands else { return };
        if lost.len() < LOST_PAUSES {
            // Once for each time that they are lost: an operator who arms in spite of it is right.
            (self.is_paused, self.pause_failed) = (false, None);
            return;
        }
        if !self.is_paused && self.next_pause <= now {
            let reason = format!("alert channels {} are lost", lost.join(" and "));
            match hands.pause(&reason) {
                Ok(changed) => {
                    (self.is_paused, self.pause_failed) = (true, None);
                    tracing::error!(changed, now_ns, "paused: {reason}");
                }
                Err(error) => {
                    self.next_pause = now + PAUSE_AGAIN;
                    tracing::error!(error, "the pause failed");
                    self.pause_failed = Some(error);
                }
            }
        }
        if let Some(error) = &self.pause_failed {
            let detail = format!("alert channels are lost and PAUSE failed: {error}");
            conditions.push(Condition::new(Rule::LEVEL, "alerts", detail));
        }
    }

    /// Hands notices over.
    pub fn tell(&self, notices: &mut Vec<Notice>) {
        for notice in notices.drain(..) {
            tracing::info!(
                state = notice.state.name(),
                severity = notice.severity.name(),
                fingerprint = notice.fingerprint,
                detail = notice.detail,
                "alert"
            );
            let is_about = |member: &Member| {
                notice.fingerprint == format!("{}/{}", Rule::CHANNEL.id, member.channel.name())
            };
            let wants = |member: &Member| member.severity_min <= notice.severity;
            let works = |member: &Member| !member.is_lost && !is_about(member);
            if self.members.iter().any(|member| wants(member) && works(member)) {
                self.hand(&notice, |member| wants(member) && !member.is_lost);
            } else if self.members.iter().any(works) {
                self.hand(&notice, works);
            } else {
                self.hand(&notice, wants);
            }
        }
    }

    /// Ends every channel, all within the same time.
    pub fn close(&mut self, within: Duration) {
        let by = Instant::now() + within;
        let all = self.members.iter_mut().map(|member| &mut member.channel);
        for channel in all.chain(&mut self.heartbeat) {
            channel.close(by);
        }
    }
}

/// What became of one test message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    /// The channel.
    pub channel: String,
    /// Its kind.
    pub kind: &'static str,
    /// The severity sent; nothing for a heartbeat.
    pub severity: Option<Severity>,
    /// Why it was not taken; nothing where it was.
    pub failed: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// Sends one of each severity to every channel, whatever it wants, and one heartbeat; all at once.
pub fn test(settings: &PathSettings) -> Result<Vec<Tested>, DrainError> {
    let specs: Vec<&ChannelSpec> =
        settings.channels.iter().map(|wanted| &wanted.spec).chain(&settings.heartbeat).collect();
    let clients =
        specs.iter().map(|spec| super::channel::client(spec)).collect::<Result<Vec<_>, _>>()?;
    Ok(std::thread::scope(|scope| {
        let one = |(spec, client)| scope.spawn(move || test_one(settings, spec, client));
        let running: Vec<_> = specs.iter().copied().zip(clients).map(one).collect();
        running
            .into_iter()
            .flat_map(|thread| thread.join().expect("a test does not panic"))
            .collect()
    }))
}

fn test_one(
    settings: &PathSettings,
    spec: &ChannelSpec,
    client: super::http::Client,
) -> Vec<Tested> {
    let now_ns = crate::source::now_ns();
    let severities: Vec<Option<Severity>> = match spec.service {
        Service::Heartbeat { .. } => vec![None],
        _ => Severity::ALL.map(Some).into(),
    };
    let mut all = Vec::new();
    for severity in severities {
        let request = match severity {
            None => spec.service.probe(&settings.sender, now_ns),
            Some(severity) => {
                let notice = Notice {
                    state: super::State::Event,
                    severity,
                    fingerprint: format!("{}/{}", Rule::TEST.id, spec.name),
                    title: Rule::TEST.title,
                    detail: "nothing is wrong; an operator asked whether this arrives".to_owned(),
                    runbook: Rule::TEST.runbook,
                    first_ns: now_ns,
                    last_ns: now_ns,
                    count: 1,
                };
                spec.service.message(&settings.sender, &[notice], now_ns).0
            }
        };
        let begun = Instant::now();
        let (verdict, why) =
            super::channel::attempt(&client, &spec.service, &request, severity.is_none());
        all.push(Tested {
            channel: spec.name.clone(),
            kind: spec.service.kind(),
            severity,
            failed: (verdict != super::wire::Verdict::Delivered).then_some(why),
            took: begun.elapsed(),
        });
    }
    all
}
