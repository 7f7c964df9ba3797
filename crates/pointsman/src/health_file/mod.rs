//! Health over a restart: what is known about targets, in a small file.
//!
//! A process that starts in the middle of an outage would send its first requests to the dead. So
//! whatever differs from "healthy, nothing counted" is written down soon after a verdict changes,
//! and every few seconds while there is newer evidence; the next process takes it in before its
//! first request. It never waits for this file, and does without when it cannot be used: health
//! then begins as in APISIX, with everything healthy.

mod format;
mod writer;

use std::{
    collections::{HashMap, HashSet},
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use pointsman_balance::{CircuitState, Counters, GuardReport, GuardSpec, Kept, Policy, Status};
use pointsman_gateway::{
    clock,
    config::settings::{HealthStateFile, Settings},
    upstream::{
        driver::{Health, SharedHealth},
        fingerprint::{canonical, canonical_guard},
        health::ProbeSpec,
    },
};
use tokio::sync::Notify;

use self::{
    format::{Circuit, Contents, Guard, Line, Name, Salt},
    writer::Writer,
};

/// The file of this process.
pub(crate) struct HealthFile {
    path: PathBuf,
    salt: Salt,
    /// Nothing is written before what an earlier process left has been read; that, if there is any.
    left: OnceLock<Option<Arc<Memory>>>,
    writer: Writer<Sample>,
}

/// The targets and guards that are not as at the start.
#[derive(Default, PartialEq)]
struct Known {
    /// Key of the names.
    salt: Salt,
    targets: Vec<(Name, Kept)>,
    guards: Vec<(Name, GuardReport)>,
    /// What an earlier process knew of addresses that are still to be found behind their names.
    carried: Vec<Line>,
}

/// What [`Known`] is made of, taken while health is locked.
struct Taken {
    /// With the definitions of the healthy if `awaits_addresses`.
    targets: Vec<(Arc<ProbeSpec>, Policy, Kept)>,
    guards: Vec<(Arc<GuardSpec>, GuardReport)>,
    awaits_addresses: bool,
}

impl Taken {
    fn of(health: &Health, now: Instant) -> Self {
        let awaits_addresses = health.awaits_addresses(now);
        let mut targets = Vec::new();
        for (_, report) in health.monitor().export() {
            let kept = Kept {
                status: report.status,
                counters: report.counters,
                last: report.last,
            };
            if awaits_addresses || !is_as_at_the_start(&kept) {
                targets.push((Arc::clone(report.probe), report.policy.clone(), kept));
            }
        }
        let mut guards = Vec::new();
        for (_, spec, report) in health.monitor().export_guards() {
            if !report.is_as_at_the_start() {
                guards.push((spec, report));
            }
        }
        Self {
            targets,
            guards,
            awaits_addresses,
        }
    }
}

fn is_as_at_the_start(kept: &Kept) -> bool {
    kept.status == Status::Healthy && kept.counters == Counters::default()
}

/// What is known at one time.
struct Sample {
    known: Known,
    time: Time,
}

impl HealthFile {
    /// The file that `settings` want, if any; `config_folder` is where `config.yaml` is.
    pub(crate) fn new(settings: &Settings, config_folder: &Path) -> Option<Arc<Self>> {
        let path = match &settings.health_state_file {
            HealthStateFile::Off => return None,
            HealthStateFile::Default => config_folder.join("..").join("logs").join(FILE),
            HealthStateFile::At(path) => config_folder.join(path),
        };
        let salt = rand::random();
        let disk = Disk {
            path: path.clone(),
            is_failing: AtomicBool::new(false),
        };
        Some(Arc::new(Self {
            path,
            salt,
            left: OnceLock::new(),
            writer: Writer::new(move |sample| disk.write(sample)),
        }))
    }

    /// Gives the targets of `health` what an earlier process knew about them, as far as that is
    /// not too old. To be called once, when the first configuration has been compiled.
    pub(crate) fn restore(&self, health: &SharedHealth, now: Instant) {
        let time = Time {
            now,
            wall_ms: clock::unix_millis(),
        };
        let path = self.path.display();
        let mut left = None;
        match self.read(time.wall_ms) {
            // Then it says what a process knows that has just begun.
            Ok(None) => self.writer.assume(Sample {
                known: Known {
                    salt: self.salt,
                    ..Known::default()
                },
                time,
            }),
            Ok(Some(contents)) => {
                let found = contents.lines.len() + contents.guards.len();
                let memory = Arc::new(Memory::new(contents, time));
                let of_targets = Arc::clone(&memory);
                let mut health = health.lock();
                let (targets, targets_down) =
                    health.restore(move |probe, policy| of_targets.target(probe, policy), now);
                let (guards, guards_down) = health.restore_guards(|spec| memory.guard(spec), now);
                drop(health);
                let (restored, down) = (targets + guards, targets_down + guards_down);
                tracing::info!(found, restored, down, "health restored from {path}");
                left = Some(memory);
            }
            Err(reason) => tracing::warn!(
                "{path}: {reason}; health begins anew, with every target healthy until it is probed"
            ),
        }
        // Only the first call counts, and there is one.
        let _ = self.left.set(left);
    }

    /// What the file says; `None` if there is none.
    fn read(&self, wall_ms: u64) -> Result<Option<Contents>, String> {
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot be read ({error})")),
        };
        let mut text = Vec::new();
        file.take(BYTES_MAX + 1)
            .read_to_end(&mut text)
            .map_err(|error| format!("cannot be read ({error})"))?;
        if text.len() as u64 > BYTES_MAX {
            return Err(format!("is larger than {BYTES_MAX} bytes"));
        }
        let contents = format::read(&text).map_err(|error| format!("ignored, {error}"))?;
        if contents.saved_ms > wall_ms.saturating_add(CLOCK_SLACK_MS) {
            let ahead = (contents.saved_ms - wall_ms) / 1000;
            return Err(format!(
                "ignored, it was written {ahead} s in the future (was the clock set back?)"
            ));
        }
        Ok(Some(contents))
    }

    /// What is known now, if the file does not say so and is not about to.
    fn sample(&self, health: &SharedHealth, now: Instant) -> Option<Sample> {
        let left = self.left.get()?;
        let taken = Taken::of(&health.lock(), now);
        let known = self.known(taken, left.as_deref());
        let is_news = |newest: Option<&Sample>| newest.is_none_or(|newest| newest.known != known);
        self.writer.newest(is_news).then(|| Sample {
            known,
            time: Time {
                now,
                wall_ms: clock::unix_millis(),
            },
        })
    }

    fn known(&self, taken: Taken, left: Option<&Memory>) -> Known {
        // What waits for the addresses of a name is only in the file that is about to be replaced, under
        // the names that it has there.
        let left = left.filter(|_| taken.awaits_addresses);
        let salt = left.map_or(self.salt, |left| left.salt);
        let name = |canonical: String| format::name(&salt, &canonical);
        let mut present = HashSet::new();
        let mut targets = Vec::new();
        for (probe, policy, kept) in taken.targets {
            let name = name(canonical(&probe, &policy));
            present.insert(name);
            if !is_as_at_the_start(&kept) {
                targets.push((name, kept));
            }
        }
        let guards = taken.guards.iter();
        Known {
            salt,
            targets,
            guards: guards
                .map(|(spec, report)| (name(canonical_guard(spec)), *report))
                .collect(),
            carried: left.map_or_else(Vec::new, |left| left.not_among(&present)),
        }
    }
}

/// Where the file is.
struct Disk {
    path: PathBuf,
    /// The last attempt failed, which was told.
    is_failing: AtomicBool,
}

impl Disk {
    /// Replaces the file; returns whether that could be done.
    fn write(&self, sample: &Sample) -> bool {
        let contents = sample.contents();
        let path = self.path.display();
        let outcome = replace(&self.path, format::write(&contents).as_bytes());
        let was_failing = self.is_failing.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Ok(()) if was_failing => tracing::info!("{path}: can be written again"),
            Ok(()) => {}
            Err(error) if was_failing => tracing::debug!("{error}"),
            Err(error) => tracing::warn!(
                "{path}: cannot be written ({error}); health will not survive a restart. Let \
                 `pointsman.health_state_file` name a file in a folder that can be written to, \
                 or set it to false"
            ),
        }
        outcome.is_ok()
    }
}

impl Sample {
    fn contents(&self) -> Contents {
        let time = self.time;
        let line = |&(name, kept): &(Name, Kept)| Line {
            name,
            status: kept.status,
            counters: kept.counters,
            last: kept.last.map(|(outcome, at)| (outcome, time.ms_of(at))),
        };
        let guard = |&(name, report): &(Name, GuardReport)| Guard {
            name,
            cools_until_ms: report.cools_until.map(|until| time.ms_of(until)),
            circuit: match report.circuit {
                CircuitState::Closed => Circuit::Closed,
                CircuitState::Open(until) => Circuit::Open(time.ms_of(until)),
                CircuitState::HalfOpen => Circuit::HalfOpen,
            },
        };
        Contents {
            salt: self.known.salt,
            saved_ms: time.wall_ms,
            lines: (self.known.targets.iter().map(line))
                .chain(self.known.carried.iter().copied())
                .collect(),
            guards: self.known.guards.iter().map(guard).collect(),
        }
    }
}

/// One moment by the clock of this process and by the one that it shares with others.
#[derive(Clone, Copy)]
struct Time {
    now: Instant,
    wall_ms: u64,
}

impl Time {
    fn ms_of(&self, at: Instant) -> u64 {
        let ahead = millis(at.saturating_duration_since(self.now));
        let ago = millis(self.now.saturating_duration_since(at));
        self.wall_ms.saturating_add(ahead).saturating_sub(ago)
    }

    /// `None` if the clock of this process does not reach that far.
    fn of_ms(&self, at_ms: u64) -> Option<Instant> {
        let ahead = Duration::from_millis(at_ms.saturating_sub(self.wall_ms));
        self.now.checked_add(ahead)?.checked_sub(self.age(at_ms))
    }

    fn age(&self, at_ms: u64) -> Duration {
        Duration::from_millis(self.wall_ms.saturating_sub(at_ms))
    }
}

/// Keeps the file, if there is one, up to date with the health of this process.
#[derive(Clone)]
pub(crate) struct Keeper {
    file: Option<Arc<HealthFile>>,
    health: Arc<SharedHealth>,
}

impl Keeper {
    pub(crate) fn new(file: Option<Arc<HealthFile>>, health: Arc<SharedHealth>) -> Self {
        Self { file, health }
    }

    /// Has what is known now written down, unless the file says so already. Returns at once.
    pub(crate) fn save(&self) {
        if let Some(file) = &self.file
            && let Some(sample) = file.sample(&self.health, clock::now())
        {
            file.writer.submit(sample);
        }
    }

    /// The same for the last time: waits until it is on disk, unless that takes too long.
    pub(crate) fn finish(&self) {
        self.save();
        if let Some(file) = &self.file
            && !file.writer.wait(FINISH_LIMIT)
        {
            let path = file.path.display();
            tracing::warn!("{path}: the disk does not answer; the newest verdicts are not in it");
        }
    }

    /// Writes at once when a verdict changes, else every few seconds if there is news.
    pub(crate) async fn keep(self) {
        if self.file.is_none() {
            return;
        }
        let changed = Arc::new(Notify::new());
        let told = Arc::clone(&changed);
        self.health.lock().on_change(move || told.notify_one());
        loop {
            self.save();
            // An outage changes many verdicts within a moment.
            tokio::time::sleep(BETWEEN_WRITES).await;
            let _ = tokio::time::timeout(REFRESH, changed.notified()).await;
        }
    }
}

/// What an earlier process left.
struct Memory {
    salt: Salt,
    saved_ms: u64,
    lines: HashMap<Name, Line>,
    guards: HashMap<Name, Guard>,
    time: Time,
}

impl Memory {
    fn new(contents: Contents, time: Time) -> Self {
        Self {
            salt: contents.salt,
            saved_ms: contents.saved_ms,
            lines: (contents.lines.into_iter())
                .map(|line| (line.name, line))
                .collect(),
            guards: (contents.guards.into_iter())
                .map(|guard| (guard.name, guard))
                .collect(),
            time,
        }
    }

    /// The lines of what is not `present`, as far as they say when that was: without, they would seem to be
    /// of now.
    fn not_among(&self, present: &HashSet<Name>) -> Vec<Line> {
        let lines = self.lines.values();
        let mut lines: Vec<Line> = lines
            .filter(|line| line.last.is_some() && !present.contains(&line.name))
            .copied()
            .collect();
        lines.sort_unstable_by_key(|line| line.name);
        lines
    }

    /// What is known of a target, unless it is too old.
    fn target(&self, probe: &ProbeSpec, policy: &Policy) -> Option<Kept> {
        if self.lines.is_empty() {
            return None;
        }
        let name = format::name(&self.salt, &canonical(probe, policy));
        let line = self.lines.get(&name)?;
        let at_ms = line.last.map_or(self.saved_ms, |(_, at_ms)| at_ms);
        if self.time.age(at_ms) > age_max(policy) {
            return None;
        }
        let last = line.last.and_then(|(outcome, at_ms)| {
            // A machine that has just started has no time as long ago as that.
            Some((outcome, self.time.of_ms(at_ms)?))
        });
        Some(Kept {
            status: line.status,
            counters: line.counters,
            last,
        })
    }

    /// Where a guard is now: waits go on to their end, and what was to be tried still is, unless that
    /// was long ago.
    fn guard(&self, spec: &GuardSpec) -> Option<GuardReport> {
        if self.guards.is_empty() {
            return None;
        }
        let name = format::name(&self.salt, &canonical_guard(spec));
        let guard = self.guards.get(&name)?;
        let is_recent = |at_ms: u64| self.time.age(at_ms) <= TRIAL_AGE_MAX;
        let circuit = match guard.circuit {
            Circuit::Open(until_ms) if is_recent(until_ms) => {
                (self.time.of_ms(until_ms)).map_or(CircuitState::HalfOpen, CircuitState::Open)
            }
            Circuit::HalfOpen if is_recent(self.saved_ms) => CircuitState::HalfOpen,
            Circuit::Closed | Circuit::Open(_) | Circuit::HalfOpen => CircuitState::Closed,
        };
        let cools_until = (guard.cools_until_ms)
            .filter(|until_ms| *until_ms > self.time.wall_ms)
            .and_then(|until_ms| self.time.of_ms(until_ms));
        let report = GuardReport {
            usable: cools_until.is_none() && circuit == CircuitState::Closed,
            cools_until,
            circuit,
        };
        (!report.is_as_at_the_start()).then_some(report)
    }
}

/// How old evidence may be: by then, a target that is probed would have had ten more chances.
fn age_max(policy: &Policy) -> Duration {
    policy.unhealthy_interval.saturating_mul(10).max(AGE_MIN)
}

/// Replaces the file at `path` as a whole: whoever reads it finds the old text or the new one.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    // Two processes share the file for the length of a drain, and both may be number 1 of a container.
    let next = path.with_extension(format!("{:08x}.tmp", rand::random::<u32>()));
    let written = write_new(&next, text).and_then(|()| fs::rename(&next, path));
    if written.is_err() {
        // Nothing is lost if it was not even made.
        let _ = fs::remove_file(&next);
    }
    written
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const FILE: &str = "health.state";
/// Evidence is used at least for this long.
const AGE_MIN: Duration = Duration::from_secs(60);
/// For circuits that were to be tried by then: whoever fails on such a trial still falls back.
const TRIAL_AGE_MAX: Duration = Duration::from_secs(600);
/// Between two writes.
const BETWEEN_WRITES: Duration = Duration::from_millis(100);
/// How long the end of the program waits for the last write.
const FINISH_LIMIT: Duration = Duration::from_secs(2);
/// How often newer evidence is written down. Far below [`AGE_MIN`], so that a crash costs little.
const REFRESH: Duration = Duration::from_secs(5);
/// A clock that is corrected by less than this is no reason to forget anything.
const CLOCK_SLACK_MS: u64 = 5_000;
/// Some 300,000 targets in trouble.
const BYTES_MAX: u64 = 64 << 20;
