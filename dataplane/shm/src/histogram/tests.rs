use proptest::prelude::*;

use super::*;
use crate::shared::zeroed_box;

fn reference() -> hdrhistogram::Histogram<u64> {
    hdrhistogram::Histogram::new_with_bounds(1, HISTOGRAM_VALUE_MAX, 2).unwrap()
}

#[test]
fn buckets_follow_each_other_without_gap_or_overlap() {
    let mut lowest = 0;
    for bucket in 0..HISTOGRAM_BUCKETS {
        assert_eq!(bucket_lowest(bucket), lowest);
        let highest = bucket_highest(bucket);
        assert_eq!((bucket_of(lowest), bucket_of(highest)), (bucket, bucket));
        let width = highest - lowest + 1;
        assert!(width == 1 || width * 128 <= lowest, "bucket {bucket} is wider than 1/128");
        lowest = highest + 1;
    }
    assert_eq!(lowest, HISTOGRAM_VALUE_MAX + 1);
}

#[test]
#[cfg_attr(miri, ignore = "minutes in an interpreter, and safe code throughout")]
fn the_counters_are_as_many_as_hdrhistogram_has() {
    let reference = reference();
    assert_eq!(reference.distinct_values(), HISTOGRAM_BUCKETS);
}

#[test]
fn what_is_out_of_range_counts_as_the_largest() {
    let histogram = zeroed_box::<Histogram>();
    histogram.record(u64::MAX);
    histogram.record(0);
    let snapshot = histogram.snapshot();
    assert_eq!((snapshot.count(), snapshot.max()), (2, HISTOGRAM_VALUE_MAX));
    assert_eq!(snapshot.quantile(0.5), 0);
    assert_eq!(snapshot.quantile(1.0), HISTOGRAM_VALUE_MAX);
    assert_eq!(HistogramSnapshot::default().quantile(0.99), 0);
}

#[test]
fn differences_and_sums_of_snapshots() {
    let histogram = zeroed_box::<Histogram>();
    histogram.record_many(1000, 3);
    let earlier = histogram.snapshot();
    histogram.record_many(500, 2);
    let difference = histogram.snapshot().since(&earlier);
    assert_eq!((difference.count(), difference.sum()), (2, 1000));
    assert_eq!(difference.max(), bucket_highest(bucket_of(500)));
    let mut sum = difference;
    sum.merge(&earlier);
    assert_eq!(
        sum.buckets().collect::<Vec<_>>(),
        histogram.snapshot().buckets().collect::<Vec<_>>()
    );
    assert_eq!((sum.count_at_most(500), sum.count_at_most(2000)), (2, 5));
}

fn value() -> impl Strategy<Value = u64> {
    // Every magnitude equally often.
    (0u32..40, any::<u64>()).prop_map(|(shift, value)| (value & HISTOGRAM_VALUE_MAX) >> shift)
}

proptest! {
    #[test]
    #[cfg_attr(miri, ignore = "minutes in an interpreter, and safe code throughout")]
    fn a_bucket_is_hdrhistograms(value in value()) {
        let reference = reference();
        let bucket = bucket_of(value);
        prop_assert_eq!(bucket_lowest(bucket), reference.lowest_equivalent(value));
        prop_assert_eq!(bucket_highest(bucket), reference.highest_equivalent(value));
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes in an interpreter, and safe code throughout")]
    fn conversion_loses_nothing(values in proptest::collection::vec(value(), 1..100)) {
        let histogram = zeroed_box::<Histogram>();
        let mut direct = reference();
        for value in &values {
            histogram.record(*value);
            direct.record(*value).unwrap();
        }
        let snapshot = histogram.snapshot();
        let mut converted = reference();
        for (lowest, _, count) in snapshot.buckets() {
            converted.record_n(lowest, count).unwrap();
        }
        prop_assert_eq!(&converted, &direct);
        prop_assert_eq!(snapshot.sum(), values.iter().sum::<u64>());
        prop_assert_eq!(snapshot.max(), *values.iter().max().unwrap());
        for quantile in [0.01, 0.5, 0.99, 0.999, 1.0] {
            let expected = direct.value_at_quantile(quantile).min(snapshot.max());
            prop_assert_eq!(snapshot.quantile(quantile), expected);
        }
    }
}
