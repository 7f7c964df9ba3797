//! A stand-in model server: enough of the Chat Completions API for a demo, on a real socket.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

/// A stand-in model.
pub(super) struct Model {
    pub(super) name: &'static str,
    pub(super) weight: u32,
    pub(super) address: SocketAddr,
    /// Chat requests that it has answered.
    pub(super) served: Arc<AtomicU64>,
    /// Chat requests that came while it was dead.
    pub(super) while_dead: Arc<AtomicU64>,
    /// Whether it works.
    pub(super) alive: Arc<AtomicBool>,
}

impl Model {
    /// Starts one on a port of the system's choice. It ends with the process.
    pub(super) fn start(name: &'static str, weight: u32) -> Result<Self, String> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .map_err(|error| format!("cannot start a stand-in model: {error}"))?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let model = Self {
            name,
            weight,
            address,
            served: Arc::default(),
            while_dead: Arc::default(),
            alive: Arc::new(AtomicBool::new(true)),
        };
        let (served, while_dead) = (Arc::clone(&model.served), Arc::clone(&model.while_dead));
        let alive = Arc::clone(&model.alive);
        spawn(format!("model-{name}"), move || {
            for stream in listener.incoming().flatten() {
                let counts = Counts {
                    name,
                    served: Arc::clone(&served),
                    while_dead: Arc::clone(&while_dead),
                    alive: Arc::clone(&alive),
                };
                // A client that breaks off is no concern of a stand-in.
                let _ = spawn(format!("model-{name}-conn"), move || {
                    let _ = serve(stream, &counts);
                });
            }
        })?;
        Ok(model)
    }
}

/// Starts a thread of the demo.
pub(super) fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<(), String> {
    std::thread::Builder::new()
        .name(name)
        .stack_size(256 << 10)
        .spawn(run)
        .map(drop)
        .map_err(|error| format!("cannot start a thread: {error}"))
}

struct Counts {
    name: &'static str,
    served: Arc<AtomicU64>,
    while_dead: Arc<AtomicU64>,
    alive: Arc<AtomicBool>,
}

fn serve(stream: TcpStream, counts: &Counts) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let is_probe = line.starts_with("GET /health");
        let mut length = 0usize;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length.min(1 << 20)];
        reader.read_exact(&mut body)?;
        if !counts.alive.load(Ordering::Relaxed) {
            if !is_probe {
                counts.while_dead.fetch_add(1, Ordering::Relaxed);
            }
            return write_json(
                &mut writer,
                "503 Service Unavailable",
                &json!({"error": {"message": "down"}}),
            );
        }
        if is_probe {
            write_json(&mut writer, "200 OK", &json!({"status": "ok"}))?;
            continue;
        }
        counts.served.fetch_add(1, Ordering::Relaxed);
        let request: Value = serde_json::from_slice(&body).unwrap_or_default();
        if request["stream"] == true {
            write_stream(&mut writer, counts.name)?;
        } else {
            write_json(&mut writer, "200 OK", &completion(counts.name))?;
        }
    }
}

fn completion(name: &str) -> Value {
    json!({
        "id": "chatcmpl-demo", "object": "chat.completion", "created": 0, "model": name,
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": format!("Hello from {name}.")}
        }],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    })
}

fn write_json(writer: &mut TcpStream, status: &str, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    writer.write_all((head + &body).as_bytes())
}

fn write_stream(writer: &mut TcpStream, name: &str) -> std::io::Result<()> {
    writer.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    let text = format!("Hello from {name}, word by word.");
    let mut events: Vec<String> = text
        .split_inclusive(' ')
        .map(|word| {
            json!({"id": "chatcmpl-demo", "object": "chat.completion.chunk", "model": name,
                   "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": null}]})
            .to_string()
        })
        .collect();
    events.push(
        json!({"id": "chatcmpl-demo", "object": "chat.completion.chunk", "model": name,
               "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
               "usage": {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}})
        .to_string(),
    );
    events.push("[DONE]".to_owned());
    for event in events {
        let event = format!("data: {event}\n\n");
        writer.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
        // A model takes its time; this is what makes the stream visible.
        std::thread::park_timeout(Duration::from_millis(60));
    }
    writer.write_all(b"0\r\n\r\n")
}
