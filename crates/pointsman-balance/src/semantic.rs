//! Who suits a text: how much it resembles the examples of each member, and whom that puts first.
//!
//! A text is known here by its embedding, a vector that somebody else has made; two texts are alike
//! as far as their vectors point the same way. A member is as suitable as its best example. What
//! comes out is an order for [`Pool::pick_in_order`](crate::Pool::pick_in_order): this file knows
//! nothing of health, and a verdict changes no score.

use std::fmt;

/// The examples of all members as unit vectors, ready to be compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct References {
    dimensions: usize,
    /// By member, where its vectors end.
    ends: Box<[usize]>,
    /// One vector after the other.
    components: Box<[f32]>,
}

/// Vectors that cannot be compared with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnequalVectors {
    /// A member has none, or one without components.
    Empty,
    /// Two have different lengths.
    Dimensions,
}

impl References {
    /// The references of members 0, 1, 2 and so on.
    ///
    /// # Errors
    ///
    /// If there is a member without vectors, or vectors that cannot be compared.
    pub fn new(by_member: &[Vec<Vec<f32>>]) -> Result<Self, UnequalVectors> {
        let first = by_member.iter().flatten().next();
        let dimensions = first.map_or(0, Vec::len);
        if dimensions == 0 || by_member.iter().any(Vec::is_empty) {
            return Err(UnequalVectors::Empty);
        }
        let mut components = Vec::new();
        let mut ends = Vec::with_capacity(by_member.len());
        for vectors in by_member {
            for vector in vectors {
                if vector.len() != dimensions {
                    return Err(UnequalVectors::Dimensions);
                }
                components.extend(unit(vector));
            }
            ends.push(components.len());
        }
        Ok(Self {
            dimensions,
            ends: ends.into(),
            components: components.into(),
        })
    }

    /// By member, the best cosine between `query` and its references, from -1 to 1; a vector of zeros
    /// scores 0. `None` if `query` has another number of components.
    #[must_use]
    pub fn scores(&self, query: &[f32]) -> Option<Vec<f32>> {
        if query.len() != self.dimensions {
            return None;
        }
        let query: Vec<f32> = unit(query).collect();
        let mut start = 0;
        let score = |&end: &usize| {
            let vectors = self.components[start..end].chunks_exact(self.dimensions);
            start = end;
            let best = vectors.map(|vector| dot(vector, &query));
            best.fold(-1.0, f32::max).min(1.0)
        };
        Some(self.ends.iter().map(score).collect())
    }
}

/// Whom to ask, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranking {
    /// All members: those that reach their threshold, the fallback, then the others; the best first
    /// inside the first and the last group.
    pub order: Vec<usize>,
    /// How many reach their threshold.
    pub cleared: usize,
}

/// The order that `scores` make. `thresholds` has one element per member, too.
///
/// The others at the end are for the case that nobody before them is usable: a member that suits
/// badly is better than none.
///
/// # Panics
///
/// If there are fewer thresholds than scores.
#[must_use]
pub fn rank(scores: &[f32], thresholds: &[f32], fallback: usize) -> Ranking {
    let mut best_first: Vec<usize> = (0..scores.len()).collect();
    // Stable: among equals, the order of the configuration.
    best_first.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let clears = |member: &usize| scores[*member] + ROUNDING >= thresholds[*member];
    let (mut order, others): (Vec<usize>, Vec<usize>) = best_first.into_iter().partition(clears);
    let cleared = order.len();
    if others.contains(&fallback) {
        order.push(fallback);
    }
    order.extend(others.into_iter().filter(|&member| member != fallback));
    Ranking { order, cleared }
}

/// The vector of the same direction and length 1; of zeros, zeros.
fn unit(vector: &[f32]) -> impl Iterator<Item = f32> {
    // Squares of large components are beyond an `f32`.
    let squares: f64 = vector.iter().map(|&c| f64::from(c) * f64::from(c)).sum();
    let scale = if squares > 0.0 {
        squares.sqrt().recip()
    } else {
        0.0
    };
    vector.iter().map(move |&c| (f64::from(c) * scale) as f32)
}

/// Sums in lanes of their own, which a compiler can keep in vector registers: it may not reorder the
/// additions of a single sum.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0_f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

impl fmt::Display for UnequalVectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "there is no vector, or an empty one",
            Self::Dimensions => "the vectors have different numbers of components",
        })
    }
}

impl std::error::Error for UnequalVectors {}

const LANES: usize = 16;

/// What rounding may take from a cosine: the same text twice must clear a threshold of 1.
const ROUNDING: f32 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;

    fn references(by_member: &[&[&[f32]]]) -> Result<References, UnequalVectors> {
        let owned = |vectors: &&[&[f32]]| vectors.iter().map(|vector| vector.to_vec()).collect();
        References::new(&by_member.iter().map(owned).collect::<Vec<_>>())
    }

    /// B-122: the best counts, not the mean.
    #[test]
    fn a_member_is_as_suitable_as_its_best_example() {
        let all = references(&[
            &[&[1.0, 0.0], &[0.5, 0.75_f32.sqrt()], &[-1.0, 0.0]],
            &[&[0.0, 3.0]],
        ])
        .expect("sound");
        let check = |query: &[f32], expected: &[f32]| {
            let scores = all.scores(query).expect("comparable");
            assert_eq!(scores.len(), expected.len());
            for (score, expected) in scores.iter().zip(expected) {
                assert!((score - expected).abs() < 1e-6, "{query:?}: {scores:?}");
            }
        };
        check(&[2.0, 0.0], &[1.0, 0.0]);
        check(&[0.0, -1.0], &[0.0, -1.0]);
        check(&[0.0, 0.0], &[0.0, 0.0]);
        check(
            &[3e38, 3e38],
            &[0.965_925_8, std::f32::consts::FRAC_1_SQRT_2],
        );
        check(&[1e-40, 0.0], &[1.0, 0.0]);
        assert_eq!(all.scores(&[1.0]), None);
        assert_eq!(all.scores(&[1.0, 0.0, 0.0]), None);
    }

    #[test]
    fn vectors_that_cannot_be_compared_are_refused() {
        assert_eq!(references(&[]), Err(UnequalVectors::Empty));
        assert_eq!(references(&[&[&[]]]), Err(UnequalVectors::Empty));
        assert_eq!(references(&[&[&[1.0]], &[]]), Err(UnequalVectors::Empty));
        assert_eq!(
            references(&[&[&[1.0]], &[&[1.0, 2.0]]]),
            Err(UnequalVectors::Dimensions)
        );
    }

    #[test]
    fn long_vectors_are_summed_whole() {
        for length in [1, 15, 16, 17, 384, 1000] {
            let ramp: Vec<f32> = (0..length).map(|i| (i % 7) as f32 + 1.0).collect();
            let all = References::new(&[vec![ramp.clone()]]).expect("sound");
            let score = all.scores(&ramp).expect("comparable")[0];
            assert!((score - 1.0).abs() < 1e-6, "{length}: {score}");
            // The last component counts as much as the first.
            let mut other = ramp.clone();
            other[length - 1] = -40.0;
            let plain: f32 = ramp.iter().zip(&other).map(|(a, b)| a * b).sum();
            let norm = |v: &[f32]| v.iter().map(|c| c * c).sum::<f32>().sqrt();
            let expected = plain / norm(&ramp) / norm(&other);
            let score = all.scores(&other).expect("comparable")[0];
            assert!(
                (score - expected).abs() < 1e-5,
                "{length}: {score} {expected}"
            );
        }
    }

    /// B-119, B-120
    #[test]
    fn those_who_clear_come_first_then_the_fallback_then_the_others() {
        let check = |scores: &[f32], thresholds: &[f32], fallback, order: &[usize], cleared| {
            let ranking = rank(scores, thresholds, fallback);
            assert_eq!(
                (&*ranking.order, ranking.cleared),
                (order, cleared),
                "{scores:?}"
            );
        };
        check(&[0.2, 0.9, 0.5], &[0.0; 3], 0, &[1, 2, 0], 3);
        check(&[0.2, 0.9, 0.5], &[0.6; 3], 0, &[1, 0, 2], 1);
        check(&[0.2, 0.9, 0.5], &[0.1, 0.95, 0.1], 0, &[2, 0, 1], 2);
        check(&[0.2, 0.9, 0.5], &[1.0; 3], 2, &[2, 1, 0], 0);
        check(&[0.5, 0.5, 0.5], &[0.5; 3], 2, &[0, 1, 2], 3);
        check(&[0.999_999_9], &[1.0], 0, &[0], 1);
        check(&[0.999_99], &[1.0], 0, &[0], 0);
        check(&[-1.0, -0.5], &[-1.0, 0.0], 1, &[0, 1], 1);
    }
}
