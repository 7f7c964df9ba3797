//! The demo's own traffic, the fate of its models, and the picture in the terminal.

#![expect(
    clippy::print_stdout,
    reason = "what it prints is what a person asked for"
)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use pointsman_gateway::clock;

use super::model::{Model, spawn};

/// What runs beside the gateway until the demo ends.
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
}

struct Shared {
    address: SocketAddr,
    models: [Arc<Model>; 3],
    answered: AtomicU64,
    failed: AtomicU64,
    stop: Arc<AtomicBool>,
    began: Instant,
}

impl Traffic {
    /// Sends some requests a second to `address`, kills and revives the last model, and draws
    /// the state twice a second (a plain line every five seconds when stdout is no terminal).
    pub(super) fn start(
        address: SocketAddr,
        models: [Arc<Model>; 3],
        terminal: bool,
    ) -> Result<Self, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared {
            address,
            models,
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            stop: Arc::clone(&stop),
            began: clock::now(),
        });
        let sender = Arc::clone(&shared);
        spawn("demo-traffic".to_owned(), move || sender.send())?;
        spawn("demo-picture".to_owned(), move || shared.draw(terminal))?;
        Ok(Self { stop })
    }

    /// Ends it.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn send(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let outcome = match ask(self.address) {
                Ok(true) => &self.answered,
                Ok(false) | Err(_) => &self.failed,
            };
            outcome.fetch_add(1, Ordering::Relaxed);
            std::thread::park_timeout(PAUSE);
        }
    }

    fn draw(&self, terminal: bool) {
        let mut last = [0u64; 3];
        let mut drawn = false;
        let every = if terminal {
            Duration::from_millis(500)
        } else {
            Duration::from_secs(5)
        };
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(every);
            let elapsed = clock::now() - self.began;
            let moody_lives = elapsed.as_secs() % (2 * PHASE_SECONDS) < PHASE_SECONDS;
            self.models[2].alive.store(moody_lives, Ordering::Relaxed);
            let lines = self.lines(&mut last, elapsed, every);
            if terminal && drawn {
                print!("\x1b[{}A", lines.len());
            }
            for line in &lines {
                println!("{}{line}", if terminal { "\x1b[2K" } else { "" });
            }
            let _ = std::io::stdout().flush();
            drawn = true;
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a demo counts to thousands")]
    fn lines(&self, last: &mut [u64; 3], elapsed: Duration, every: Duration) -> Vec<String> {
        let counts = [0, 1, 2].map(|index| self.models[index].served.load(Ordering::Relaxed));
        let recent: Vec<u64> = counts
            .iter()
            .zip(&*last)
            .map(|(now, then)| now - then)
            .collect();
        let sum = recent.iter().sum::<u64>().max(1);
        let mut lines = vec![format!(
            "{:>4} s   answered {}   failed {}",
            elapsed.as_secs(),
            self.answered.load(Ordering::Relaxed),
            self.failed.load(Ordering::Relaxed)
        )];
        for (index, model) in self.models.iter().enumerate() {
            let share = recent[index] as f64 / sum as f64;
            let bar = "█".repeat((share * 30.0).round() as usize);
            let state = if model.alive.load(Ordering::Relaxed) {
                "alive"
            } else {
                "DEAD "
            };
            lines.push(format!(
                "  {:<7} {state} {bar:<30} {:>5.0} %  {:>5.1}/s  total {:<6} while dead {}",
                model.name,
                share * 100.0,
                recent[index] as f64 / every.as_secs_f64(),
                counts[index],
                model.while_dead.load(Ordering::Relaxed),
            ));
        }
        *last = counts;
        lines
    }
}

fn ask(address: SocketAddr) -> std::io::Result<bool> {
    let body = r#"{"model":"demo","messages":[{"role":"user","content":"Hi"}]}"#;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: demo\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}

/// How long the moody model lives, and then how long it is dead.
const PHASE_SECONDS: u64 = 10;
/// Between two requests of the demo.
const PAUSE: Duration = Duration::from_millis(25);
