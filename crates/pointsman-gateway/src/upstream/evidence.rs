//! What workers saw of targets, on its way to the owner of all health.
//!
//! Workers report what can change a verdict, and nothing else: a healthy target's successes stay where
//! they are. The owner is one task; whatever it makes of a report is published to all workers alike.
//!
//! A worker that hands something in takes no lock and waits for nobody. It wakes the owner only if that has
//! found nothing to do, and of all workers only the first one does.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use arc_swap::ArcSwapOption;
use pointsman_balance::{Passive, ProbeOutcome, TargetId, Trial};

/// One report.
#[derive(Debug)]
pub enum Evidence {
    /// A request to a target ended like this.
    Request {
        /// Where it went.
        target: TargetId,
        /// How it ended.
        outcome: ProbeOutcome,
        /// What that means to whoever sent it.
        passive: Arc<Passive>,
        /// When it was sent.
        began: Instant,
    },
    /// Somebody asked to be left alone.
    CoolDown {
        /// Who.
        guard: TargetId,
        /// Until when.
        until: Instant,
        /// For the log.
        cause: &'static str,
    },
    /// Too many attempts failed.
    Trip {
        /// Whose.
        guard: TargetId,
    },
    /// The trial of a half-open circuit has ended.
    Trial {
        /// Whether the circuit may close.
        succeeded: bool,
        /// The right to it, given back once this has been looked at.
        trial: Trial,
    },
}

/// Reports that wait for the owner. Bounded: what comes when it is full is lost, and counted.
#[derive(Debug)]
pub struct EvidenceQueue {
    /// Unbounded in itself, so that it takes memory only for what waits; `waiting` bounds it.
    reports: Sender<Evidence>,
    waiting: AtomicUsize,
    lost: AtomicU64,
    /// The owner knows, or is about to be told, that there may be something.
    is_told: AtomicBool,
    owner: ArcSwapOption<Waker>,
    /// Locked by the owner alone.
    received: Mutex<Receiver<Evidence>>,
}

impl Default for EvidenceQueue {
    fn default() -> Self {
        let (reports, received) = channel();
        Self {
            reports,
            waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            is_told: AtomicBool::new(false),
            owner: ArcSwapOption::empty(),
            received: Mutex::new(received),
        }
    }
}

impl EvidenceQueue {
    /// Hands in a report. Returns at once.
    pub fn push(&self, report: Evidence) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // The receiver is in this same value.
        let _ = self.reports.send(report);
        // SeqCst, here and in `poll_take`: either this sees that the owner is going to sleep, or the owner
        // sees the report on its second look.
        if !self.is_told.swap(true, Ordering::SeqCst)
            && let Some(owner) = &*self.owner.load()
        {
            owner.wake_by_ref();
        }
    }

    /// All reports there are, once there are any. For the one owner, which is woken if there are none now.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Vec<Evidence>> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        // While there is something it looks again, and nobody has to wake it.
        let mut reports = self.take(&received);
        if reports.is_empty() {
            self.register(cx.waker());
            self.is_told.swap(false, Ordering::SeqCst);
            reports = self.take(&received);
        }
        if reports.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(reports)
        }
    }

    fn take(&self, received: &Receiver<Evidence>) -> Vec<Evidence> {
        // No more than may wait: whoever goes on reporting must not keep the owner here.
        let reports: Vec<Evidence> = received.try_iter().take(WAITING_MAX).collect();
        self.waiting.fetch_sub(reports.len(), Ordering::Relaxed);
        reports
    }

    fn register(&self, waker: &Waker) {
        let is_known = (self.owner.load().as_ref()).is_some_and(|owner| owner.will_wake(waker));
        if !is_known {
            self.owner.store(Some(Arc::new(waker.clone())));
        }
    }

    /// How many reports were lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// More failures than this in the time that the owner takes to look say nothing new.
const WAITING_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use pointsman_balance::{GuardSpec, Monitor};

    use super::*;

    fn guard() -> TargetId {
        let spec = GuardSpec {
            key: String::new(),
            breaker: None,
        };
        Monitor::<u8>::new().guard(spec, crate::clock::now()).0
    }

    #[test]
    fn a_full_queue_counts_what_it_loses() {
        let guard = guard();
        let queue = EvidenceQueue::default();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(queue.poll_take(&mut cx).is_pending());
        for round in 1..=2 {
            for _ in 0..WAITING_MAX + 3 {
                queue.push(Evidence::Trip { guard });
            }
            assert_eq!(queue.lost(), 3 * round);
            let Poll::Ready(reports) = queue.poll_take(&mut cx) else {
                panic!("reports wait");
            };
            assert_eq!(reports.len(), WAITING_MAX);
            assert!(queue.poll_take(&mut cx).is_pending());
        }
    }

    /// How often it was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Only who sleeps is woken, and once; and reporting needs nothing that the owner holds.
    #[test]
    fn the_owner_is_woken_once_and_only_when_it_sleeps() {
        let guard = guard();
        let queue = EvidenceQueue::default();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let wakes = |count: usize| {
            for _ in 0..count {
                queue.push(Evidence::Trip { guard });
            }
            woken.0.swap(0, Ordering::SeqCst)
        };
        assert_eq!(wakes(3), 0, "nobody to be woken");
        for _ in 0..3 {
            assert!(queue.poll_take(&mut cx).is_ready());
            assert_eq!(wakes(100), 0, "it is up, and looks again before it sleeps");
            assert!(queue.poll_take(&mut cx).is_ready());
            assert!(queue.poll_take(&mut cx).is_pending());
            let held = queue.received.lock();
            assert_eq!(wakes(100), 1);
            drop(held);
        }
    }

    /// An owner that sleeps until it is woken gets everything, each worker's in order.
    #[test]
    fn no_wake_is_lost() {
        let guard = guard();
        let queue = EvidenceQueue::default();
        let start = crate::clock::now();
        let at = |micros: u64| start + std::time::Duration::from_micros(micros);
        let taken: [AtomicU64; WORKERS as usize] = Default::default();
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (queue, taken) = (&queue, &taken[worker as usize]);
                scope.spawn(move || {
                    for number in 0..REPORTS {
                        queue.push(Evidence::CoolDown {
                            guard,
                            until: at(worker * REPORTS + number),
                            cause: "",
                        });
                        // The next comes the moment that the owner is about to sleep.
                        while taken.load(Ordering::SeqCst) <= number {
                            std::hint::spin_loop();
                        }
                    }
                });
            }
            let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
            let mut cx = Context::from_waker(&waker);
            let of = |worker: usize| taken[worker].load(Ordering::SeqCst);
            while (0..taken.len()).map(of).sum::<u64>() < WORKERS * REPORTS {
                let Poll::Ready(reports) = queue.poll_take(&mut cx) else {
                    // Without an end: a wake that is lost is a test that hangs.
                    std::thread::park();
                    continue;
                };
                for report in reports {
                    let Evidence::CoolDown { until, .. } = report else {
                        panic!("nothing else was reported");
                    };
                    let micros = (until - start).as_micros() as u64;
                    let worker = (micros / REPORTS) as usize;
                    assert_eq!(micros % REPORTS, of(worker));
                    taken[worker].fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        assert_eq!(queue.lost(), 0);
    }

    struct Unpark(std::thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    const WORKERS: u64 = 2;
    const REPORTS: u64 = 10_000;
}
