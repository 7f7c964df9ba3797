//! What is really out there: sites that work, fail, hang, flap, or tell probes one thing and do another.

use pointsman_balance::{Policy, ProbeOutcome};

use crate::chance::Chance;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Up,
    Refuses,
    Hangs,
    Errs,
    /// Every answer another one.
    Flaps,
    /// Works, and takes as long as it may.
    Slow,
    /// Tells probes that it is well, and serves nothing.
    Lies,
    /// Answers what is neither a success nor a failure.
    Odd,
}

/// How the way there and back is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// One probe in so many is never answered.
    pub(crate) lost_one_in: u64,
    /// One answer in so many is handed in late.
    pub(crate) held_one_in: u64,
    /// How late the prober may wake up, in milliseconds.
    pub(crate) lag_ms: u64,
    /// Whether it gives up in time.
    pub(crate) gives_up: bool,
}

/// What becomes of a probe. In milliseconds from its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fate {
    pub(crate) outcome: ProbeOutcome,
    pub(crate) known_ms: u64,
    pub(crate) reported_ms: u64,
}

pub(crate) struct World {
    modes: Vec<Mode>,
    turns: u64,
    pub(crate) weather: Weather,
}

const MODES: [Mode; 9] = [
    Mode::Up,
    Mode::Up,
    Mode::Refuses,
    Mode::Hangs,
    Mode::Errs,
    Mode::Flaps,
    Mode::Slow,
    Mode::Lies,
    Mode::Odd,
];

impl World {
    pub(crate) fn new(sites: usize, chance: &mut Chance) -> Self {
        Self {
            modes: (0..sites).map(|_| chance.choose(&MODES)).collect(),
            turns: 0,
            weather: Weather {
                lost_one_in: chance.choose(&[5, 20, 1_000]),
                held_one_in: chance.choose(&[3, 20, 1_000]),
                lag_ms: chance.choose(&[0, 0, 3, 40, 300]),
                gives_up: !chance.one_in(4),
            },
        }
    }

    pub(crate) fn change(&mut self, chance: &mut Chance) -> (usize, Mode) {
        let site = chance.index(self.modes.len());
        self.modes[site] = chance.choose(&MODES);
        (site, self.modes[site])
    }

    /// `None`: nobody ever hears of it again.
    pub(crate) fn probe(
        &mut self,
        site: usize,
        policy: &Policy,
        within_ms: u64,
        chance: &mut Chance,
    ) -> Option<Fate> {
        if chance.one_in(self.weather.lost_one_in) {
            return None;
        }
        let limit = policy.timeout.as_millis() as u64;
        let quick = chance.range(0, limit.min(5));
        let mode = self.modes[site];
        let mut outcome = self.outcome(mode, chance);
        let mut known_ms = match mode {
            Mode::Slow => chance.range(limit, 4 * limit),
            Mode::Hangs if self.weather.gives_up => limit,
            Mode::Hangs => chance.range(limit, 2 * within_ms),
            _ => quick,
        };
        let give_up = within_ms - 1;
        if self.weather.gives_up && known_ms >= give_up {
            (outcome, known_ms) = (ProbeOutcome::Timeout, give_up);
        }
        let held = if chance.one_in(self.weather.held_one_in) {
            chance.range(1, 3 * within_ms)
        } else {
            0
        };
        Some(Fate {
            outcome,
            known_ms,
            reported_ms: known_ms + held,
        })
    }

    /// What a request meets there.
    pub(crate) fn serve(&mut self, site: usize, chance: &mut Chance) -> ProbeOutcome {
        match self.modes[site] {
            Mode::Lies => ProbeOutcome::Status(500),
            mode => self.outcome(mode, chance),
        }
    }

    fn outcome(&mut self, mode: Mode, chance: &mut Chance) -> ProbeOutcome {
        self.turns += 1;
        match mode {
            Mode::Up | Mode::Slow | Mode::Lies => {
                chance.choose(&[ProbeOutcome::Status(200), ProbeOutcome::TcpOk])
            }
            Mode::Refuses => ProbeOutcome::TcpFailure,
            Mode::Hangs => ProbeOutcome::Timeout,
            Mode::Errs => chance.choose(&[ProbeOutcome::Status(500), ProbeOutcome::NotHttp]),
            Mode::Flaps if self.turns.is_multiple_of(2) => ProbeOutcome::Status(200),
            Mode::Flaps => ProbeOutcome::TcpFailure,
            Mode::Odd => ProbeOutcome::Status(418),
        }
    }
}
