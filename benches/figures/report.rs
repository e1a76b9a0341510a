//! One figure and its line of JSON.

/// What was measured, against what, and how it stands.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    /// What was done, with the numbers that matter.
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// The same unit, measured in the same run.
    pub(crate) baseline: Option<f64>,
    /// `value / baseline`, the median over the rounds.
    pub(crate) ratio: Option<f64>,
    pub(crate) target: Target,
}

/// What the figure should be.
pub(crate) enum Target {
    RatioAtLeast(f64),
    RatioAtMost(f64),
    ValueAtMost(f64),
    /// Told, not promised.
    None,
}

impl Figure {
    pub(crate) fn json(&self) -> String {
        let (target, met) = match self.target {
            Target::RatioAtLeast(least) => {
                (format!("ratio >= {least}"), self.ratio.is_some_and(|ratio| ratio >= least))
            }
            Target::RatioAtMost(most) => (format!("ratio <= {most}"), self.ratio.is_some_and(|ratio| ratio <= most)),
            Target::ValueAtMost(most) => (format!("value <= {most}"), self.value <= most),
            Target::None => ("none".to_owned(), true),
        };
        serde_json::json!({
            "name": self.name,
            "what": self.what,
            "value": rounded(self.value),
            "unit": self.unit,
            "baseline": self.baseline.map(rounded),
            "ratio": self.ratio.map(rounded),
            "target": target,
            "met": met,
        })
        .to_string()
    }
}

/// The middle of `values`, which are not empty.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The value below which `share` (0 to 1) of `values` lie. They are not empty.
pub(crate) fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() as f64 * share) as usize).min(values.len() - 1)]
}

/// Four significant digits: more would be noise.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}
