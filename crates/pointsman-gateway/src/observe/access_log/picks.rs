//! What a line tells of picks: who was picked by which verdicts, past whom, what came of it, and all that
//! `pointsman explain` needs to make the pick again.

use pointsman_balance::{Decision, Drawn};

use super::{Line, decimal};
use crate::{
    exchange::{AttemptRecord, Exchange},
    forward::picks::{Barred, Reason, Told, Used},
};

impl Line {
    /// One element per attempt. A pick of the only member, with nothing known against it, has no `replay`:
    /// there was nothing to go by.
    pub(super) fn picks(&mut self, x: &Exchange) {
        let notes = x.pick_notes();
        if x.attempts.is_empty() {
            return;
        }
        if let Some(used) = Used::by(x) {
            self.text(b",\"pool\":\"", used.key);
            self.raw(b",\"pool_digest\":\"");
            self.hexadecimal(used.pool.digest());
            self.raw(b"\"");
        }
        self.raw(b",\"picks\":[");
        for (index, attempt) in x.attempts.iter().enumerate() {
            if index > 0 {
                self.raw(b",");
            }
            let told = notes.and_then(|notes| notes.pick(index));
            let error = notes.and_then(|notes| notes.error(index));
            self.pick(x, attempt, told.as_deref(), error.as_deref());
        }
        self.raw(b"]");
    }

    fn pick(
        &mut self,
        x: &Exchange,
        attempt: &AttemptRecord,
        told: Option<&Told>,
        error: Option<&str>,
    ) {
        self.text(b"{\"member\":\"", &attempt.member);
        self.number(b",\"epoch\":", attempt.epoch);
        let is = |which: fn(&Told) -> bool| told.is_some_and(which);
        self.flag(b",\"failed_open\":", is(|told| told.failed_open));
        if is(|told| told.trial) {
            self.flag(b",\"trial\":", true);
        }
        let excluded = told.map_or(&[][..], |told| &told.excluded);
        self.raw(b",\"excluded\":[");
        self.list(excluded, |(name, _), line| line.text(b"\"", name));
        self.raw(b"]");
        if !excluded.is_empty() {
            self.raw(b",\"reasons\":[");
            self.list(excluded, |(_, reasons), line| line.word(b"\"", reasons));
            self.raw(b"]");
        }
        let count = told.map_or(0, |told| told.count);
        self.number(b",\"excluded_count\":", count as u64);
        if attempt.answered {
            self.number(b",\"status\":", u64::from(attempt.status));
        }
        self.optional(b",\"error\":\"", error);
        if let Some(told) = told {
            self.replay(x, told);
        }
        self.raw(b"}");
    }

    /// What the pick went by. Members stand for themselves by their number.
    fn replay(&mut self, x: &Exchange, told: &Told) {
        self.raw(b",\"replay\":{\"by\":\"");
        let ranked = x.ai.as_ref().and_then(|call| call.ranked.as_ref());
        match (&told.decision, ranked) {
            _ if told.again => self.raw(b"again\""),
            (_, Some(ranked)) => {
                self.raw(b"semantic\",\"order\":[");
                self.list(&ranked.ranking.order, |&member, line| line.whole(member));
                self.raw(b"]");
            }
            (Some(decision), None) => self.decision(decision),
            // A trial while nobody was usable, or too much to write down.
            (None, None) => self.raw(b"nothing\""),
        }
        if let Some(barred) = &told.barred {
            self.barred(barred);
        }
        if told.is_too_large {
            self.flag(b",\"too_large\":", true);
        }
        self.raw(b"}");
    }

    fn decision(&mut self, decision: &Decision) {
        match decision {
            Decision::Position(position) => {
                self.number(b"roundrobin\",\"position\":", *position);
            }
            Decision::Hash(hash) => self.number(b"chash\",\"hash\":", u64::from(*hash)),
            Decision::InFlight { first, counts } => {
                self.number(b"least_conn\",\"first\":", u64::from(*first));
                self.raw(b",\"in_flight\":[");
                self.list(counts, |&count, line| line.whole(count as usize));
                self.raw(b"]");
            }
            Decision::Drawn { one, other } => {
                self.raw(b"ewma\",\"drawn\":[");
                self.drawn(*one);
                if let Some(other) = other {
                    self.raw(b",");
                    self.drawn(*other);
                }
                self.raw(b"]");
            }
        }
    }

    /// The member and its average, in seconds.
    fn drawn(&mut self, drawn: Drawn) {
        use std::io::Write as _;
        // Writing into a vector cannot fail. The shortest number that is read as the same one.
        let _ = write!(self.out, "[{},{}]", drawn.member, drawn.latency);
    }

    fn barred(&mut self, barred: &Barred) {
        if !barred.tried.is_empty() {
            self.raw(b",\"tried\":\"");
            self.out.extend(barred.tried.to_string().bytes());
            self.raw(b"\"");
        }
        let out = Reason::ALL.into_iter().zip(&barred.out);
        let told: Vec<_> = out.filter(|(_, members)| !members.is_empty()).collect();
        if !told.is_empty() {
            self.raw(b",\"out\":{");
            self.list(&told, |(reason, members), line| {
                line.word(b"\"", reason.as_str());
                line.word(b":\"", &members.to_string());
            });
            self.raw(b"}");
        }
    }

    fn list<T>(&mut self, all: &[T], mut write: impl FnMut(&T, &mut Self)) {
        for (index, one) in all.iter().enumerate() {
            if index > 0 {
                self.raw(b",");
            }
            write(one, self);
        }
    }

    fn whole(&mut self, number: usize) {
        decimal(number as u64, &mut self.out);
    }

    fn hexadecimal(&mut self, number: u64) {
        for shift in (0..u64::BITS).step_by(4).rev() {
            self.out
                .push(b"0123456789abcdef"[(number >> shift & 15) as usize]);
        }
    }
}
