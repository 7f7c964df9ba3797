//! What is measured: the scenarios, and the figures that each of them yields.

use clap::ValueEnum;
use serde::Serialize;

use crate::load::Report;
use crate::procfs::Memory;

/// One kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
pub(super) enum Scenario {
    /// Chat requests of 1 KiB, one after another on each connection.
    #[value(name = "json-1k")]
    #[serde(rename = "json-1k")]
    Json1k,
    /// The same with 32 KiB.
    #[value(name = "json-32k")]
    #[serde(rename = "json-32k")]
    Json32k,
    /// The same with 256 KiB.
    #[value(name = "json-256k")]
    #[serde(rename = "json-256k")]
    Json256k,
    /// Streamed answers as fast as they go.
    #[value(name = "sse-burst")]
    #[serde(rename = "sse-burst")]
    SseBurst,
    /// Streamed answers with a pause before each chunk, as a model writes them.
    #[value(name = "sse-paced")]
    #[serde(rename = "sse-paced")]
    SsePaced,
    /// 300 requests of 1 KiB per second: what the gateway adds to latency.
    #[value(name = "latency-300rps")]
    #[serde(rename = "latency-300rps")]
    Latency,
    /// Memory of a fresh gateway, and under 64 connections with bodies of 32 KiB.
    #[value(name = "rss")]
    #[serde(rename = "rss")]
    Rss,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Figure {
    CpuMicrosPerRequest,
    CpuMicrosPerChunk,
    RequestsPerSecond,
    ChunksPerSecond,
    GatewayCoreBusyPercent,
    P50Micros,
    P99Micros,
    AddedP50Micros,
    AddedP99Micros,
    RssIdleMib,
    PssIdleMib,
    RssLoadedMib,
    PssLoadedMib,
    RssRestedMib,
    PssRestedMib,
}

/// Memory of a gateway before and after a load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Footprint {
    pub(super) idle: Memory,
    /// Some time after the load, if asked for.
    pub(super) rested: Option<Memory>,
}

impl Scenario {
    /// Those measured unless asked otherwise.
    pub(super) const DEFAULT: [Self; 6] = [
        Self::Json1k,
        Self::Json32k,
        Self::Json256k,
        Self::SseBurst,
        Self::Latency,
        Self::Rss,
    ];

    pub(super) fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    pub(super) fn body_bytes(self) -> usize {
        match self {
            Self::Json1k | Self::SseBurst | Self::SsePaced | Self::Latency => 1024,
            Self::Json32k | Self::Rss => 32 * 1024,
            Self::Json256k => 256 * 1024,
        }
    }

    pub(super) fn is_stream(self) -> bool {
        matches!(self, Self::SseBurst | Self::SsePaced)
    }

    pub(super) fn connections(self, usual: usize) -> usize {
        if self == Self::Rss {
            RSS_CONNECTIONS
        } else {
            usual
        }
    }

    /// In seconds. Twice as long for latency: its p99 rests on a hundredth of few requests.
    pub(super) fn window(self, usual_seconds: f64) -> f64 {
        if self == Self::Latency {
            usual_seconds * 2.0
        } else {
            usual_seconds
        }
    }

    /// Requests per second, where that is fixed.
    pub(super) fn rate(self) -> Option<u32> {
        (self == Self::Latency).then_some(LATENCY_RATE)
    }

    /// What one run says. CPU and memory are missing where no gateway stood between.
    pub(super) fn figures(
        self,
        report: &Report,
        footprint: Option<Footprint>,
    ) -> Vec<(Figure, f64)> {
        let cpu = report.watched.map(|watched| watched.cpu_seconds);
        let mut figures = Vec::new();
        match self {
            Self::Json1k | Self::Json32k | Self::Json256k => {
                figures.extend(cpu.map(|cpu| {
                    (
                        Figure::CpuMicrosPerRequest,
                        each(cpu * 1e6, report.requests),
                    )
                }));
                figures.push((
                    Figure::RequestsPerSecond,
                    report.requests as f64 / report.seconds,
                ));
                figures.extend(
                    cpu.map(|cpu| (Figure::GatewayCoreBusyPercent, cpu / report.seconds * 100.0)),
                );
            }
            Self::SseBurst | Self::SsePaced => {
                figures.extend(
                    cpu.map(|cpu| (Figure::CpuMicrosPerChunk, each(cpu * 1e6, report.chunks))),
                );
                figures.push((
                    Figure::ChunksPerSecond,
                    report.chunks as f64 / report.seconds,
                ));
                figures.extend(
                    cpu.map(|cpu| (Figure::GatewayCoreBusyPercent, cpu / report.seconds * 100.0)),
                );
            }
            Self::Latency => {
                figures.push((Figure::P50Micros, report.latency.p50_us));
                figures.push((Figure::P99Micros, report.latency.p99_us));
            }
            Self::Rss => {
                let mut memory = |rss, pss, memory: Option<Memory>| {
                    let mib = |kib: u64| kib as f64 / 1024.0;
                    figures.extend(memory.map(|memory| (rss, mib(memory.rss_kib))));
                    figures.extend(memory.map(|memory| (pss, mib(memory.pss_kib))));
                };
                let loaded = report.watched.map(|watched| watched.memory);
                memory(
                    Figure::RssIdleMib,
                    Figure::PssIdleMib,
                    footprint.map(|footprint| footprint.idle),
                );
                memory(Figure::RssLoadedMib, Figure::PssLoadedMib, loaded);
                let rested = footprint.and_then(|footprint| footprint.rested);
                memory(Figure::RssRestedMib, Figure::PssRestedMib, rested);
            }
        }
        figures
    }
}

impl Figure {
    /// As the table calls it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::CpuMicrosPerRequest => "CPU µs / request",
            Self::CpuMicrosPerChunk => "CPU µs / chunk",
            Self::RequestsPerSecond => "requests / s",
            Self::ChunksPerSecond => "chunks / s",
            Self::GatewayCoreBusyPercent => "gateway core busy %",
            Self::P50Micros => "p50 µs",
            Self::P99Micros => "p99 µs",
            Self::AddedP50Micros => "added p50 µs",
            Self::AddedP99Micros => "added p99 µs",
            Self::RssIdleMib => "RSS idle MiB",
            Self::PssIdleMib => "PSS idle MiB",
            Self::RssLoadedMib => "RSS loaded MiB",
            Self::PssLoadedMib => "PSS loaded MiB",
            Self::RssRestedMib => "RSS rested MiB",
            Self::PssRestedMib => "PSS rested MiB",
        }
    }

    /// The figure that says how much more this one is than without a gateway.
    pub(super) fn beyond_direct(self) -> Option<Self> {
        match self {
            Self::P50Micros => Some(Self::AddedP50Micros),
            Self::P99Micros => Some(Self::AddedP99Micros),
            _ => None,
        }
    }
}

fn each(total: f64, count: u64) -> f64 {
    total / count.max(1) as f64
}

const LATENCY_RATE: u32 = 300;
const RSS_CONNECTIONS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Latency, Watched};

    #[test]
    fn figures_are_divided_by_what_they_are_per() {
        let memory = Memory {
            rss_kib: 10 * 1024,
            pss_kib: 8 * 1024,
        };
        let report = Report {
            requests: 1000,
            chunks: 4000,
            seconds: 2.0,
            reconnects: 0,
            latency: Latency {
                p50_us: 100.0,
                p90_us: 150.0,
                p99_us: 200.0,
                max_us: 300.0,
            },
            watched: Some(Watched {
                cpu_seconds: 0.02,
                memory,
            }),
        };
        let check = |scenario: Scenario, figure, expected: f64| {
            let footprint = Footprint {
                idle: memory,
                rested: None,
            };
            let figures = scenario.figures(&report, Some(footprint));
            let value = figures
                .iter()
                .find(|(found, _)| *found == figure)
                .map(|(_, value)| *value);
            assert!(
                value.is_some_and(|value| (value - expected).abs() < 1e-9),
                "{figure:?}: {value:?}"
            );
        };
        check(Scenario::Json1k, Figure::CpuMicrosPerRequest, 20.0);
        check(Scenario::Json1k, Figure::RequestsPerSecond, 500.0);
        check(Scenario::Json1k, Figure::GatewayCoreBusyPercent, 1.0);
        check(Scenario::SseBurst, Figure::CpuMicrosPerChunk, 5.0);
        check(Scenario::Latency, Figure::P99Micros, 200.0);
        check(Scenario::Rss, Figure::RssLoadedMib, 10.0);
        check(Scenario::Rss, Figure::PssIdleMib, 8.0);
    }
}
