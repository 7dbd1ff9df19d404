//! Order statistics: what a handful of paired runs says about the median, without assuming a shape.
//!
//! The interval between the k-th smallest and the k-th largest of `n` values holds the true median
//! with probability `1 - 2 P(Binomial(n, 1/2) < k)` (David and Nagaraja, Order Statistics, 7.1).
//! The narrowest one that keeps 95 % is used: the 2nd to the 8th of nine values (96.1 %), the 1st
//! to the 6th of six (96.9 %). Five values reach 93.8 % at best, so below six there is no interval.

/// Confidence an interval must keep.
const CONFIDENCE: f64 = 0.95;

/// The median; the mean of the middle two when their number is even. `None` without values.
pub fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The interval of the median, smaller end first. `None` under six values.
pub fn interval(values: &[f64]) -> Option<(f64, f64)> {
    let sorted = sorted(values);
    let rank = rank(sorted.len())?;
    Some((sorted[rank - 1], sorted[sorted.len() - rank]))
}

/// The 1-based rank `k` of the interval's ends, counted from either side.
fn rank(count: usize) -> Option<usize> {
    let mut below = 0.0;
    let mut ways = 1.0;
    let mut best = None;
    for k in 1..=count / 2 {
        // `below` becomes P(Binomial(count, 1/2) < k).
        below += ways / 2f64.powi(i32::try_from(count).ok()?);
        ways = ways * (count - k + 1) as f64 / k as f64;
        if 1.0 - 2.0 * below < CONFIDENCE {
            break;
        }
        best = Some(k);
    }
    best
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_pairs_give_second_to_eighth() {
        let values = [5.0, 1.0, 9.0, 3.0, 7.0, 2.0, 8.0, 4.0, 6.0];
        assert_eq!(interval(&values), Some((2.0, 8.0)));
        assert_eq!(median(&values), Some(5.0));
    }

    #[test]
    fn ranks_agree_with_the_published_table() {
        // n and k at 95 % (Conover, Practical Nonparametric Statistics, table A3 by computation).
        for (count, k) in [(6, 1), (7, 1), (8, 1), (9, 2), (10, 2), (11, 2), (12, 3), (20, 6)] {
            assert_eq!(rank(count), Some(k), "{count} values");
        }
    }

    #[test]
    fn under_six_there_is_no_interval() {
        for count in 0..6 {
            assert_eq!(interval(&vec![1.0; count]), None, "{count} values");
        }
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[4.0, 2.0]), Some(3.0));
    }
}
