//! Latencies in logarithmic buckets: constant memory, and an error below half a percent at any
//! magnitude.
//!
//! Each power of two is cut into [`SUB_BUCKETS`] equal parts, so the bucket of a value is found
//! with shifts alone and its width is always below 1/256 of the value. Values are nanoseconds.

use std::time::Duration;

/// Counts of durations from 0 ns to 2^63 ns.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; bucket_of(u64::MAX) + 1],
            total: 0,
            max: 0,
        }
    }

    pub(crate) fn record(&mut self, value: Duration) {
        let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket_of(nanos)] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    pub(crate) fn len(&self) -> u64 {
        self.total
    }

    /// The value below which the given share (0.0 to 1.0) of the samples lies; zero if there is no
    /// sample.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let rank = ((share * self.total as f64).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                // The middle of the last bucket may lie beyond the largest sample.
                return Duration::from_nanos(middle_of(bucket).min(self.max));
            }
        }
        Duration::ZERO
    }

    /// The largest sample, exactly; zero if there is none.
    pub(crate) fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }
}

/// Values below `SUB_BUCKETS` have a bucket each; above, an octave starts every `SUB_BUCKETS`
/// buckets.
fn bucket_of(nanos: u64) -> usize {
    let octave = (u64::BITS - nanos.leading_zeros()).saturating_sub(SUB_BUCKET_BITS + 1);
    octave as usize * SUB_BUCKETS + (nanos >> octave) as usize
}

fn middle_of(bucket: usize) -> u64 {
    if bucket < 2 * SUB_BUCKETS {
        return bucket as u64;
    }
    let octave = bucket / SUB_BUCKETS - 1;
    let low = ((bucket % SUB_BUCKETS + SUB_BUCKETS) as u64) << octave;
    low + (1 << octave) / 2
}

const SUB_BUCKET_BITS: u32 = 8;
const SUB_BUCKETS: usize = 1 << SUB_BUCKET_BITS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lands_in_a_bucket_whose_middle_is_close() {
        for value in (0..2000)
            .chain((0..63).map(|bits| 3 << bits >> 1))
            .chain([u64::MAX])
        {
            let middle = middle_of(bucket_of(value));
            let error = middle.abs_diff(value) as f64;
            assert!(error <= value as f64 / 256.0, "{value} is told as {middle}");
        }
    }

    #[test]
    fn buckets_grow_with_the_value() {
        let buckets: Vec<usize> = (0..100_000).map(bucket_of).collect();
        assert!(
            buckets
                .windows(2)
                .all(|pair| pair[0] == pair[1] || pair[0] + 1 == pair[1])
        );
    }

    #[test]
    fn quantiles_of_a_ramp() {
        let mut ramp = Histogram::new();
        for micros in 1..=1000 {
            ramp.record(Duration::from_micros(micros));
        }
        for (share, expected) in [(0.0, 1), (0.5, 500), (0.99, 990), (1.0, 1000)] {
            let told = ramp.quantile(share).as_nanos() as f64 / 1000.0;
            assert!(
                (told - f64::from(expected)).abs() <= f64::from(expected) / 200.0,
                "{share}: {told}"
            );
        }
        assert_eq!(ramp.max(), Duration::from_millis(1));
    }

    #[test]
    fn an_empty_histogram_answers_zero() {
        assert_eq!(Histogram::new().quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn merging_is_recording_into_one() {
        let (mut left, mut right, mut both) =
            (Histogram::new(), Histogram::new(), Histogram::new());
        for micros in 0..500 {
            let half = if micros % 3 == 0 {
                &mut left
            } else {
                &mut right
            };
            half.record(Duration::from_micros(micros));
            both.record(Duration::from_micros(micros));
        }
        left.merge(&right);
        assert_eq!(left.len(), both.len());
        assert_eq!(left.quantile(0.9), both.quantile(0.9));
    }
}
