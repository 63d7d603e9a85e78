//! Medians and means.

use serde::Serialize;

/// A measured quantity over several runs.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) runs: usize,
    /// Half the range in which the median of many more values lies in two of three cases, as a share
    /// of the median: that of the ranks within half the square root of their number of the middle.
    pub(crate) uncertainty: f64,
}

impl Summary {
    /// Of one value or more.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Summary> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&least, &most) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        let reach = (values.len() as f64).sqrt() / 2.0;
        let centre = (values.len() - 1) as f64 / 2.0;
        let at = |rank: f64| values[(rank.round().max(0.0) as usize).min(values.len() - 1)];
        let range = at(centre + reach) - at(centre - reach);
        let uncertainty = if median == 0.0 { 0.0 } else { range / 2.0 / median };
        Some(Summary { median, least, most, runs: values.len(), uncertainty })
    }

    /// Half the range, as a share of the median.
    pub(crate) fn spread(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.most - self.least) / 2.0 / self.median }
    }
}

/// Geometric mean of positive numbers; `None` of none.
pub(crate) fn geometric_mean(values: &[f64]) -> Option<f64> {
    let logs: f64 = values.iter().map(|value| value.ln()).sum();
    (!values.is_empty()).then(|| (logs / values.len() as f64).exp())
}
